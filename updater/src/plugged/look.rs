//! What is on one disk.

use std::fs::File;
use std::path::Path;

use keel_spec::api::{PluggedBundle, PluggedPlace};
use keel_spec::bundle::{BLOCK_BYTES, Reader};

use super::stretch::{self, Stretch};
use super::{Findings, Found, MAX_BUNDLES};
use crate::area::Area;
use crate::bundle::{Bundle, LocalFile};
use crate::disk::Device;
use crate::failure::chain;
use crate::fat::{FatError, Volume};

/// What the names of bundles end in, in either case.
const SUFFIX: &str = ".bundle";

/// A file's bytes, or why they can't be had.
type Opened<'a> = Result<Area<'a>, FatError>;

/// Text from a disk as a terminal may show it.
fn plain(text: &str) -> String {
    text.chars().map(|char| if char.is_control() { '?' } else { char }).collect()
}

struct Look<'a> {
    device: &'a dyn Device,
    path: &'a Path,
    findings: &'a mut Findings,
}

/// Looks at a disk as a whole, then at its partitions.
pub fn disk(device: &dyn Device, path: &Path, name: &str, findings: &mut Findings) {
    let mut look = Look { device, path, findings };
    let size = match device.size_bytes() {
        Ok(0) => return look.note(name, "has no medium, or an empty one"),
        Ok(size) => size,
        Err(error) => return look.note(name, &format!("can't be read: {error}")),
    };
    let parts = stretch::of(device, size);
    if parts.is_empty() {
        return look.stretch(name, &Stretch { number: 0, offset: 0, length: size });
    }
    // As the kernel names them: `sdb1`, `nvme1n1p1`.
    let between = if name.ends_with(|last: char| last.is_ascii_digit()) { "p" } else { "" };
    for part in parts {
        look.stretch(&format!("{name}{between}{}", part.number), &part);
    }
}

impl Look<'_> {
    fn note(&mut self, name: &str, found: &str) {
        self.findings.looked.push(PluggedPlace { name: plain(name), found: plain(found) });
    }

    fn stretch(&mut self, name: &str, stretch: &Stretch) {
        if self.findings.bundles.len() >= MAX_BUNDLES {
            return self.note(name, "wasn't looked at: so many bundles were found before");
        }
        let mut first = [0; BLOCK_BYTES];
        if let Err(error) = self.device.read_at(&mut first, stretch.offset) {
            return self.note(name, &format!("can't be read: {error}"));
        }
        if Reader::default().take(&first).is_ok() {
            return self.bundle(name, vec![(stretch.offset, stretch.length)], None);
        }
        let volume = Volume::open(Area::new(self.device, stretch.offset, stretch.length), "");
        let files = volume.and_then(|volume| self.files(&volume));
        match files {
            Ok(files) if files.is_empty() => self.note(name, "a FAT32 volume without a *.bundle in its top folder"),
            Ok(files) => files.into_iter().for_each(|(file, area)| match area {
                Ok(area) => self.bundle(&format!("{name}/{file}"), area.pieces(), Some(area.length())),
                Err(error) => self.note(&format!("{name}/{file}"), &error.to_string()),
            }),
            Err(FatError::Format(why)) => self.note(name, &format!("neither a bundle nor a FAT32 volume: {why}")),
            Err(error) => self.note(name, &error.to_string()),
        }
    }

    /// Files that may be bundles, by their names, and where they are.
    fn files<'v>(&self, volume: &Volume<'v>) -> Result<Vec<(String, Opened<'v>)>, FatError> {
        // What macOS puts beside a file has its name, with a dot before it.
        let wanted = |name: &str| name.to_ascii_lowercase().ends_with(SUFFIX) && !name.starts_with('.');
        let room = MAX_BUNDLES - self.findings.bundles.len();
        let files = volume.files()?.into_iter().filter(|file| wanted(&file.name)).take(room);
        Ok(files.map(|file| (file.name.clone(), volume.file(&file.name))).collect())
    }

    /// Takes a bundle in, if it is one as far as its headers go.
    fn bundle(&mut self, name: &str, pieces: Vec<(u64, u64)>, size: Option<u64>) {
        let file = match File::open(self.path) {
            Ok(file) => LocalFile::in_pieces(file, plain(name), &pieces),
            Err(error) => return self.note(name, &format!("can't be opened: {}", chain(&error))),
        };
        match Bundle::open(&file, "", size) {
            Ok(bundle) => {
                let size_bytes = bundle.size();
                let (version, profile) = (bundle.info.version, plain(&bundle.info.profile));
                let bundle = PluggedBundle { name: plain(name), version, profile, size_bytes };
                self.findings.bundles.push(Found { disk: self.path.to_owned(), bundle, pieces, size });
            }
            Err(failure) => self.note(name, &failure.message),
        }
    }
}
