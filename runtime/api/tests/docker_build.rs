//! Images from Dockerfiles, driven by the real `docker` client and its classic builder.

mod common;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use common::Daemon;
use common::http::serve;

/// A context of these files, and what became of building it.
fn build(daemon: &Daemon, files: &[(&str, &str)], arguments: &[&str]) -> Output {
    let context = context(daemon, files);
    let path = context.to_str().unwrap();
    daemon.docker(&[&["build", "--network", "none"], arguments, &[path]].concat(), b"")
}

fn context(daemon: &Daemon, files: &[(&str, &str)]) -> PathBuf {
    let context = daemon.folder.path().join("context");
    let _ = fs::remove_dir_all(&context);
    fs::create_dir(&context).unwrap();
    for (path, text) in files {
        let path = context.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    context
}

fn built(daemon: &Daemon, files: &[(&str, &str)], arguments: &[&str]) -> String {
    let output = build(daemon, files, arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&[output.stdout.clone(), output.stderr.clone()].concat()).into_owned()
}

fn ran(daemon: &Daemon, image: &str, script: &str) -> String {
    let output = daemon.run(&[image, "sh", "-c", script], b"");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// All layers and files of builds that are on disk.
fn on_disk(daemon: &Daemon) -> Vec<PathBuf> {
    let state = daemon.folder.path().join("state");
    let mut found: Vec<PathBuf> = Vec::new();
    for folder in ["recipes", "objects", "trees", "tmp", "blobs/sha256", "containers", "build/rooms"] {
        found.extend(fs::read_dir(state.join(folder)).into_iter().flatten().map(|entry| entry.unwrap().path()));
    }
    found.sort();
    found
}

#[test]
fn instructions_come_to_files_and_settings() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let dockerfile = r#"# a comment
ARG BASE=box:1
FROM ${BASE} AS base
ARG WHO=nobody GREETING
ENV A=1 B="two words" C=${A:+set}
LABEL x=y
WORKDIR /work/deep
COPY one.txt ./
COPY dir /copied
COPY *.txt missing* /both/
RUN echo "$GREETING $WHO $B $(cat one.txt)" >said && \
    # a comment in between
    echo err >&2
USER 5:6
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGINT
HEALTHCHECK --interval=7s CMD cat /well
CMD ["cat", "said"]
MAINTAINER someone
"#;
    let files = [
        ("Dockerfile", dockerfile),
        ("one.txt", "1"),
        ("two.txt", "2"),
        ("dir/sub/file", "deep"),
        ("dir/left.log", "out"),
        (".dockerignore", "*.md\n**/*.log\n"),
    ];
    let text =
        built(&daemon, &files, &["-t", "made:1", "-t", "also", "--build-arg", "GREETING=hello", "--label", "l=a $b"]);
    for line in ["Step 1/17 : FROM ${BASE} AS base", "Successfully built ", "Successfully tagged also:latest"] {
        assert!(text.contains(line), "{line}: {text}");
    }
    assert_eq!(daemon.run(&["made:1"], b"").stdout, b"hello nobody two words 1\n");
    let tree = "cd / && echo copied/* copied/sub/* both/* && id -u && pwd && cd - >/dev/null; pwd";
    assert_eq!(
        ran(&daemon, "made:1", tree),
        "copied/sub copied/sub/file both/one.txt both/two.txt\n5\n/\n/work/deep\n"
    );
    let format = "{{.Config.Env}}|{{.Config.Labels}}|{{.Config.ExposedPorts}}|{{.Config.Volumes}}|{{.Config.User}}|\
                  {{.Config.StopSignal}}|{{.Config.Healthcheck.Interval}}|{{.Author}}";
    let shown = daemon.ok(&["image", "inspect", "--format", format, "also"]);
    assert_eq!(
        shown,
        "[A=1 B=two words C=]|map[l:a $b x:y]|map[53/udp:{} 80/tcp:{}]|map[/data:{}]|5:6|SIGINT|7s|someone"
    );
    // What an instruction sets holds from the next one on: `A` wasn't set yet when `C` was.
    let history = daemon.ok(&["history", "--no-trunc", "--format", "{{.CreatedBy}}", "made:1"]);
    assert!(history.contains("|2 GREETING=hello WHO=nobody /bin/sh -c echo"), "{history}");
    assert_eq!(daemon.ok(&["ps", "-aq"]), "", "no container stays");
}

#[test]
fn stages_targets_and_files_of_other_images() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let dockerfile = "FROM box:1 AS build\nRUN echo made >/made && touch /other\n\
                      FROM box:1 AS unused\nRUN false\n\
                      FROM scratch AS bare\nCOPY --from=build --chmod=600 --chown=7 /made /deep/er/\n\
                      FROM box:1\nCOPY --from=bare /deep /deep\nCOPY --from=0 /o*r /\nCOPY --from=box:1 /bin/cat /my/cat\n";
    let text = built(&daemon, &[("Dockerfile", dockerfile)], &["-t", "made:1"]);
    assert!(!text.contains("RUN false") && text.contains("Step 8/8"), "a stage that isn't needed is left out: {text}");
    assert_eq!(
        ran(&daemon, "made:1", "cat /deep/er/made; test -e /other && test -x /my/cat && echo yes"),
        "made\nyes\n"
    );
    built(&daemon, &[("Dockerfile", dockerfile)], &["-t", "bare:1", "--target", "bare"]);
    daemon.ok(&["create", "--name", "look", "--network", "none", "bare:1", "x"]);
    let archive = daemon.docker(&["cp", "look:/deep/er/made", "-"], b"").stdout;
    let listed = tar(&archive, &["-tvf", "-", "--numeric-owner"]);
    assert!(listed.starts_with("-rw------- 7/7"), "{listed}");
    let missing = build(&daemon, &[("Dockerfile", dockerfile)], &["--target", "nope"]);
    assert!(told(&missing).contains("failed to reach build target nope in Dockerfile"), "{missing:?}");
}

fn tar(archive: &[u8], arguments: &[&str]) -> String {
    use std::io::Write as _;
    let mut child = Command::new("tar")
        .args(arguments)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("run tar");
    child.stdin.take().unwrap().write_all(archive).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[test]
fn heredocs_archives_triggers_and_owners() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let base = "FROM box:1\nCOPY <<EOF /etc/passwd\napp:x:41:42::/:/bin/sh\nEOF\nRUN test -f /etc/passwd\n\
                ONBUILD COPY late /late\nONBUILD RUN cat /late >/later\nSHELL [\"/bin/sh\", \"-e\", \"-c\"]\n";
    built(&daemon, &[("Dockerfile", base)], &["-t", "base:1"]);
    let context = context(&daemon, &[("late", "late\n"), ("tree/a/file", "packed\n"), ("tree/b", "b")]);
    let tree = context.join("tree");
    for (flags, name) in [("-czf", "tree.tgz"), ("-cJf", "tree.txz"), ("-cjf", "tree.tbz2")] {
        let packed = Command::new("tar").arg(flags).arg(context.join(name)).arg("-C").arg(&tree).arg(".").status();
        assert!(packed.unwrap().success(), "{name}");
    }
    let dockerfile = "FROM base:1\nENV N=5\n\
                      RUN <<EOF\necho one >/script\necho two >>/script\nEOF\n\
                      RUN <<-X cat >/piped\n\tin\n\tX\n\
                      RUN <<PY\n#!/bin/cat\nitself\nPY\n\
                      COPY --chown=app <<A <<\"B\" /texts/\nn=$N \"q\" \\d\nA\nn=$N\nB\n\
                      ADD tree.tgz /unpacked\nCOPY tree.tgz /kept\nADD tree.txz /xz\nADD tree.tbz2 /bz\nADD --chown=app:7 --chmod=750 tree /owned\n";
    fs::write(context.join("Dockerfile"), dockerfile).unwrap();
    let output = daemon.docker(&["build", "--network", "none", "-t", "made:1", context.to_str().unwrap()], b"");
    let text = told(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("# Executing 2 build triggers") && text.contains("#!/bin/cat\nitself\n"), "{text}");
    let look = "cat /later /script /piped /texts/A /texts/B /unpacked/a/file /xz/a/file /bz/a/file; test -f /kept && ls -ln /texts/A /owned/b";
    let seen = ran(&daemon, "made:1", &look.replace("ls -ln", "busybox ls -ln"));
    assert!(seen.starts_with("late\none\ntwo\nin\nn=5 \"q\" \\d\nn=$N\npacked\npacked\npacked\n"), "{seen}");
    let owners: Vec<Vec<&str>> = seen.lines().rev().take(2).map(|line| line.split_whitespace().collect()).collect();
    let mut owners: Vec<_> = owners.iter().map(|words| (words[0], words[2], words[3])).collect();
    owners.sort_unstable();
    assert_eq!(owners, [("-rw-r--r--", "41", "41"), ("-rwxr-x---", "41", "7")], "{seen}");
    let shell = daemon.ok(&["image", "inspect", "--format", "{{.Config.Shell}} {{.Config.OnBuild}}", "made:1"]);
    assert_eq!(shell, "[/bin/sh -e -c] []");
}

#[test]
fn steps_are_cached_by_their_content() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let dockerfile =
        "FROM box:1 AS one\nCOPY in /in\nRUN cat /in >/out\nFROM box:1\nCOPY --from=one /out /out\nENV X=1\n";
    let files = [("Dockerfile", dockerfile), ("in", "first"), ("README", "a")];
    let id = |text: &str| text.lines().find_map(|line| line.strip_prefix("Successfully built ")).unwrap().to_owned();
    let first = built(&daemon, &files, &["-t", "made"]);
    assert!(!first.contains("Using cache"), "{first}");
    // What isn't copied, and times, don't matter.
    let second = built(&daemon, &[files[0], files[1], ("README", "b")], &["-t", "made"]);
    assert_eq!((second.matches("Using cache").count(), id(&second)), (4, id(&first)), "{second}");
    let anew = built(&daemon, &files, &["--no-cache", "-t", "made"]);
    assert_eq!(anew.matches("Using cache").count(), 0, "{anew}");
    let other = built(&daemon, &[files[0], ("in", "second")], &["-t", "made"]);
    assert_eq!(other.matches("Using cache").count(), 0, "{other}");
    assert_eq!(ran(&daemon, "made", "cat /out"), "second");
    daemon.ok(&["builder", "prune", "-f"]);
    let forgot = built(&daemon, &[files[0], ("in", "second")], &["-q"]);
    assert!(forgot.starts_with("sha256:") && forgot.lines().count() == 1, "a quiet build tells its ID alone: {forgot}");
}

#[test]
fn a_failed_build_says_where_and_leaves_nothing() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let before = on_disk(&daemon);
    for (dockerfile, code, words) in [
        (
            "FROM box:1\nRUN echo x >/x\n\n\nRUN echo why; \\\n exit 3\n",
            3,
            &["why", "The command '/bin/sh -c echo why;  exit 3' returned a non-zero code: 3 (step 3/3, line 5: RUN"][..],
        ),
        ("FROM box:1\nCOPY none /\n", 1, &["COPY failed: file not found in build context", "stat none", "line 2"]),
        ("FROM box:1\nCOPY ../up /\n", 1, &["outside the build context"]),
        ("FROM box:1\nCOPY ignored /\n", 1, &["excluded by .dockerignore"]),
        ("FROM box:1\nCOPY Docker* in /x\n", 1, &["more than one source file, the destination must be a directory"]),
        ("FROM box:1\n\nRUNN x\n", 1, &["line 3: unknown instruction: RUNN"]),
        ("FROM scratch\nRUN x\n", 1, &["nothing to run it with", "step 2/2, line 2"]),
        ("FROM scratch\nCOPY in /in\nRUN [\"/none\"]\n", 1, &["/none", "line 3"]),
        ("FROM box:1\nUSER nobody-known\nRUN id\n", 1, &["unable to find user nobody-known", "line 3"]),
        ("FROM box:1\nCOPY --chown=nope in /in\n", 1, &["unable to find user nope"]),
        ("FROM box:1\nRUN --mount=type=cache,target=/x true\n", 1, &["requires BuildKit"]),
        ("FROM --platform=linux/arm64 box:1\n", 1, &["linux/arm64", "line 1"]),
        ("FROM box:1\nENV X=${Y:?wanted}\n", 1, &["Y: wanted", "line 2"]),
    ] {
        let files = [("Dockerfile", dockerfile), ("in", "in"), ("ignored", "x"), (".dockerignore", "ignored")];
        let output = build(&daemon, &files, &["-t", "never"]);
        let text = told(&output);
        assert_eq!(output.status.code(), Some(code), "{dockerfile}{text}");
        for word in words {
            assert!(text.contains(word), "{word} in {text}");
        }
        assert_eq!(on_disk(&daemon), before, "after {dockerfile}");
    }
    assert_eq!(daemon.ok(&["images", "-aq"]).lines().count(), 1);
    assert_eq!((daemon.ok(&["ps", "-aq"]), daemon.ok(&["volume", "ls", "-q"])), (String::new(), String::new()));
    let quiet = build(&daemon, &[("Dockerfile", "FROM box:1\nRUN echo loud; false\n")], &["-q"]);
    assert!(told(&quiet).contains("loud"), "a quiet build that fails tells all: {quiet:?}");
}

#[test]
fn a_client_that_leaves_ends_its_build() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let before = on_disk(&daemon);
    let context = context(&daemon, &[("Dockerfile", "FROM box:1\nRUN echo x >/x\nRUN echo begun; sleep 999\n")]);
    let socket = format!("unix://{}", daemon.folder.path().join("api.sock").display());
    let mut client = Command::new("docker")
        .args(["-H", &socket, "build", "--network", "none", context.to_str().unwrap()])
        .env("DOCKER_CONFIG", daemon.folder.path())
        .env("DOCKER_BUILDKIT", "0")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut seen = String::new();
    let mut output = std::io::BufReader::new(client.stdout.take().unwrap());
    while !seen.contains("begun\n") {
        assert_ne!(std::io::BufRead::read_line(&mut output, &mut seen).unwrap(), 0, "{seen}");
    }
    client.kill().unwrap();
    client.wait().unwrap();
    let begun = std::time::Instant::now();
    while on_disk(&daemon) != before {
        assert!(begun.elapsed().as_secs() < 30, "it stays: {:?}", on_disk(&daemon));
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    assert_eq!(daemon.ok(&["ps", "-aq"]), "");
}

#[test]
fn what_is_fetched_is_checked_and_kept_as_it_is() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let address = serve("/a/file.txt", b"abc".to_vec());
    let digest = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    let dockerfile = format!("FROM box:1\nADD --checksum={digest} http://{address}/a/file.txt?x=1 /got/\n");
    built(&daemon, &[("Dockerfile", &dockerfile)], &["-t", "made"]);
    assert_eq!(ran(&daemon, "made", "cat /got/file.txt"), "abc");
    for (line, word) in [
        (format!("ADD --checksum={} http://{address}/a/file.txt /x", digest.replace("ba", "bb")), "has the digest"),
        (format!("ADD http://{address}/none /x"), "404"),
        (format!("ADD http://{address}/a/ /x/"), "cannot determine filename"),
        (format!("ADD https://{address}/repo.git /x"), "Git"),
    ] {
        let output = build(&daemon, &[("Dockerfile", &format!("FROM box:1\n{line}\n"))], &[]);
        assert!(!output.status.success() && told(&output).contains(word), "{line}: {}", told(&output));
    }
}

#[test]
fn contexts_are_bounded_and_may_be_compressed() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let before = on_disk(&daemon);
    let context = context(&daemon, &[("Dockerfile", "FROM box:1\nCOPY a /a\n"), ("a", "a")]);
    let archive = |flag: &str, more: &[&str]| {
        let output =
            Command::new("tar").args(["-c", flag]).args(more).arg("-C").arg(&context).arg(".").output().unwrap();
        output.stdout
    };
    for flag in ["-z", "-J", "-j"] {
        let output = daemon.docker(&["build", "--network", "none", "-t", "zipped", "-"], &archive(flag, &[]));
        assert!(output.status.success(), "{flag}: {}", told(&output));
        daemon.ok(&["rmi", "zipped"]);
    }
    // A hole larger than any disk: an archive of a few bytes.
    let hole = fs::File::create(context.join("hole")).unwrap();
    hole.set_len(1 << 42).unwrap_or_else(|_| hole.set_len(1 << 40).unwrap());
    let output = daemon.docker(&["build", "-"], &archive("-S", &[]));
    assert!(told(&output).contains("more than"), "{}", told(&output));
    assert_eq!(on_disk(&daemon), before);
}
