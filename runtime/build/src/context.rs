//! The client's files: an archive, taken in under a cap and kept on disk for as long as the build lasts.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::Path;

use keel_engine::inside::root::Root;
use keel_engine::inside::unpack::{UnpackError, UnpackOptions, unpack};
use keel_store::Decoder;
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::dockerfile::lines;
use crate::error::Error;
use crate::ignore::{self, Ignore};
use crate::interrupt::Interrupt;

/// Most bytes of all files of a context.
const MAX_BYTES: u64 = 32 << 30;
/// Bytes of the disk that a context leaves free for what runs.
const SPARED_BYTES: u64 = 256 << 20;

/// The client's files.
pub struct Context {
    /// The tree.
    pub root: Root,
    /// What of it is as good as absent.
    pub ignore: Ignore,
}

/// Takes a context in: a tar archive, as it is or compressed.
pub fn receive(input: &mut dyn Read, into: &Path, interrupt: &Interrupt) -> Result<Context, Error> {
    let root = Root::new(open_folder(into)?, 0);
    let most = room_bytes(into)?;
    let read_error = |error| {
        if interrupt.is_set() { Error::Cancelled } else { Error::io("reading the build context")(error) }
    };
    let mut start = Vec::new();
    Read::take(&mut *input, 1).read_to_end(&mut start).map_err(read_error)?;
    if start.is_empty() {
        return Err(Error::Bad("the build context is empty: send a tar archive with a Dockerfile in it".into()));
    }
    let input = interrupt.watch(std::io::Cursor::new(start).chain(input));
    let mut archive = Decoder::new(input).map_err(read_error)?;
    // Files belong to root in the image whoever sent them.
    let options = UnpackOptions { owner: Some((0, 0)), max_bytes: Some(most), ..UnpackOptions::default() };
    unpack(&root, Path::new("/"), &mut archive, options).map_err(|error| explain(error, most, interrupt))?;
    let ignore = match read_file(&root, ".dockerignore", ignore::MAX_BYTES)? {
        None => Ignore::default(),
        Some(text) => Ignore::parse(&text).map_err(|error| Error::Bad(format!(".dockerignore: {error}")))?,
    };
    Ok(Context { root, ignore })
}

impl Context {
    /// The Dockerfile's text.
    pub fn dockerfile(&self, path: &str) -> Result<String, Error> {
        let missing = || Error::Bad(format!("Cannot locate specified Dockerfile: {path}"));
        let text = read_file(&self.root, path, lines::MAX_BYTES)?.ok_or_else(missing)?;
        if text.is_empty() {
            return Err(Error::Bad(format!("the Dockerfile ({path}) cannot be empty")));
        }
        Ok(text)
    }
}

/// How much a context may take of the disk.
fn room_bytes(folder: &Path) -> Result<u64, Error> {
    let disk = rustix::fs::statvfs(folder).map_err(|error| Error::io("asking for room on the disk")(error.into()))?;
    let free = disk.f_bavail.saturating_mul(disk.f_frsize);
    match free.saturating_sub(SPARED_BYTES.min(free / 4)).min(MAX_BYTES) {
        0 => Err(Error::Bad("no room for a build context: the disk is full".into())),
        most => Ok(most),
    }
}

fn explain(error: UnpackError, most: u64, interrupt: &Interrupt) -> Error {
    match error {
        _ if interrupt.is_set() => Error::Cancelled,
        UnpackError::Refused(reason) => {
            let limit = format!("; {most} bytes may be used: send less, or make room on the disk");
            let limit = if reason.contains("more than") { limit } else { String::new() };
            Error::Bad(format!("the build context can't be used: {reason}{limit}"))
        }
        UnpackError::Read(source) => Error::Bad(format!("the build context can't be read: {source}")),
        UnpackError::Make { path, source } => Error::io(format!("unpacking {path} of the build context"))(source),
    }
}

/// A small file as text; bytes that are no UTF-8 are replaced. `None`: there is none.
fn read_file(root: &Root, path: &str, max_bytes: usize) -> Result<Option<String>, Error> {
    let fail = |error| Error::io(format!("reading {path} of the build context"))(error);
    let file = match root.open(Path::new(path), OFlags::RDONLY | OFlags::NONBLOCK) {
        Ok(file) => std::fs::File::from(file),
        Err(error) if keel_engine::inside::root::gone(&error) => return Ok(None),
        Err(error) => return Err(fail(error)),
    };
    if !file.metadata().map_err(fail)?.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    file.take(max_bytes as u64 + 1).read_to_end(&mut bytes).map_err(fail)?;
    if bytes.len() > max_bytes {
        return Err(Error::Bad(format!("{path} is longer than {max_bytes} bytes")));
    }
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Opens a folder of the host.
pub fn open_folder(path: &Path) -> Result<OwnedFd, Error> {
    openat(CWD, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|error| Error::io(format!("opening {}", path.display()))(error.into()))
}
