//! What the host's console shows: the host at a glance, and the lines to paste on another machine.

use std::fmt::Write as _;

use keel_spec::api::{Health, Status};
use keel_spec::control::ServiceState;

use crate::status::release;

/// Columns of the box: a serial console has 80.
const WIDTH: usize = 78;
/// Most lines of one kind, so that a host with many addresses still fits on a screen.
const MAX_LINES: usize = 6;

/// A word for a host's health.
pub fn health_word(health: Health) -> &'static str {
    match health {
        Health::Starting => "starting: something required isn't up yet",
        Health::Good => "good",
        Health::Trial => "on trial: this release has not proved itself yet",
        Health::Degraded => "DEGRADED: something required is down",
    }
}

/// The panel. It holds nothing that changes by itself (no clock, no counters of work), so that two panels differ
/// only where the host does.
pub fn render(status: &Status) -> String {
    let rule = format!("+{}+\n", "-".repeat(WIDTH - 2));
    let mut text = rule.clone();
    row(&mut text, "Keel", &release(status));
    row(&mut text, "host", &status.hostname);
    row(&mut text, "health", health_word(status.health));
    some(&mut text, "address", status.addresses.iter().map(String::as_str));
    if status.addresses.is_empty() {
        row(&mut text, "address", "none yet");
    }
    row(&mut text, "api", status.api_listen.as_deref().unwrap_or("on this console only: no certificates in keel.toml"));
    row(&mut text, "containers", &format!("{} running, {} in all", status.containers_running, status.containers));
    let waiting = status
        .services
        .iter()
        .filter(|service| service.required && matches!(service.state, ServiceState::Waiting | ServiceState::Starting));
    some(&mut text, "starting", waiting.map(|service| service.name.as_str()));
    let bad: Vec<String> = status.bad_releases.iter().map(|bad| format!("{}: {}", bad.version, bad.reason)).collect();
    some(&mut text, "bad release", bad.iter().map(String::as_str));
    some(&mut text, "problem", status.problems.iter().map(String::as_str));
    text.push_str(&rule);
    text.push_str(&elsewhere(status));
    text
}

/// The lines to paste in a terminal elsewhere.
fn elsewhere(status: &Status) -> String {
    let (Some(listen), false) = (&status.api_listen, status.advertised_host.is_empty()) else {
        return String::new();
    };
    let port = listen.rsplit_once(':').map_or("2376", |(_, port)| port);
    let host = &status.advertised_host;
    let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
    format!(
        "From another terminal, in the folder of the project:\n\
         export DOCKER_HOST=tcp://{host}:{port} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$PWD/build/certs\n\
         build/programs/keelctl --host tcp://{host}:{port} --cert-path $PWD/build/certs status\n"
    )
}

fn some<'a>(text: &mut String, name: &str, values: impl Iterator<Item = &'a str>) {
    let values: Vec<&str> = values.collect();
    for value in values.iter().take(MAX_LINES) {
        row(text, name, value);
    }
    if let Some(more) = values.len().checked_sub(MAX_LINES).filter(|more| *more > 0) {
        row(text, name, &format!("and {more} more: see `status`"));
    }
}

/// One row of the box; a long value goes on in the next ones.
fn row(text: &mut String, name: &str, value: &str) {
    const NAME: usize = 12;
    let room = WIDTH - 4 - NAME;
    // Foreign text (host names, reasons) must not drive the terminal.
    let clean: Vec<char> =
        value.chars().map(|character| if character.is_control() { ' ' } else { character }).collect();
    let pieces: Vec<String> = wrap(&clean, room);
    for (index, piece) in pieces.iter().take(MAX_LINES).enumerate() {
        let name = if index == 0 { name } else { "" };
        let _ = writeln!(text, "| {name:<NAME$}{piece:<room$} |");
    }
}

/// Parts text at spaces into pieces of at most `room` characters.
fn wrap(text: &[char], room: usize) -> Vec<String> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while rest.len() > room {
        let cut = rest.iter().take(room + 1).rposition(|character| *character == ' ').filter(|cut| *cut > 0);
        let (piece, after) = rest.split_at(cut.unwrap_or(room));
        pieces.push(piece.iter().collect());
        rest = if cut.is_some() { after.get(1..).unwrap_or_default() } else { after };
    }
    pieces.push(rest.iter().collect());
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::api::BadRelease;

    fn status() -> Status {
        Status {
            hostname: "node-1".into(),
            version: "1.2.3".into(),
            profile: "cloud".into(),
            slot: "a".into(),
            health: Health::Good,
            addresses: vec!["eth0 10.0.2.15/24".into()],
            api_listen: Some("0.0.0.0:2376".into()),
            advertised_host: "keel.example".into(),
            console_prompt: true,
            boot_id: String::new(),
            uptime_ms: 1,
            stages: Vec::new(),
            services: Vec::new(),
            containers_running: 1,
            containers: 2,
            bad_releases: vec![BadRelease { version: "1.3.0".parse().unwrap(), reason: "panic".into(), at_unix_s: 0 }],
            problems: vec![
                "machine config refused, the one from esp stays in force: line 3, column 1: unknown key".into(),
            ],
        }
    }

    #[test]
    fn the_panel_is_as_agreed() {
        let golden = "\
+----------------------------------------------------------------------------+
| Keel        1.2.3 cloud, slot a                                            |
| host        node-1                                                         |
| health      good                                                           |
| address     eth0 10.0.2.15/24                                              |
| api         0.0.0.0:2376                                                   |
| containers  1 running, 2 in all                                            |
| bad release 1.3.0: panic                                                   |
| problem     machine config refused, the one from esp stays in force: line  |
|             3, column 1: unknown key                                       |
+----------------------------------------------------------------------------+
From another terminal, in the folder of the project:
export DOCKER_HOST=tcp://keel.example:2376 DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$PWD/build/certs
build/programs/keelctl --host tcp://keel.example:2376 --cert-path $PWD/build/certs status
";
        assert_eq!(render(&status()), golden);
    }

    #[test]
    fn time_alone_changes_nothing() {
        let later = Status { uptime_ms: 99_999, ..status() };
        assert_eq!(render(&later), render(&status()));
    }

    #[test]
    fn without_certificates_there_is_nothing_to_paste() {
        let local = Status { api_listen: None, addresses: Vec::new(), ..status() };
        let text = render(&local);
        assert!(!text.contains("DOCKER_HOST") && text.contains("none yet"));
    }

    #[test]
    fn foreign_text_cannot_drive_the_terminal_or_flood_it() {
        let evil = Status { hostname: "\u{1b}[2J".into(), problems: vec!["x".repeat(5000); 50], ..status() };
        let text = render(&evil);
        assert!(!text.contains('\u{1b}'));
        assert!(text.lines().count() < 60);
    }
}
