//! Trees mounted once each, in a mount namespace that the store keeps for itself.
//!
//! Containers of one image share its mounted tree, on whose superblock the kernel spends some 70 KiB (Linux 6.12), and
//! with it the names and attributes that the kernel remembers. Before Linux 6.15 overlayfs takes layers only from mounts
//! of the caller's own mount namespace, detached ones not among them: so stacking happens on threads that enter this one.
//! Nothing else of the host is kept mounted by it, and it ends with the process.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount, mount_change, move_mount,
    open_tree, unmount,
};

use crate::digest::Digest;
use crate::error::Error;
use crate::trees::TreeFile;

/// Bytes of stack of a thread that mounts.
const STACK_BYTES: usize = 128 << 10;
/// Trees that stay mounted for the next container; those of containers stay mounted in any case.
const MAX_KEPT: usize = 64;
/// Bytes and files of the memory in which mount points are made: there are no contents.
const POINTS: &str = "size=64k,mode=700";

/// The namespace and what is mounted in it.
#[derive(Debug)]
pub struct Mounts {
    root: PathBuf,
    points: PathBuf,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    namespace: Option<OwnedFd>,
    /// The one that was asked for last is the last.
    kept: Vec<Kept>,
    next: u64,
}

#[derive(Debug)]
struct Kept {
    tree: Digest,
    /// Device and inode: a file made again is another.
    file: (u64, u64),
    point: PathBuf,
}

/// A mount that can be named by its path, as long as this lives. Only threads in the namespace see it.
pub struct Attached(PathBuf);

impl Attached {
    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        detach(&self.0);
    }
}

impl Mounts {
    /// Of the store in `root`, whose folder of trees has the mount points above it. Both paths are absolute.
    pub fn new(root: &Path, trees: &Path) -> Self {
        Self { root: root.to_owned(), points: trees.to_owned(), state: Mutex::default() }
    }

    /// Works on a thread in the namespace.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        std::thread::scope(|scope| {
            let thread = std::thread::Builder::new().name("mount".into()).stack_size(STACK_BYTES);
            let joined = thread.spawn_scoped(scope, || self.enter().map(|()| work()))?.join();
            joined.unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
        })
    }

    /// A detached mount of a tree, for one container; `make` mounts one that isn't kept.
    pub fn of_tree(
        &self,
        tree: &TreeFile,
        make: impl FnOnce() -> Result<OwnedFd, Error>,
        fail: impl Fn(io::Error) -> Error,
    ) -> Result<OwnedFd, Error> {
        let file = tree.file.metadata().map(|file| (file.dev(), file.ino())).map_err(&fail)?;
        let mut state = self.state();
        let kept = match state.kept.iter().position(|kept| kept.file == file) {
            Some(index) => state.kept.remove(index),
            None => {
                let point = self.attach_at(&mut state, &make()?).map_err(&fail)?;
                Kept { tree: tree.name, file, point }
            }
        };
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let clone = open_tree(CWD, &kept.point, flags).map_err(|error| fail(error.into()));
        state.kept.push(kept);
        if state.kept.len() > MAX_KEPT {
            detach(&state.kept.remove(0).point);
        }
        clone
    }

    /// Gives a detached mount a path.
    pub fn attach(&self, mount: &OwnedFd) -> io::Result<Attached> {
        let mut state = self.state();
        self.attach_at(&mut state, mount).map(Attached)
    }

    fn attach_at(&self, state: &mut State, mount: &OwnedFd) -> io::Result<PathBuf> {
        let point = self.points.join(state.next.to_string());
        state.next += 1;
        std::fs::create_dir(&point)?;
        let moved = move_mount(mount, "", CWD, &point, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH);
        moved.inspect_err(|_| _ = std::fs::remove_dir(&point))?;
        Ok(point)
    }

    /// Lets go of trees whose files are gone: while one is mounted its space stays taken.
    pub fn forget(&self, gone: &[Digest]) {
        let points: Vec<PathBuf> = {
            let mut state = self.state();
            state.kept.extract_if(.., |kept| gone.contains(&kept.tree)).map(|kept| kept.point).collect()
        };
        if points.is_empty() {
            return;
        }
        if let Err(error) = self.within(|| points.iter().for_each(|point| detach(point))) {
            log::warn!("the space of {} removed image(s) stays taken until the next start: {error}", points.len());
        }
    }

    /// Takes the calling thread into the namespace, which is made at first.
    fn enter(&self) -> io::Result<()> {
        let mut state = self.state();
        if let Some(namespace) = &state.namespace {
            // A thread that shares its root with others can't change it.
            unshare(CloneFlags::CLONE_FS)?;
            return Ok(setns(namespace.as_fd(), CloneFlags::CLONE_NEWNS)?);
        }
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
        leave_others(&self.root)?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("trees", &self.points, "tmpfs", flags, Some(&*std::ffi::CString::new(POINTS)?))?;
        state.namespace = Some(File::open("/proc/thread-self/ns/mnt")?.into());
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn detach(point: &Path) {
    let result =
        unmount(point, UnmountFlags::DETACH).map_err(io::Error::from).and_then(|()| std::fs::remove_dir(point));
    if let Err(error) = result {
        log::warn!("unmounting {}: {error}", point.display());
    }
}

/// Unmounts all that the store doesn't work with: in the namespace it would stay when the host has long unmounted it.
fn leave_others(root: &Path) -> io::Result<()> {
    let table = std::fs::read("/proc/thread-self/mountinfo")?;
    for line in table.split(|byte| *byte == b'\n') {
        // The fifth field; `\040` for a space and so on (proc_pid_mountinfo(5)).
        let Some(point) = line.split(|byte| *byte == b' ').nth(4).map(unescaped) else { continue };
        if root.starts_with(&point) || point == Path::new("/proc") {
            continue;
        }
        // What is below one that is gone is gone, too.
        let _ = unmount(&point, UnmountFlags::DETACH);
    }
    Ok(())
}

fn unescaped(field: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let (mut bytes, mut rest) = (Vec::with_capacity(field.len()), field);
    while let Some((&byte, after)) = rest.split_first() {
        let code = after.get(..3).and_then(|code| u8::from_str_radix(std::str::from_utf8(code).ok()?, 8).ok());
        match code {
            Some(code) if byte == b'\\' => {
                bytes.push(code);
                rest = after.get(3..).unwrap_or_default();
            }
            _ => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};

    use super::*;

    /// Stands for a tree: any file system does.
    fn memory() -> Result<OwnedFd, Error> {
        let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
        fsconfig_create(&context).unwrap();
        Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap())
    }

    fn tree(folder: &Path, name: &str) -> TreeFile {
        let file = File::create(folder.join(name)).unwrap();
        TreeFile { name: Digest::of(name.as_bytes()), file, is_sealed: false }
    }

    /// Device number of a tree's mount.
    fn device(mounts: &Mounts, tree: &TreeFile) -> u64 {
        let mount = mounts.within(|| mounts.of_tree(tree, memory, |error| panic!("{error}"))).unwrap().unwrap();
        rustix::fs::fstat(&mount).unwrap().st_dev
    }

    #[test]
    fn a_tree_is_mounted_once_until_it_is_forgotten_or_made_again() {
        let folder = tempfile::tempdir().unwrap();
        let points = folder.path().join("trees");
        std::fs::create_dir(&points).unwrap();
        let mounts = Mounts::new(folder.path(), &points);
        let (one, other) = (tree(folder.path(), "one"), tree(folder.path(), "other"));
        let first = device(&mounts, &one);
        assert_eq!(device(&mounts, &one), first);
        assert_ne!(device(&mounts, &other), first);
        std::fs::remove_file(folder.path().join("one")).unwrap();
        assert_ne!(device(&mounts, &tree(folder.path(), "one")), first, "another file of the same name");
        mounts.forget(&[one.name]);
        assert_eq!(mounts.state().kept.len(), 1, "the other one alone stays");
        assert_eq!(std::fs::read_dir(&points).unwrap().count(), 0, "nothing is seen outside");
    }

    #[test]
    fn the_number_of_kept_trees_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let points = folder.path().join("trees");
        std::fs::create_dir(&points).unwrap();
        let mounts = Mounts::new(folder.path(), &points);
        let trees: Vec<_> = (0..MAX_KEPT + 2).map(|number| tree(folder.path(), &number.to_string())).collect();
        let devices: Vec<_> = trees.iter().map(|tree| device(&mounts, tree)).collect();
        assert_eq!(mounts.state().kept.len(), MAX_KEPT);
        assert_eq!(Some(&device(&mounts, &trees[MAX_KEPT + 1])), devices.last());
        assert_eq!(mounts.within(|| std::fs::read_dir(&points).unwrap().count()).unwrap(), MAX_KEPT);
    }

    #[test]
    fn mount_points_with_spaces_and_backslashes_are_read() {
        assert_eq!(unescaped(br"/a\040b\134c"), Path::new(r"/a b\c"));
        assert_eq!(unescaped(br"/a\04"), Path::new(r"/a\04"));
        assert_eq!(unescaped(br"/a\999"), Path::new(r"/a\999"));
    }
}
