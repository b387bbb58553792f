//! A part of a container's tree as an archive (POSIX ustar with GNU's long names, as Docker's clients read it).

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, openat, openat2};
use tar::{Builder, EntryType, Header};

use super::attributes;
use super::place::Place;
use super::root::{Meta, Root, gone, names};

/// Most files with several names that are remembered; further ones are packed once for each name.
const MAX_LINKS: usize = 100_000;
/// Most bytes of a name or of a link's target that fit into a header (ustar).
const NAME_BYTES: usize = 100;

/// An archive being written.
pub struct Packer<'a> {
    root: &'a Root,
    out: Builder<&'a mut dyn Write>,
    links: HashMap<(u32, u32, u64), Vec<u8>>,
}

impl<'a> Packer<'a> {
    /// Writes to `out` what lies in `root`.
    pub fn new(root: &'a Root, out: &'a mut dyn Write) -> Self {
        Self { root, out: Builder::new(out), links: HashMap::new() }
    }

    /// Packs a place and all below it. `one_mount`: without what is mounted on it.
    pub fn tree(&mut self, place: &Place, one_mount: bool) -> io::Result<()> {
        if !place.meta.is_folder() {
            return self.entry(&place.folder, &place.name, &place.meta, &place.shown);
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let name = if place.name.is_empty() { OsStr::new(".") } else { &place.name };
        let top = openat(&place.folder, name, flags, Mode::empty())?;
        if !place.shown.is_empty() {
            self.entry(&place.folder, &place.name, &place.meta, &place.shown)?;
        }
        let mut folders = vec![PathBuf::new()];
        while let Some(path) = folders.pop() {
            let Some(folder) = reopen(&top, &path)? else { continue };
            let mut below = Vec::new();
            for name in names(&folder)? {
                let Some(meta) = there(Meta::of(folder.as_fd(), &name))? else { continue };
                if one_mount && meta.mount != place.meta.mount {
                    continue;
                }
                let path = path.join(&name);
                self.entry(&folder, &name, &meta, &joined(&place.shown, path.as_os_str()))?;
                if meta.is_folder() {
                    below.push(path);
                }
            }
            // The last is taken first: keep the order of the names.
            folders.extend(below.into_iter().rev());
        }
        Ok(())
    }

    /// Ends the archive.
    pub fn finish(mut self) -> io::Result<()> {
        self.out.finish()
    }

    /// Packs one file or folder, without what is in it; what has gone meanwhile, and sockets, are left out.
    pub fn entry(&mut self, folder: &OwnedFd, name: &OsStr, meta: &Meta, shown: &[u8]) -> io::Result<()> {
        let mut header = self.header(meta);
        let mut shown = shown.to_vec();
        match meta.kind {
            FileType::Directory => {
                if shown.last() != Some(&b'/') {
                    shown.push(b'/');
                }
                header.set_entry_type(EntryType::Directory);
            }
            FileType::Symlink => {
                let Some(target) = there(rustix::fs::readlinkat(folder, name, Vec::new()))? else { return Ok(()) };
                header.set_entry_type(EntryType::Symlink);
                self.link_name(&mut header, target.as_bytes())?;
            }
            FileType::CharacterDevice | FileType::BlockDevice | FileType::Fifo => {
                header.set_entry_type(match meta.kind {
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => EntryType::Fifo,
                });
                header.set_device_major(meta.device.0)?;
                header.set_device_minor(meta.device.1)?;
            }
            FileType::RegularFile => return self.file(folder, name, meta, header, &shown),
            _ => return Ok(()),
        }
        self.write(header, &shown, &mut io::empty())
    }

    /// A whiteout of `shown` in a layer (OCI image specification, layer.md, "Whiteouts").
    pub fn whiteout(&mut self, shown: &[u8]) -> io::Result<()> {
        let at = shown.iter().rposition(|byte| *byte == b'/').map_or(0, |at| at + 1);
        let (above, name) = shown.split_at(at);
        let name = [above, b".wh.", name].concat();
        let mut header = blank();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        self.write(header, &name, &mut io::empty())
    }

    fn file(
        &mut self,
        folder: &OwnedFd,
        name: &OsStr,
        meta: &Meta,
        mut header: Header,
        shown: &[u8],
    ) -> io::Result<()> {
        if meta.links > 1 {
            if let Some(first) = self.links.get(&meta.identity).cloned() {
                header.set_entry_type(EntryType::Link);
                self.link_name(&mut header, &first)?;
                return self.write(header, shown, &mut io::empty());
            }
            if self.links.len() < MAX_LINKS {
                self.links.insert(meta.identity, shown.to_vec());
            }
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Some(file) = there(openat(folder, name, flags, Mode::empty()))? else { return Ok(()) };
        self.attributes(&attributes::read(self.root, &file)?)?;
        header.set_entry_type(EntryType::Regular);
        header.set_size(meta.size_bytes);
        // One that shrinks meanwhile ends in zeroes, so that the archive stays whole.
        let mut data = File::from(file).chain(io::repeat(0)).take(meta.size_bytes);
        self.write(header, shown, &mut data)
    }

    fn header(&self, meta: &Meta) -> Header {
        let mut header = blank();
        let (uid, gid) = self.root.inside(meta.uid, meta.gid);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mode(meta.mode);
        header.set_mtime(u64::try_from(meta.mtime_s).unwrap_or(0));
        header
    }

    fn link_name(&mut self, header: &mut Header, target: &[u8]) -> io::Result<()> {
        if target.len() > NAME_BYTES {
            self.long(EntryType::GNULongLink, target)?;
        }
        if let Some(gnu) = header.as_gnu_mut() {
            copy(&mut gnu.linkname, target);
        }
        Ok(())
    }

    fn write(&mut self, mut header: Header, shown: &[u8], data: &mut dyn Read) -> io::Result<()> {
        if shown.len() > NAME_BYTES {
            self.long(EntryType::GNULongName, shown)?;
        }
        if let Some(gnu) = header.as_gnu_mut() {
            copy(&mut gnu.name, shown);
        }
        header.set_cksum();
        self.out.append(&header, data)
    }

    /// A pax header for the next entry.
    fn attributes(&mut self, attributes: &[attributes::Attribute]) -> io::Result<()> {
        if attributes.is_empty() {
            return Ok(());
        }
        let records = attributes::pax_records(attributes);
        let mut header = blank();
        header.set_entry_type(EntryType::XHeader);
        header.set_mode(0o644);
        header.set_size(records.len() as u64);
        if let Some(gnu) = header.as_gnu_mut() {
            copy(&mut gnu.name, b"././@PaxHeader");
        }
        header.set_cksum();
        self.out.append(&header, records.as_slice())
    }

    /// GNU's way of saying what is too long for the next header.
    fn long(&mut self, kind: EntryType, text: &[u8]) -> io::Result<()> {
        let mut header = blank();
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_size(text.len() as u64 + 1);
        if let Some(gnu) = header.as_gnu_mut() {
            copy(&mut gnu.name, b"././@LongLink");
        }
        header.set_cksum();
        self.out.append(&header, text.chain(&[0][..]))
    }
}

/// A header whose numbers are all there: absent ones are no numbers to strict readers.
fn blank() -> Header {
    let mut header = Header::new_gnu();
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn copy(into: &mut [u8], from: &[u8]) {
    let count = into.len().min(from.len());
    into.fill(0);
    if let (Some(into), Some(from)) = (into.get_mut(..count), from.get(..count)) {
        into.copy_from_slice(from);
    }
}

/// `above/below`, without doubling a slash.
fn joined(above: &[u8], below: &OsStr) -> Vec<u8> {
    let slash: &[u8] = if above.is_empty() || above.ends_with(b"/") { b"" } else { b"/" };
    [above, slash, below.as_bytes()].concat()
}

/// A folder below `top`; `None`: it has gone, or something else is there now.
fn reopen(top: &OwnedFd, path: &std::path::Path) -> io::Result<Option<OwnedFd>> {
    let path = if path.as_os_str().is_empty() { std::path::Path::new(".") } else { path };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    there(openat2(top, path, flags, Mode::empty(), resolve))
}

/// What has gone since its name was read is none of our business.
fn there<T, E: Into<io::Error>>(result: Result<T, E>) -> io::Result<Option<T>> {
    match result.map_err(Into::into) {
        Ok(found) => Ok(Some(found)),
        Err(error) if gone(&error) => Ok(None),
        Err(error) => Err(error),
    }
}
