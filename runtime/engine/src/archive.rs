//! `cp` in and out, `export`, `diff`, and the changes as a layer for `commit`; the work itself is in [`crate::inside`].
//!
//! A container that runs is seen through its first process's root, with all that is mounted in it. One that doesn't
//! is mounted for the purpose, and can't be started meanwhile; its volumes are found by their paths.

use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;

use keel_store::IdMap;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{CWD, Mode, OFlags, openat};

use crate::container::Container;
use crate::create::{from_store, image_id};
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::inside::changes::{self, Change};
use crate::inside::creator::as_creator;
use crate::inside::pack::Packer;
use crate::inside::place::{self, PathStat};
use crate::inside::root::Root;
use crate::inside::unpack::{UnpackError, UnpackOptions, unpack};
use crate::plan::mounts;
use crate::plan::spec::IDS;
use crate::plan::users;

/// One change of a container's files, in the words of Docker's API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileChange {
    /// Absolute path.
    pub path: String,
    /// 0: modified, 1: added, 2: deleted.
    pub kind: u8,
}

impl Engine {
    /// What lies at a path of a container.
    pub fn stat_path(&self, wanted: &str, path: &str) -> Result<PathStat, Error> {
        let container = self.find(wanted)?;
        let result = self.with_root(&container, path, |root, place| place::find_as(root, place, path)?.stat());
        result?.map_err(|error| path_error(&container, path, error))
    }

    /// Writes what lies at a path as an archive. `ready` gets its description before the first byte is written;
    /// nothing is, if it returns `false`.
    pub fn read_archive(
        &self,
        wanted: &str,
        path: &str,
        ready: impl FnOnce(PathStat) -> bool,
        out: &mut dyn Write,
    ) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let result = self.with_root(&container, path, |root, there| {
            let place = place::find_as(root, there, path)?;
            if !ready(place.stat()?) {
                return Ok(());
            }
            let mut packer = Packer::new(root, out);
            packer.tree(&place, false)?;
            packer.finish()
        });
        result?.map_err(|error| path_error(&container, path, error))?;
        self.tell_of(&container, "archive-path", &[]);
        Ok(())
    }

    /// Unpacks an archive into a folder of a container. `keep_kinds`: a folder is never replaced by something else,
    /// nor the other way round. `as_user`: all of it belongs to the container's user then.
    pub fn write_archive(
        &self,
        wanted: &str,
        path: &str,
        keep_kinds: bool,
        as_user: bool,
        input: &mut (dyn Read + Send),
    ) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let config = container.config();
        let result = self.with_root(&container, path, |root, path| {
            if !place::find(root, &format!("{path}/"))?.meta.is_folder() {
                return Err(std::io::ErrorKind::NotADirectory.into());
            }
            let user = config.body.user.as_deref().filter(|user| as_user && !user.is_empty());
            let owner = match user {
                Some(user) => find_owner(root, user),
                None => Ok(None),
            };
            let owner = match owner {
                Ok(owner) => owner,
                Err(error) => return Ok(Err(error)),
            };
            let options = UnpackOptions { keep_kinds, owner, ..UnpackOptions::default() };
            as_creator(root.base(), || unpack(root, Path::new(path), input, options)).map(Ok)
        });
        let unpacked = result?.map_err(|error| path_error(&container, path, error))??;
        match unpacked {
            Ok(()) => {}
            Err(UnpackError::Refused(message)) => return Err(Error::BadParameter(message)),
            Err(UnpackError::Make { source, path }) if source.raw_os_error() == Some(30) => {
                return Err(Error::Forbidden(format!("container rootfs is marked read-only: cannot make {path}")));
            }
            Err(UnpackError::Read(error)) => return Err(Error::BadParameter(format!("reading the archive: {error}"))),
            Err(error) => return Err(Error::internal(format!("unpacking into container {}", container.id), error)),
        }
        self.tell_of(&container, "extract-to-dir", &[]);
        Ok(())
    }

    /// Writes the whole tree of a container as an archive, without what is mounted in it.
    pub fn export(&self, wanted: &str, out: &mut dyn Write) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let written = self.with_root(&container, "/", |root, _| {
            let mut place = place::find(root, "/")?;
            place.shown.clear();
            let mut packer = Packer::new(root, out);
            packer.tree(&place, true)?;
            packer.finish()
        });
        written?.doing(|| format!("exporting container {}", container.id))?;
        self.tell_of(&container, "export", &[]);
        Ok(())
    }

    /// What a container has changed of its image.
    pub fn changes(&self, wanted: &str) -> Result<Vec<FileChange>, Error> {
        let container = self.find(wanted)?;
        let found = self.with_changes(&container, |_, found| Ok(found))?;
        let shown = |change: Change| FileChange {
            path: format!("/{}", change.path.to_string_lossy()),
            kind: change.kind as u8,
        };
        Ok(found.into_iter().map(shown).collect())
    }

    /// Writes what a container has changed as a layer.
    pub fn write_layer(&self, wanted: &str, out: &mut dyn Write) -> Result<(), Error> {
        let container = self.find(wanted)?;
        self.with_changes(&container, |view, found| changes::layer(view, &found, out))
    }

    /// Bytes of what a container has changed.
    pub(crate) fn size_rw(&self, container: &Container) -> Result<u64, Error> {
        let Some(upper) = self.upper(container)? else { return Ok(0) };
        changes::size_bytes(&upper).doing(|| format!("measuring container {}", container.id))
    }

    /// What a container has changed, as overlayfs keeps it; `None`: it was never started.
    pub(crate) fn upper(&self, container: &Container) -> Result<Option<Root>, Error> {
        let path = container.folder.join("rootfs/upper");
        match open_folder(&path) {
            Ok(fd) => Ok(Some(Root::new(fd, container.config().uid_base.unwrap_or(0)))),
            // It was never started.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::internal(format!("opening {}", path.display()), error)),
        }
    }

    fn with_changes<T: Default>(
        &self,
        container: &Container,
        work: impl FnOnce(&Root, Vec<Change>) -> std::io::Result<T>,
    ) -> Result<T, Error> {
        let Some(upper) = self.upper(container)? else { return Ok(T::default()) };
        let config = container.config();
        let (image, base) = (image_id(&config)?, config.uid_base.unwrap_or(0));
        let mapping = config.uid_base.map(|host_base| IdMap { host_base, count: IDS });
        let folder = container.folder.join("rootfs");
        let view = |changed| -> Result<Root, Error> {
            Ok(Root::new(self.store.view(&image, changed, mapping).map_err(from_store)?, base))
        };
        let (lower, view) = (view(None)?, view(Some(folder.as_path()))?);
        let found = changes::changes(&upper, &lower, &view, true).and_then(|found| work(&view, found));
        found.doing(|| format!("reading what container {} has changed", container.id))
    }

    /// Calls `work` with a root in which `path` lies, and the path there.
    fn with_root<T>(
        &self,
        container: &Arc<Container>,
        path: &str,
        work: impl FnOnce(&Root, &str) -> std::io::Result<T>,
    ) -> Result<std::io::Result<T>, Error> {
        let gate = container.enter();
        if container.live().removed {
            return Err(Error::no_container(&container.id));
        }
        let config = container.config();
        let base = config.uid_base.unwrap_or(0);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if container.state().is_running() {
            let root = Root::new(running_root(container)?, base);
            drop(gate);
            return Ok(work(&root, &path));
        }
        let sources = self.make_sources(&config, None)?;
        for mount in mounts::planned(&config.body)?.into_iter().rev() {
            let Some(rest) = path.strip_prefix(&mount.target) else { continue };
            let Some(source) = sources.paths.get(&mount.target).map(std::path::PathBuf::from) else { continue };
            // The target itself is the source's top.
            let rest = if rest.is_empty() { "/" } else { rest };
            if rest.starts_with('/') && source.is_dir() {
                let fd = open_folder(&source).doing(|| format!("opening {}", source.display()))?;
                // What is mounted keeps its numbers on the host.
                return Ok(work(&Root::new(fd, 0), rest));
            }
        }
        let mapping = config.uid_base.map(|host_base| IdMap { host_base, count: IDS });
        let upper = container.folder.join("rootfs");
        let mount = self.store.mount(&image_id(&config)?, &upper, mapping).map_err(from_store)?;
        Ok(work(&Root::new(mount, base), &path))
    }
}

/// The root of a container's first process, as that process sees it.
pub(crate) fn running_root(container: &Container) -> Result<OwnedFd, Error> {
    let ended = || Error::Conflict(format!("container {} has just ended: try again", container.id));
    let pid = container.state().pid.ok_or_else(ended)?;
    let path = format!("/proc/{pid}/root");
    let root = open_folder(Path::new(&path)).map_err(|_| ended())?;
    // The number may have been given anew before it was used; a process that is still there has kept it.
    let pidfd = container.live().pidfd.clone().ok_or_else(ended)?;
    let mut process = [PollFd::new(&*pidfd, PollFlags::IN)];
    match poll(&mut process, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
        Ok(0) => Ok(root),
        _ => Err(ended()),
    }
}

/// Opens a folder of the host.
pub(crate) fn open_folder(path: &Path) -> std::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(CWD, path, flags, Mode::empty())?)
}

/// The user and group that a name such as `app:staff` or a number stands for in a root's own files.
pub fn find_owner(root: &Root, user: &str) -> Result<Option<(u32, u32)>, Error> {
    let read = |path: &str| crate::start::read_inside(root, path);
    let found = users::find(user, &[], &read("etc/passwd")?, &read("etc/group")?)?;
    Ok(Some((found.user.uid, found.user.gid)))
}

fn path_error(container: &Container, path: &str, error: std::io::Error) -> Error {
    let name = &container.config().name;
    match error.kind() {
        std::io::ErrorKind::NotFound => Error::NotFound(format!("Could not find the file {path} in container {name}")),
        std::io::ErrorKind::NotADirectory => {
            Error::BadParameter(format!("{path} in container {name}: not a directory"))
        }
        std::io::ErrorKind::InvalidInput => Error::BadParameter(format!("{path:.100?} is no path")),
        _ => Error::internal(format!("reading {path} in container {}", container.id), error),
    }
}
