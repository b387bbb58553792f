//! The engine on the real parts: busybox in namespaces, this process as the parent. Needs root, `busybox` (static) and
//! the program `keel-oci` (built by `cargo build -p keel-oci`); without limits and network, which need a guest.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use keel_spec::config::Settings;
use keel_spec::control::{Adopted, Exit};
use keel_store::Store;

use crate::events::{EventWant, Told};
use crate::output::Stream;
use crate::parent::{InitLink, Local};
use crate::{AttachOptions, Cancel, Engine, Error, LogOptions, Options, WaitCondition};

/// `target/debug/keel-oci`, beside the folder of this test.
fn oci_program() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let program = test.parent().and_then(Path::parent).unwrap().join("keel-oci");
    assert!(program.exists(), "{} is missing: run cargo build -p keel-oci", program.display());
    program
}

fn image_archive() -> Vec<u8> {
    let header = |name: &str, kind: u8, size: u64, mode: u32| {
        let mut block = [0_u8; 512];
        block[..name.len()].copy_from_slice(name.as_bytes());
        let mut field = |at: usize, text: String| block[at..at + text.len()].copy_from_slice(text.as_bytes());
        field(100, format!("{mode:07o}"));
        field(108, "0000000".into());
        field(116, "0000000".into());
        field(124, format!("{size:011o}"));
        field(136, "00000000000".into());
        field(148, "        ".into());
        field(257, "ustar\x0000".into());
        block[156] = kind;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        block
    };
    let program = std::fs::read("/usr/bin/busybox").expect("a static busybox is needed");
    let mut archive = Vec::new();
    for folder in ["bin/", "etc/", "tmp/", "proc/", "sys/", "dev/"] {
        archive.extend(header(folder, b'5', 0, 0o755));
    }
    for (name, bytes) in
        [("bin/sh", program.as_slice()), ("etc/passwd", b"root:x:0:0::/root:/bin/sh\nweb:x:33:33::/:/bin/sh\n")]
    {
        archive.extend(header(name, b'0', bytes.len() as u64, 0o755));
        archive.extend(bytes);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }
    archive.resize(archive.len() + 1024, 0);
    archive
}

struct Bench {
    engine: Arc<Engine>,
    link: Arc<Local>,
    store: Arc<Store>,
    image: String,
    folder: tempfile::TempDir,
    slice: Option<Slice>,
}

/// A cgroup of a test's own, for containers'. Version 2, be it beside version 1.
struct Slice(PathBuf);

impl Slice {
    fn new(test: &str) -> Self {
        let mounts = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(PathBuf::from);
        let mount = mounts.iter().find(|mount| mount.join("cgroup.procs").exists());
        let path = mount.expect("this test needs cgroup v2").join(format!("keel-engine-{test}-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    /// All cgroups below, but those in containers.
    fn groups(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut folders = vec![self.0.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap().flatten().filter(|entry| entry.path().is_dir()) {
                let path = entry.path();
                found.push(path.strip_prefix(&self.0).unwrap().to_str().unwrap().to_owned());
                folders.extend((!crate::id::is_id(entry.file_name().to_str().unwrap())).then_some(path));
            }
        }
        found.sort();
        found
    }
}

impl Drop for Slice {
    fn drop(&mut self) {
        let _ = keel_oci::cgroup::kill_all(&self.0);
        let _ = keel_oci::cgroup::remove(&self.0);
    }
}

fn options(slice: Option<&Slice>) -> Options {
    let cgroups = slice.map(|slice| slice.0.clone());
    Options { cgroups, network: false, control: None, oci_init: Some(oci_program()), declares: false }
}

fn bench() -> Bench {
    bench_in(None)
}

fn bench_in(slice: Option<Slice>) -> Bench {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(Store::open(&folder.path().join("images"), keel_store::Options::default()).unwrap());
    let image = store.import(&mut image_archive().as_slice(), &keel_store::Import::default()).unwrap().to_string();
    let link = Arc::new(Local::default());
    let options = options(slice.as_ref());
    let engine =
        Engine::open_linked(folder.path(), &Settings::default(), store.clone(), options, link.clone()).unwrap();
    Bench { engine, link, store, image, folder, slice }
}

impl Bench {
    fn create(&self, script: &str, rest: &str) -> String {
        let body = format!(
            r#"{{"Image":"{}","Cmd":["/bin/sh","-c",{}],"HostConfig":{{"NetworkMode":"none"{}}}}}"#,
            self.image,
            serde_json::to_string(script).unwrap(),
            rest
        );
        self.engine.create(None, serde_json::from_str(&body).unwrap()).unwrap().id
    }

    fn output(&self, id: &str, stream: Stream) -> String {
        let options = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
        let mut reader = self.engine.logs(id, &options).unwrap();
        let mut bytes = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            if frame.stream == stream {
                bytes.extend(frame.data);
            }
        }
        String::from_utf8_lossy(&bytes).into_owned()
    }

    fn reopen(&mut self) {
        let link: Arc<dyn InitLink> = self.link.clone();
        let options = options(self.slice.as_ref());
        self.engine =
            Engine::open_linked(self.folder.path(), &Settings::default(), self.store.clone(), options, link).unwrap();
    }

    fn wait(&self, id: &str) -> i64 {
        let cancel = Cancel::new();
        let timer = cancel.clone();
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(60));
            timer.cancel();
        });
        self.engine.wait(id, WaitCondition::NotRunning, &cancel).expect("it should have ended within a minute")
    }
}

#[test]
fn a_container_runs_and_its_output_and_exit_code_are_whole() {
    let bench = bench();
    let id = bench.create("echo out; echo err >&2; id -u; hostname; cat /etc/hostname; exit 3", "");
    let attached = bench.engine.attach(&id, &AttachOptions { stdout: true, stream: true, ..Default::default() });
    let mut attached = attached.unwrap().output;
    bench.engine.start(&id).unwrap_or_else(|error| panic!("{}", error.chain()));
    assert!(matches!(bench.engine.start(&id), Ok(()) | Err(Error::NotModified(_))));
    assert_eq!(bench.wait(&id), 3);
    let host = &id[..12];
    assert_eq!(bench.output(&id, Stream::Stdout), format!("out\n0\n{host}\n{host}\n"));
    assert_eq!(bench.output(&id, Stream::Stderr), "err\n");
    assert!(attached.next().unwrap().is_some_and(|frame| frame.data.starts_with(b"out\n")));
    bench.engine.remove(&id, false, true).unwrap();
    assert!(matches!(bench.engine.inspect(&id, false), Err(Error::NotFound(_))));
}

#[test]
fn one_that_runs_is_taken_over_by_the_next_engine_with_all_its_output() {
    let mut bench = bench();
    let id = bench.create("trap 'echo bye; exit 7' TERM; echo one; while :; do sleep 0.05; done", "");
    bench.engine.start(&id).unwrap_or_else(|error| panic!("{}", error.chain()));
    let deadline = Instant::now() + Duration::from_secs(30);
    while bench.output(&id, Stream::Stdout) != "one\n" {
        assert!(Instant::now() < deadline, "no output");
        std::thread::yield_now();
    }
    bench.reopen();
    bench.engine.stop(&id, None, Some(20)).unwrap();
    assert_eq!(bench.engine.inspect(&id, false).unwrap().state.unwrap().exit_code, Some(7));
    assert_eq!(bench.output(&id, Stream::Stdout), "one\nbye\n");
}

/// What was told of a container so far, with signals and exit codes.
fn told(bench: &Bench, id: &str) -> Vec<String> {
    let want = EventWant {
        since_unix_ns: Some(1),
        until_unix_ns: Some(crate::clock::unix_ns()),
        filters: [("container".into(), vec![id.into()])].into(),
    };
    let mut reader = bench.engine.events(want);
    let mut actions = Vec::new();
    while let Some(Told::Event(event)) = reader.next() {
        let further = event.attributes.get("signal").or(event.attributes.get("exitCode"));
        actions.push(further.map_or(event.action.clone(), |further| format!("{} {further}", event.action)));
    }
    actions
}

#[test]
fn events_of_stops_restarts_and_kills_come_in_dockers_order() {
    let bench = bench();
    let ready = |id: &str, lines: usize| {
        let deadline = Instant::now() + Duration::from_secs(30);
        while bench.output(id, Stream::Stdout).lines().count() < lines {
            assert!(Instant::now() < deadline, "no output");
            std::thread::yield_now();
        }
    };
    let id = bench.create("trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done", "");
    bench.engine.start(&id).unwrap_or_else(|error| panic!("{}", error.chain()));
    ready(&id, 1);
    bench.engine.restart(&id, None, Some(30)).unwrap();
    ready(&id, 2);
    bench.engine.stop(&id, None, Some(30)).unwrap();
    let expected = ["create", "start", "kill 15", "die 3", "stop", "start", "restart", "kill 15", "die 3", "stop"];
    assert_eq!(told(&bench, &id), expected);
    // One that doesn't heed is killed, which is told, too; so is a removal by force.
    let id = bench.create("trap '' TERM; trap 'exit 5' HUP; echo ready; while :; do sleep 0.05; done", "");
    bench.engine.start(&id).unwrap_or_else(|error| panic!("{}", error.chain()));
    ready(&id, 1);
    bench.engine.stop(&id, None, Some(0)).unwrap();
    bench.engine.start(&id).unwrap();
    ready(&id, 2);
    bench.engine.kill(&id, Some("HUP")).unwrap();
    bench.wait(&id);
    bench.engine.start(&id).unwrap();
    bench.engine.remove(&id, true, true).unwrap();
    let expected = [
        "create", "start", "kill 15", "kill 9", "die 137", "stop", "start", "kill 1", "die 5", "start", "kill 9",
        "die 137", "destroy",
    ];
    assert_eq!(told(&bench, &id), expected);
}

#[test]
fn a_kernel_parameter_asked_for_wins_over_the_engines_own() {
    let bench = bench();
    let script = "cat /proc/sys/net/ipv4/ip_unprivileged_port_start";
    for (rest, expected) in [("", "0\n"), (r#","Sysctls":{"net.ipv4.ip_unprivileged_port_start":"1024"}"#, "1024\n")] {
        let id = bench.create(script, rest);
        bench.engine.start(&id).unwrap_or_else(|error| panic!("{}", error.chain()));
        assert_eq!(bench.wait(&id), 0);
        assert_eq!(bench.output(&id, Stream::Stdout), expected, "{rest}");
    }
}

#[test]
fn a_program_that_is_not_there_undoes_the_start() {
    let bench = bench();
    let body = format!(r#"{{"Image":"{}","Cmd":["/nothing"],"HostConfig":{{"NetworkMode":"none"}}}}"#, bench.image);
    let id = bench.engine.create(Some("gone"), serde_json::from_str(&body).unwrap()).unwrap().id;
    let error = bench.engine.start(&id).unwrap_err();
    assert!(matches!(error, Error::BadParameter(_)), "{}", error.chain());
    assert_eq!(bench.engine.inspect("gone", false).unwrap().state.unwrap().exit_code, Some(127));
    assert_eq!(bench.link.list_fds().unwrap(), [crate::transit::NAME]);
    assert!(bench.link.adopted().unwrap().is_empty());
}

#[test]
fn an_exit_that_nobody_saw_and_half_made_ones_are_recorded() {
    let mut bench = bench();
    let id = bench.create("true", "");
    let state = bench.folder.path().join("containers").join(&id).join("state.json");
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let write = |phase: &str| {
        let text = format!(r#"{{"phase":"{phase}","pid":4194303,"boot_id":"{}"}}"#, boot.trim());
        std::fs::write(&state, text).unwrap();
    };
    write("running");
    bench.reopen();
    assert_eq!(bench.engine.inspect(&id, false).unwrap().state.unwrap().exit_code, Some(255));
    write("starting");
    bench.reopen();
    assert!(!bench.engine.inspect(&id, false).unwrap().state.unwrap().error.unwrap().is_empty());
    // An event about a process that isn't the one at hand changes nothing.
    let exit = Exit { code: 9, at_unix_ms: 1 };
    bench.engine.exited(&Adopted { id: id.clone(), pid: 7, exit: Some(exit) });
    assert_eq!(bench.engine.inspect(&id, false).unwrap().state.unwrap().exit_code, Some(255));
}

#[test]
fn a_list_of_many_that_do_not_run_reads_no_file() {
    let mut bench = bench();
    for _ in 0..50 {
        bench.create("true", "");
    }
    bench.reopen();
    let logs = || std::fs::read_dir(bench.folder.path().join("containers")).unwrap();
    assert!(logs().all(|entry| !entry.unwrap().path().join("log.0").exists()), "a log of what never ran is made");
    // What is nowhere on disk can only come from memory.
    std::fs::rename(bench.folder.path().join("containers"), bench.folder.path().join("away")).unwrap();
    let want = crate::ListWant { all: true, ..Default::default() };
    assert_eq!(bench.engine.list(&want).unwrap().len(), 50);
    let open = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    let folder = bench.folder.path().to_string_lossy().into_owned();
    let held = open.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains(&folder)));
    let held = held.filter(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to.to_string_lossy().contains("/away/")));
    assert_eq!(held.count(), 0, "descriptors of containers that don't run");
    std::fs::rename(bench.folder.path().join("away"), bench.folder.path().join("containers")).unwrap();
}

#[test]
fn an_image_is_never_removed_from_under_a_container_that_is_being_made() {
    let bench = bench();
    for round in 0..200 {
        let import = keel_store::Import { message: round.to_string(), ..Default::default() };
        let image = bench.store.import(&mut [0_u8; 1024].as_slice(), &import).unwrap();
        let start = std::sync::Barrier::new(2);
        let body =
            serde_json::json!({ "Image": image.to_string(), "Cmd": ["x"], "HostConfig": { "NetworkMode": "none" } });
        let container = std::thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                // At another moment of the other's way each time.
                (0..round % 20 * 2000).for_each(|_| std::hint::spin_loop());
                bench.store.remove(&image.to_string(), false, &|image| bench.engine.image_in_use(image))
            });
            start.wait();
            bench.engine.create(None, serde_json::from_value(body).unwrap())
        });
        match container {
            Ok(container) => {
                bench.store.image(&image.to_string()).expect("a container has its image");
                bench.engine.remove(&container.id, true, true).unwrap();
            }
            Err(Error::NotFound(reason)) => assert!(reason.contains("No such image"), "{reason}"),
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn a_parent_cgroup_is_there_while_containers_run_in_it_and_outlives_the_engine() {
    let mut bench = bench_in(Some(Slice::new("parent")));
    let waits = "trap 'exit 3' TERM; echo ready; while :; do sleep 0.05; done";
    let [web, db] = ["/team/web", "team/db"].map(|parent| {
        let id = bench.create(waits, &format!(r#","CgroupParent":"{parent}""#));
        bench.engine.start(&id).unwrap_or_else(|error| panic!("{}", error.chain()));
        id
    });
    let groups = |bench: &Bench| bench.slice.as_ref().unwrap().groups();
    let (of_web, of_db) = (format!("team/web/{web}"), format!("team/db/{db}"));
    assert_eq!(groups(&bench), ["team", "team/db", &of_db, "team/web", &of_web]);
    let inspected = bench.engine.inspect(&web, false).unwrap().host_config.unwrap();
    assert_eq!(inspected.cgroup_parent.as_deref(), Some("/team/web"), "as it was given");
    // What the group has controllers for, those in it have.
    let slice = bench.slice.as_ref().unwrap().0.clone();
    let words = |file: &str| std::fs::read_to_string(slice.join(file)).unwrap();
    for controller in ["cpu", "hugetlb", "io", "memory", "pids"] {
        let of = |file: &str| words(file).split_whitespace().any(|word| word == controller);
        assert_eq!(of("cgroup.controllers"), of(&format!("{of_web}/cgroup.controllers")), "{controller}");
    }
    let begun = Instant::now();
    while bench.engine.sample(&web).unwrap().to_json(None)["cpu_stats"]["cpu_usage"]["total_usage"] == 0 {
        assert!(begun.elapsed() < Duration::from_secs(30), "no use of a processor is counted");
        std::thread::yield_now();
    }
    bench.engine.pause(&web).unwrap();
    bench.engine.unpause(&web).unwrap();

    // What a crash may leave: groups of containers that don't run, empty parents.
    let stray = "0123456789abcdef".repeat(4);
    std::fs::create_dir_all(slice.join("team/gone").join(&stray)).unwrap();
    std::fs::create_dir_all(slice.join("left/over")).unwrap();
    std::fs::create_dir_all(slice.join("team/web").join(&stray)).unwrap();
    bench.reopen();
    assert_eq!(groups(&bench), ["team", "team/db", &of_db, "team/web", &of_web]);

    bench.engine.stop(&web, None, Some(30)).unwrap();
    assert_eq!(bench.engine.inspect(&web, false).unwrap().state.unwrap().exit_code, Some(3));
    assert_eq!(groups(&bench), ["team", "team/db", &of_db]);
    bench.engine.remove(&db, true, true).unwrap();
    assert!(groups(&bench).is_empty());
    bench.engine.start(&web).unwrap();
    assert_eq!(groups(&bench), ["team", "team/web", &of_web]);
    bench.engine.remove(&web, true, true).unwrap();
    assert!(groups(&bench).is_empty());
}

#[test]
fn starts_and_ends_in_one_parent_cgroup_are_not_in_each_others_way() {
    let bench = bench_in(Some(Slice::new("race")));
    let rest = r#","CgroupParent":"a/b""#;
    let body =
        format!(r#"{{"Image":"{}","Cmd":["/nothing"],"HostConfig":{{"NetworkMode":"none"{rest}}}}}"#, bench.image);
    let failing = bench.engine.create(None, serde_json::from_str(&body).unwrap()).unwrap().id;
    let ids = [(); 3].map(|()| bench.create("true", rest));
    std::thread::scope(|scope| {
        for id in &ids {
            scope.spawn(|| {
                for _ in 0..15 {
                    bench.engine.start(id).unwrap_or_else(|error| panic!("{}", error.chain()));
                    bench.wait(id);
                }
            });
        }
        scope.spawn(|| (0..15).for_each(|_| drop(bench.engine.start(&failing).unwrap_err())));
    });
    // Each end is recorded before its cgroup goes.
    ids.iter().for_each(|id| bench.engine.remove(id, true, true).unwrap());
    assert_eq!(bench.slice.as_ref().unwrap().groups(), Vec::<String>::new());
}
