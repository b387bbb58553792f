//! Installs without a repository: from a bundle that was sent, that lies on some web server, or on a disk that is plugged
//! in.

use std::fs::File;

use keel_spec::api::ErrorCode;
use keel_spec::release::Version;

use crate::bundle::{Bundle, LocalFile};
use crate::failure::{Failure, Result};
use crate::install::Progress;
use crate::mirrors::Mirrors;
use crate::operations::{Put, Updater, settings};
use crate::pace::Pace;
use crate::plugged::{self, Findings};
use crate::source::Source;

impl Updater {
    /// Installs the release in a bundle that was sent.
    pub fn install_bundle(&self, file: File, progress: Progress) -> Result<Version> {
        let file = LocalFile::new(file).map_err(Failure::io("open the bundle"))?;
        let bundle = Bundle::open(&file, "bundle", Some(file.size()))?;
        self.install_bundled(&bundle, Pace::default(), progress)
    }

    /// The bundles on disks that are plugged in, and where they were looked for.
    pub fn plugged(&self) -> Result<Findings> {
        plugged::look_around(self.disk())
    }

    /// Installs the release in a bundle on a disk that is plugged in; empty: in the only one.
    pub fn install_disk(&self, name: &str, progress: Progress) -> Result<Version> {
        let findings = self.plugged()?;
        let found = findings.the_one(name)?;
        let file = found.open()?;
        log::info!("installing from the bundle {}", found.bundle.name);
        self.install_bundled(&Bundle::open(&file, "", found.size)?, Pace::default(), progress)
    }

    /// Installs the release in a bundle on a web server, of which only what isn't on the disk is fetched.
    pub fn install_from(&self, url: &str, progress: Progress) -> Result<Version> {
        let settings = settings()?;
        let wrong = || Failure::new(ErrorCode::BadRequest, format!("install from {url:?}: want http(s)://HOST/FILE"));
        let (base, name) = url.rsplit_once('/').filter(|(_, name)| !name.is_empty()).ok_or_else(wrong)?;
        if !(base.starts_with("http://") || base.starts_with("https://")) {
            return Err(wrong());
        }
        let source = self.http(&settings, base)?;
        let pace = Pace::new(u64::from(settings.update.max_kib_per_s) << 10);
        self.install_bundled(&Bundle::open(&source, name, None)?, pace, progress)
    }

    /// From here on a bundle is a repository like any other.
    fn install_bundled(&self, bundle: &Bundle, pace: Pace, progress: Progress) -> Result<Version> {
        let settings = settings()?;
        progress("metadata", 0, 0);
        let trusted = self.refresh(bundle)?;
        let (wanted, own) = (&bundle.info.profile, self.profile());
        if wanted != own {
            let message =
                format!("install from the bundle: it is for machines of profile {wanted:?}, this one is {own}");
            return Err(Failure::new(ErrorCode::Conflict, message));
        }
        let release = self.choose(&settings, bundle, &trusted, Some(&bundle.info.version))?;
        let targets = trusted.targets().cloned().unwrap_or_default();
        let mirrors = Mirrors::new([bundle as &dyn Source], pace);
        self.put(&release, &targets, &mirrors, settings.update.tries, Put::Offered, progress)?;
        Ok(release.version)
    }
}
