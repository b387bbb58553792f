//! Bundles on disks that are plugged into the host: a USB stick, a second disk.
//!
//! The kernel mounts none of them. Tables and volumes are read here, by code that takes whatever is on them for hostile,
//! through a descriptor that can't write; and a bundle is believed as little as one from the network. It is installed
//! from where it lies, in place.
//!
//! A bundle is looked for at the start of a disk or partition, as `dd` puts it there, and under any name that ends in
//! `.bundle` in the top folder of a FAT32 volume.
//!
//! - [`look`]: what is on one disk
//! - [`stretch`]: the partitions of a disk, whatever its table
mod look;
pub mod stretch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keel_spec::api::{ErrorCode, PluggedBundle, PluggedBundles, PluggedPlace};

use crate::bundle::LocalFile;
use crate::disk::{self, FileDevice};
use crate::failure::{Failure, Result};

/// Most bundles that are found; what comes after them isn't looked at.
const MAX_BUNDLES: usize = 64;

/// A bundle on a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The device of the whole disk.
    pub disk: PathBuf,
    /// What it is called and what it says of itself.
    pub bundle: PluggedBundle,
    /// Where its bytes are on the disk: offset and length of each piece. At the start of a disk or partition what
    /// follows the bundle belongs to them, too.
    pub pieces: Vec<(u64, u64)>,
    /// Its length in bytes, where a file system tells.
    pub size: Option<u64>,
}

/// All that was found, and where it was looked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Bundles.
    pub bundles: Vec<Found>,
    /// Each disk, partition and file that was looked at, and what there is instead of a bundle.
    pub looked: Vec<PluggedPlace>,
}

/// Looks at all disks but one, the host's own.
pub fn look_around(own: &Path) -> Result<Findings> {
    let mut findings = Findings::default();
    for path in disk::all()?.into_iter().filter(|path| path != own) {
        look_at(&path, &mut findings);
    }
    Ok(findings)
}

/// Looks at one disk, or at a file that stands for one.
pub fn look_at(path: &Path, findings: &mut Findings) {
    let name = path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    match FileDevice::open_to_read(path) {
        Ok(device) => look::disk(&device, path, &name, findings),
        // A drive without a medium answers so.
        Err(error) => findings.looked.push(PluggedPlace { name, found: format!("can't be opened: {error}") }),
    }
}

impl Found {
    /// Opens it.
    pub fn open(&self) -> Result<LocalFile> {
        let (name, disk) = (&self.bundle.name, self.disk.display());
        let file = std::fs::File::open(&self.disk);
        let file = file.map_err(Failure::io(format!("open the bundle {name} on {disk}")))?;
        Ok(LocalFile::in_pieces(file, name.clone(), &self.pieces))
    }

    /// Whether this is what somebody means by a name: all of it, the disk, the partition, or the file.
    fn is_called(&self, wanted: &str) -> bool {
        let wanted = wanted.strip_prefix("/dev/").unwrap_or(wanted);
        let (place, file) = self.bundle.name.split_once('/').unwrap_or((&self.bundle.name, ""));
        let disk = self.disk.file_name().is_some_and(|disk| disk == wanted);
        wanted == self.bundle.name || wanted == place || !file.is_empty() && wanted == file || disk
    }
}

impl Findings {
    /// The one that is meant; empty: the only one that there is.
    pub fn the_one(&self, wanted: &str) -> Result<&Found> {
        let meant: Vec<&Found> =
            self.bundles.iter().filter(|found| wanted.is_empty() || found.is_called(wanted)).collect();
        let of = if wanted.is_empty() { String::new() } else { format!(" {wanted:?}") };
        let names = |found: &[&Found]| found.iter().map(|it| it.bundle.name.clone()).collect::<Vec<_>>().join(", ");
        match meant[..] {
            [one] => Ok(one),
            [] => {
                let all: Vec<&Found> = self.bundles.iter().collect();
                let others = if all.is_empty() { String::new() } else { format!("; there is {}", names(&all)) };
                let message = format!("install from a disk: no bundle{of} was found{others}; {}", self.words());
                Err(Failure::new(ErrorCode::NotFound, message))
            }
            _ => {
                let message =
                    format!("install from a disk: several bundles{of} were found: {}: name one", names(&meant));
                Err(Failure::new(ErrorCode::Conflict, message))
            }
        }
    }

    fn words(&self) -> String {
        if self.looked.is_empty() && self.bundles.is_empty() {
            return "no disk is plugged in but the host's own".into();
        }
        let looked: Vec<String> = self.looked.iter().map(|place| format!("{}: {}", place.name, place.found)).collect();
        format!("looked at {}", looked.join("; "))
    }

    /// For whoever asked, bundles by their name.
    pub fn into_list(self) -> PluggedBundles {
        let bundles: BTreeMap<String, PluggedBundle> =
            self.bundles.into_iter().map(|found| (found.bundle.name.clone(), found.bundle)).collect();
        PluggedBundles { bundles: bundles.into_values().collect(), looked: self.looked }
    }
}
