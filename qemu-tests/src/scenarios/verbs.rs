//! The verbs of the `docker` client, each at least once on a whole machine: its kernel has what a workstation's may lack.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::containers::with_registry;
use super::fixture::{Fixture, wait};
use super::{networks, sessions};
use crate::build::{Build, run};
use crate::clients::{Host, wait_http};

/// Longest wait for something to become so.
const LIMIT: Duration = Duration::from_secs(60);

pub(super) fn each_once(build: &Build) -> Result<()> {
    let (mut fixture, _registry, web) = with_registry(build, "verbs")?;
    // What the machine config declares, as a Compose file, and a user who may only look.
    fixture.configure("[api]\n", "[[api.user]]\nname = \"onlooker\"\nrole = \"read\"\n[api]\n");
    let declared = format!(
        "compose = '''\nservices:\n  front:\n    image: {web}\n    pull_policy: missing\n    depends_on: [store]\n    \
         ports: [\"8081:80\"]\n  store:\n    image: {web}\n    volumes: [\"kept:/kept\"]\nvolumes:\n  kept: {{}}\n'''\n"
    );
    fixture.hardware.config = format!("{declared}{}", fixture.hardware.config);
    fixture.hardware.guest_ports.push(8081);
    let own = onlooker(build, &fixture)?;
    let (machine, host) = fixture.boot()?;
    let steps: [(&str, &dyn Fn() -> Result<()>); 13] = [
        ("declared containers", &|| {
            wait_http(machine.port(8081)?, LIMIT)?;
            declared_containers(&host)
        }),
        ("options of run", &|| options(&host, &web)),
        ("verbs of a container that runs", &|| while_it_runs(&host, &fixture.dir, &web)),
        ("terminals", &|| sessions::terminals(&host, &web)),
        ("streams", &|| sessions::streams(&host, &web)),
        ("health checks and restarts", &|| health(&host, &web)),
        ("networks", &|| networks::bridges(&host, &web)),
        ("networks over links", &|| networks::over_links(&host, &web)),
        ("ports of SCTP and UDP", &|| networks::protocols(&host, &fixture.dir)),
        ("volumes", &|| volumes(&host, &web)),
        ("images", &|| image_verbs(&host, &fixture.dir, &web)),
        ("build", &|| build_image(&host, &fixture.dir, &web)),
        ("roles", &|| roles(&own, &host, &web)),
    ];
    // One that fails keeps no other from being tried: a machine takes a minute to come up.
    let failed = steps.iter().filter_map(|(what, step)| Some(format!("{what}: {:#}", step().err()?)));
    told(failed.collect(), || format!("the runtime says: {}", runtime_log(&host)))
}

/// All that went wrong, as one.
pub(super) fn told(failed: Vec<String>, more: impl FnOnce() -> String) -> Result<()> {
    ensure!(failed.is_empty(), "{}\n{}", failed.join("\n"), more());
    Ok(())
}

fn runtime_log(host: &Host) -> String {
    let log = host.keelctl_ok(&["logs", "runtime"]).unwrap_or_default();
    let lines: Vec<&str> = log.lines().filter(|line| !line.contains("audit")).collect();
    lines.iter().rev().take(10).rev().copied().collect::<Vec<_>>().join("\n")
}

/// `docker` with these words prints this.
pub(super) fn prints(host: &Host, words: &[&str], wanted: &str) -> Result<()> {
    let printed = host.docker_ok(words)?;
    ensure!(printed == wanted, "docker {words:?} printed {printed:?}, not {wanted:?}");
    Ok(())
}

/// `docker` with these words fails, and says this among other things.
pub(super) fn refuses(host: &Host, words: &[&str], why: &str) -> Result<()> {
    let output = host.docker(words).output().context("run docker")?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(!output.status.success() && message.contains(why), "docker {words:?}: {}, {message:?}", output.status);
    Ok(())
}

/// Asks until the answer is this.
pub(super) fn until(host: &Host, words: &[&str], wanted: &str) -> Result<()> {
    wait(LIMIT, || {
        let printed = host.docker_ok(words)?;
        let different = || format!("docker {words:?} still prints {printed:?}, not {wanted:?}");
        Ok((printed == wanted).then_some(()).ok_or_else(different))
    })
}

fn declared_containers(host: &Host) -> Result<()> {
    let names = host.docker_ok(&["ps", "--filter", "label=org.keel.declared", "--format", "{{.Names}}"])?;
    ensure!(names.lines().count() == 2, "declared containers that run: {names:?}");
    ensure!(host.docker_ok(&["volume", "ls", "-q"])?.contains("kept"), "the declared volume");
    Ok(())
}

/// Options of `docker run`, and what a container then sees.
fn options(host: &Host, web: &str) -> Result<()> {
    let cases: &[(&[&str], &str, &str)] = &[
        (&["--init"], "cat /proc/1/comm", "docker-init"),
        (&["-e", "A=1", "-w", "/www", "-u", "web:web"], "echo $A $PWD $(id -u):$(id -g)", "1 /www 33:33"),
        (&["--read-only", "--tmpfs", "/tmp:size=1m"], "touch /x 2>/dev/null || touch /tmp/x && echo tmp", "tmp"),
        (&["--shm-size", "3m"], "stat -f -c %b /dev/shm", "768"),
        (&["--ulimit", "nofile=77:99"], "ulimit -n", "77"),
        (
            &["--sysctl", "net.ipv4.ip_unprivileged_port_start=7"],
            "cat /proc/sys/net/ipv4/ip_unprivileged_port_start",
            "7",
        ),
        (&["--cap-drop", "ALL"], "grep CapEff /proc/self/status | tail -c 17", "0000000000000000"),
        (&["--network", "none"], "ls /sys/class/net", "lo"),
        (&["--add-host", "there:10.9.8.7"], "grep -c '10.9.8.7.*there' /etc/hosts", "1"),
        (&["--dns", "10.9.8.6", "--network", "none"], "grep -c 10.9.8.6 /etc/resolv.conf", "1"),
        (&["--hostname", "named", "--domainname", "example"], "hostname", "named"),
        (&["--cpu-shares", "512", "--memory", "20m", "--pids-limit", "9"], "cat /sys/fs/cgroup/pids.max", "9"),
        (&["--security-opt", "no-new-privileges"], "grep -c 'NoNewPrivs:.1' /proc/self/status", "1"),
        (&["--mount", "type=tmpfs,dst=/m,tmpfs-size=4096"], "stat -f -c %b /m", "1"),
        (&["--device", "/dev/kmsg:/dev/log:r"], "test -c /dev/log && echo device", "device"),
        (&["--oom-score-adj", "500"], "cat /proc/self/oom_score_adj", "500"),
        (&["--group-add", "77"], "id -G", "0 77"),
        (&["--cgroupns", "private"], "cat /proc/self/cgroup", "0::/"),
        (&["--cgroupns", "host"], "grep -c '^0::/.' /proc/self/cgroup", "1"),
        (
            &["--cgroup-parent", "/team/a", "--cgroupns", "host", "-m", "20m"],
            "cut -d / -f 3,4 /proc/self/cgroup",
            "team/a",
        ),
        (&["--cgroup-parent", "team", "-m", "20m"], "cat /sys/fs/cgroup/memory.max", "20971520"),
        (&["--uts", "host"], "hostname", "keel"),
        (&["--userns", "host"], "busybox awk '{print $1, $2}' /proc/self/uid_map", "0 0"),
        (&["--ipc", "host"], "stat -f -c %b /dev/shm | grep -vc '^16384$'", "1"),
        (&["--security-opt", "seccomp=unconfined"], "grep -c 'Seccomp:.0' /proc/self/status", "1"),
        (&["--device-read-bps", "/dev/vda:1mb"], "grep -c rbps=1048576 /sys/fs/cgroup/io.max", "1"),
        (
            &["--cpuset-cpus", "0", "--cpus", "0.5"],
            "cat /sys/fs/cgroup/cpuset.cpus /sys/fs/cgroup/cpu.max",
            "0\n50000 100000",
        ),
        (&["-m", "20m", "--memory-reservation", "10m"], "cat /sys/fs/cgroup/memory.low", "10485760"),
        (
            &["--cgroupns", "host", "--cgroup-parent", "team", "-m", "20m", "--memory-reservation", "10m"],
            "cat /sys/fs/cgroup/containers/memory.low /sys/fs/cgroup/containers/team/memory.low",
            "10485760\n10485760",
        ),
        (
            &["--device-cgroup-rule", "c 1:11 r", "--cap-add", "MKNOD", "--userns", "host"],
            "busybox mknod /k c 1 11 && echo made",
            "made",
        ),
        (&["--log-opt", "labels-regex=^a", "--log-opt", "env-regex=b$"], "echo logged", "logged"),
        (&["--log-driver", "local", "--log-opt", "max-size=1m"], "echo logged", "logged"),
        (&["-v", "/anonymous"], "grep -c ' /anonymous ' /proc/self/mountinfo", "1"),
        (&["--mount", "type=volume,src=bare,dst=/www,volume-nocopy"], "ls /www | busybox wc -l", "0"),
        (&["-v", "/var/lib/keel:/host:ro", "--userns", "host"], "test -d /host/runtime && echo bound", "bound"),
    ];
    let failed = cases.iter().filter_map(|(words, script, wanted)| {
        let words = [&["run", "--rm"], *words, &[web, "sh", "-c", script]].concat();
        Some(format!("{:#}", prints(host, &words, wanted).err()?))
    });
    told(failed.collect(), String::new)?;
    prints(host, &["run", "--rm", "--entrypoint", "echo", web, "other"], "other")?;
    refuses(host, &["run", "--rm", "--gpus", "all", web, "true"], "--gpus")?;
    prints(
        host,
        &["run", "--rm", "--privileged", web, "sh", "-c", "mount -t tmpfs none /tmp && echo mounted"],
        "mounted",
    )
}

/// What is done with a container that runs.
fn while_it_runs(host: &Host, dir: &Path, web: &str) -> Result<()> {
    let script = "trap 'echo bye; exit 4' USR1; echo begun; while :; do sleep 0.1; done";
    let id = host.docker_ok(&[
        "run",
        "-d",
        "--name",
        "one",
        "--label",
        "l=1",
        "--stop-signal",
        "USR1",
        web,
        "sh",
        "-c",
        script,
    ])?;
    until(host, &["logs", "one"], "begun")?;
    prints(
        host,
        &["exec", "-u", "web", "-e", "B=2", "-w", "/www", "one", "sh", "-c", "echo $B $PWD $(id -u)"],
        "2 /www 33",
    )?;
    ensure!(host.docker(&["exec", "one", "sh", "-c", "exit 6"]).output()?.status.code() == Some(6), "exec's exit code");
    let file = dir.join("copied");
    fs::write(&file, "to and fro\n")?;
    let file = file.to_str().context("path")?;
    host.docker_ok(&["cp", file, "one:/tmp/in"])?;
    prints(host, &["exec", "one", "cat", "/tmp/in"], "to and fro")?;
    host.docker_ok(&["cp", "one:/tmp/in", &format!("{file}.back")])?;
    ensure!(fs::read_to_string(format!("{file}.back"))? == "to and fro\n", "what was copied out");
    ensure!(host.docker_ok(&["diff", "one"])?.lines().any(|line| line == "A /tmp/in"), "docker diff");
    ensure!(host.docker_ok(&["top", "one"])?.contains("sh -c"), "docker top");
    ensure!(
        host.docker_ok(&["stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}}", "one"])?.starts_with("one "),
        "stats"
    );
    host.docker_ok(&["update", "--memory", "30m", "--memory-swap", "30m", "one"])?;
    prints(host, &["exec", "one", "cat", "/sys/fs/cgroup/memory.max"], "31457280")?;
    host.docker_ok(&["pause", "one"])?;
    prints(host, &["inspect", "-f", "{{.State.Status}}", "one"], "paused")?;
    host.docker_ok(&["unpause", "one"])?;
    host.docker_ok(&["rename", "one", "two"])?;
    prints(host, &["run", "--rm", "--pid", "container:two", web, "cat", "/proc/1/comm"], "sh")?;
    prints(host, &["ps", "-q", "--filter", "label=l=1", "--filter", "name=one"], "")?;
    ensure!(host.docker_ok(&["logs", "-t", "--tail", "1", "two"])?.contains("Z begun"), "times in logs");
    host.docker_ok(&["stop", "two"])?;
    prints(host, &["wait", "two"], "4")?;
    prints(host, &["logs", "two"], "begun\nbye")?;
    // The machine's clock, which may be a second off the workstation's.
    let now = host.docker_ok(&["info", "--format", "{{.SystemTime}}"])?;
    let filter = format!("container={id}");
    let words = ["events", "--since", "1", "--until", &now, "--filter", &filter, "--format", "{{.Action}}"];
    let events = host.docker_ok(&words)?;
    for action in ["create", "start", "pause", "unpause", "rename"] {
        ensure!(events.lines().any(|line| line == action), "events lack {action}: {events}");
    }
    let end: Vec<&str> = events.lines().filter(|line| ["kill", "die", "stop"].contains(line)).collect();
    ensure!(end == ["kill", "die", "stop"], "the events of its end: {events}");
    attached(host)?;
    host.docker_ok(&["rm", "two"]).map(drop)
}

/// `docker start -a` brings output and exit code.
fn attached(host: &Host) -> Result<()> {
    let mut client = host.docker(&["start", "-a", "two"]);
    let client = client.stdout(Stdio::piped()).spawn().context("run docker start")?;
    until(host, &["inspect", "-f", "{{.State.Running}}", "two"], "true")?;
    host.docker_ok(&["kill", "-s", "USR1", "two"])?;
    let output = client.wait_with_output()?;
    ensure!(output.status.code() == Some(4), "the attached client left with {}", output.status);
    Ok(())
}

fn health(host: &Host, web: &str) -> Result<()> {
    let check = ["--health-cmd", "test -e /tmp/well", "--health-interval", "1s", "--health-retries", "1"];
    host.docker_ok(&[&["run", "-d", "--name", "ill"], &check[..], &[web]].concat())?;
    until(host, &["inspect", "-f", "{{.State.Health.Status}}", "ill"], "unhealthy")?;
    host.docker_ok(&["exec", "ill", "touch", "/tmp/well"])?;
    until(host, &["inspect", "-f", "{{.State.Health.Status}}", "ill"], "healthy")?;
    host.docker_ok(&["run", "-d", "--name", "again", "--restart", "on-failure:2", web, "false"])?;
    until(host, &["inspect", "-f", "{{.State.Status}} {{.RestartCount}}", "again"], "exited 2")?;
    host.docker_ok(&["rm", "-f", "ill", "again"]).map(drop)
}

fn volumes(host: &Host, web: &str) -> Result<()> {
    host.docker_ok(&["volume", "create", "--label", "v=1", "data"])?;
    host.docker_ok(&["run", "--rm", "-v", "data:/www", web, "sh", "-c", "echo more >/www/more"])?;
    prints(
        host,
        &["run", "--rm", "-v", "data:/d:ro", web, "cat", "/d/index.html", "/d/more"],
        "hello from a container\nmore",
    )?;
    refuses(host, &["run", "--rm", "-v", "data:/d:ro", web, "touch", "/d/x"], "Read-only")?;
    let part = "type=volume,src=data,dst=/one,volume-subpath=more";
    prints(host, &["run", "--rm", "--mount", part, web, "cat", "/one"], "more")?;
    host.docker_ok(&["create", "--name", "holder", "-v", "data:/d", web, "true"])?;
    prints(host, &["run", "--rm", "--volumes-from", "holder", web, "cat", "/d/more"], "more")?;
    refuses(host, &["volume", "rm", "data"], "in use")?;
    host.docker_ok(&["rm", "holder"])?;
    let gone = host.docker_ok(&["volume", "prune", "-af", "--filter", "label=v=1"])?;
    ensure!(gone.contains("data"), "docker volume prune: {gone}");
    Ok(())
}

fn image_verbs(host: &Host, dir: &Path, web: &str) -> Result<()> {
    host.docker_ok(&["run", "--name", "made", web, "sh", "-c", "echo new >/made"])?;
    host.docker_ok(&["commit", "-c", "CMD [\"cat\", \"/made\"]", "made", "made:1"])?;
    prints(host, &["run", "--rm", "made:1"], "new")?;
    let tar = dir.join("exported.tar");
    host.docker_ok(&["export", "-o", tar.to_str().context("path")?, "made"])?;
    ensure!(fs::metadata(&tar)?.len() > 500_000, "docker export");
    ensure!(host.docker_ok(&["history", "-q", "made:1"])?.lines().count() == 2, "docker history");
    host.docker_ok(&["tag", "made:1", "made:2"])?;
    let saved = dir.join("saved.tar");
    host.docker_ok(&["save", "-o", saved.to_str().context("path")?, "made:2", web])?;
    host.docker_ok(&["rm", "made"])?;
    host.docker_ok(&["rmi", "made:1", "made:2"])?;
    host.docker_ok(&["load", "-i", saved.to_str().context("path")?])?;
    prints(host, &["run", "--rm", "made:2"], "new")?;
    let pushed = web.replace("web:1", "made:2");
    host.docker_ok(&["tag", "made:2", &pushed])?;
    host.docker_ok(&["push", "-q", &pushed])?;
    host.docker_ok(&["rmi", "made:2", &pushed])?;
    host.docker_ok(&["pull", "-q", &pushed])?;
    prints(host, &["run", "--rm", &pushed], "new")?;
    ensure!(host.docker_ok(&["system", "df"])?.contains("Images"), "docker system df");
    prints(host, &["info", "--format", "{{.Driver}} {{index .DriverStatus 1}}"], "overlay [fs-verity true]")?;
    host.docker_ok(&["rmi", &pushed])?;
    host.docker_ok(&["image", "prune", "-f"]).map(drop)
}

/// The classic builder, with a step that fetches over the network.
fn build_image(host: &Host, dir: &Path, web: &str) -> Result<()> {
    let context = dir.join("context");
    let registry = web.split('/').next().context("the registry's address")?;
    fs::create_dir_all(&context)?;
    fs::write(context.join("file"), "from the context\n")?;
    let dockerfile = format!(
        "FROM {web} AS first\nARG WORD=none\nCOPY --chown=33:33 file /file\nRUN echo $WORD >/word && stat -c %u /file >>/word\n\
         RUN wget -qO /page http://{registry}/v2/\n\
         FROM {web}\nCOPY --from=first /word /page /\nENV E=1\nCMD [\"cat\", \"/word\", \"/page\"]\n"
    );
    fs::write(context.join("Dockerfile"), dockerfile)?;
    let words = ["build", "-q", "-t", "built:1", "--build-arg", "WORD=given", context.to_str().context("path")?];
    let output = host.docker(&words).env("DOCKER_BUILDKIT", "0").output().context("run docker build")?;
    ensure!(output.status.success(), "docker build: {}", String::from_utf8_lossy(&output.stderr));
    prints(host, &["run", "--rm", "built:1"], "given\n33\n{}")?;
    host.docker_ok(&["rmi", "built:1"])?;
    host.docker_ok(&["image", "prune", "-f"]).map(drop)
}

/// A certificate whose name the machine config gives the role `read`, in a folder as the `docker` client wants it. Made
/// before the machine starts, whose clock may be a second or two behind.
fn onlooker(build: &Build, fixture: &Fixture) -> Result<PathBuf> {
    let (certs, own) = (build.certs(), fixture.dir.join("onlooker"));
    fs::create_dir_all(&own)?;
    let file = |folder: &Path, name: &str| folder.join(name).to_string_lossy().into_owned();
    let (key, request) = (file(&own, "key.pem"), file(&own, "request.pem"));
    let ask = [
        "req",
        "-new",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-subj",
        "/CN=onlooker",
        "-addext",
        "extendedKeyUsage=clientAuth",
    ];
    run(Command::new("openssl").args(ask).args(["-keyout", &key, "-out", &request]))?;
    let (ca, ca_key) = (file(&certs, "client-ca.pem"), file(&certs, "client-ca-key.pem"));
    let sign = [
        "x509",
        "-req",
        "-in",
        &request,
        "-CA",
        &ca,
        "-CAkey",
        &ca_key,
        "-CAcreateserial",
        "-days",
        "2",
        "-copy_extensions",
        "copyall",
    ];
    let serial = ["-CAserial", &file(&own, "serial"), "-out", &file(&own, "cert.pem")];
    run(Command::new("openssl").args(sign).args(serial))?;
    fs::copy(certs.join("ca.pem"), own.join("ca.pem"))?;
    Ok(own)
}

/// Who may only look is shown what runs, and runs nothing.
fn roles(own: &Path, host: &Host, web: &str) -> Result<()> {
    let onlooker = |words: &[&str]| host.docker(words).env("DOCKER_CERT_PATH", own).output();
    let looks = onlooker(&["ps"])?;
    ensure!(looks.status.success(), "a user who may read: {}", String::from_utf8_lossy(&looks.stderr));
    let runs = onlooker(&["run", "--rm", web, "true"])?;
    let message = String::from_utf8_lossy(&runs.stderr).into_owned();
    ensure!(!runs.status.success() && message.contains("run"), "a user who may only read: {message}");
    Ok(())
}
