//! The state partition grows to the end of the disk, and the machine config comes into force; then both the settings
//! and where they came from are served to the other programs.
//!
//! - `disk`: which disk the state is on, and what else is there
//! - `fat`: a file on a FAT volume
//! - `grow`: partition table, partition and file system grow
//! - `sources`: where a machine config may lie
//! - `choose`: which config is in force

mod choose;
pub mod disk;
mod fat;
pub mod grow;
mod sources;

use std::path::Path;

use anyhow::Context as _;
use keel_link::{bus, control};
use keel_spec::api::ErrorCode;
use keel_spec::config::Settings;
use keel_spec::paths;

/// Provisions the host, then serves `bus::Host` for as long as the host runs.
pub fn run() -> anyhow::Result<()> {
    let mut problems = Vec::new();
    let disk = disk::of_mount(Path::new(paths::STATE_MOUNT));
    let disk = disk.map_err(|error| problems.push(format!("{error:#}"))).ok();
    if let Some(disk) = &disk {
        match grow::grow(disk, Path::new(paths::STATE_MOUNT)) {
            Ok(grow::Outcome::Unchanged) => {}
            Ok(outcome) => log::info!("{outcome}"),
            // The host runs on with the space it has.
            Err(error) => problems.push(format!("the state partition was not grown: {error:#}")),
        }
    }
    let chosen = choose::choose(sources::find(disk.as_ref()), Path::new(paths::HOST_STATE));
    problems.extend(chosen.refused.clone());
    problems.iter().for_each(|problem| log::error!("{problem}"));
    log::info!("machine config in force: {}", chosen.source);
    rustix::system::sethostname(chosen.settings.hostname.as_bytes()).context("cannot set the host name")?;

    let host = Host::new(&chosen)?;
    let server = bus::block_on(bus::serve(paths::HOST_BUS, "/org/keel/Host", host))?;
    let mut control = control::Client::connect()?;
    let status = match problems.is_empty() {
        true => format!("{}, config from {}", chosen.settings.hostname, chosen.source),
        false => problems.join("; "),
    };
    control.status(&status)?;
    control.ready()?;
    drop(control);
    bus::block_on(server.run());
    Ok(())
}

/// What is served.
#[derive(Clone)]
struct Host {
    settings: String,
    source: String,
    refused: String,
}

impl Host {
    fn new(chosen: &choose::Chosen) -> anyhow::Result<Self> {
        let settings = serde_json::to_string::<Settings>(&chosen.settings).context("cannot write the settings")?;
        let refused = chosen.refused.clone().unwrap_or_default();
        Ok(Self { settings, source: chosen.source.clone(), refused })
    }
}

#[zbus::interface(name = "org.keel.Host1")]
impl Host {
    async fn settings(&self) -> Result<String, bus::Failure> {
        match self.settings.as_str() {
            "" => Err(bus::error(ErrorCode::Internal, "the settings are not there yet")),
            settings => Ok(settings.into()),
        }
    }

    async fn config_source(&self) -> (String, String) {
        (self.source.clone(), self.refused.clone())
    }
}
