//! `update …`: what is installed, what there is, installing it, going back.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;

use keel_spec::api::plan::UpdatePlan;
use keel_spec::api::{
    AutomaticStatus, ErrorCode, InstallEvent, InstallRequest, MinimumStatus, PluggedBundle, PluggedBundles, Rollback,
    UpdateCheck, UpdateStatus,
};
use keel_spec::release::Version;
use keel_spec::tuf::Time;

use crate::client::{Client, parse};
use crate::error::{Failure, Result};
use crate::http::Body;
use crate::progress::{Progress, size};

/// `keelctl update status`
pub fn status(client: &Client, json: bool) -> Result<()> {
    let text = client.request("GET", "/keel/v1/update", b"")?;
    let status: UpdateStatus = parse(&text)?;
    print!("{}", if json { text } else { render_status(&status) });
    Ok(())
}

/// `keelctl update check`
pub fn check(client: &Client, json: bool) -> Result<()> {
    let text = client.patient_request("POST", "/keel/v1/update/check", b"")?;
    let check: UpdateCheck = parse(&text)?;
    print!("{}", if json { text } else { render_check(&check) });
    Ok(())
}

/// `keelctl update plan [VERSION]`
pub fn plan(client: &Client, version: Option<Version>, json: bool) -> Result<()> {
    let request = serde_json::to_vec(&InstallRequest { version, ..Default::default() }).unwrap_or_default();
    let text = client.patient_request("POST", "/keel/v1/update/plan", &request)?;
    let plan: UpdatePlan = parse(&text)?;
    print!("{}", if json { text } else { render_plan(&plan) });
    Ok(())
}

/// `keelctl update install [VERSION]`
pub fn install(client: &Client, version: Option<Version>, json: bool) -> Result<()> {
    order(client, &InstallRequest { version, ..Default::default() }, json)
}

/// `keelctl update install --from URL`
pub fn install_from(client: &Client, url: String, json: bool) -> Result<()> {
    order(client, &InstallRequest { from: Some(url), ..Default::default() }, json)
}

/// `keelctl update install --disk [NAME]`
pub fn install_disk(client: &Client, name: String, json: bool) -> Result<()> {
    order(client, &InstallRequest { disk: Some(name), ..Default::default() }, json)
}

/// `keelctl update bundles`
pub fn bundles(client: &Client, json: bool) -> Result<()> {
    let text = client.patient_request("POST", "/keel/v1/update/bundles", b"")?;
    let found: PluggedBundles = parse(&text)?;
    print!("{}", if json { text } else { render_bundles(&found) });
    Ok(())
}

fn render_bundles(found: &PluggedBundles) -> String {
    let mut text = String::new();
    for bundle in &found.bundles {
        let PluggedBundle { name, version, profile, size_bytes } = bundle;
        let _ = writeln!(text, "{name}  {version} ({profile}), {}", size(*size_bytes));
    }
    if found.bundles.is_empty() {
        text.push_str("no bundle on a disk that is plugged in\n");
    }
    for place in &found.looked {
        let _ = writeln!(text, "{}: {}", place.name, place.found);
    }
    text
}

fn order(client: &Client, request: &InstallRequest, json: bool) -> Result<()> {
    let request = serde_json::to_vec(request).unwrap_or_default();
    follow(client, client.stream("POST", "/keel/v1/update/install", &request)?, Progress::new(), json)
}

/// `keelctl update install --bundle FILE`
pub fn install_bundle(client: &Client, path: &Path, json: bool) -> Result<()> {
    let failed = |error: std::io::Error| {
        Failure::new(ErrorCode::BadRequest, format!("read the bundle {}: {error}", path.display()))
    };
    let mut file = File::open(path).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut progress = Progress::new();
    let answer = client.upload("/keel/v1/update/bundle", length, &mut file, &mut |sent| {
        if !json {
            progress.step("send", sent, length);
        }
    })?;
    follow(client, answer, progress, json)
}

/// Shows how far an install is, to its end.
fn follow(client: &Client, answer: Body, mut progress: Progress, json: bool) -> Result<()> {
    let mut result = None;
    client.lines_of(answer, |line| {
        let event = parse::<InstallEvent>(line)?;
        if json {
            println!("{line}");
        }
        match event {
            InstallEvent::Progress { stage, done_bytes, total_bytes } if !json => {
                progress.step(&stage, done_bytes, total_bytes);
            }
            InstallEvent::Progress { .. } => {}
            InstallEvent::Installed { version } => result = Some(Ok(version)),
            InstallEvent::Failed(error) => result = Some(Err(Failure::from(error))),
        }
        Ok(())
    })?;
    progress.finish();
    let version = result.unwrap_or_else(|| {
        Err(Failure::unavailable("the connection ended before the install did: see `keelctl update status`"))
    })?;
    if !json {
        println!("{version} is installed and boots next: `keelctl reboot` when it suits you");
    }
    Ok(())
}

/// `keelctl update rollback`
pub fn rollback(client: &Client, json: bool) -> Result<()> {
    let text = client.patient_request("POST", "/keel/v1/update/rollback", b"")?;
    let rollback: Rollback = parse(&text)?;
    if json {
        print!("{text}");
    } else {
        println!("{} boots next: `keelctl reboot` when it suits you", rollback.next_boot);
    }
    Ok(())
}

/// `keelctl update pause`
pub fn pause(client: &Client, json: bool) -> Result<()> {
    steer(client, "pause", json, "paused: the host updates nothing by itself until `keelctl update resume`")
}

/// `keelctl update resume`
pub fn resume(client: &Client, json: bool) -> Result<()> {
    steer(client, "resume", json, "resumed: the host looks for a release now")
}

fn steer(client: &Client, verb: &str, json: bool, done: &str) -> Result<()> {
    let text = client.patient_request("POST", &format!("/keel/v1/update/{verb}"), b"")?;
    let status: UpdateStatus = parse(&text)?;
    if json {
        print!("{text}");
        return Ok(());
    }
    match &status.automatic {
        Some(automatic) if automatic.auto == "off" => {
            println!("{done} (update.auto is \"off\", so it does nothing anyway)")
        }
        _ => println!("{done}"),
    }
    Ok(())
}

fn render_status(status: &UpdateStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    let trial = if status.on_trial { ", on trial" } else { "" };
    line("running", &format!("{} in slot {}{trial}", status.running, status.slot));
    match &status.other {
        Some(other) => line("other slot", &format!("{}, {}", other.version, other.state)),
        None => line("other slot", "nothing that could be booted"),
    }
    line("next boot", &status.next_boot.to_string());
    if let Some(minimum) = &status.minimum {
        line("minimum", &render_minimum(minimum));
        if let Some((at_unix_s, why)) = &minimum.rewound {
            line("rewound", &format!("found on {}: {why}", Time(*at_unix_s).for_people()));
        }
    }
    line("repository", status.repository.as_deref().unwrap_or("none: set update.url in the machine config"));
    line("activity", &status.activity);
    for bad in &status.bad {
        line("bad release", &format!("{}: {}", bad.version, bad.reason));
    }
    for (name, value) in status.automatic.iter().flat_map(render_automatic) {
        line(name, &value);
    }
    text
}

/// The least version that is accepted, and who holds it.
fn render_minimum(minimum: &MinimumStatus) -> String {
    let version = &minimum.version;
    match (&minimum.tpm_problem, minimum.in_tpm) {
        (Some(why), _) => format!("{version}, not held in the TPM: {why}"),
        (None, true) => format!("{version}, held in the TPM"),
        (None, false) => version.to_string(),
    }
}

fn render_plan(plan: &UpdatePlan) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        let _ = writeln!(text, "{name:<12}{value}");
    };
    line("running", &plan.running.to_string());
    if plan.slot.is_empty() {
        line("install", &format!("{}: in the other slot already, it only has to be offered", plan.version));
        return text;
    }
    let going_on = if plan.resume { ", going on where an install was stopped" } else { "" };
    line("install", &format!("{} into slot {}{going_on}", plan.version, plan.slot));
    line("fetch", &format!("{} at most", size(plan.fetch_bytes)));
    line("copy", &format!("{} that are on the disk", size(plan.copy_bytes)));
    line("write", &size(plan.write_bytes));
    for name in &plan.remove {
        line("remove", name);
    }
    for room in &plan.room {
        let moves = room.moves_to_bytes.map(|bytes| format!(", moves to a partition of {}", size(bytes)));
        let (needs, has) = (size(room.needs_bytes), size(room.has_bytes));
        line("room", &format!("{}: {needs} of {has}{}", room.partition, moves.unwrap_or_default()));
    }
    text
}

/// What the host does by itself, as lines.
fn render_automatic(status: &AutomaticStatus) -> Vec<(&'static str, String)> {
    let at = |unix_s: u64| Time(unix_s).for_people();
    let pin = status.pin.as_ref().map(|pin| format!(", pinned to {pin}")).unwrap_or_default();
    let mut lines = vec![("automatic", format!("{}, channel {}{pin}", status.auto, status.channel))];
    if status.auto == "install" {
        lines.push(("reboot", status.reboot.clone()));
    }
    if let Some(since) = status.paused_unix_s {
        lines.push(("paused", format!("since {}", at(since))));
    }
    if status.auto == "off" && status.lock.is_none() {
        return lines;
    }
    let when = status.next_unix_s.map(|unix_s| format!(" ({} at the latest)", at(unix_s))).unwrap_or_default();
    lines.push(("next", format!("{}{when}", status.next)));
    if let Some(version) = &status.candidate {
        lines.push(("candidate", version.to_string()));
    }
    if let Some(unix_s) = status.wave_unix_s {
        lines.push(("wave", at(unix_s)));
    }
    if let Some(window) = &status.window {
        let until = window.until_unix_s.map_or("never".to_owned(), at);
        lines.push(("window", if window.open { format!("open until {until}") } else { format!("opens {until}") }));
    }
    if let Some(lock) = &status.lock {
        let holder = match (lock.state.as_str(), lock.since_unix_s) {
            ("held", Some(since)) => format!("held by this host since {}", at(since)),
            ("asked", _) => "asked for by this host; what came of it isn't known yet".into(),
            _ => "not held by this host".into(),
        };
        lines.push(("lock", format!("{holder} (group {} of {})", lock.group, lock.url)));
    }
    lines.push(("looked", status.looked_unix_s.map_or("not since the updater started".into(), at)));
    if let Some(problem) = &status.problem {
        lines.push(("problem", problem.clone()));
    }
    if status.outcomes_waiting > 0 {
        lines.push(("reports", format!("{} not told yet", status.outcomes_waiting)));
    }
    lines
}

fn render_check(check: &UpdateCheck) -> String {
    let mut text = format!("running     {}\n", check.running);
    match &check.available {
        Some(version) => {
            let _ = writeln!(text, "available   {version}, {} to write at most", size(check.size_bytes));
            let _ = writeln!(text, "            install it with `keelctl update install`");
        }
        None => text.push_str("available   nothing newer\n"),
    }
    for (version, reason) in &check.passed_over {
        let _ = writeln!(text, "passed over {version}: {reason}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_is_fetched_and_where_it_goes() {
        let text = r#"{"running":"1.0.0","version":"1.1.0","slot":"b","fetch_bytes":2097152,"copy_bytes":1048576,
            "write_bytes":3145728,"remove":["keel_0.9.0.efi"],"resume":true,
            "room":[{"partition":"root-b","needs_bytes":1024,"has_bytes":2048},
                {"partition":"esp","needs_bytes":1024,"has_bytes":0,"moves_to_bytes":4096}]}"#;
        let text = render_plan(&parse(text).unwrap());
        for wanted in [
            "1.1.0 into slot b, going on",
            "2.0 MiB at most",
            "keel_0.9.0.efi",
            "root-b: 1.0 KiB of 2.0 KiB\n",
            "esp: 1.0 KiB of 0 B, moves to a partition of 4.0 KiB\n",
        ] {
            assert!(text.contains(wanted), "{wanted} in {text}");
        }
    }

    #[test]
    fn a_status_says_who_holds_the_lock_and_when_the_wave_comes() {
        let status: AutomaticStatus = serde_json::from_value(serde_json::json!({
            "auto": "install", "reboot": "window", "channel": "stable", "pin": "1.*", "host_id": "h",
            "paused_unix_s": null, "candidate": "1.2.0", "wave_unix_s": 86_400,
            "window": {"open": false, "until_unix_s": 172_800},
            "lock": {"url": "http://l", "group": "web", "state": "held", "since_unix_s": 60},
            "next": "restart", "next_unix_s": 7, "looked_unix_s": 5, "problem": "no route", "outcomes_waiting": 2,
        }))
        .unwrap();
        let lines = render_automatic(&status);
        let value = |name: &str| lines.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_str());
        assert_eq!(value("wave"), Some("1970-01-02 00:00 UTC"));
        assert_eq!(value("window"), Some("opens 1970-01-03 00:00 UTC"));
        assert!(value("lock").unwrap().contains("held by this host since") && value("problem").is_some());
        assert!(value("automatic").unwrap().contains("pinned to 1.*") && value("reports").is_some());
    }

    #[test]
    fn a_check_says_what_to_do() {
        let check = UpdateCheck {
            running: "1.0.0".parse().unwrap(),
            available: Some("1.1.0".parse().unwrap()),
            size_bytes: 3 << 20,
            passed_over: vec![("1.2.0".parse().unwrap(), "failed here before".into())],
        };
        let text = render_check(&check);
        assert!(text.contains("1.1.0, 3.0 MiB") && text.contains("keelctl update install"));
        assert!(text.contains("passed over 1.2.0: failed here before"));
    }
}
