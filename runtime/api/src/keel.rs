//! `/keel/v1/…` but for updates: the host at a glance, its services, their logs, and its end.

use std::io::Read as _;
use std::os::fd::OwnedFd;

use hyper::StatusCode;
use keel_spec::api::{ErrorCode, Health, Restart, Status, UpdateStatus};
use keel_spec::control::{Service, ServiceState, Shutdown, System};

use crate::addresses;
use crate::call::{Call, blocking};
use crate::context::Context;
use crate::release::Release;
use crate::respond::{Failure, bytes_body, empty, json};
use crate::router::Answer;
use crate::system::{boot_id, hostname};
use crate::update;

/// Longest log that is answered; PID 1 keeps less.
const MAX_LOG_BYTES: u64 = 8 << 20;

/// `GET /keel/v1/status`. It is answered whatever else is down: what is missing becomes a problem on the list.
pub async fn status(call: Call) -> Answer {
    Ok(json(StatusCode::OK, &assemble(&call.context).await))
}

async fn assemble(context: &Context) -> Status {
    let host = &context.host;
    let (system, services, update, config) = tokio::join!(
        host.control(|client| client.system()),
        host.control(|client| client.services()),
        host.updater_status(),
        host.config_source(),
    );
    let mut problems = context.problems.clone();
    let system = note(system, &mut problems);
    let services = note(services, &mut problems).unwrap_or_default();
    let update = note(update, &mut problems).and_then(|text| match serde_json::from_str::<UpdateStatus>(&text) {
        Ok(update) => Some(update),
        Err(error) => {
            problems.push(format!("the updater's status can't be read: {error}"));
            None
        }
    });
    if let Some((source, refused)) = note(config, &mut problems)
        && !refused.is_empty()
    {
        problems.push(format!("machine config refused, the one from {source} stays in force: {refused}"));
    }
    problems.extend(services.iter().filter(|service| is_down(service)).map(describe_down));
    problems.extend(context.engine.declared_problems());
    let release = Release::running();
    if system.as_ref().is_some_and(|system| is_time_unknown(system, &release, unix_s(), uptime_ms() / 1000)) {
        problems.push(
            "the time isn't known: the clock was behind this release's build time, from which it goes on, and no time \
             server has set it; what has expired meanwhile may seem valid (`keelctl logs time`)"
                .into(),
        );
    }
    // One program that is down fails several questions with the same words.
    problems.dedup();
    let addresses = addresses::current().unwrap_or_default();
    let counts = context.engine.counts();
    let advertised_host = advertised_host(context, &addresses);
    Status {
        hostname: hostname(),
        version: release.version,
        profile: release.profile,
        slot: update.as_ref().map(|update| update.slot.clone()).unwrap_or_default(),
        health: health(system.as_ref(), &services),
        addresses: addresses
            .iter()
            .filter(|entry| !addresses::is_internal(&entry.interface))
            .map(|entry| format!("{} {}/{}", entry.interface, entry.address, entry.prefix))
            .collect(),
        api_listen: context.tls_listen.clone(),
        advertised_host,
        console_prompt: context.settings.console_prompt,
        boot_id: system.as_ref().map(|system| system.boot_id.clone()).or_else(boot_id).unwrap_or_default(),
        uptime_ms: uptime_ms(),
        stages: system.map(|system| system.stages).unwrap_or_default(),
        services,
        containers_running: u32::try_from(counts.running).unwrap_or(u32::MAX),
        containers: u32::try_from(counts.all).unwrap_or(u32::MAX),
        bad_releases: update.map(|update| update.bad).unwrap_or_default(),
        problems,
    }
}

fn note<T>(result: Result<T, Failure>, problems: &mut Vec<String>) -> Option<T> {
    result.map_err(|failure| problems.push(failure.message)).ok()
}

fn advertised_host(context: &Context, addresses: &[addresses::InterfaceAddress]) -> String {
    let configured = context.settings.api.names.first().cloned();
    let outward = addresses.iter().filter(|entry| !addresses::is_internal(&entry.interface));
    configured.or_else(|| outward.map(|entry| entry.address.to_string()).next()).unwrap_or_default()
}

/// Good only while everything required is up; a trial that isn't over is told before that.
fn health(system: Option<&System>, services: &[Service]) -> Health {
    if system.is_some_and(|system| system.on_trial) {
        return Health::Trial;
    }
    let is_first_start = |service: &Service| {
        service.restarts == 0 && matches!(service.state, ServiceState::Waiting | ServiceState::Starting)
    };
    let is_missing = |service: &&Service| service.required && service.state != ServiceState::Up;
    if !services.iter().any(|service| is_missing(&service)) {
        Health::Good
    } else if services.iter().filter(is_missing).all(is_first_start) {
        Health::Starting
    } else {
        Health::Degraded
    }
}

/// Whether the clock still goes on from the release's build time, to which it was set at boot. Whoever sets it sets it
/// further.
fn is_time_unknown(system: &System, release: &Release, now_unix_s: u64, uptime_s: u64) -> bool {
    system.clock_behind && now_unix_s <= release.built_unix_s.saturating_add(uptime_s)
}

fn unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn is_down(service: &Service) -> bool {
    matches!(service.state, ServiceState::Backoff) || (service.required && service.state == ServiceState::Stopped)
}

fn describe_down(service: &Service) -> String {
    let name = &service.name;
    format!("service {name} is down ({}); see `keelctl logs {name}`", service.status)
}

/// Milliseconds since boot, sleep included.
pub fn uptime_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    u64::try_from(now.tv_sec).unwrap_or(0) * 1000 + u64::try_from(now.tv_nsec).unwrap_or(0) / 1_000_000
}

/// `GET /keel/v1/services`
pub async fn services(call: Call) -> Answer {
    Ok(json(StatusCode::OK, &call.context.host.control(|client| client.services()).await?))
}

/// `GET /keel/v1/containers`: those that should run.
pub async fn containers(call: Call) -> Answer {
    let engine = call.context.engine.clone();
    Ok(json(StatusCode::OK, &blocking(move || Ok(engine.expected())).await?))
}

/// `GET /keel/v1/logs/{service}`
pub async fn logs(call: Call) -> Answer {
    let name = call.name.clone();
    let known = call.context.host.control(|client| client.services()).await?;
    if name != "init" && !known.iter().any(|service| service.name == name) {
        return Err(Failure::not_found(format!("no service {name:?}: see `keelctl services`, or ask for init")));
    }
    let fds = call.context.host.control(move |client| client.log(&name)).await?;
    let text = blocking(move || read_all(fds)).await?;
    Ok(bytes_body(StatusCode::OK, "text/plain; charset=utf-8", text))
}

fn read_all(fds: Vec<OwnedFd>) -> Result<Vec<u8>, Failure> {
    let mut text = Vec::new();
    for fd in fds {
        std::fs::File::from(fd)
            .take(MAX_LOG_BYTES)
            .read_to_end(&mut text)
            .map_err(|error| Failure::new(ErrorCode::Internal, format!("cannot read a service's log: {error}")))?;
    }
    Ok(text)
}

/// `POST /keel/v1/reboot`. Where the firmware can't be skipped, the restart goes through it.
pub async fn reboot(call: Call) -> Answer {
    let mut answer = Restart::default();
    if call.query.flag_or("kexec", call.context.settings.update.kexec) {
        match update::load_next(&call.context.host).await {
            Ok(version) => answer.kexec = Some(version),
            Err(failure) => answer.refused = Some(failure.message),
        }
    }
    shutdown(&call, if answer.kexec.is_some() { Shutdown::Kexec } else { Shutdown::Reboot }).await?;
    Ok(json(StatusCode::OK, &answer))
}

/// `POST /keel/v1/poweroff`
pub async fn poweroff(call: Call) -> Answer {
    shutdown(&call, Shutdown::Poweroff).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

async fn shutdown(call: &Call, how: Shutdown) -> Result<(), Failure> {
    call.context.host.control(move |client| client.shutdown(how, "asked for over the API")).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(name: &str, state: ServiceState, required: bool) -> Service {
        Service { name: name.into(), state, required, pid: None, restarts: 0, status: String::new(), since_ms: 0 }
    }

    fn system(on_trial: bool) -> System {
        System {
            boot_id: String::new(),
            on_trial,
            watchdog_reset: false,
            clock_behind: false,
            trial_deadline_ms: 0,
            stages: Vec::new(),
            shutting_down: None,
        }
    }

    #[test]
    fn a_clock_that_nobody_has_set_is_a_problem() {
        let release = Release { version: String::new(), profile: String::new(), built_unix_s: 1_000_000 };
        let behind = System { clock_behind: true, ..system(false) };
        assert!(
            is_time_unknown(&behind, &release, 1_000_050, 55),
            "set to the build time 5 s after the kernel's start"
        );
        assert!(!is_time_unknown(&behind, &release, 1_700_000, 55), "a server has set it");
        assert!(!is_time_unknown(&system(false), &release, 1_000_050, 55), "it was ahead, and so known");
    }

    #[test]
    fn only_required_services_decide_on_health() {
        let up = service("runtime", ServiceState::Up, true);
        let time_down = service("time", ServiceState::Backoff, false);
        let network_down = service("network", ServiceState::Backoff, true);
        let starting = service("updater", ServiceState::Starting, true);
        let again = Service { restarts: 1, ..starting.clone() };
        assert_eq!(health(Some(&system(false)), &[up.clone(), starting.clone()]), Health::Starting);
        assert_eq!(health(Some(&system(false)), &[starting, network_down.clone()]), Health::Degraded);
        assert_eq!(health(Some(&system(false)), &[up.clone(), again]), Health::Degraded);
        assert_eq!(health(Some(&system(false)), &[up.clone(), time_down]), Health::Good);
        assert_eq!(health(Some(&system(false)), &[up.clone(), network_down.clone()]), Health::Degraded);
        assert_eq!(health(Some(&system(true)), &[up, network_down]), Health::Trial);
    }
}
