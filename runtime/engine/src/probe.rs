//! Running health checks: each on a thread of its own while it runs, so that a slow one holds nothing else up.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bollard_stubs::models::ExecConfig;

use crate::Cancel;
use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::health::{self, Check, Health, MAX_OUTPUT_BYTES, Outcome};
use crate::schedule::Job;

/// Bytes of stack of the thread.
const STACK_BYTES: usize = 512 * 1024;
/// Exit code of a check that took too long, or couldn't be run.
const NO_CODE: i32 = -1;

impl Engine {
    /// A run has begun, or is taken over: its health is to be checked, if that is wanted.
    pub(crate) fn watch_health(&self, container: &Container, first_pause: Option<Duration>) {
        let Ok(Some(check)) = Check::new(&container.config().body) else {
            container.live().health = None;
            return;
        };
        let health = Health::default();
        let due = Instant::now() + first_pause.unwrap_or_else(|| check.pause(&health, Duration::ZERO));
        let run = {
            let mut live = container.live();
            live.health = Some(health);
            live.exits
        };
        self.schedule.add(due, Job::Check(container.id.clone(), run));
    }

    /// Checks a container's health, if `run` still goes on.
    pub(crate) fn check_health(self: &Arc<Self>, id: &str, run: u64) {
        let Some(container) = self.get(id).filter(|container| container.live().exits == run) else { return };
        let Ok(Some(check)) = Check::new(&container.config().body) else { return };
        let engine = self.clone();
        let thread = std::thread::Builder::new().name("check".into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn(move || {
            let state = container.state();
            if !state.is_running() {
                return;
            }
            let ran = || Duration::from_millis(clock::unix_ms().saturating_sub(state.started_unix_ms.unwrap_or(0)));
            // One that is paused can't answer, and isn't ill.
            if !state.paused {
                let outcome = engine.run_check(&container, &check);
                engine.checked(&container, &check, outcome, ran());
            }
            let pause = container.live().health.as_ref().map(|health| check.pause(health, ran()));
            let due = Instant::now() + pause.unwrap_or(check.interval);
            engine.schedule.add(due, Job::Check(container.id.clone(), run));
        });
        if let Err(error) = spawned {
            ::log::error!("container {id}: its health cannot be checked: {error}");
        }
    }

    fn checked(&self, container: &Container, check: &Check, outcome: Outcome, ran: Duration) {
        let changed = {
            let mut live = container.live();
            let Some(before) = live.health.take() else { return };
            let status = before.status;
            let after = health::step(before, check, outcome, ran);
            let changed = (after.status != status).then_some(after.status);
            live.health = Some(after);
            changed
        };
        if let Some(status) = changed {
            self.tell_of(container, &format!("health_status: {}", status.name()), &[]);
            container.bells.ring();
        }
    }

    fn run_check(&self, container: &Container, check: &Check) -> Outcome {
        let start_unix_ns = clock::unix_ns();
        let (exit_code, output) = self.run_words(container, check).unwrap_or_else(|error| (NO_CODE, error.chain()));
        Outcome { start_unix_ns, end_unix_ns: clock::unix_ns(), exit_code, output }
    }

    fn run_words(&self, container: &Container, check: &Check) -> Result<(i32, String), Error> {
        let asked = ExecConfig {
            cmd: Some(check.words.clone()),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            ..Default::default()
        };
        let deadline = Instant::now() + check.timeout;
        let id = self.exec_create(&container.id, asked)?;
        let exec = self.exec(&id)?;
        let result = self.exec_start(&id, true, None).and_then(|streams| {
            let mut output = Vec::new();
            let mut reader = streams.map(|streams| streams.output);
            while let Some(frame) = reader.as_mut().and_then(|reader| reader.next_before(deadline)) {
                let room = MAX_OUTPUT_BYTES.saturating_sub(output.len());
                output.extend(frame.data.iter().take(room));
            }
            let bell = Cancel::new();
            exec.listen(&bell);
            loop {
                let rings = bell.rings();
                if let Some(code) = exec.exit_code() {
                    return Ok((code, String::from_utf8_lossy(&output).into_owned()));
                }
                if deadline <= Instant::now() {
                    exec.kill().doing(|| format!("killing a health check of container {}", container.id))?;
                    return Ok((NO_CODE, format!("Health check exceeded timeout ({:?})", check.timeout)));
                }
                bell.wait(rings, Some(deadline));
            }
        });
        self.exec_drop(&id);
        result
    }
}
