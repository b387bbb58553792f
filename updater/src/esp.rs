//! UKIs on the EFI system partition.
//!
//! The partition isn't mounted: the kernel's vfat keeps no order between its writes, so what boots next would depend
//! on which of them a power cut let through. [`crate::fat`] writes it instead, through the whole disk.

use std::io::{self, Read, Seek, SeekFrom};

use keel_spec::cmdline::BootParameters;
use keel_spec::gpt::Extent;
use keel_spec::release::UkiName;
use keel_spec::verity::RootHash;

use crate::area::Area;
use crate::disk::Device;
use crate::fat::{self, FatError, Volume};
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
pub struct Esp<'a> {
    volume: Volume<'a>,
    device: &'a dyn Device,
}

impl<'a> Esp<'a> {
    /// On a stretch of a device: offset and length in bytes.
    pub fn open(device: &'a dyn Device, offset: u64, length: u64) -> Result<Self, FatError> {
        Ok(Self { volume: Volume::open(Area::new(device, offset, length), UkiName::FOLDER)?, device })
    }

    /// Makes a volume of this place, with everything that is on this one, whole and on the medium when it returns. Until
    /// the partition table names it nobody looks there: this one stays as it is.
    pub fn copy_to(&self, place: &Extent) -> Result<Self, FatError> {
        let (offset, length) = (place.offset_bytes(), place.size_bytes());
        fat::copy::copy(&self.volume, &Area::new(self.device, offset, length), place.first_lba)?;
        Self::open(self.device, offset, length)
    }

    /// Names of all files.
    pub fn names(&self) -> Result<Vec<String>, FatError> {
        Ok(self.volume.files()?.into_iter().take(MAX_FILES).map(|file| file.name).collect())
    }

    /// Our UKIs, in no particular order.
    pub fn ukis(&self) -> Result<Vec<Uki>, FatError> {
        let mut found = Vec::new();
        for file in self.volume.files()?.into_iter().take(MAX_FILES) {
            let Ok(name) = file.name.parse::<UkiName>() else { continue };
            // One that can't be read is no reason not to see the others.
            let cmdline = self.volume.file(&file.name).and_then(|area| Ok(uki::cmdline(&mut Reader::new(area))?));
            let root_hash = cmdline.ok().flatten().and_then(|line| BootParameters::parse(&line).ok());
            let root_hash = root_hash.map(|parameters| parameters.root_hash);
            found.push(Uki { name, size_bytes: file.length, root_hash });
        }
        Ok(found)
    }

    /// The content of a file.
    pub fn file(&self, name: &str) -> Result<Area<'a>, FatError> {
        self.volume.file(name)
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        self.volume.free_bytes()
    }

    /// Makes a file of this length, or finds the one that is there already. Its content is whatever it was.
    pub fn create(&mut self, name: &str, length: u64) -> Result<Area<'a>, FatError> {
        match self.volume.file(name) {
            Ok(area) if area.length() == length => return Ok(area),
            Ok(_) => self.volume.remove(name)?,
            Err(FatError::NotFound(_)) => {}
            Err(error) => return Err(error),
        }
        self.volume.create(name, length)
    }

    /// Gives a file another name, in place of one of that name. Durable when it returns.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), FatError> {
        if from != to && self.names()?.iter().any(|name| name.eq_ignore_ascii_case(to)) {
            self.volume.remove(to)?;
        }
        if from == to {
            return self.volume.sync();
        }
        self.volume.rename(from, to)
    }

    /// Removes a file. Durable when it returns.
    pub fn remove(&mut self, name: &str) -> Result<(), FatError> {
        self.volume.remove(name)
    }

    /// Frees what power cuts left behind; says how many clusters that were.
    pub fn reclaim(&mut self) -> Result<usize, FatError> {
        self.volume.reclaim()
    }
}

/// Reads an area from its start.
pub struct Reader<'a> {
    area: Area<'a>,
    at: u64,
}

impl<'a> Reader<'a> {
    /// From the start.
    pub fn new(area: Area<'a>) -> Self {
        Self { area, at: 0 }
    }
}

impl Read for Reader<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = (self.area.length().saturating_sub(self.at)).min(buffer.len() as u64) as usize;
        self.area.read_at(&mut buffer[..count], self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Reader<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let at = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(by) => self.area.length().checked_add_signed(by),
        };
        self.at = at.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        Ok(self.at)
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
