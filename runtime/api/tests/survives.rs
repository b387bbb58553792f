//! The daemon is killed at random instants under load, again and again. Containers run on, exit codes and logs are
//! complete, and nothing half-made stays. `KEEL_KILLS` says how often, `KEEL_SEED` repeats one run.

mod common;

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use common::http::Api;
use common::machine::Machine;
use common::{wait_for_socket, wait_until};
use keel_spec::control::LISTENER_PREFIX;

/// Kills unless it is said otherwise.
const KILLS: u64 = 200;
/// Parallel clients.
const CLIENTS: u64 = 3;
/// Longest life of a daemon, milliseconds.
const MAX_LIFE_MS: u64 = 700;
/// Longest wait for all to be as it should at the end.
const LIMIT: Duration = Duration::from_secs(60);

/// xorshift64*, so that a run can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) % limit
    }
}

/// What the clients were promised.
#[derive(Default)]
struct Promised {
    /// Containers whose start was answered; each ends with 7 after a word.
    started: Mutex<Vec<String>>,
    number: AtomicU64,
    /// The daemon of this round was killed.
    over: AtomicBool,
}

fn create(api: &Api, name: &str, script: &str, host: &str) -> std::io::Result<u16> {
    let body = format!(r#"{{"Image":"box:1","Cmd":["sh","-c",{script:?}],"HostConfig":{{{host}}}}}"#);
    Ok(api.try_call("POST", &format!("/containers/create?name={name}"), &body)?.status)
}

/// One client: it does this and that until the daemon is gone. A call that begins thereafter waits for the next daemon.
fn client(api: &Api, mut random: Random, promised: &Promised) {
    let mut own: Vec<String> = Vec::new();
    while !promised.over.load(Ordering::Relaxed) {
        if step(api, &mut random, promised, &mut own).is_err() {
            return;
        }
    }
}

fn step(api: &Api, random: &mut Random, promised: &Promised, own: &mut Vec<String>) -> std::io::Result<()> {
    let number = promised.number.fetch_add(1, Ordering::Relaxed);
    let some = |random: &mut Random, own: &[String]| match own.len() {
        0 => "nobody".to_owned(),
        count => own[random.below(count as u64) as usize].clone(),
    };
    match random.below(10) {
        // Most of all: one that ends by itself, and whose end is checked.
        0..=2 => {
            let name = format!("end{number}");
            let host = match number % 3 {
                0 => r#""NetworkMode":"none""#.to_owned(),
                1 => format!(r#""Binds":["vol{}:/data"]"#, number % 5),
                _ => format!(r#""PortBindings":{{"80/tcp":[{{"HostPort":"{}"}}]}}"#, 20_000 + number),
            };
            create(api, &name, "echo word; usleep 200000; echo last; exit 7", &host)?;
            if api.try_call("POST", &format!("/containers/{name}/start"), "")?.status == 204 {
                promised.started.lock().unwrap().push(name);
            }
        }
        3 => {
            let name = format!("long{number}");
            create(api, &name, "sleep 600", r#""AutoRemove":true"#)?;
            own.push(name.clone());
            api.try_call("POST", &format!("/containers/{name}/start"), "")?;
        }
        4 => drop(api.try_call("POST", &format!("/containers/{}/stop?t=0", some(random, own)), "")?),
        5 => {
            if let Some(name) = own.pop() {
                api.try_call("DELETE", &format!("/containers/{name}?force=1&v=1"), "")?;
            }
        }
        6 => {
            let body = r#"{"Cmd":["true"],"AttachStdout":true}"#;
            let made = api.try_call("POST", "/containers/ticker/exec", body)?;
            if made.status == 201 {
                let id = made.json()["Id"].as_str().unwrap_or_default().to_owned();
                api.try_call("POST", &format!("/exec/{id}/start"), r#"{"Detach":true}"#)?;
            }
        }
        7 => {
            let name = format!("net{}", number % 4);
            api.try_call("POST", "/networks/create", &format!(r#"{{"Name":"{name}"}}"#))?;
            api.try_call("DELETE", &format!("/networks/{name}"), "")?;
        }
        8 => {
            let name = format!("vol{}", number % 5);
            api.try_call("POST", "/volumes/create", &format!(r#"{{"Name":"{name}"}}"#))?;
            api.try_call("DELETE", &format!("/volumes/{name}"), "")?;
        }
        _ => drop(api.try_call("GET", "/containers/json?all=1", "")?),
    }
    Ok(())
}

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap_or_else(|_| panic!("{name}={text:?}")))
}

#[test]
fn a_daemon_killed_at_any_instant_leaves_nothing_half_done() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let (seed, kills) = (number("KEEL_SEED", now.as_nanos() as u64 | 1), number("KEEL_KILLS", KILLS));
    println!("KEEL_SEED={seed} KEEL_KILLS={kills}");
    let mut random = Random(seed);
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    assert_eq!(create(&api, "ticker", TICKER, "").unwrap(), 201);
    assert_eq!(api.call("POST", "/containers/ticker/start", "").status, 204);
    let pid = |api: &Api| api.call("GET", "/containers/ticker/json", "").json()["State"]["Pid"].clone();
    let first_pid = pid(&api);
    let promised = Promised::default();
    for _ in 0..kills {
        promised.over.store(false, Ordering::Relaxed);
        std::thread::scope(|scope| {
            for _ in 0..CLIENTS {
                let own = Random(random.below(u64::MAX) | 1);
                let (api, promised) = (&api, &promised);
                scope.spawn(move || client(api, own, promised));
            }
            // Not a wait for anything: the instant itself is what is tried.
            std::thread::sleep(Duration::from_millis(random.below(MAX_LIFE_MS)));
            daemon.kill().unwrap();
            daemon.wait().unwrap();
            promised.over.store(true, Ordering::Relaxed);
            daemon = machine.daemon().0;
        });
    }
    check_promises(&api, &promised);
    assert_eq!(pid(&api), first_pid, "the ticker ran on as the same process");
    check_ticker(&api);
    check_nothing_half_made(&api, &machine.state());
    remove_everything(&api);
    check_nothing_remains(&machine);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

/// Counts, and so shows whether output was lost.
const TICKER: &str = "i=0; while :; do i=$((i+1)); echo tick $i; usleep 20000; done";

fn check_promises(api: &Api, promised: &Promised) {
    let started = promised.started.lock().unwrap().clone();
    println!("{} containers were started", started.len());
    assert!(!started.is_empty());
    for name in &started {
        let state = || api.call("GET", &format!("/containers/{name}/json"), "").json()["State"].clone();
        wait_until(&format!("{name} to end"), LIMIT, || state()["Status"] == "exited");
        assert_eq!(state()["ExitCode"], 7, "{name}: {}", state());
        let log = api.call("GET", &format!("/containers/{name}/logs?stdout=1"), "").body;
        let count = |word: &str| log.matches(word).count();
        assert_eq!((count("word"), count("last")), (1, 1), "{name}: {log:?}");
    }
}

fn check_ticker(api: &Api) {
    let log = api.call("GET", "/containers/ticker/logs?stdout=1", "").body;
    let ticks: Vec<u64> =
        log.split("tick ").skip(1).filter_map(|rest| rest.lines().next()?.trim().parse().ok()).collect();
    println!("{} ticks", ticks.len());
    assert!(ticks.len() > 20, "{} ticks", ticks.len());
    assert_eq!(ticks[0], 1);
    let gaps: Vec<&[u64]> = ticks.windows(2).filter(|pair| pair[1] != pair[0] + 1).collect();
    assert!(gaps.is_empty(), "output is lost or there twice: {gaps:?}");
}

fn check_nothing_half_made(api: &Api, state: &Path) {
    let list = api.call("GET", "/containers/json?all=1", "").json();
    let listed: Vec<String> = list.as_array().unwrap().iter().map(|c| c["Id"].as_str().unwrap().to_owned()).collect();
    for id in &listed {
        let shown = api.call("GET", &format!("/containers/{id}/json"), "");
        let status = shown.json()["State"]["Status"].as_str().unwrap().to_owned();
        assert!(["created", "running", "exited"].contains(&status.as_str()), "{id} is {status}");
    }
    let folders = || -> Vec<String> {
        let entries = std::fs::read_dir(state.join("containers")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    };
    let strange: Vec<String> = folders().into_iter().filter(|name| !listed.contains(name)).collect();
    assert_eq!(strange, Vec::<String>::new(), "folders of no container");
    assert_eq!(folders().len(), listed.len());
}

fn remove_everything(api: &Api) {
    let list = api.call("GET", "/containers/json?all=1", "").json();
    for container in list.as_array().unwrap() {
        let id = container["Id"].as_str().unwrap();
        let answer = api.call("DELETE", &format!("/containers/{id}?force=1&v=1"), "");
        assert!(matches!(answer.status, 204 | 404), "{answer:?}");
    }
    let networks = api.call("GET", "/networks?filters=%7B%22type%22%3A%5B%22custom%22%5D%7D", "").json();
    for network in networks.as_array().unwrap() {
        let answer = api.call("DELETE", &format!("/networks/{}", network["Id"].as_str().unwrap()), "");
        assert_eq!(answer.status, 204, "{answer:?}");
    }
    let volumes = api.call("GET", "/volumes", "").json();
    for volume in volumes["Volumes"].as_array().unwrap() {
        let answer = api.call("DELETE", &format!("/volumes/{}", volume["Name"].as_str().unwrap()), "");
        assert_eq!(answer.status, 204, "{answer:?}");
    }
}

fn check_nothing_remains(machine: &Machine) {
    let kept =
        || machine.parent.kept().into_iter().filter(|name| !name.starts_with(LISTENER_PREFIX)).collect::<Vec<_>>();
    wait_until("all that was kept to be dropped", LIMIT, || kept() == ["stdio-transit"]);
    for folder in ["containers", "volumes"] {
        let path = machine.state().join(folder);
        let left: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert!(left.is_empty(), "{}: {left:?}", path.display());
    }
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let state = machine.state().to_string_lossy().into_owned();
    let left: Vec<&str> = mounts.lines().filter(|line| line.contains(&state)).collect();
    assert_eq!(left, Vec::<&str>::new(), "mounts");
    let links = machine.inside(&["ip", "-o", "link", "show", "type", "veth"]);
    assert_eq!(links, "", "links of containers");
    let sandboxes = std::fs::read_to_string(machine.state().join("network/sandboxes.json")).unwrap_or_default();
    assert!(!sandboxes.contains("\"ports\""), "places in networks: {sandboxes}");
    let rules = machine.inside(&["nft", "list", "table", "inet", "keel"]);
    assert!(rules.contains("chain"), "{rules}");
    assert!(!rules.contains("elements = { tcp"), "published ports: {rules}");
}

#[test]
fn clients_wait_while_the_daemon_is_away_and_find_it_under_every_name_of_its_socket() {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    // As a container has the socket bound into it.
    let other_name = machine.folder.path().join("in-a-container.sock");
    std::fs::hard_link(machine.folder.path().join("api.sock"), &other_name).unwrap();
    let pings = |api: &Api| api.try_call("GET", "/_ping", "").map(|answer| answer.status);
    assert_eq!(pings(&api).unwrap(), 200);
    for _ in 0..2 {
        daemon.kill().unwrap();
        daemon.wait().unwrap();
        std::thread::scope(|scope| {
            let early = scope.spawn(|| pings(&api));
            daemon = machine.daemon().0;
            assert_eq!(early.join().unwrap().unwrap(), 200, "a call from before the daemon was back");
        });
        assert_eq!(pings(&Api::new(&other_name)).unwrap(), 200, "by the other name");
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    // What somebody removed is made anew.
    std::fs::remove_file(machine.folder.path().join("api.sock")).unwrap();
    let (mut daemon, api) = machine.daemon();
    assert_eq!(pings(&api).unwrap(), 200);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_daemon_started_while_its_predecessor_is_dying_waits_for_the_store() {
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    let state = folder.path().join("state");
    std::fs::create_dir_all(&state).unwrap();
    let lock = std::fs::File::create(state.join("lock")).unwrap();
    lock.lock().unwrap();
    let mut daemon = Command::new(env!("CARGO_BIN_EXE_keel-runtime"))
        .args(["--standalone", "--state"])
        .arg(&state)
        .arg("--socket")
        .arg(folder.path().join("api.sock"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(500) {
        assert!(daemon.try_wait().unwrap().is_none(), "it must not give up");
        std::thread::yield_now();
    }
    drop(lock);
    wait_for_socket(&folder.path().join("api.sock"));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
