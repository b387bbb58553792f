//! What engines withstand: that their daemon is killed, and many containers.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::engines::{BATCHES, CLIENT, Guest, MEMORY_MIB, PEER_ENGINES, of_engine, socket};
use super::{Figure, median};
use crate::build::Build;
use crate::machine::Clock;

/// Containers that run while a daemon is killed.
const RUNNING: usize = 5;
/// One of ours.
const SLEEPER: [&str; 6] = ["run", "-d", "--network=none", "web:1", "sleep", "987654"];
/// Longest wait for the client that kills ours.
const BACK_LIMIT: Duration = Duration::from_secs(300);
/// How often a peer's daemon is killed: starting the containers before takes minutes.
const KILLS: usize = 3;
/// Containers that should fit into 2 GiB.
const MANY: &str = "1000";
/// Containers from which it is told how many of a peer's would fit.
const SOME: &str = "60";

/// How soon the API answers after its daemon was killed: Keel's, then Docker's and Podman's in the same guest.
pub fn back(build: &Build) -> Result<Vec<Figure>> {
    let guest = Guest::start_for_peers(build, "bench-back", Clock::Instructions)?;
    // The host's own client starts ours: the guest's clock leaps while it waits for a disk, and with it the other's limits.
    let running: Vec<String> = (0..RUNNING).map(|_| guest.host.docker_ok(&SLEEPER)).collect::<Result<_>>()?;
    let samples = (0..BATCHES).map(|_| runtime_back(&guest)).collect::<Result<_>>()?;
    for id in running {
        let state = guest.host.docker_ok(&["inspect", "-f", "{{.State.Running}} {{.RestartCount}}", &id])?;
        ensure!(state == "true 0", "container {id} didn't outlive the runtime: {state}");
        guest.host.docker_ok(&["rm", "-f", &id])?;
    }
    let how = format!(
        "the daemon killed with {RUNNING} containers running, until its API answers; busy guest time. Keel's by PID 1, and a call \
         waits; Docker's with --live-restore and Podman's are started again by a loop of a shell without a pause"
    );
    let mut figure = Figure::new("engine_back_ms", "ms", Some(300.0), &how, samples);
    guest.start_peers("default", "--live-restore", &PEER_ENGINES)?;
    let count = RUNNING.to_string();
    for (peer, process) in PEER_ENGINES.into_iter().zip(["dockerd", "podman"]) {
        guest.give_image(peer)?;
        let mut samples = Vec::new();
        for _ in 0..KILLS {
            let socket = socket(peer);
            let words = ["back", "--socket", &socket, "--process", process, "--count", &count, "--seconds", "600"];
            let measured = guest.load(&words).with_context(|| guest.peers_log());
            let Some(document) = of_engine(peer, measured)? else { break };
            eprintln!("{peer} is back: {document}");
            samples.push(document["busyMs"].as_f64().context("busyMs")?);
        }
        if samples.len() == KILLS {
            figure.peers.insert(peer.to_owned(), median(&samples));
        }
    }
    guest.off()?;
    Ok(vec![figure])
}

/// Milliseconds until the killed runtime answers again. The client runs detached: its own stream would break.
fn runtime_back(guest: &Guest) -> Result<f64> {
    let host = &guest.host;
    let services = host.keelctl_json(&["services"])?;
    let runtime = services.as_array().into_iter().flatten().find(|service| service["name"] == "runtime");
    let pid = runtime.and_then(|service| service["pid"].as_u64()).context("pid of the runtime")?.to_string();
    // One that has just been started again waits a little before the next time.
    std::thread::sleep(Duration::from_secs(11));
    let mut words: Vec<&str> = CLIENT.iter().copied().filter(|word| *word != "--rm").collect();
    words.splice(1..1, ["-d", "--name", "back"]);
    words.extend(["back", "--socket", "/keel.sock", "--pid", &pid, "--count", "0"]);
    // The answer to this very call may be lost.
    let _ = host.docker(&words).output();
    ended(guest, "back")?;
    let text = host.docker_ok(&["logs", "back"])?;
    let document: Value = serde_json::from_str(&text).with_context(|| {
        let errors = guest.log_of("back");
        format!("keel-load printed {text:?} and {errors:?}")
    })?;
    eprintln!("back: {document}");
    host.docker_ok(&["rm", "back"])?;
    document["busyMs"].as_f64().context("busyMs")
}

/// Waits until a container has ended, over which the API goes away.
fn ended(guest: &Guest, container: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let state = guest.host.docker_ok(&["inspect", "-f", "{{.State.Status}}", container]);
        if state.as_deref().is_ok_and(|state| state == "exited") {
            return Ok(());
        }
        ensure!(begun.elapsed() < BACK_LIMIT, "container {container} hasn't ended after {BACK_LIMIT:?}: {state:?}");
        std::thread::sleep(Duration::from_secs(1));
    }
}

/// How many idle containers fit into 2 GiB; none fit that don't answer. The peers' number is told from some of theirs:
/// making so many takes them hours in such a guest.
pub fn many(build: &Build) -> Result<Vec<Figure>> {
    let guest = Guest::start_alone(build, "bench-many")?;
    let document = guest.load(&["idle", "--socket", "/keel.sock", "--count", MANY, "--network", "none"])?;
    let count = document["count"].as_f64().context("count")?;
    guest.off()?;
    let how = format!(
        "containers of `sleep` started in a guest of {MEMORY_MIB} MiB until {MANY} ran, `exec` of `true` answered in each; \
         {:.0} KiB each beside their own processes. Docker and Podman: an estimate, the memory available with that engine \
         alone running, divided by what each of {SOME} took of it",
        document["overheadKib"].as_f64().unwrap_or(f64::NAN)
    );
    let mut figure = Figure::new("containers_in_2gib", "", Some(1000.0), &how, vec![count]);
    figure.at_least = true;
    let guest = Guest::start_for_peers(build, "bench-many-peers", Clock::Real)?;
    for peer in PEER_ENGINES {
        guest.start_peers("default", "", &[peer])?;
        guest.give_image(peer)?;
        let words = ["idle", "--socket", &socket(peer), "--count", SOME, "--network", "none"];
        let measured = guest.load(&words).with_context(|| guest.peers_log());
        if let Some(document) = of_engine(peer, measured)? {
            eprintln!("{peer}: {document}");
            figure.peers.insert(peer.to_owned(), estimate(&document).context("memory of a peer's containers")?);
        }
        guest.end_peers()?;
    }
    guest.off()?;
    Ok(vec![figure])
}

/// How many containers the memory is enough for that was available before the first.
fn estimate(document: &Value) -> Option<f64> {
    let kib = |name: &str| document[name].as_f64();
    let (available, each) = (kib("availableKib")?, kib("overheadKib")? + kib("ownKib")?);
    (each > 0.0).then(|| (available / each).floor())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn as_many_fit_as_the_memory_divided_by_what_one_takes() {
        let document = json!({ "availableKib": 1000.0, "overheadKib": 80.0, "ownKib": 20.0 });
        assert_eq!(estimate(&document), Some(10.0));
        assert_eq!(estimate(&json!({ "availableKib": 5.0, "overheadKib": 0.0, "ownKib": 0.0 })), None);
        assert_eq!(estimate(&json!({})), None);
    }
}
