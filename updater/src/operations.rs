//! Status, check, install and rollback: what the bus offers, on this host's disk.
//!
//! - `ahead`: what a host that updates by itself does beside
//! - `next`: what boots next
//! - `peers`: what is offered to other hosts

mod ahead;
mod next;
mod peers;

pub use peers::OfHost;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use keel_durable as durable;
use keel_fetch::Proxies;
use keel_spec::api::{ErrorCode, UpdateCheck, UpdateStatus};
use keel_spec::config::Settings;
use keel_spec::disk::Slot;
use keel_spec::paths;
use keel_spec::release::{Release, ReleaseFile, Version};
use keel_spec::tuf::{Role, TargetFile, Time};

use crate::choose;
use crate::descriptions::{self, Descriptions};
use crate::disk::{self, Device, Fenced, FileDevice};
use crate::esp::{Esp, Uki};
use crate::failure::{Failure, Result, chain};
use crate::figures::Figures;
use crate::host::{self, Host};
use crate::install::{Installer, Progress};
use crate::minimum::Minimum;
use crate::mirrors::Mirrors;
use crate::network;
use crate::pace::Pace;
use crate::plan::{self, Facts, Plan, Target};
use crate::rollback;
use crate::source::{Http, Source};
use crate::state::{self, Pending, State, Writing};
use crate::tpm;
use crate::transfer;
use crate::tuf::{self, TrustedSet};

/// The updater of this host. Operations that change something are one at a time; their caller sees to it.
pub struct Updater {
    host: Host,
    state: state::File,
    store: tuf::store::Store,
    on_trial: AtomicBool,
    /// UKIs as last seen, so that a status needs no mount.
    ukis: Mutex<Vec<Uki>>,
    repository: Mutex<Option<String>>,
    figures: Figures,
    minimum: Minimum,
    descriptions: Descriptions,
}

/// How far a release is put onto the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Put {
    /// Written whole, but not offered.
    Ahead,
    /// It boots next.
    Offered,
}

/// The machine config in force.
pub(crate) fn settings() -> Result<Settings> {
    keel_link::bus::settings().map_err(|error| {
        let message = format!("ask for the machine config: {}", chain(&error));
        Failure::new(error.code(), message)
    })
}

impl Updater {
    /// For this host.
    pub fn open(host: Host, on_trial: bool) -> Result<Self> {
        let folder = Path::new(paths::UPDATER_STATE);
        let failed = || Failure::io(format!("open {}", folder.display()));
        let store = tuf::store::Store::open(&folder.join("tuf")).map_err(failed())?;
        let updater = Self {
            host,
            state: state::File::new(folder),
            store,
            on_trial: on_trial.into(),
            ukis: Mutex::default(),
            repository: Mutex::default(),
            figures: Figures::default(),
            minimum: Minimum::new(Box::new(tpm::device::of_this_machine)),
            descriptions: Descriptions::new(&folder.join("descriptions")),
        };
        updater.with_esp(|_| Ok(()))?;
        Ok(updater)
    }

    /// What is remembered.
    pub fn state(&self) -> &state::File {
        &self.state
    }

    /// The running release.
    pub fn running(&self) -> &Version {
        &self.host.running
    }

    /// Its profile.
    pub fn profile(&self) -> &str {
        &self.host.profile
    }

    /// UKIs as last seen.
    pub fn ukis(&self) -> Vec<Uki> {
        self.ukis.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes note of the settings, for the status.
    pub fn know_settings(&self, settings: &Settings) {
        *self.repository.lock().unwrap_or_else(PoisonError::into_inner) = settings.update.url.clone();
    }

    /// Opens the EFI system partition for as long as `work` takes, and looks at the UKIs again afterwards. It is written
    /// through the whole disk, where the table has it: an install may have moved it since the kernel read the table. The
    /// kernel's own device of it is held meanwhile, so that nobody mounts it.
    fn with_esp<T>(&self, work: impl FnOnce(&mut Esp) -> Result<T>) -> Result<T> {
        let disk = self.host.open_disk()?;
        let (table, _) = disk::read_table(&disk)?;
        let path = self.host.esp_device(&table)?;
        let failed = || format!("open the EFI system partition {}", path.display());
        let _alone = FileDevice::open_alone(&path).map_err(Failure::io(failed()))?;
        let place = self.host.esp_place(&table)?;
        // What somebody wrote through the partition isn't in the disk's cache.
        let (offset, size) = (place.offset_bytes(), place.size_bytes());
        disk.sync().and_then(|()| disk.forget_cache(offset, size)).map_err(Failure::io(failed()))?;
        let slot = Slot::holding(&table, &self.host.root_hash);
        let fenced = slot.map(|slot| Fenced::new(&disk, &table, slot));
        let device = fenced.as_ref().map_or(&disk as &dyn Device, |fenced| fenced);
        let mut esp = Esp::open(device, offset, size).map_err(Failure::io(failed()))?;
        let outcome = work(&mut esp);
        match esp.ukis() {
            Ok(ukis) => *self.ukis.lock().unwrap_or_else(PoisonError::into_inner) = ukis,
            Err(error) => log::error!("list the UKIs on the EFI system partition: {error}"),
        }
        outcome
    }

    /// What is installed, what runs, what failed.
    pub fn status(&self, activity: &str) -> Result<UpdateStatus> {
        let (table, _) = disk::read_table(&self.host.open_disk()?)?;
        let (state, ukis) = (self.state.read(), self.ukis());
        let installed = rollback::Installed {
            running: &self.host.running,
            running_root: &self.host.root_hash,
            table: &table,
            ukis: &ukis,
        };
        let slot = installed.slot().map_or("", Slot::letter);
        Ok(UpdateStatus {
            running: self.host.running.clone(),
            slot: slot.into(),
            on_trial: self.on_trial.load(Ordering::Relaxed),
            other: installed.other_release(&state),
            next_boot: installed.next_boot(),
            repository: self.repository.lock().unwrap_or_else(PoisonError::into_inner).clone(),
            bad: state.bad.clone(),
            activity: activity.into(),
            figures: self.figures.now(),
            minimum: self.minimum.status(),
            automatic: None,
        })
    }

    /// What the repository has to offer. Writes nothing but trusted metadata.
    pub fn check(&self) -> Result<UpdateCheck> {
        let (settings, source) = self.repository()?;
        let trusted = self.refresh(&source)?;
        let state = self.state.read();
        let known = self.known(&state, &settings);
        let targets = trusted.targets().cloned().unwrap_or_default();
        let choice =
            choose::newest(&known, &targets, |_, _| true, |version| self.describe(&source, &trusted, version))?;
        self.know_settings(&settings);
        Ok(UpdateCheck {
            running: self.host.running.clone(),
            size_bytes: choice.chosen.as_ref().map_or(0, |release| {
                release.root_blocks.saturating_mul(4096).saturating_add(release.tree_bytes + release.uki_bytes)
            }),
            available: choice.chosen.map(|release| release.version),
            passed_over: choice.passed_over,
        })
    }

    /// Installs a version, or the newest that may follow.
    pub fn install(&self, version: Option<&Version>, progress: Progress) -> Result<Version> {
        self.fetch(version, Put::Offered, progress)
    }

    fn fetch(&self, version: Option<&Version>, how: Put, progress: Progress) -> Result<Version> {
        let (settings, source) = self.repository()?;
        progress("metadata", 0, 0);
        let trusted = self.refresh(&source)?;
        let release = self.choose(&settings, &source, &trusted, version)?;
        let others = self.mirrors(&settings)?;
        let sources = others.iter().chain([&source]).map(|http| http as &dyn Source);
        let pace = Pace::new(u64::from(settings.update.max_kib_per_s) << 10);
        let targets = trusted.targets().cloned().unwrap_or_default();
        self.put(&release, &targets, &Mirrors::new(sources, pace), settings.update.tries, how, progress)?;
        Ok(release.version)
    }

    /// Writes a release that is to be trusted.
    pub(crate) fn put(
        &self,
        release: &Release,
        targets: &BTreeMap<String, TargetFile>,
        mirrors: &Mirrors,
        tries: u32,
        how: Put,
        progress: Progress,
    ) -> Result<()> {
        let disk = self.host.open_disk()?;
        let outcome = self.with_esp(|esp| {
            esp.reclaim().map_err(Failure::io("free clusters of the EFI system partition that a power cut left"))?;
            let plan = self.decide(release, targets, &disk, esp, tries)?;
            if let Plan::Write(write) = &plan {
                // Remembered before anything is erased, so that what is there is looked at after a power cut.
                self.state.change(|state| state.writing = Some(writing(release)))?;
                let (table, _) = disk::read_table(&disk)?;
                let disk = Fenced::new(&disk, &table, write.slot.other());
                let mut installer = Installer { mirrors, disk: &disk, esp };
                if how == Put::Ahead {
                    return installer.write_ahead(write, progress);
                }
                installer.run(&plan, progress)?;
            } else if how == Put::Ahead {
                let message = format!("write {} ahead: it is in the other slot already", release.version);
                return Err(Failure::new(ErrorCode::UpToDate, message));
            } else {
                Installer { mirrors, disk: &disk, esp }.run(&plan, progress)?;
            }
            self.installed(&plan, release)
        });
        self.figures.moved(mirrors.fetched_bytes(), mirrors.found_bytes());
        outcome
    }

    /// What would be done about a release.
    fn decide(
        &self,
        release: &Release,
        targets: &BTreeMap<String, TargetFile>,
        disk: &dyn Device,
        esp: &Esp,
        tries: u32,
    ) -> Result<Plan> {
        let (table, _) = disk::read_table(disk)?;
        plan::decide(&Facts {
            release,
            targets,
            table: &table,
            running_root: &self.host.root_hash,
            running: &self.host.running,
            on_trial: self.on_trial.load(Ordering::Relaxed),
            ukis: &esp.ukis().map_err(Failure::io("look at the UKIs on the EFI system partition"))?,
            esp_free_bytes: esp.free_bytes(),
            tries,
            resume: self.state.read().writing.as_ref() == Some(&writing(release)),
            disk_bytes: disk.size_bytes().map_err(Failure::io("tell the size of the disk"))?,
            battery_percent: host::battery_percent(Path::new(host::POWER_SUPPLIES)),
        })
    }

    /// Hands what an install would do to `look`, instead of doing it.
    pub(crate) fn planned<T>(
        &self,
        version: Option<&Version>,
        look: impl FnOnce(&Plan, &Mirrors, &dyn Device, &Esp) -> Result<T>,
    ) -> Result<T> {
        let (settings, source) = self.repository()?;
        let trusted = self.refresh(&source)?;
        let release = self.choose(&settings, &source, &trusted, version)?;
        let others = self.mirrors(&settings)?;
        let sources = others.iter().chain([&source]).map(|http| http as &dyn Source);
        let mirrors = Mirrors::new(sources, Pace::default());
        let targets = trusted.targets().cloned().unwrap_or_default();
        let disk = self.host.open_disk()?;
        self.with_esp(|esp| {
            look(&self.decide(&release, &targets, &disk, esp, settings.update.tries)?, &mirrors, &disk, esp)
        })
    }

    /// The mirrors that the machine config names, in its order.
    fn mirrors(&self, settings: &Settings) -> Result<Vec<Http>> {
        settings.update.mirrors.iter().map(|url| self.http(settings, url)).collect()
    }

    pub(crate) fn http(&self, settings: &Settings, url: &str) -> Result<Http> {
        let proxy = settings.proxy.clone();
        let proxies = Proxies { http: proxy.http, https: proxy.https, no_proxy: proxy.no_proxy };
        let http = Http::through(proxies, url, settings.update.ca_pem.clone());
        http.map_err(|error| Failure::new(ErrorCode::Config, format!("update repository {url}: {}", chain(&error))))
    }

    /// Remembers what boots next. Power may fail before it does: then the trial of a release that nobody announced
    /// begins, and the boot loader's counter says everything that matters.
    fn installed(&self, plan: &Plan, release: &Release) -> Result<()> {
        let pending = Pending {
            version: release.version.clone(),
            from: self.host.running.clone(),
            at_unix_s: host::now_unix_s(),
            connected: network::is_connected(),
        };
        let proved = matches!(plan, Plan::Offer { to, .. } if to.tries_left.is_none());
        self.state.change(|state| {
            state.demoted.retain(|version| *version != release.version);
            state.note = None;
            state.writing = None;
            state.pending = (!proved).then_some(pending);
        })?;
        Ok(())
    }

    fn repository(&self) -> Result<(Settings, Http)> {
        let settings = settings()?;
        self.know_settings(&settings);
        let Some(url) = &settings.update.url else {
            let message = "look for updates: the machine config names no repository; set url in [update]";
            return Err(Failure::new(ErrorCode::Config, message));
        };
        let source = self.http(&settings, url)?;
        Ok((settings, source))
    }

    pub(crate) fn refresh(&self, source: &dyn Source) -> Result<TrustedSet> {
        let root = trusted_root()?;
        let client = tuf::Client { source, store: &self.store, trusted_root: &root, patience: tuf::client::PATIENCE };
        let now_unix_s = host::now_unix_s();
        let trusted = client
            .refresh(Time(now_unix_s))
            .map_err(|error| Failure::new(error.code(), format!("update repository {}: {error}", source.name())))?;
        self.figures.checked(now_unix_s);
        Ok(trusted)
    }

    fn known<'a>(&'a self, state: &'a State, settings: &'a Settings) -> choose::Host<'a> {
        choose::Host {
            running: &self.host.running,
            profile: &self.host.profile,
            bad: &state.bad,
            minimum: self.minimum.version(&self.state),
            channel: &settings.update.automatic.channel,
            pin: settings.update.automatic.pin.as_ref(),
        }
    }

    pub(crate) fn choose(
        &self,
        settings: &Settings,
        source: &dyn Source,
        trusted: &TrustedSet,
        version: Option<&Version>,
    ) -> Result<Release> {
        let state = self.state.read();
        let known = self.known(&state, settings);
        let targets = trusted.targets().cloned().unwrap_or_default();
        let describe = |version: &Version| self.describe(source, trusted, version);
        if let Some(version) = version {
            return choose::named(&known, &targets, version, describe);
        }
        let choice = choose::newest(&known, &targets, |_, _| true, describe)?;
        choice.chosen.ok_or_else(|| {
            let running = &self.host.running;
            match choice.passed_over.first() {
                None => Failure::new(ErrorCode::UpToDate, format!("nothing newer than {running} is published")),
                Some((version, why)) => {
                    let code = if choose::known_bad(known.bad, version).is_some() {
                        ErrorCode::KnownBad
                    } else {
                        ErrorCode::Conflict
                    };
                    Failure::new(code, format!("no release can follow {running}: {version} was passed over: {why}"))
                }
            }
        })
    }

    /// Fetches and checks a release's description.
    fn describe(&self, source: &dyn Source, trusted: &TrustedSet, version: &Version) -> Result<Release> {
        let name = ReleaseFile::Description.target_name(&self.host.profile, version);
        let target = Target::of(trusted.targets().unwrap_or(&Default::default()), name)?;
        let wrong = |why: String| {
            Failure::new(ErrorCode::Digest, format!("update repository {}: {}: {why}", source.name(), target.name))
        };
        if target.length > descriptions::MAX_BYTES {
            return Err(wrong(format!("it is longer than {} bytes", descriptions::MAX_BYTES)));
        }
        let bytes = transfer::small(&Mirrors::new([source], Pace::default()), &target)?;
        let release: Release =
            serde_json::from_slice(&bytes).map_err(|error| wrong(format!("it can't be read: {error}")))?;
        if release.version != *version || release.profile != self.host.profile {
            return Err(wrong(format!("it describes keel {} ({})", release.version, release.profile)));
        }
        self.descriptions.keep(version, &bytes, self.running());
        Ok(release)
    }
}

fn writing(release: &Release) -> Writing {
    Writing { version: release.version.clone(), root_hash: release.root_hash }
}

/// The root metadata that the running release carries.
fn trusted_root() -> Result<Vec<u8>> {
    let root = durable::read(Path::new(paths::TUF_ROOT), Role::Root.max_bytes());
    root.map_err(Failure::io(format!("read {}", paths::TUF_ROOT)))?.ok_or_else(|| {
        Failure::new(ErrorCode::Internal, format!("read {}: this release carries no trusted root", paths::TUF_ROOT))
    })
}
