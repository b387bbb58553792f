//! D-Bus interfaces of the host programs, served peer to peer on sockets under `/run/keel/`.
//!
//! A trait here is the interface's definition; `zbus` makes the client's proxy from it. Servers implement the same
//! names and signatures. Failures carry an error name under [`ERROR_PREFIX`], so that callers tell them apart.

use serde::{Deserialize, Serialize};
use zbus::zvariant::Type;

/// Error names begin so; what follows is [`crate::api::ErrorCode`] in CamelCase.
pub const ERROR_PREFIX: &str = "org.keel.Error.";

/// The provisioning service, at [`crate::paths::HOST_BUS`].
#[zbus::proxy(interface = "org.keel.Host1", default_path = "/org/keel/Host")]
pub trait Host {
    /// The validated machine config: [`crate::config::Settings`] as JSON.
    fn settings(&self) -> zbus::Result<String>;
    /// Where the config in force was read from, and why a newer one was refused (empty: it wasn't).
    fn config_source(&self) -> zbus::Result<(String, String)>;
}

/// The updater, at [`crate::paths::UPDATER_BUS`].
#[zbus::proxy(interface = "org.keel.Updater1", default_path = "/org/keel/Updater")]
pub trait Updater {
    /// What is installed, what runs, what failed: [`crate::api::UpdateStatus`] as JSON.
    fn status(&self) -> zbus::Result<String>;
    /// Fetches and verifies the repository's metadata, writes nothing: [`crate::api::UpdateCheck`] as JSON.
    fn check(&self) -> zbus::Result<String>;
    /// What an install of a version would do; empty: of the newest that may follow: [`crate::api::plan::UpdatePlan`] as
    /// JSON. Writes nothing but trusted metadata.
    fn plan(&self, version: &str) -> zbus::Result<String>;
    /// Installs a version into the slot that isn't running; empty: the newest that may follow.
    /// Returns the version installed. [`UpdaterProxy::receive_progress`] tells how far it is.
    fn install(&self, version: &str) -> zbus::Result<String>;
    /// Installs the release in a bundle, from a regular file (see [`crate::bundle`]). Returns its version.
    fn install_bundle(&self, file: zbus::Fd<'_>) -> zbus::Result<String>;
    /// The same from a bundle on a web server that serves ranges.
    fn install_from(&self, url: &str) -> zbus::Result<String>;
    /// The same from a bundle on a disk that is plugged in, by the name that [`UpdaterProxy::plugged`] has for it, that
    /// of the disk, of its partition or of the file; empty: the only one that there is.
    fn install_disk(&self, name: &str) -> zbus::Result<String>;
    /// Bundles on disks that are plugged in: [`crate::api::PluggedBundles`] as JSON.
    fn plugged(&self) -> zbus::Result<String>;
    /// Makes the other, good release the one that boots next. Returns its version.
    fn rollback(&self) -> zbus::Result<String>;
    /// Boots of this machine, newest first: [`crate::api::boots::Boot`] each, as JSON.
    fn boots(&self) -> zbus::Result<String>;
    /// The last log lines and kernel messages of a boot.
    fn boot_log(&self, number: u64) -> zbus::Result<String>;
    /// From now on the host updates nothing by itself, over restarts, too: [`crate::api::UpdateStatus`] as JSON.
    fn pause(&self) -> zbus::Result<String>;
    /// It goes on, and looks for a release at once: [`crate::api::UpdateStatus`] as JSON.
    fn resume(&self) -> zbus::Result<String>;
    /// Loads what boots next for a start without the firmware (kexec), and counts the try as the boot loader would.
    /// Whoever asked goes on with [`crate::control::Shutdown::Kexec`]. Returns the version.
    fn load_next(&self) -> zbus::Result<String>;
    /// How far an install is.
    #[zbus(signal)]
    fn progress(&self, progress: InstallProgress) -> zbus::Result<()>;
}

/// How far an install is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Type)]
pub struct InstallProgress {
    /// What is being done: `metadata`, `tree`, `root`, `verify`, `uki`, `commit`.
    pub stage: String,
    /// Bytes done of this stage.
    pub done_bytes: u64,
    /// Bytes of this stage in all; 0 where unknown.
    pub total_bytes: u64,
}
