//! `/_ping`, `/version`, `/info`: what clients ask before anything else.

use std::collections::HashMap;
use std::path::Path;

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, HeaderValue, PRAGMA};
use serde_json::{Value, json};

use crate::call::{Call, blocking};
use crate::context::Context;
use crate::release::Release;
use crate::respond::{bytes_body, json};
use crate::router::{Answer, MAX_API_MINOR, MIN_API_MINOR};

/// `GET` and `HEAD /_ping`
pub async fn ping(_call: Call) -> Answer {
    let mut response = bytes_body(StatusCode::OK, "text/plain; charset=utf-8", b"OK".to_vec());
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    // Names the builder that clients should prefer; empty would make old ones try a session that isn't served.
    headers.insert("builder-version", HeaderValue::from_static("1"));
    Ok(response)
}

/// `GET /version`
pub async fn version(_call: Call) -> Answer {
    let release = Release::running();
    let kernel = kernel_release();
    let details = json!({
        "ApiVersion": format!("1.{MAX_API_MINOR}"), "MinAPIVersion": format!("1.{MIN_API_MINOR}"),
        "Arch": arch(), "Os": "linux", "KernelVersion": kernel, "Experimental": "false",
        "GitCommit": "", "GoVersion": "", "BuildTime": "",
    });
    Ok(json(
        StatusCode::OK,
        &json!({
            "Platform": { "Name": format!("Keel {}", release.version) },
            "Components": [{ "Name": "Engine", "Version": release.version, "Details": details }],
            "Version": release.version,
            "ApiVersion": format!("1.{MAX_API_MINOR}"),
            "MinAPIVersion": format!("1.{MIN_API_MINOR}"),
            "GitCommit": "", "GoVersion": "", "BuildTime": "",
            "Os": "linux", "Arch": arch(), "KernelVersion": kernel, "Experimental": false,
        }),
    ))
}

/// `GET /plugins`: there are none.
pub async fn plugins(_: Call) -> Answer {
    Ok(json(StatusCode::OK, &json!([])))
}

/// `GET /info`
pub async fn info(call: Call) -> Answer {
    let info = blocking(move || {
        let context = &call.context;
        Ok(merge([counted(context), of_storage(context), of_machine(), of_registries(context), fixed()]))
    })
    .await?;
    Ok(json(StatusCode::OK, &info))
}

fn merge(parts: [Value; 5]) -> Value {
    let maps = parts.into_iter().filter_map(|part| match part {
        Value::Object(map) => Some(map),
        _ => None,
    });
    Value::Object(maps.flatten().collect())
}

fn counted(context: &Context) -> Value {
    let counts = context.engine.counts();
    json!({
        "Containers": counts.all, "ContainersRunning": counts.running,
        "ContainersPaused": counts.paused, "ContainersStopped": counts.stopped,
        "Images": context.engine.store().images().len(),
        "DockerRootDir": context.state,
    })
}

/// How images are kept and mounted.
fn of_storage(context: &Context) -> Value {
    // A store that can't be asked checks nothing, as far as anybody knows.
    let is_sealed = context.engine.store().is_sealed().unwrap_or(false);
    json!({
        "Driver": "overlay",
        "DriverStatus": [
            ["Image format", "composefs: erofs metadata over content-addressed files"],
            ["fs-verity", is_sealed.to_string()],
        ],
    })
}

fn of_machine() -> Value {
    let release = Release::running();
    json!({
        "ID": boot_id().unwrap_or_default(),
        "Name": hostname(),
        "SystemTime": now(),
        "KernelVersion": kernel_release(),
        "OperatingSystem": format!("Keel {} {}", release.version, release.profile).trim_end(),
        "OSVersion": release.version, "OSType": "linux", "Architecture": machine(),
        "ServerVersion": release.version,
        "NCPU": std::thread::available_parallelism().map_or(1, usize::from),
        "MemTotal": memory_bytes(),
    })
}

fn of_registries(context: &Context) -> Value {
    let insecure = context.settings.registry.insecure.iter();
    let indexes: HashMap<&str, Value> = insecure
        .map(|name| (name.as_str(), json!({ "Name": name, "Mirrors": [], "Secure": false, "Official": false })))
        .collect();
    json!({
        // Where clients look for the credentials of images without a registry in their name.
        "IndexServerAddress": "https://index.docker.io/v1/",
        "RegistryConfig": { "InsecureRegistryCIDRs": [], "IndexConfigs": indexes, "Mirrors": [] },
    })
}

/// What is so on every Keel host; clients print much of it, and some trip over what is absent.
fn fixed() -> Value {
    json!({
        "Plugins": { "Volume": [], "Network": ["bridge", "host", "none"], "Authorization": [], "Log": ["json-file", "local", "none"] },
        "MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true,
        "CPUSet": true, "PidsLimit": true, "OomKillDisable": false, "IPv4Forwarding": true, "Debug": false,
        "LoggingDriver": "json-file", "CgroupDriver": "cgroupfs", "CgroupVersion": "2",
        "Labels": [], "ExperimentalBuild": false, "LiveRestoreEnabled": true, "Isolation": "",
        "Runtimes": { "keel": { "path": "keel-oci" } }, "DefaultRuntime": "keel",
        "Swarm": { "LocalNodeState": "inactive", "ControlAvailable": false },
        "SecurityOptions": ["name=seccomp,profile=builtin", "name=userns", "name=cgroupns"],
        "Warnings": [],
    })
}

/// Now, as RFC 3339.
fn now() -> String {
    time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap_or_default()
}

/// The host's name.
pub fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

fn kernel_release() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

fn machine() -> String {
    rustix::system::uname().machine().to_string_lossy().into_owned()
}

/// The architecture under the name that Go and image indexes give it.
fn arch() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

/// The kernel's random boot ID (random(4)).
pub fn boot_id() -> Option<String> {
    let text = std::fs::read_to_string(Path::new("/proc/sys/kernel/random/boot_id")).ok()?;
    Some(text.trim().to_owned())
}

fn memory_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    // The widths of both fields differ between architectures.
    #[allow(clippy::useless_conversion, clippy::unnecessary_cast)]
    (info.totalram as u64).saturating_mul(u64::from(info.mem_unit))
}
