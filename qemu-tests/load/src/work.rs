//! What is measured.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::client::Client;
use crate::clock::{Stretch, available_kib, processes};
use crate::pull::{Engine, forget, pull};

/// What containers that sleep run; found again by this command line.
const SLEEP: [&str; 2] = ["sleep", "987654"];
/// Between two looks whether an engine answers.
const PAUSE: Duration = Duration::from_millis(1);

/// Longest wait for an engine's helpers to end.
const HELPERS_LIMIT: Duration = Duration::from_secs(60);

/// How much of it.
pub struct Order {
    /// An archive to load.
    pub file: PathBuf,
    /// The containers' image.
    pub image: String,
    /// Their network.
    pub network: String,
    /// How often.
    pub rounds: u32,
    /// How many containers at a time.
    pub count: u32,
    /// The engine's process.
    pub pid: i32,
    /// The name of the engine's processes.
    pub process: String,
    /// How long to wait for the engine.
    pub seconds: u64,
}

impl Default for Order {
    fn default() -> Self {
        Self {
            file: PathBuf::new(),
            image: "web:1".into(),
            network: "none".into(),
            rounds: 10,
            count: 50,
            pid: 0,
            process: String::new(),
            seconds: 120,
        }
    }
}

/// Does what a verb says.
pub fn of(verb: &str, client: &Client, order: &Order) -> Result<Value> {
    match verb {
        "ready" => ready(client, Duration::from_secs(order.seconds)).map(|ms| json!({ "wallMs": ms })),
        "load" => load(client, order),
        "run" => times(order, || run(client, order)),
        "exec" => exec(client, order),
        "idle" => idle(client, order),
        "list" => list(client, order),
        "back" => back(client, order),
        "pull" => pull(client, order),
        "forget" => forget(client, order),
        other => bail!("no verb is called {other:?}"),
    }
}

/// Milliseconds until the engine answered.
fn ready(client: &Client, limit: Duration) -> Result<f64> {
    let begun = Instant::now();
    while let Err(error) = client.call("GET", "/_ping", None) {
        if begun.elapsed() > limit {
            return Err(error.context(format!("the engine doesn't answer after {limit:?}")));
        }
        std::thread::sleep(PAUSE);
    }
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}

fn load(client: &Client, order: &Order) -> Result<Value> {
    let archive = std::fs::read(&order.file).with_context(|| format!("read {}", order.file.display()))?;
    let answer = client.send("POST", "/v1.40/images/load", "application/x-tar", &archive)?;
    Ok(json!({ "answer": String::from_utf8_lossy(&answer) }))
}

/// Milliseconds of each round, and of all together those that the processor was busy, as a mean: idle time is told
/// in hundredths of a second only.
fn times(order: &Order, mut round: impl FnMut() -> Result<()>) -> Result<Value> {
    round().context("the round that isn't counted")?;
    let whole = Stretch::begin()?;
    let mut wall_ms = Vec::new();
    for _ in 0..order.rounds {
        let begun = Instant::now();
        round()?;
        wall_ms.push(begun.elapsed().as_secs_f64() * 1000.0);
    }
    let length = whole.end()?;
    Ok(json!({ "wallMs": wall_ms, "busyMs": length.busy_ms / f64::from(order.rounds), "allMs": length.wall_ms }))
}

fn run(client: &Client, order: &Order) -> Result<()> {
    let id = client.create(&order.image, &order.network, &["true"])?;
    client.start(&id)?;
    client.wait(&id)?;
    client.remove(&id)
}

fn exec(client: &Client, order: &Order) -> Result<Value> {
    let id = client.create(&order.image, &order.network, &SLEEP)?;
    client.start(&id)?;
    let figures = times(order, || client.exec(&id, &["true"]));
    client.remove(&id)?;
    figures
}

/// Memory of the machine before and after, less that of the containers' own processes.
fn idle(client: &Client, order: &Order) -> Result<Value> {
    run(client, order).context("the container that isn't counted")?;
    let before = available_kib()?;
    let whole = Stretch::begin()?;
    let ids = sleepers(client, order)?;
    let length = whole.end()?;
    let (count, own_kib) = processes(&SLEEP)?;
    ensure!(count == ids.len(), "{count} of {} containers run", ids.len());
    let used_kib = before - available_kib()?;
    // Each of them answers.
    for id in &ids {
        client.exec(id, &["true"]).with_context(|| format!("container {id} among {count}"))?;
    }
    for id in &ids {
        client.remove(id)?;
    }
    let each = |all: f64| all / f64::from(order.count);
    Ok(json!({
        "count": count, "availableKib": before, "overheadKib": each(used_kib - own_kib), "ownKib": each(own_kib), "startMs": each(length.wall_ms),
    }))
}

/// Starts containers that sleep; their IDs.
fn sleepers(client: &Client, order: &Order) -> Result<Vec<String>> {
    let one = |_| {
        let id = client.create(&order.image, &order.network, &SLEEP)?;
        client.start(&id).map(|()| id)
    };
    (0..order.count).map(one).collect()
}

/// Containers that never ran are listed, and one of them is looked at.
fn list(client: &Client, order: &Order) -> Result<Value> {
    let mut ids = Vec::new();
    for _ in 0..order.count {
        ids.push(client.create(&order.image, &order.network, &SLEEP)?);
    }
    let first = ids.first().context("--count is 0")?;
    let list = times(order, || {
        let listed = client.json("GET", "/v1.40/containers/json?all=1", None)?;
        let listed = listed.as_array().map_or(0, Vec::len);
        ensure!(listed >= ids.len(), "{listed} of {} containers are listed", ids.len());
        Ok(())
    })?;
    let look = times(order, || client.call("GET", &format!("/v1.40/containers/{first}/json"), None).map(drop))?;
    for id in &ids {
        client.remove(id)?;
    }
    Ok(json!({ "list": list, "look": look }))
}

/// The one process of a name. Helpers of an engine that have its name, as Podman's for a container's end, leave soon.
fn only(name: &str) -> Result<i32> {
    let begun = Instant::now();
    loop {
        match Engine::find(name).and_then(|engine| engine.pid()) {
            Err(_) if begun.elapsed() < HELPERS_LIMIT => std::thread::sleep(PAUSE),
            found => return found,
        }
    }
}

fn back(client: &Client, order: &Order) -> Result<Value> {
    let number = if order.process.is_empty() { order.pid } else { only(&order.process)? };
    let pid = Pid::from_raw(number).filter(|_| number > 1).context("--pid is no process ID")?;
    let ids = sleepers(client, order)?;
    kill_process(pid, Signal::KILL).with_context(|| format!("kill process {number}"))?;
    let whole = Stretch::begin()?;
    ready(client, Duration::from_secs(order.seconds))?;
    let length = whole.end()?;
    // All of them have outlived it.
    for id in &ids {
        let state = client.json("GET", &format!("/v1.40/containers/{id}/json"), None)?;
        ensure!(state["State"]["Running"] == true, "container {id} ended with the engine: {}", state["State"]);
        client.remove(id)?;
    }
    Ok(json!({ "wallMs": length.wall_ms, "busyMs": length.busy_ms }))
}
