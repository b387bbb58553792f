//! What scenarios share: a machine with the first release, a repository, a registry.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::build::{Build, DISK_BYTES, FIRST};
use crate::clients::Host;
use crate::machine::{Clock, Hardware, Machine, WORKSTATION_IN_GUEST};
use crate::repository::Server;

/// Longest wait for a machine with a clock of its own to be healthy.
pub const BOOT_LIMIT: Duration = Clock::Real.boot_limit();

/// Between two looks at something that is waited for.
const PAUSE: Duration = Duration::from_millis(250);

/// A release as it is, or one that was broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// As it is.
    Good,
    /// Of an earlier revision's programs, which `make earlier` builds.
    Earlier,
    /// PID 1 panics.
    PanicInit,
    /// PID 1 hangs.
    HangInit,
    /// The runtime never says that it is ready.
    NeverReady,
    /// The kernel doesn't take the driver of its network device.
    NoNetwork,
}

impl Variant {
    /// Which file of the root is replaced by which program.
    fn replacement(self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Good | Self::Earlier | Self::NoNetwork => None,
            Self::PanicInit => Some(("/usr/lib/keel/init", "panic-init")),
            Self::HangInit => Some(("/usr/lib/keel/init", "hang-init")),
            Self::NeverReady => Some(("/usr/lib/keel/runtime", "never-ready")),
        }
    }

    /// What is added to the kernel's command line. A machine that hangs is to be reset soon: the test is that it is.
    fn cmdline(self) -> &'static str {
        match self {
            Self::HangInit => "keel.watchdog_s=10",
            Self::NoNetwork => "module_blacklist=virtio_net",
            Self::Good | Self::Earlier | Self::PanicInit | Self::NeverReady => "",
        }
    }
}

/// Looks until there is what is waited for; what stands in its way meanwhile is the error in the end.
pub(super) fn wait<T>(limit: Duration, mut look: impl FnMut() -> Result<Result<T, String>>) -> Result<T> {
    let begun = Instant::now();
    loop {
        match look()? {
            Ok(found) => return Ok(found),
            Err(why) if begun.elapsed() > limit => bail!("waited {limit:?} in vain: {why}"),
            Err(_) => std::thread::sleep(PAUSE),
        }
    }
}

/// Held while releases are built, so that scenarios that start together build each only once.
static BUILDING: Mutex<()> = Mutex::new(());

/// One scenario's files, repository and machine.
pub struct Fixture {
    /// Where everything of the project is.
    pub build: Build,
    /// The scenario's own folder.
    pub dir: PathBuf,
    /// The update repository's server.
    pub server: Server,
    /// The machine's parts.
    pub hardware: Hardware,
    base_config: String,
}

impl Fixture {
    /// A machine with the first release on its disk, switched off, and an empty update repository.
    pub fn new(build: &Build, name: &str) -> Result<Self> {
        Self::with_first(build, name, Variant::Good)
    }

    /// The same, with another form of the first release.
    pub fn with_first(build: &Build, name: &str, variant: Variant) -> Result<Self> {
        let dir = build.fresh_folder(name)?;
        let repository = dir.join("repository");
        std::fs::create_dir_all(&repository)?;
        let server = Server::start(&repository)?;
        let first = release(build, FIRST, variant)?;
        let disk = first.with_added_extension("raw");
        {
            let _held = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
            if !disk.exists() {
                build.disk(&first, &disk)?;
            }
        }
        let mut hardware = Hardware::with_disk(build, &dir.join("machine"), &disk, DISK_BYTES)?;
        let base_config = config(build, &server)?;
        hardware.config = base_config.clone();
        Ok(Self { build: build.clone(), dir, server, hardware, base_config })
    }

    /// Adds lines to the machine config. Tables that the base config has can't be opened a second time.
    pub fn add_config(&mut self, toml: &str) {
        self.hardware.config = format!("{toml}\n{}", self.base_config);
    }

    /// Lets releases try only once. Left at its default only where the tries themselves are tested: under emulation
    /// each takes up to two minutes.
    pub fn one_try(&mut self) {
        self.configure("[update]\n", "[update]\ntries = 1\n");
    }

    /// Changes lines of the machine config.
    pub fn configure(&mut self, from: &str, to: &str) {
        self.base_config = self.base_config.replace(from, to);
        self.hardware.config = self.hardware.config.replace(from, to);
    }

    /// Builds (once in a run) a release and publishes it in this scenario's repository.
    pub fn publish(&self, version: &str, variant: Variant) -> Result<()> {
        self.build.publish(&release(&self.build, version, variant)?, &self.dir.join("repository"))
    }

    /// Switches the machine on and waits until it is healthy.
    pub fn boot(&self) -> Result<(Machine, Host)> {
        let machine = self.hardware.power_on()?;
        let host = Host::of(&self.build, &machine)?;
        host.wait_health(&machine, "good", self.hardware.clock.boot_limit())?;
        Ok((machine, host))
    }

    /// Address of the update repository, as the guest reaches it.
    pub fn repository_url(&self) -> String {
        format!("http://{WORKSTATION_IN_GUEST}:{}", self.server.port())
    }
}

/// A release from `build/tests/releases/`, built if it isn't there.
pub fn release(build: &Build, version: &str, variant: Variant) -> Result<PathBuf> {
    let _held = BUILDING.lock().unwrap_or_else(PoisonError::into_inner);
    let out = build.build.join("tests/releases").join(match variant {
        Variant::Good => version.to_owned(),
        other => format!("{version}-{other:?}"),
    });
    if !out.join("complete").exists() {
        let replacement = variant.replacement().map(|(target, fault)| (target, build.fault(fault)));
        let replace: Vec<_> = replacement.iter().map(|(target, file)| (*target, file.as_path())).collect();
        let build = if variant == Variant::Earlier { &build.of_earlier_programs()? } else { build };
        build.release(version, &out, &replace, variant.cmdline())?;
        std::fs::write(out.join("complete"), "")?;
    }
    Ok(out)
}

/// Throws away the releases of earlier runs, which may be of other programs, and builds these.
pub fn prepare_releases(build: &Build, releases: &[(&str, Variant)]) -> Result<()> {
    let folder = build.build.join("tests/releases");
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    releases.iter().try_for_each(|(version, variant)| release(build, version, *variant).map(drop))
}

/// The machine config of a test machine: certificates, repository, quick trials.
fn config(build: &Build, server: &Server) -> Result<String> {
    let pem = |name: &str| {
        std::fs::read_to_string(build.certs().join(name)).with_context(|| format!("read build/certs/{name}"))
    };
    Ok(format!(
        "[api]\nnames = [\"127.0.0.1\"]\nclient_ca_pem = '''\n{}'''\nissuer_cert_pem = '''\n{}'''\n\
         issuer_key_pem = '''\n{}'''\n\
         [update]\nurl = \"http://{WORKSTATION_IN_GUEST}:{}\"\n\
         [health]\nwithin_s = 90\nsettle_s = 2\n",
        pem("client-ca.pem")?,
        pem("ca.pem")?,
        pem("ca-key.pem")?,
        server.port()
    ))
}
