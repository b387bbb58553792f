//! What each request on the control socket does.

use std::fs;
use std::os::fd::{AsRawFd as _, OwnedFd};

use keel_spec::control::{self, Reply, Request, ServiceState, System};

use crate::farewell::{self, Asked};
use crate::machine::Machine;
use crate::supervise;

/// Longest line of status that is kept.
const MAX_STATUS_BYTES: usize = 256;
/// Longest reason for a shutdown that is shown.
const MAX_REASON_BYTES: usize = 512;

/// An answer: packets with the descriptors that travel beside each.
type Answer = Vec<(Reply, Vec<OwnedFd>)>;

/// Carries a request of a service out.
pub fn carry_out(machine: &mut Machine, service: usize, request: Request, fds: Vec<OwnedFd>) -> Answer {
    match request {
        Request::Ready => {
            machine.on(supervise::Event::Ready { service });
            last(Reply::Done)
        }
        Request::Status(text) => {
            if let Some(slot) = machine.supervisor.slots.get_mut(service) {
                slot.status = one_line(&text, MAX_STATUS_BYTES);
            }
            last(Reply::Done)
        }
        Request::Services => list(services(machine).into_iter().map(Reply::Service)),
        Request::System => last(Reply::System(system(machine))),
        Request::Log { service } => match machine.logs().find(|(name, _)| *name == service) {
            Some((_, log)) => vec![(Reply::Fds, log.readers())],
            None => refused(format!("there is no service {service:?}")),
        },
        Request::LastLines => match farewell::last_lines_file(machine) {
            Ok(file) => vec![(Reply::Fds, vec![file])],
            Err(error) => refused(format!("putting the last lines of all logs together: {error}")),
        },
        Request::Shutdown { how, reason } => {
            let by = machine.supervisor.slots.get(service).map_or("", |slot| slot.service.name);
            let reason = one_line(&reason, MAX_REASON_BYTES);
            machine.shut_down(how, Asked { by: by.to_owned(), reason, trial_expired: false });
            last(Reply::Done)
        }
        Request::TrialPassed => {
            if machine.trial.running {
                machine.say("the release has proved itself: its trial is over");
            }
            machine.trial = machine.trial.passed();
            last(Reply::Done)
        }
        Request::TrialDeadline { deadline_ms } => {
            machine.trial = machine.trial.moved(deadline_ms);
            last(Reply::Done)
        }
        Request::StoreFds { name } => done(machine.fds.store(service, name, fds)),
        Request::ListFds => list(machine.fds.names(service).into_iter().map(Reply::Stored)),
        Request::FetchFds { name } => match machine.fds.fetch(service, &name) {
            Ok(fds) => vec![(Reply::Fds, fds)],
            Err(why) => refused(why),
        },
        Request::DropFds { name } => {
            machine.fds.drop_set(service, &name);
            last(Reply::Done)
        }
        Request::Adopt { id, pid } => adopt(machine, id, pid, &fds),
        Request::Adopted => list(machine.adoptions.all().to_vec().into_iter().map(Reply::Adopted)),
        Request::Forget { id } => {
            machine.adoptions.forget(&id);
            last(Reply::Done)
        }
        // The connection becomes a subscriber's once this answer is queued.
        Request::Subscribe => last(Reply::Done),
    }
}

fn adopt(machine: &mut Machine, id: String, pid: u32, fds: &[OwnedFd]) -> Answer {
    let [pidfd] = fds else {
        return refused(format!("adopting {id:?} needs one pidfd, not {} descriptors", fds.len()));
    };
    // The pidfd, unlike the number, can't come to mean another process.
    let alive = match pid_of(pidfd) {
        Some(-1) => false,
        Some(named) if i64::from(pid) == named => true,
        _ => return refused(format!("adopting {id:?}: the descriptor isn't a pidfd of process {pid}")),
    };
    match machine.adoptions.adopt(id, pid, alive) {
        Ok(adopted) => {
            if !std::mem::replace(&mut machine.had_container, true) {
                machine.console.stage("first container");
            }
            if adopted.exit.is_some() {
                machine.tell(&control::Event::Exited(adopted));
            }
            last(Reply::Done)
        }
        Err(why) => refused(why),
    }
}

/// The process that a pidfd is for; -1 once it has been reaped (proc(5), `fdinfo`).
fn pid_of(pidfd: &OwnedFd) -> Option<i64> {
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
    info.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok())
}

fn services(machine: &Machine) -> Vec<control::Service> {
    let mut services: Vec<_> = machine.supervisor.slots.iter().map(supervise::Slot::view).collect();
    // Not a process, but as required as any: without its state a release is not good.
    services.extend(machine.state_problem.iter().map(|problem| control::Service {
        name: "state".to_owned(),
        state: ServiceState::Stopped,
        required: true,
        pid: None,
        restarts: 0,
        status: one_line(problem, MAX_STATUS_BYTES),
        since_ms: 0,
    }));
    services
}

fn system(machine: &Machine) -> System {
    System {
        boot_id: machine.boot_id.clone(),
        on_trial: machine.trial.running,
        watchdog_reset: machine.watchdog.as_ref().is_some_and(|watchdog| watchdog.caused_reset),
        clock_behind: machine.clock_behind,
        trial_deadline_ms: machine.trial.deadline_ms,
        stages: machine.console.stages.clone(),
        shutting_down: machine.supervisor.shutting_down(),
    }
}

fn last(reply: Reply) -> Answer {
    vec![(reply, Vec::new())]
}

fn refused(why: String) -> Answer {
    last(Reply::Refused(one_line(&why, 1024)))
}

fn done(result: Result<(), String>) -> Answer {
    match result {
        Ok(()) => last(Reply::Done),
        Err(why) => refused(why),
    }
}

fn list(items: impl Iterator<Item = Reply>) -> Answer {
    items.chain([Reply::Done]).map(|reply| (reply, Vec::new())).collect()
}

/// The text without control characters, cut to a length: it goes to terminals.
fn one_line(text: &str, max_bytes: usize) -> String {
    let text: String = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
    text.get(..text.floor_char_boundary(max_bytes)).unwrap_or_default().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    #[test]
    fn what_reaches_terminals_has_no_control_characters() {
        assert_eq!(one_line("a\x1b[2Jb\nc", 256), "a [2Jb c");
        assert_eq!(one_line(&"ü".repeat(200), 5), "üü");
    }

    #[test]
    fn a_pidfd_names_its_process_until_it_is_reaped() {
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = Pid::from_raw(child.id() as i32).unwrap();
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        assert_eq!(pid_of(&pidfd), Some(i64::from(child.id())));
        child.wait().unwrap();
        assert_eq!(pid_of(&pidfd), Some(-1));
        assert_eq!(pid_of(&std::fs::File::open("/dev/null").unwrap().into()), None);
    }
}
