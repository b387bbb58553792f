//! `stop`, `kill`, `restart`. None holds the gate while it waits for the end, which takes the gate itself.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Signal, pidfd_send_signal};

use crate::Cancel;
use crate::container::Container;
use crate::disk::Phase;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::signal;

/// Seconds between the signal that asks and the one that ends, unless the container or the request says otherwise.
const STOP_TIMEOUT_S: i64 = 10;
/// Longest wait asked for that is honoured as a number, seconds.
const MAX_TIMEOUT_S: i64 = 365 * 24 * 3600;
/// Longest wait for a process that was killed.
const KILL_LIMIT: Duration = Duration::from_secs(30);

impl Engine {
    /// Asks a container to end, and ends it after `timeout_s` seconds (negative: never; `None`: as it was created).
    /// [`Error::NotModified`] if it doesn't run.
    pub fn stop(&self, wanted: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<(), Error> {
        let container = self.find(wanted)?;
        {
            let _gate = container.enter();
            let state = container.state();
            match state.phase {
                Phase::Running | Phase::Starting => container.update(|state| state.user_stopped = true)?,
                Phase::Restarting => {
                    container.update(|state| {
                        state.phase = Phase::Exited;
                        state.user_stopped = true;
                    })?;
                    self.tell_of(&container, "stop", &[]);
                    return Ok(());
                }
                Phase::Created | Phase::Exited | Phase::Removing => {
                    return Err(Error::NotModified(format!("container {}", container.id)));
                }
            }
        }
        self.stop_running(&container, signal, timeout_s)?;
        self.tell_of(&container, "stop", &[]);
        Ok(())
    }

    /// The same without taking note of a user's wish.
    pub(crate) fn stop_running(
        &self,
        container: &Arc<Container>,
        signal: Option<&str>,
        timeout_s: Option<i64>,
    ) -> Result<(), Error> {
        let config = container.config();
        let name = signal.or(config.body.stop_signal.as_deref()).filter(|name| !name.is_empty()).unwrap_or("TERM");
        let number = signal::number(name)?;
        let seconds = timeout_s.or(config.body.stop_timeout).unwrap_or(STOP_TIMEOUT_S);
        let exits = container.live().exits;
        self.send(container, number)?;
        // A frozen one takes its signal when it thaws.
        self.thaw(container)?;
        let deadline = u64::try_from(seconds.min(MAX_TIMEOUT_S)).ok().map(|s| Instant::now() + Duration::from_secs(s));
        if self.ended(container, exits, deadline) {
            return Ok(());
        }
        self.kill_hard(container, exits)
    }

    /// Sends a signal, `KILL` by default, and then waits for the end.
    pub fn kill(&self, wanted: &str, signal: Option<&str>) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let number = signal::number(signal.filter(|name| !name.is_empty()).unwrap_or("KILL"))?;
        let exits = container.live().exits;
        {
            let _gate = container.enter();
            if !container.state().is_running() {
                return Err(Error::Conflict(format!(
                    "cannot kill container: {wanted}: container {} is not running",
                    container.id
                )));
            }
            let stop = container.config().body.stop_signal.as_deref().and_then(|name| signal::number(name).ok());
            if number == Signal::KILL.as_raw() || stop.unwrap_or(Signal::TERM.as_raw()) == number {
                container.update(|state| state.user_stopped = true)?;
            }
        }
        if number == Signal::KILL.as_raw() { self.kill_hard(&container, exits) } else { self.send(&container, number) }
    }

    /// Stops it if it runs, and starts it.
    pub fn restart(&self, wanted: &str, signal: Option<&str>, timeout_s: Option<i64>) -> Result<(), Error> {
        let container = self.find(wanted)?;
        match self.stop(&container.id, signal, timeout_s) {
            Ok(()) | Err(Error::NotModified(_)) => {}
            Err(error) => return Err(error),
        }
        match self.start(&container.id) {
            Ok(()) | Err(Error::NotModified(_)) => {}
            Err(error) => return Err(error),
        }
        self.tell_of(&container, "restart", &[]);
        Ok(())
    }

    /// Kills all its processes and waits until its end is recorded.
    pub(crate) fn kill_hard(&self, container: &Arc<Container>, exits: u64) -> Result<(), Error> {
        self.send(container, Signal::KILL.as_raw())?;
        if let Some(cgroup) = self.cgroup(container)
            && container.state().is_running()
        {
            keel_oci::cgroup::kill_all(&cgroup)
                .doing(|| format!("killing the processes of container {}", container.id))?;
        }
        if self.ended(container, exits, Some(Instant::now() + KILL_LIMIT)) {
            return Ok(());
        }
        let seconds = KILL_LIMIT.as_secs();
        Err(Error::internal(
            format!("killing container {}", container.id),
            format!("it has not ended after {seconds} s: one of its processes hangs in the kernel"),
        ))
    }

    /// Sends a signal to its first process, and tells of that before what it leads to. One that has ended meanwhile is
    /// fine.
    fn send(&self, container: &Arc<Container>, number: i32) -> Result<(), Error> {
        let signal = signal::sendable(number)?;
        // An end is told of under the gate, so not before this.
        let _gate = container.enter();
        let Some(pidfd) = container.live().pidfd.clone() else { return Ok(()) };
        match pidfd_send_signal(&*pidfd, signal) {
            Ok(()) | Err(rustix::io::Errno::SRCH) => {
                self.tell_of(container, "kill", &[("signal", number.to_string())]);
                Ok(())
            }
            Err(error) => Err(Error::internal(format!("sending signal {number} to container {}", container.id), error)),
        }
    }

    /// Waits until more than `exits` runs have ended, or none goes on; `false`: the deadline came first.
    fn ended(&self, container: &Arc<Container>, exits: u64, deadline: Option<Instant>) -> bool {
        let bell = Cancel::new();
        container.bells.add(&bell);
        loop {
            let rings = bell.rings();
            if container.live().exits > exits || !container.is_active() {
                // It is recorded before it is cleared away and told of, all under the gate.
                drop(container.enter());
                return true;
            }
            if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                return false;
            }
            bell.wait(rings, deadline);
        }
    }
}
