//! What happens when a container's first process has ended. First all its output is read, then the exit is made
//! durable, then PID 1 may forget it: so a crash in between only makes it be recorded again.

use std::fs;
use std::sync::Arc;
use std::time::Instant;

use keel_spec::control::{Adopted, Exit};

use crate::container::Container;
use crate::disk::Phase;
use crate::engine::Engine;
use crate::exec::is_exec;
use crate::schedule::Job;

impl Engine {
    /// An adopted process has ended.
    pub(crate) fn exited(&self, adopted: &Adopted) {
        let Some(exit) = adopted.exit else { return };
        if is_exec(&adopted.id) {
            return self.exec_exited(adopted);
        }
        let Some(container) = self.get(&adopted.id) else {
            if let Err(error) = self.link.forget(&adopted.id) {
                ::log::error!("container {}: {}", adopted.id, error.chain());
            }
            return;
        };
        let _gate = container.enter();
        let state = container.state();
        // A run that failed to start has been cleared away by its start already.
        if state.is_running() && state.pid == Some(adopted.pid) {
            self.run_ended(&container, exit);
        }
    }

    /// Its run has ended; the caller holds the gate.
    pub(crate) fn run_ended(&self, container: &Arc<Container>, exit: Exit) {
        let before = container.state();
        let started = before.started_unix_ms.unwrap_or(exit.at_unix_ms);
        let ran_ms = exit.at_unix_ms.saturating_sub(started);
        let oom_killed = self.was_oom_killed(container);
        self.stdio.drain(&container.id);
        container.note(|state| {
            state.phase = Phase::Exited;
            state.pid = None;
            state.networks = None;
            state.paused = false;
            state.exit_code = exit.code;
            state.oom_killed = oom_killed;
            state.finished_unix_ms = Some(exit.at_unix_ms);
        });
        self.clear_away(container);
        ::log::info!("container {} ({}) ended with {}", container.id, container.config().name, exit.code);
        if oom_killed {
            self.tell_of(container, "oom", &[]);
        }
        let ran_s = (ran_ms / 1000).to_string();
        self.tell_of(container, "die", &[("exitCode", exit.code.to_string()), ("execDuration", ran_s)]);
        self.tell_left(container, before.networks.as_ref());
        let again = self.plan_restart(container, exit.code, ran_ms);
        container.log.end_run();
        container.live().exits += 1;
        container.bells.ring();
        if container.auto_remove() && !again {
            self.schedule.add(Instant::now(), Job::Remove(container.id.clone()));
        }
    }

    /// Whether the kernel killed one of its processes for lack of memory (cgroup v2, `memory.events`).
    fn was_oom_killed(&self, container: &Container) -> bool {
        let Some(cgroup) = self.cgroup(container) else { return false };
        let events = fs::read_to_string(cgroup.join("memory.events")).unwrap_or_default();
        events.lines().filter_map(|line| line.strip_prefix("oom_kill ")).any(|count| count != "0")
    }
}
