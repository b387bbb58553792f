//! How a container's state is put into Docker's words and types, for lists and inspections alike.

use bollard_stubs::models::{MountPoint, MountType};

use crate::container::Container;
use crate::disk::{Phase, State};
pub use crate::endpoints::{network_name, networks, port_list, port_map};
use crate::health::Status;
use crate::plan::mounts::{self, Source};

/// `Up 5 minutes`, `Exited (0) 3 hours ago`.
pub fn status(state: &State, health: Option<Status>, now_ms: u64) -> String {
    let since = |ms: Option<u64>| human(now_ms.saturating_sub(ms.unwrap_or(now_ms)) / 1000);
    match state.phase {
        Phase::Created | Phase::Starting => "Created".into(),
        Phase::Running if state.paused => format!("Up {} (Paused)", since(state.started_unix_ms)),
        Phase::Running => {
            let health = match health {
                None => String::new(),
                Some(Status::Starting) => " (health: starting)".into(),
                Some(status) => format!(" ({})", status.name()),
            };
            format!("Up {}{health}", since(state.started_unix_ms))
        }
        Phase::Restarting => format!("Restarting ({}) {} ago", state.exit_code, since(state.finished_unix_ms)),
        Phase::Removing => "Removal In Progress".into(),
        Phase::Exited => format!("Exited ({}) {} ago", state.exit_code, since(state.finished_unix_ms)),
    }
}

/// A duration in Docker's words (`units.HumanDuration`).
fn human(seconds: u64) -> String {
    let (minutes, hours) = (seconds / 60, (seconds + 1800) / 3600);
    match () {
        () if seconds < 1 => "Less than a second".into(),
        () if seconds == 1 => "1 second".into(),
        () if seconds < 60 => format!("{seconds} seconds"),
        () if minutes == 1 => "About a minute".into(),
        () if minutes < 60 => format!("{minutes} minutes"),
        () if hours == 1 => "About an hour".into(),
        () if hours < 48 => format!("{hours} hours"),
        () if hours < 24 * 7 * 2 => format!("{} days", hours / 24),
        () if hours < 24 * 30 * 2 => format!("{} weeks", hours / 24 / 7),
        () if hours < 24 * 365 * 2 => format!("{} months", hours / 24 / 30),
        () => format!("{} years", hours / 24 / 365),
    }
}

/// The state's name in the API.
pub fn state_name(state: &State) -> &'static str {
    match state.phase {
        Phase::Created | Phase::Starting => "created",
        Phase::Running if state.paused => "paused",
        Phase::Running => "running",
        Phase::Restarting => "restarting",
        Phase::Removing => "removing",
        Phase::Exited => "exited",
    }
}

/// The health's name in the API; `none`: it isn't checked.
pub fn health_name(container: &Container) -> &'static str {
    health_status(container).map_or("none", Status::name)
}

/// How it is; `None`: that isn't checked.
pub fn health_status(container: &Container) -> Option<Status> {
    container.live().health.as_ref().map(|health| health.status)
}

/// What is mounted where.
pub fn mount_points(container: &Container, volumes: &std::path::Path) -> Vec<MountPoint> {
    let planned = mounts::planned(&container.config().body).unwrap_or_default();
    let point = |mount: mounts::Planned| {
        let (kind, name, source) = match mount.source {
            Source::Host { path, .. } => (MountType::BIND, None, path),
            Source::Volume(name) => {
                let folder = mounts::volume_folder(volumes, &name).to_string_lossy().into_owned();
                (MountType::VOLUME, Some(name), folder)
            }
            Source::Anonymous => (MountType::VOLUME, None, String::new()),
            Source::Tmpfs(_) => (MountType::TMPFS, None, String::new()),
        };
        MountPoint {
            typ: Some(kind.to_string()),
            driver: (kind == MountType::VOLUME).then(|| "local".into()),
            name,
            source: Some(source),
            destination: Some(mount.target),
            mode: Some(if mount.read_only { "ro".into() } else { String::new() }),
            rw: Some(!mount.read_only),
            propagation: Some(match kind {
                MountType::BIND => mount.how.propagation.unwrap_or_else(|| "rprivate".into()),
                _ => String::new(),
            }),
        }
    };
    planned.into_iter().map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_dockers() {
        let cases = [
            (0, "Less than a second"),
            (5, "5 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 20, "2 weeks"),
        ];
        for (seconds, text) in cases {
            assert_eq!(human(seconds), text);
        }
    }

    #[test]
    fn status_names_exit_code_and_age() {
        let state = State { phase: Phase::Exited, exit_code: 3, finished_unix_ms: Some(1000), ..State::default() };
        assert_eq!(status(&state, None, 6000), "Exited (3) 5 seconds ago");
    }
}
