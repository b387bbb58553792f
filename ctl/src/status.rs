//! `status` and `services`.

use std::fmt::Write as _;

use keel_spec::api::Status;
use keel_spec::control::{Service, ServiceState};

use crate::client::{Client, parse};
use crate::error::Result;
use crate::panel::health_word;

/// `keelctl status`
pub fn status(client: &Client, json: bool) -> Result<()> {
    let text = client.request("GET", "/keel/v1/status", b"")?;
    let status: Status = parse(&text)?;
    print!("{}", if json { text } else { render_status(&status) });
    Ok(())
}

/// `keelctl services`
pub fn services(client: &Client, json: bool) -> Result<()> {
    let text = client.request("GET", "/keel/v1/services", b"")?;
    let services: Vec<Service> = parse(&text)?;
    print!("{}", if json { text } else { render_services(&services) });
    Ok(())
}

fn render_status(status: &Status) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("host", &status.hostname);
    line("release", &release(status));
    line("health", health_word(status.health));
    line("up", &duration(status.uptime_ms));
    for address in &status.addresses {
        line("address", address);
    }
    line("api", status.api_listen.as_deref().unwrap_or("on the host only: the machine config brings no certificates"));
    line("containers", &format!("{} running, {} in all", status.containers_running, status.containers));
    let up = status.services.iter().filter(|service| service.state == ServiceState::Up).count();
    line("services", &format!("{up} of {} up", status.services.len()));
    for bad in &status.bad_releases {
        line("bad release", &format!("{}: {}", bad.version, bad.reason));
    }
    for problem in &status.problems {
        line("problem", problem);
    }
    text
}

/// The release with its profile and slot, as far as they are known.
pub fn release(status: &Status) -> String {
    let mut text = status.version.clone();
    if !status.profile.is_empty() {
        let _ = write!(text, " {}", status.profile);
    }
    if !status.slot.is_empty() {
        let _ = write!(text, ", slot {}", status.slot);
    }
    text
}

fn render_services(services: &[Service]) -> String {
    let mut text =
        format!("{:<16}{:<10}{:<10}{:>7}{:>10}  STATUS\n", "SERVICE", "STATE", "REQUIRED", "PID", "RESTARTS");
    for service in services {
        let required = if service.required { "yes" } else { "no" };
        let pid = service.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
        let state = state_word(service.state);
        let _ = writeln!(
            text,
            "{:<16}{state:<10}{required:<10}{pid:>7}{:>10}  {}",
            service.name, service.restarts, service.status
        );
    }
    text
}

fn state_word(state: ServiceState) -> &'static str {
    match state {
        ServiceState::Waiting => "waiting",
        ServiceState::Starting => "starting",
        ServiceState::Up => "up",
        ServiceState::Backoff => "backoff",
        ServiceState::Stopping => "stopping",
        ServiceState::Stopped => "stopped",
    }
}

/// `3d 4h`, `5m 6s`: two units are enough to look at.
pub fn duration(ms: u64) -> String {
    let s = ms / 1000;
    match s {
        0..60 => format!("{s}.{}s", ms % 1000 / 100),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86400 => format!("{}h {}m", s / 3600, s % 3600 / 60),
        _ => format!("{}d {}h", s / 86400, s % 86400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_two_units() {
        assert_eq!(duration(1_234), "1.2s");
        assert_eq!(duration(61_000), "1m 1s");
        assert_eq!(duration(3_660_000), "1h 1m");
        assert_eq!(duration(90_000_000), "1d 1h");
    }

    #[test]
    fn services_are_a_table() {
        let service = Service {
            name: "runtime".into(),
            state: ServiceState::Up,
            required: true,
            pid: Some(12),
            restarts: 1,
            status: "serving".into(),
            since_ms: 5,
        };
        let text = render_services(&[service]);
        let row = text.lines().nth(1).unwrap();
        assert_eq!(row.split_whitespace().collect::<Vec<_>>(), ["runtime", "up", "yes", "12", "1", "serving"]);
    }
}
