//! The machine config, kernel command lines, control messages.

use keel_spec::cmdline::BootParameters;
use keel_spec::config;
use keel_spec::control::{self, Event, Reply, Request, Shutdown};
use keel_spec::verity::RootHash;

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 3] = [
    Target { name: "machine_config", seeds: config_seeds, make: || Box::new(machine_config), share: 1000 },
    Target { name: "cmdline", seeds: cmdline_seeds, make: || Box::new(cmdline), share: 1000 },
    Target { name: "control_message", seeds: control_seeds, make: || Box::new(control_message), share: 1000 },
];

fn config_seeds() -> Vec<Vec<u8>> {
    let text = r#"
hostname = "node-7"
ntp_servers = ["0.pool.ntp.org", "192.0.2.1"]
console_prompt = true
[network]
address = "192.0.2.7/24"
gateway = "192.0.2.1"
dns = ["192.0.2.53", "2001:db8::53"]
[api]
listen = "0.0.0.0:2376"
names = ["node-7.example"]
[update]
url = "https://updates.example/keel"
tries = 3
auto = "install"
pin = ">=1.4, <2"
reboot = "window"
fleetlock_url = "https://lock.example"
[[update.window]]
days = ["sat", "sun"]
start = "02:30"
length_min = 90
time_zone = "Europe/Berlin"
[health]
within_s = 120
settle_s = 5
[[health.check]]
name = "web"
http = "http://127.0.0.1:8080/"
[[health.check]]
name = "ssh"
tcp = "[::1]:22"
[registry]
insecure = ["registry.example:5000"]
ca_pem = """
-----BEGIN CERTIFICATE-----
AAAA
-----END CERTIFICATE-----
"""
"#;
    vec![text.into(), Vec::new()]
}

fn machine_config(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".into() };
    let outcome = config::parse(text);
    if let Err(error) = &outcome {
        assert!(error.line >= 1 && error.column >= 1, "a refusal has a place");
        assert!(error.line <= text.lines().count() + 1, "a refusal has a place in the text");
    }
    answer(outcome)
}

fn cmdline_seeds() -> Vec<Vec<u8>> {
    let root_hash = RootHash::new([0xa5; 32]);
    let parameters = BootParameters { root_hash, root_blocks: 4096, watchdog_s: 30, trial_s: 180 };
    vec![format!("console=ttyS0 panic=10 {}", parameters.render()).into()]
}

fn cmdline(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".into() };
    let outcome = BootParameters::parse(text);
    if let Ok(parameters) = &outcome {
        assert_eq!(
            BootParameters::parse(&parameters.render()).ok().as_ref(),
            Some(parameters),
            "what is written is read"
        );
    }
    answer(outcome)
}

fn control_seeds() -> Vec<Vec<u8>> {
    let requests = [
        Request::Ready,
        Request::Status("waiting".into()),
        Request::Log { service: "updater".into() },
        Request::Shutdown { how: Shutdown::Reboot, reason: "asked for".into() },
        Request::TrialDeadline { deadline_ms: 180_000 },
        Request::StoreFds { name: "pipes".into() },
    ];
    requests.iter().filter_map(|request| control::encode(request).ok()).collect()
}

fn control_message(bytes: &[u8]) -> String {
    let kinds = [
        control::decode::<Request>(bytes).is_ok(),
        control::decode::<Reply>(bytes).is_ok(),
        control::decode::<Event>(bytes).is_ok(),
    ];
    if let Ok(request) = control::decode::<Request>(bytes) {
        return format!("{kinds:?} {}", format!("{request:?}").split(['(', ' ', '{']).next().unwrap_or_default());
    }
    format!("{kinds:?}")
}
