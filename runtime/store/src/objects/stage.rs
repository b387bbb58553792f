//! Objects in the making, in a scratch folder. One that is there already gets a further name in that folder, so that it
//! can't go before the layer that needs it is complete.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{AtFlags, Mode, OFlags, fstatvfs, ftruncate, linkat, openat, renameat, unlinkat};
use rustix::io::Errno;

use super::list::Object;
use super::seal::Seals;
use crate::digest::ObjectId;
use crate::layer::head::Head;
use crate::layer::sparse::Map;
use crate::layer::walk::Failure;
use crate::verity::Hasher;

/// Buffer for the content of files. What fits into it is compared before it is written.
const COPY_BYTES: usize = 128 * 1024;
/// Bytes written between two looks at what is free.
const LOOK_BYTES: u64 = 16 << 20;
/// Bytes left free for what runs, or a fiftieth of the disk where that is less.
const RESERVE_BYTES: u64 = 256 << 20;
/// What an object is called while it is written.
const NEW: &str = "new";

/// The objects of a layer in the making.
pub struct Stage {
    staged: OwnedFd,
    objects: OwnedFd,
    seals: bool,
    found: BTreeMap<ObjectId, u64>,
    buffer: Vec<u8>,
    /// Bytes written since the last look at what is free.
    written: u64,
}

impl Stage {
    /// Makes objects in one folder, and looks in another for those that are there already.
    pub fn new(staged: OwnedFd, objects: OwnedFd, seals: bool) -> Self {
        let found = BTreeMap::new();
        Self { staged, objects, seals, found, buffer: vec![0; COPY_BYTES], written: LOOK_BYTES }
    }

    /// All objects, sorted.
    pub fn finish(self) -> Vec<Object> {
        self.found.into_iter().map(|(id, size_bytes)| Object { id, size_bytes }).collect()
    }

    /// Keeps the content of an entry.
    pub fn keep(&mut self, content: &mut impl Read, head: &Head) -> Result<ObjectId, Failure> {
        let size_bytes = head.real_bytes();
        let id = match &head.sparse {
            None if size_bytes <= COPY_BYTES as u64 => self.keep_short(content, size_bytes)?,
            map => self.keep_long(content, size_bytes, map.as_ref())?,
        };
        self.found.insert(id, size_bytes);
        Ok(id)
    }

    /// Content that fits into the buffer: nothing is written if it is there already.
    fn keep_short(&mut self, content: &mut impl Read, size_bytes: u64) -> Result<ObjectId, Failure> {
        let mut buffer = std::mem::take(&mut self.buffer);
        let bytes = buffer.get_mut(..usize::try_from(size_bytes).unwrap_or(COPY_BYTES)).unwrap_or_default();
        content.read_exact(bytes).map_err(Failure::Read)?;
        let id = Hasher::of(bytes);
        if !self.has(&id, size_bytes)? {
            self.look(size_bytes)?;
            self.create()?.write_all(bytes).map_err(Failure::Write)?;
            self.complete(&id)?;
        }
        self.buffer = buffer;
        Ok(id)
    }

    fn keep_long(&mut self, content: &mut impl Read, size_bytes: u64, map: Option<&Map>) -> Result<ObjectId, Failure> {
        let mut file = self.create()?;
        let mut hasher = Hasher::default();
        match map {
            None => self.copy(content, &mut file, &mut hasher)?,
            Some(map) => {
                ftruncate(&file, size_bytes).map_err(|error| match error {
                    Errno::FBIG | Errno::INVAL => Failure::Refused("the file is too large for the disk".into()),
                    other => other.into(),
                })?;
                let mut end = 0;
                for (offset, length) in &map.segments {
                    hasher.zeros(offset.saturating_sub(end));
                    file.seek(SeekFrom::Start(*offset)).map_err(Failure::Write)?;
                    self.copy(&mut content.take(*length), &mut file, &mut hasher)?;
                    end = offset.saturating_add(*length);
                }
                hasher.zeros(size_bytes.saturating_sub(end));
            }
        }
        drop(file);
        let id = hasher.finish();
        if self.has(&id, size_bytes)? {
            unlinkat(&self.staged, NEW, AtFlags::empty())?;
        } else {
            self.complete(&id)?;
        }
        Ok(id)
    }

    fn copy(&mut self, content: &mut impl Read, file: &mut File, hasher: &mut Hasher) -> Result<(), Failure> {
        loop {
            match content.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                Ok(count) => {
                    self.look(count as u64)?;
                    let bytes = self.buffer.get(..count).unwrap_or_default();
                    hasher.update(bytes);
                    file.write_all(bytes).map_err(Failure::Write)?;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Failure::Read(error)),
            }
        }
    }

    /// Looks now and then at what is free: the last of it belongs to what runs.
    fn look(&mut self, more: u64) -> Result<(), Failure> {
        self.written += more;
        if self.written >= LOOK_BYTES {
            self.written = 0;
            let disk = fstatvfs(&self.staged)?;
            let reserve = RESERVE_BYTES.min(disk.f_blocks.saturating_mul(disk.f_frsize) / 50);
            if disk.f_bavail.saturating_mul(disk.f_frsize) < reserve + LOOK_BYTES.min(reserve) {
                return Err(Errno::NOSPC.into());
            }
        }
        Ok(())
    }

    fn create(&self) -> Result<File, Failure> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.staged, NEW, flags, Mode::from_raw_mode(0o444))?.into())
    }

    /// Seals what has been written, and gives it its name.
    fn complete(&self, id: &ObjectId) -> Result<(), Failure> {
        if self.seals {
            let file = File::from(openat(&self.staged, NEW, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
            Seals::set(&file, id).map_err(Failure::Write)?;
        }
        Ok(renameat(&self.staged, NEW, &self.staged, id.hex())?)
    }

    /// Whether an object is there, in this layer or among all; then it stays. One that isn't what it should be isn't
    /// there: it will be replaced.
    fn has(&self, id: &ObjectId, size_bytes: u64) -> Result<bool, Failure> {
        if self.found.contains_key(id) {
            return Ok(true);
        }
        let name = id.hex();
        let file =
            match openat(&self.objects, &name, OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()) {
                Err(Errno::NOENT) => return Ok(false),
                other => File::from(other?),
            };
        let is_sound = if self.seals {
            Seals::hold(&file, id).map_err(Failure::Write)?
        } else {
            file.metadata().map_err(Failure::Write)?.len() == size_bytes
        };
        if !is_sound {
            log::warn!("object {name} isn't what it was: it is replaced");
            return Ok(false);
        }
        match linkat(&self.objects, &name, &self.staged, &name, AtFlags::empty()) {
            Ok(()) => Ok(true),
            // It has just been removed.
            Err(Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl From<Errno> for Failure {
    fn from(error: Errno) -> Self {
        Self::Write(error.into())
    }
}
