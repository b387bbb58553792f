//! `GET /keel/v1/metrics`: the host in figures, as Prometheus reads them (text format 0.0.4).
//!
//! What a program of the host doesn't answer is left out; that it doesn't is a figure too.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use hyper::StatusCode;
use keel_engine::Counts;
use keel_spec::api::UpdateStatus;
use keel_spec::api::boots::{Boot, EndCause};
use keel_spec::control::{Service, ServiceState};
use keel_spec::paths;

use crate::call::{Call, blocking};
use crate::release::Release;
use crate::respond::bytes_body;
use crate::router::Answer;

const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All that the figures are made from.
#[derive(Debug, Default)]
struct Facts {
    version: String,
    profile: String,
    uptime_ms: u64,
    services: Vec<Service>,
    /// Bytes that each service takes.
    service_bytes: BTreeMap<String, u64>,
    update: Option<UpdateStatus>,
    boots: Vec<Boot>,
    containers: Counts,
    /// Containers that should run, and those of them that aren't good.
    expected: (usize, usize),
    /// Bytes in all and available.
    memory: Option<(u64, u64)>,
}

/// `GET /keel/v1/metrics`
pub async fn metrics(call: Call) -> Answer {
    let (engine, host) = (call.context.engine.clone(), &call.context.host);
    let (services, update, boots) =
        tokio::join!(host.control(|client| client.services()), host.updater_status(), host.boots());
    let expected = blocking(move || Ok((engine.counts(), engine.expected()))).await?;
    let release = Release::running();
    let services = services.unwrap_or_default();
    let facts = Facts {
        version: release.version,
        profile: release.profile,
        uptime_ms: crate::keel::uptime_ms(),
        service_bytes: services.iter().filter_map(|it| Some((it.name.clone(), service_bytes(&it.name)?))).collect(),
        services,
        update: update.ok().and_then(|text| serde_json::from_str(&text).ok()),
        boots: boots.unwrap_or_default(),
        containers: expected.0,
        expected: (expected.1.len(), expected.1.iter().filter(|it| it.problem.is_some()).count()),
        memory: std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| memory(&text)),
    };
    Ok(bytes_body(StatusCode::OK, CONTENT_TYPE, render(&facts).into_bytes()))
}

/// Memory of a service and all its processes (kernel: `Documentation/admin-guide/cgroup-v2.rst`, `memory.current`).
fn service_bytes(name: &str) -> Option<u64> {
    let path = Path::new(paths::CGROUP_SERVICES).join(name).join("memory.current");
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Memory in all and available (proc(5), `meminfo`).
fn memory(text: &str) -> Option<(u64, u64)> {
    let kib = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()
    };
    Some((kib("MemTotal")?.saturating_mul(1024), kib("MemAvailable")?.saturating_mul(1024)))
}

/// The text, a family of figures after the other.
#[derive(Default)]
struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let open = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{open}{label}=\"{}\"", escape(text));
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.0, "{close} {value}");
    }

    /// A family of one figure.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn render(facts: &Facts) -> String {
    let mut page = Page::default();
    let slot = facts.update.as_ref().map_or("", |update| &update.slot);
    page.family("keel_build_info", "gauge", "The running release.");
    let labels = [("version", facts.version.as_str()), ("profile", &facts.profile), ("slot", slot)];
    page.sample("keel_build_info", &labels, 1);
    let seconds = facts.uptime_ms as f64 / 1000.0;
    page.one("keel_uptime_seconds", "gauge", "Time since boot.", seconds);
    if let Some((all, available)) = facts.memory {
        page.one("keel_memory_total_bytes", "gauge", "Memory of the machine.", all);
        page.one("keel_memory_available_bytes", "gauge", "Memory that containers could still take.", available);
    }
    render_services(&mut page, facts);
    render_update(&mut page, facts.update.as_ref());
    render_boots(&mut page, &facts.boots);
    page.family("keel_containers", "gauge", "Containers by state.");
    let counts = &facts.containers;
    for (state, count) in [("running", counts.running), ("paused", counts.paused), ("stopped", counts.stopped)] {
        page.sample("keel_containers", &[("state", state)], count);
    }
    let help = "Containers that should run, by their restart policy.";
    page.one("keel_containers_expected", "gauge", help, facts.expected.0);
    let help = "Containers that should run, and are down or not healthy.";
    page.one("keel_containers_not_good", "gauge", help, facts.expected.1);
    page.0
}

fn render_services(page: &mut Page, facts: &Facts) {
    page.family("keel_service_up", "gauge", "Whether a program of the host is up.");
    for service in &facts.services {
        let required = if service.required { "true" } else { "false" };
        let labels = [("service", service.name.as_str()), ("required", required)];
        page.sample("keel_service_up", &labels, u8::from(service.state == ServiceState::Up));
    }
    page.family("keel_service_restarts_total", "counter", "Restarts of a program of the host since boot.");
    for service in &facts.services {
        page.sample("keel_service_restarts_total", &[("service", &service.name)], service.restarts);
    }
    page.family("keel_service_memory_bytes", "gauge", "Memory of a program of the host, its page cache included.");
    for (name, bytes) in &facts.service_bytes {
        page.sample("keel_service_memory_bytes", &[("service", name)], bytes);
    }
}

fn render_update(page: &mut Page, update: Option<&UpdateStatus>) {
    page.one("keel_updater_answers", "gauge", "Whether the updater answers.", u8::from(update.is_some()));
    let Some(update) = update else { return };
    let help = "Whether the running release still has to prove itself.";
    page.one("keel_on_trial", "gauge", help, u8::from(update.on_trial));
    page.one("keel_bad_releases", "gauge", "Releases that failed on this machine.", update.bad.len());
    let help = "Whether another release than the running one boots next.";
    page.one("keel_reboot_pending", "gauge", help, u8::from(update.next_boot != update.running));
    if let Some(minimum) = &update.minimum {
        let help = "Whether the least version that is accepted is held in the TPM, too.";
        page.one("keel_minimum_in_tpm", "gauge", help, u8::from(minimum.in_tpm));
        let help = "Whether the state partition was found to be older than the TPM.";
        page.one("keel_state_rewound", "gauge", help, u8::from(minimum.rewound.is_some()));
    }
    page.family("keel_update_activity", "gauge", "What the updater is doing.");
    page.sample("keel_update_activity", &[("activity", &update.activity)], 1);
    let figures = &update.figures;
    if let Some(at) = figures.last_check_unix_s {
        let help = "When a repository was last found good, since the updater was started.";
        page.one("keel_update_last_check_timestamp_seconds", "gauge", help, at);
    }
    let help = "Bytes of releases that came over the network, since the updater was started.";
    page.one("keel_update_fetched_bytes_total", "counter", help, figures.fetched_bytes);
    let help = "Bytes of releases that were on the disk already, since the updater was started.";
    page.one("keel_update_copied_bytes_total", "counter", help, figures.copied_bytes);
    let help = "Bytes of the running release that peers were served, since the updater was started.";
    page.one("keel_update_served_bytes_total", "counter", help, figures.served_bytes);
}

fn render_boots(page: &mut Page, boots: &[Boot]) {
    if let Some(newest) = boots.first() {
        page.one("keel_boots_total", "counter", "Boots of this machine.", newest.number);
    }
    page.family("keel_boots_ended", "gauge", "Boots by how they ended, of those that are remembered.");
    for cause in EndCause::ALL {
        let of_it = |boot: &&Boot| boot.end.as_ref().is_some_and(|end| end.cause == cause);
        page.sample("keel_boots_ended", &[("cause", cause.word())], boots.iter().filter(of_it).count());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts {
        let update = r#"{"running":"1.0.0","slot":"a","on_trial":true,"other":null,"next_boot":"1.1.0","repository":null,
            "bad":[],"activity":"idle","figures":{"last_check_unix_s":7,"fetched_bytes":5,"copied_bytes":6,"served_bytes":8}}"#;
        let boots = r#"[{"number":9,"version":"1.0.0"},
            {"number":8,"version":"1.0.0","end":{"cause":"panic"}},{"number":7,"version":"1.0.0","end":{"cause":"panic"}}]"#;
        let service = Service {
            name: "run\"time".into(),
            state: ServiceState::Up,
            required: true,
            pid: None,
            restarts: 2,
            status: String::new(),
            since_ms: 0,
        };
        Facts {
            version: "1.0.0".into(),
            uptime_ms: 1500,
            services: vec![service],
            update: serde_json::from_str(update).unwrap(),
            boots: serde_json::from_str(boots).unwrap(),
            expected: (3, 1),
            memory: Some((2048, 1024)),
            ..Facts::default()
        }
    }

    #[test]
    fn every_line_is_one_that_prometheus_reads() {
        let page = render(&facts());
        let mut families = Vec::new();
        for line in page.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(!families.contains(&name), "{name} is there twice");
                assert!(kind == "counter" || kind == "gauge");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                families.push(name);
            } else if !line.starts_with("# HELP ") {
                let (series, value) = line.rsplit_once(' ').unwrap();
                let name = series.split('{').next().unwrap();
                assert_eq!(families.last(), Some(&name), "{line}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
            }
        }
        for wanted in [
            r#"keel_build_info{version="1.0.0",profile="",slot="a"} 1"#,
            r#"keel_service_up{service="run\"time",required="true"} 1"#,
            r#"keel_boots_ended{cause="panic"} 2"#,
            "keel_boots_total 9",
            "keel_on_trial 1",
            "keel_reboot_pending 1",
            "keel_update_last_check_timestamp_seconds 7",
            "keel_update_copied_bytes_total 6",
            "keel_update_served_bytes_total 8",
            "keel_containers_not_good 1",
            "keel_uptime_seconds 1.5",
        ] {
            assert!(page.lines().any(|line| line == wanted), "{wanted} in {page}");
        }
    }

    #[test]
    fn a_host_whose_updater_is_down_still_has_figures() {
        let page = render(&Facts { update: None, boots: Vec::new(), ..facts() });
        assert!(page.contains("keel_updater_answers 0") && !page.contains("keel_on_trial"));
    }

    #[test]
    fn meminfo_is_read() {
        let text = "MemTotal:        2048 kB\nMemFree:  1 kB\nMemAvailable:     1024 kB\n";
        assert_eq!(memory(text), Some((2 << 20, 1 << 20)));
        assert_eq!(memory("MemTotal: x kB"), None);
    }
}
