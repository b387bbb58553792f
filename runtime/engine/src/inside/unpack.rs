//! An archive into a container's tree. Its bytes are a client's: names may try to lead out of the tree (they can't,
//! see [`super::root`]), and sizes may lie (the archive then ends early).

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use keel_store::{Archive, Head, Kind};
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timespec, Timestamps, Uid};

use super::attributes;
use super::root::{Meta, Root};

/// Most entries of one archive.
const MAX_ENTRIES: usize = 1_000_000;
/// Most folders whose times are set once all is in them.
const MAX_FOLDER_TIMES: usize = 100_000;
/// Deepest folder that is made.
const MAX_DEPTH: usize = 256;

/// How an archive is taken.
#[derive(Clone, Copy, Debug, Default)]
pub struct UnpackOptions {
    /// Refuse to replace a folder by something else, and the other way round.
    pub keep_kinds: bool,
    /// Owner of everything, in the container's numbers; `None`: as the archive says.
    pub owner: Option<(u32, u32)>,
    /// Mode of all files and folders; `None`: as the archive says.
    pub mode: Option<u32>,
    /// Most bytes of all files together, sparse ones with their holes; `None`: as many as there is room for.
    pub max_bytes: Option<u64>,
}

/// Why an archive wasn't taken.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// The archive is at fault.
    #[error("{0}")]
    Refused(String),
    /// The archive can't be read.
    #[error("reading the archive")]
    Read(#[source] io::Error),
    /// A file can't be made.
    #[error("making {path}")]
    Make {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Unpacks `input` into the folder `into` of `root`.
pub fn unpack(root: &Root, into: &Path, input: &mut dyn Read, options: UnpackOptions) -> Result<(), UnpackError> {
    let mut archive = Archive::new(input);
    let mut unpacker = Unpacker { root, into, options, times: Vec::new(), bytes: 0 };
    let mut count = 0;
    while let Some(head) = archive.next_head().map_err(UnpackError::Read)? {
        count += 1;
        if count > MAX_ENTRIES {
            return Err(UnpackError::Refused(format!("the archive has more than {MAX_ENTRIES} entries")));
        }
        unpacker.entry(&head, &mut archive)?;
    }
    unpacker.set_times();
    // What follows the end marker is padding; a client that is still sending it must not see the connection close.
    io::copy(archive.source(), &mut io::sink()).map(drop).map_err(UnpackError::Read)
}

struct Unpacker<'a> {
    root: &'a Root,
    into: &'a Path,
    options: UnpackOptions,
    /// Folders and their times, which making files in them would change again.
    times: Vec<(PathBuf, Timestamps)>,
    /// Bytes of files so far.
    bytes: u64,
}

/// A name in an archive: the folder it is in, and its own, `None` for the archive's top itself.
struct Name {
    above: PathBuf,
    last: Option<OsString>,
}

impl Unpacker<'_> {
    fn entry(&mut self, head: &Head, archive: &mut Archive<impl Read>) -> Result<(), UnpackError> {
        let shown = String::from_utf8_lossy(&head.path).into_owned();
        let Name { above, last } = self.name(&head.path)?;
        let Some(last) = last else { return Ok(()) };
        self.bytes = self.bytes.saturating_add(head.real_bytes());
        if let Some(most) = self.options.max_bytes.filter(|most| self.bytes > *most) {
            return Err(UnpackError::Refused(format!("the archive's files take more than {most} bytes")));
        }
        let target = if head.kind == Kind::HardLink { Some(self.name(&head.link)?) } else { None };
        let made = self.make(head, archive, (&above, &last), target, &shown);
        made.map_err(|error| match error.downcast::<UnpackError>() {
            Ok(refused) => refused,
            Err(source) => UnpackError::Make { path: shown, source },
        })
    }

    fn make(
        &mut self,
        head: &Head,
        archive: &mut Archive<impl Read>,
        (above, last): (&Path, &OsStr),
        target: Option<Name>,
        shown: &str,
    ) -> io::Result<()> {
        let folder = self.folder(above, 0)?;
        let there = self.make_room(&folder, last, head.kind == Kind::Folder, shown)?;
        match head.kind {
            Kind::Folder => {
                if !there {
                    rustix::fs::mkdirat(&folder, last, Mode::from_raw_mode(0o700))?;
                }
                if self.times.len() < MAX_FOLDER_TIMES {
                    self.times.push((above.join(last), times(head)));
                }
            }
            Kind::File => {
                let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = rustix::fs::openat(&folder, last, flags, Mode::from_raw_mode(0o600))?;
                fill(&mut file.into(), head, &mut archive.content(false))?;
            }
            Kind::Symlink => rustix::fs::symlinkat(OsStr::from_bytes(&head.link), &folder, last)?,
            Kind::HardLink => {
                let Some(Name { above, last: Some(name) }) = target else {
                    return Err(refused(format!("{shown} is a link to the archive's top")));
                };
                let from = self.folder(&above, 0)?;
                // Its owner and mode are the first name's.
                return Ok(rustix::fs::linkat(&from, &name, &folder, last, AtFlags::empty())?);
            }
            Kind::Fifo => {
                rustix::fs::mknodat(&folder, last, FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
            }
            Kind::Char | Kind::Block => {
                return Err(refused(format!("{shown} is a device: devices are given with --device, not copied")));
            }
        }
        self.dress(&folder, last, head)?;
        if head.kind == Kind::File { self.attributes(&folder, last, head) } else { Ok(()) }
    }

    /// After the owner: a change of that takes capabilities away.
    fn attributes(&self, folder: &OwnedFd, name: &OsStr, head: &Head) -> io::Result<()> {
        if head.xattrs.is_empty() {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
        head.xattrs.iter().try_for_each(|(name, value)| attributes::write(self.root, &file, name, value))
    }

    /// Gives what was made its owner, mode and time, in this order: a change of owner takes mode bits away.
    fn dress(&self, folder: &OwnedFd, name: &OsStr, head: &Head) -> io::Result<()> {
        let mode = Mode::from_raw_mode(self.options.mode.unwrap_or(head.mode) & 0o7777);
        let (uid, gid) = self.options.owner.unwrap_or((head.uid, head.gid));
        let (uid, gid) = self.root.outside(uid.into(), gid.into());
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::fs::chownat(folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
        if head.kind != Kind::Symlink {
            // Nobody but the container can have put a link there since it was made, and its own root is all that
            // such a link could lead to if it were followed.
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let file = rustix::fs::openat(folder, name, flags, Mode::empty())?;
            if Meta::of(file.as_fd(), OsStr::new(""))?.kind != FileType::Symlink {
                rustix::fs::chmod(format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&file)), mode)?;
            }
        }
        Ok(rustix::fs::utimensat(folder, name, &times(head), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Removes what is in the way. Whether a folder is there already that a folder is to become.
    fn make_room(&self, folder: &OwnedFd, name: &OsStr, is_folder: bool, shown: &str) -> io::Result<bool> {
        let meta = match Meta::of(folder.as_fd(), name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            other => other?,
        };
        if meta.is_folder() && is_folder {
            return Ok(true);
        }
        if self.options.keep_kinds && meta.is_folder() != is_folder {
            let (new, old) = if is_folder { ("directory", "non-directory") } else { ("non-directory", "directory") };
            return Err(refused(format!("cannot overwrite {old} \"{shown}\" with {new} \"{shown}\"")));
        }
        let flags = if meta.is_folder() { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(folder, name, flags)?;
        Ok(false)
    }

    /// Opens a folder of the tree, making it and what is above it.
    fn folder(&self, path: &Path, depth: usize) -> io::Result<OwnedFd> {
        match self.root.open(path, OFlags::PATH | OFlags::DIRECTORY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && depth < MAX_DEPTH => {}
            other => return other,
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let folder = self.folder(above, depth + 1)?;
        match rustix::fs::mkdirat(&folder, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                let (uid, gid) = self.root.outside(0, 0);
                let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
                rustix::fs::chownat(&folder, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)?;
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        self.root.open(path, OFlags::PATH | OFlags::DIRECTORY)
    }

    /// A name of the archive, as a path of the root. `..` is refused: no honest archive has it.
    fn name(&self, bytes: &[u8]) -> Result<Name, UnpackError> {
        let parts: Vec<&[u8]> = bytes.split(|byte| *byte == b'/').filter(|part| !matches!(*part, b"" | b".")).collect();
        if parts.contains(&&b".."[..]) || bytes.contains(&0) {
            let shown = String::from_utf8_lossy(bytes).into_owned();
            return Err(UnpackError::Refused(format!("the archive's name {shown:?} leads out of it")));
        }
        let Some((last, above)) = parts.split_last() else { return Ok(Name { above: self.into.into(), last: None }) };
        let above = above.iter().fold(self.into.to_path_buf(), |path, part| path.join(OsStr::from_bytes(part)));
        Ok(Name { above, last: Some(OsStr::from_bytes(last).to_owned()) })
    }

    fn set_times(&self) {
        for (path, times) in self.times.iter().rev() {
            // Only a time, of a folder that may have gone by now.
            if let Ok(folder) = self.root.open(path, OFlags::RDONLY | OFlags::DIRECTORY) {
                let _ = rustix::fs::futimens(&folder, times);
            }
        }
    }
}

fn refused(message: String) -> io::Error {
    io::Error::other(UnpackError::Refused(message))
}

fn times(head: &Head) -> Timestamps {
    let time = Timespec { tv_sec: head.mtime_s, tv_nsec: head.mtime_ns.into() };
    Timestamps { last_access: time, last_modification: time }
}

/// Writes a file's content; holes stay holes.
fn fill(file: &mut File, head: &Head, content: &mut impl Read) -> io::Result<()> {
    let Some(map) = &head.sparse else { return io::copy(content, file).map(drop) };
    for (offset, length) in &map.segments {
        file.seek(SeekFrom::Start(*offset))?;
        io::copy(&mut content.take(*length), file)?;
    }
    file.set_len(map.real_bytes)
}
