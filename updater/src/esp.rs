//! UKIs on the EFI system partition.
//!
//! The partition is mounted only while it is needed, in this process's own mount namespace, so that nothing else on
//! the host can see or change what boots next.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use keel_spec::cmdline::BootParameters;
use keel_spec::release::UkiName;
use keel_spec::verity::RootHash;

use crate::uki;

/// Most files of the folder that are looked at.
const MAX_FILES: usize = 1024;
/// What ends the name of a UKI that isn't whole yet; the boot loader looks at `.efi` alone.
pub const PART_SUFFIX: &str = ".part";

/// A UKI of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uki {
    /// Its name.
    pub name: UkiName,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// The root that it boots, if it is a whole UKI.
    pub root_hash: Option<RootHash>,
}

/// The folder of UKIs. Names are plain file names.
pub trait Esp {
    /// Names of all files.
    fn names(&self) -> io::Result<Vec<String>>;
    /// Size of a file in bytes.
    fn size_bytes(&self, name: &str) -> io::Result<u64>;
    /// Opens a file, to be read from the medium if it was written before.
    fn open(&self, name: &str) -> io::Result<File>;
    /// Bytes that can still be written.
    fn free_bytes(&self) -> io::Result<u64>;
    /// Makes an empty file, in place of one of that name.
    fn create(&self, name: &str) -> io::Result<Box<dyn Write>>;
    /// Gives a file another name, in place of one of that name.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Returns when everything written, renamed and removed is on the medium.
    fn sync(&self) -> io::Result<()>;
}

/// Our UKIs on a partition, in no particular order.
pub fn ukis(esp: &dyn Esp) -> io::Result<Vec<Uki>> {
    let mut found = Vec::new();
    for text in esp.names()? {
        let Ok(name) = text.parse::<UkiName>() else { continue };
        let size_bytes = esp.size_bytes(&text)?;
        let cmdline = uki::cmdline(&mut esp.open(&text)?)?;
        let root_hash =
            cmdline.and_then(|line| BootParameters::parse(&line).ok()).map(|parameters| parameters.root_hash);
        found.push(Uki { name, size_bytes, root_hash });
    }
    Ok(found)
}

/// A folder of UKIs on a mounted file system.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    /// The folder of UKIs under a mount point; made if it isn't there.
    pub fn open(mount_point: &Path) -> io::Result<Self> {
        let path = mount_point.join(UkiName::FOLDER);
        fs::create_dir_all(&path)?;
        Ok(Self { path })
    }
}

impl Esp for Folder {
    fn names(&self) -> io::Result<Vec<String>> {
        let entries = fs::read_dir(&self.path)?.take(MAX_FILES);
        Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
    }

    fn size_bytes(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        let file = File::open(self.path.join(name))?;
        // Only clean pages go: whoever wrote them synced them before.
        rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::DontNeed)?;
        Ok(file)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(&self.path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn Write>> {
        let path = self.path.join(name);
        Ok(Box::new(OpenOptions::new().write(true).create(true).truncate(true).open(path)?))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync(&self) -> io::Result<()> {
        let folder = File::open(&self.path)?;
        folder.sync_all()?;
        rustix::fs::syncfs(&folder).map_err(Into::into)
    }
}

/// SHA-256 and length of a file, read in pieces.
pub fn digest(file: &mut impl Read) -> io::Result<(String, u64)> {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut buffer, mut length) = (vec![0; 1 << 16], 0);
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            return Ok((crate::tuf::keys::to_hex(context.finish().as_ref()), length));
        }
        context.update(&buffer[..count]);
        length += count as u64;
    }
}
