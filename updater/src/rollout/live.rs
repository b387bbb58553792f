//! This host, for the driver.

use keel_link::control;
use keel_spec::api::ErrorCode;
use keel_spec::control::Shutdown;
use keel_spec::release::Version;

use super::driver::{Seen, Trouble, World};
use super::look::Look;
use crate::failure::{Failure, Result, chain};
use crate::host;
use crate::service::Service;

/// This host.
pub struct Live {
    /// Its operations, one at a time.
    pub service: Service,
    /// The kernel's random boot ID.
    pub boot_id: String,
}

impl Live {
    fn exclusive<T>(
        &self,
        operation: &str,
        work: impl FnOnce(&crate::operations::Updater, crate::install::Progress) -> Result<T>,
    ) -> Result<T, Trouble> {
        match self.service.exclusive(operation, work) {
            None => Err(Trouble::Busy),
            Some(outcome) => outcome.map_err(|failure| Trouble::Failed(failure.to_string())),
        }
    }

    /// Without the firmware if the machine config wants that and it can be done.
    fn way_to_restart(&self) -> Shutdown {
        if !keel_link::bus::settings().is_ok_and(|settings| settings.update.kexec) {
            return Shutdown::Reboot;
        }
        match self.exclusive("restart", |updater, _| updater.load_next()) {
            Ok(version) => {
                log::info!("loaded {version}, to be started without the firmware");
                Shutdown::Kexec
            }
            Err(Trouble::Busy) => Shutdown::Reboot,
            Err(Trouble::Failed(why)) => {
                log::warn!("{why}; the restart goes through the firmware");
                Shutdown::Reboot
            }
        }
    }
}

impl World for Live {
    fn now_unix_s(&self) -> u64 {
        host::now_unix_s()
    }

    fn see(&self) -> Result<Seen> {
        let updater = self.service.updater();
        let status = updater.status("")?;
        let writing = updater.state().read().writing.map(|writing| writing.version);
        Ok(Seen {
            running: status.running,
            on_trial: status.on_trial,
            boot_id: self.boot_id.clone(),
            next_boot: status.next_boot,
            writing,
            bad: status.bad,
        })
    }

    fn look(&self, host_id: &str) -> Result<Look, Trouble> {
        self.exclusive("check", |updater, _| updater.look(host_id))
    }

    fn stage(&self, version: &Version) -> Result<(), Trouble> {
        self.exclusive("install", |updater, progress| updater.stage(version, progress))?;
        log::info!("{version} is written; it isn't offered yet");
        Ok(())
    }

    fn install(&self, version: &Version) -> Result<(), Trouble> {
        self.exclusive("install", |updater, progress| updater.install(Some(version), progress))?;
        log::info!("installed {version}; it boots next");
        Ok(())
    }

    fn take_back(&self, version: &Version) -> Result<(), Trouble> {
        self.exclusive("rollback", |updater, _| updater.take_back(version))
    }

    fn restart(&self, reason: &str) -> Result<(), Trouble> {
        let how = self.way_to_restart();
        let asked = control::Client::connect().and_then(|mut pid1| pid1.shutdown(how, reason));
        asked.map_err(|error| {
            let failure = Failure::new(ErrorCode::Unavailable, format!("{reason}: {}", chain(&error)));
            Trouble::Failed(failure.to_string())
        })
    }
}
