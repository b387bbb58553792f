//! Mounts as the child does them: inside its own mount namespace, before it leaves the host's root.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, OFlags};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, FsPickFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};

use crate::init::Failure;
use crate::inroot::Links;
use crate::options::{self, Propagation, attr};
use crate::plan::Setup;
use crate::planned::{PlannedMount, What};
use crate::{copyup, host, inroot, procfs, steps, sys};

/// Files in proc that may be covered.
const SHOWN_IN_PROC: [&str; 9] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/slabinfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/sys/kernel/ns_last_pid",
];

/// The container's tree while it is made.
struct Tree<'a> {
    root: BorrowedFd<'a>,
    /// proc and sysfs as they were mounted, by their places. What is in them is reached through these, not by way of the
    /// root: there, whoever shares its files could put another folder in their place meanwhile.
    kernels: Vec<(String, OwnedFd)>,
}

/// Attaches the root, mounts everything else inside, hides and protects what the plan says.
pub(crate) fn set_up<'a>(plan: &Setup, fds: &'a [OwnedFd]) -> Result<BorrowedFd<'a>, Failure> {
    let root = fds.first().ok_or_else(|| Failure::new("receive the root", libc::EPROTO))?.as_fd();
    // What belongs to somebody else may go on receiving mounts; none are passed on from here in either case.
    let kind = if plan.joins_mounts { MountPropagationFlags::DOWNSTREAM } else { MountPropagationFlags::PRIVATE };
    rustix::mount::mount_change("/", kind | MountPropagationFlags::REC).map_err(Failure::at("keep mounts inside"))?;
    attach(root, CWD.as_fd(), "/").map_err(Failure::at("attach the root"))?;
    steps::mark("inside: attach the root");
    let mut tree = Tree { root, kernels: Vec::new() };
    for mount in &plan.mounts.list {
        tree.mount(mount, fds).map_err(Failure::at(format!("mount {}", mount.destination)))?;
        if steps::are_taken() {
            steps::mark(&format!("inside: mount {}", mount.destination));
        }
    }
    host::make_nodes(root, &plan.mounts.devices, plan.mounts.links)?;
    for (name, value) in &plan.sysctl {
        write_sysctl(name, value).map_err(Failure::at(format!("set sysctl {name} to {value:?}")))?;
    }
    for path in &plan.readonly_paths {
        tree.protect(path).map_err(Failure::at(format!("make {path} read-only")))?;
    }
    tree.mask(&plan.masked_paths, plan.mount_label.as_deref())?;
    Ok(root)
}

/// Seals the root and moves in.
pub(crate) fn enter(plan: &Setup, root: BorrowedFd<'_>, no_pivot: bool) -> Result<(), Failure> {
    inroot::make_folder(root, Path::new(&plan.cwd))
        .map_err(Failure::at(format!("make working folder {}", plan.cwd)))?;
    for path in &plan.mounts.sealed {
        let seal = || {
            let there = inroot::open(root, Path::new(path), OFlags::PATH)?;
            sys::mount_setattr(there.as_fd(), false, attr::RDONLY, 0, 0, None)
        };
        seal().map_err(Failure::at(format!("make {path} read-only")))?;
    }
    if plan.root_readonly {
        sys::mount_setattr(root, false, attr::RDONLY, 0, 0, None).map_err(Failure::at("make the root read-only"))?;
    }
    let into = if no_pivot { chroot } else { pivot };
    into(root).map_err(Failure::at("leave the host's root"))?;
    // Only now: the kernel moves no root that is shared.
    if let Some(p) = plan.propagation {
        sys::mount_setattr(root, p.recursive, 0, 0, p.kind, None).map_err(Failure::at("set the root's propagation"))?;
    }
    Ok(())
}

/// Moves in: the mount at `root` becomes `/`, and the host's tree is detached. With `.` for both, the old root ends
/// up on top of the new one, where it is unmounted (pivot_root(2), notes).
fn pivot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

/// Where the root can't be pivoted (the initial ramdisk): the new one is moved over it.
fn chroot(root: BorrowedFd<'_>) -> io::Result<()> {
    rustix::process::fchdir(root)?;
    rustix::process::chroot(".")?;
    Ok(rustix::process::chdir("/")?)
}

impl Tree<'_> {
    fn mount(&mut self, mount: &PlannedMount, fds: &[OwnedFd]) -> io::Result<()> {
        let path = Path::new(&mount.destination);
        let made;
        let (fd, file, kernels) = match &mount.what {
            What::Passed { index, file } => (fds.get(*index).ok_or(io::ErrorKind::InvalidData)?.as_fd(), *file, false),
            What::FileSystem { kind, source, options, attributes, label } => {
                let mut options = options.clone();
                if kind == "tmpfs" && !mount.copy_up && !options.iter().any(|(key, _)| key == "mode") {
                    options.extend(self.mode_of(path)?);
                }
                made = new_file_system(kind, source.as_deref(), &options, *attributes)?;
                if let Some(label) = label {
                    label_root(made.as_fd(), label)?;
                }
                (made.as_fd(), false, matches!(kind.as_str(), "proc" | "sysfs"))
            }
            What::Remount { change, below, options } => {
                let there = inroot::open(self.root, path, OFlags::PATH)?;
                change_file_system(there.as_fd(), options)?;
                options::apply(there.as_fd(), *change, *below)?;
                return propagate(there.as_fd(), &mount.propagation);
            }
        };
        let links = if kernels { Links::Refused } else { Links::Inside };
        let target = inroot::make_mount_point(self.root, path, file, links)?;
        // Nothing may cover parts of proc: what the runtime writes and protects there must be the kernel's own. What some
        // show of a container's own there (as lxcfs does) are single files that only tell.
        if inroot::is_on_proc(&target)? && !(file && SHOWN_IN_PROC.contains(&mount.destination.as_str())) {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        if mount.copy_up {
            copyup::copy(target.as_fd(), fd)?;
        }
        attach(fd, target.as_fd(), "")?;
        propagate(fd, &mount.propagation)?;
        // Covered by this one.
        self.kernels.retain(|(at, _)| !Path::new(at).starts_with(path));
        if kernels || inroot::is_on_proc(fd)? {
            self.kernels.push((mount.destination.clone(), fd.try_clone_to_owned()?));
        }
        Ok(())
    }

    /// A tmpfs over a folder that is there has that folder's mode unless it is told another, as with other runtimes.
    fn mode_of(&self, path: &Path) -> io::Result<Option<(String, Option<String>)>> {
        let Some(there) = found(inroot::open(self.root, path, OFlags::PATH | OFlags::DIRECTORY))? else {
            return Ok(None);
        };
        let mode = rustix::fs::statat(&there, "", AtFlags::EMPTY_PATH)?.st_mode & 0o7777;
        Ok(Some(("mode".into(), Some(format!("{mode:o}")))))
    }

    /// Covers a path with a read-only copy of itself. One that isn't there is fine.
    fn protect(&self, path: &str) -> io::Result<()> {
        let Some(target) = self.existing(path)? else { return Ok(()) };
        let copy = clone_mount(target.as_fd(), "", true)?;
        sys::mount_setattr(copy.as_fd(), true, attr::RDONLY, 0, 0, None)?;
        attach(copy.as_fd(), target.as_fd(), "")
    }

    /// Covers files with `/dev/null` and folders with one empty file system. That is cloned only once it is attached:
    /// before Linux 6.15 a detached mount can't be.
    fn mask(&self, paths: &[String], label: Option<&str>) -> Result<(), Failure> {
        let mut empty: Option<OwnedFd> = None;
        for path in paths {
            let step = || format!("mask {path}");
            let Some(target) = self.existing(path).map_err(Failure::at(step()))? else { continue };
            let is_folder = inroot::is_folder(&target).map_err(Failure::at(step()))?;
            let cover = match &empty {
                Some(attached) if is_folder => clone_mount(attached.as_fd(), "", false),
                None if is_folder => empty_file_system(label),
                _ => null_device(),
            };
            let cover = cover.map_err(Failure::at(step()))?;
            attach(cover.as_fd(), target.as_fd(), "").map_err(Failure::at(step()))?;
            if is_folder && empty.is_none() {
                empty = Some(cover);
            }
        }
        Ok(())
    }

    fn existing(&self, path: &str) -> io::Result<Option<OwnedFd>> {
        for (at, kernel) in self.kernels.iter().rev() {
            if let Some(below) = path.strip_prefix(at.as_str()).and_then(|rest| rest.strip_prefix('/')) {
                return found(inroot::open(kernel.as_fd(), Path::new(below), OFlags::PATH));
            }
        }
        found(inroot::open(self.root, Path::new(path), OFlags::PATH))
    }
}

/// Absence is no error.
fn found(opened: io::Result<OwnedFd>) -> io::Result<Option<OwnedFd>> {
    match opened {
        Ok(fd) => Ok(Some(fd)),
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR)) => Ok(None),
        Err(e) => Err(e),
    }
}

/// A new file system, mounted nowhere yet.
pub(crate) fn new_file_system(
    kind: &str,
    source: Option<&str>,
    options: &[(String, Option<String>)],
    attributes: u64,
) -> io::Result<OwnedFd> {
    let fs = rustix::mount::fsopen(kind, FsOpenFlags::FSOPEN_CLOEXEC)?;
    if let Some(source) = source.filter(|s| !s.is_empty()) {
        rustix::mount::fsconfig_set_string(fs.as_fd(), "source", source)?;
    }
    configure(fs.as_fd(), options)?;
    rustix::mount::fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::from_bits_retain(attributes as u32);
    Ok(rustix::mount::fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Gives a mounted file system other options; those that aren't named stay.
fn change_file_system(mount: BorrowedFd<'_>, options: &[(String, Option<String>)]) -> io::Result<()> {
    if options.is_empty() {
        return Ok(());
    }
    let fs = rustix::mount::fspick(mount, "", FsPickFlags::FSPICK_EMPTY_PATH | FsPickFlags::FSPICK_CLOEXEC)?;
    configure(fs.as_fd(), options)?;
    Ok(rustix::mount::fsconfig_reconfigure(fs.as_fd())?)
}

fn configure(fs: BorrowedFd<'_>, options: &[(String, Option<String>)]) -> io::Result<()> {
    for (key, value) in options {
        let set = match value {
            Some(value) => rustix::mount::fsconfig_set_string(fs, key, value),
            None => rustix::mount::fsconfig_set_flag(fs, key),
        };
        let value = value.as_ref().map(|value| format!("={value}")).unwrap_or_default();
        set.map_err(|e| io::Error::new(io::Error::from(e).kind(), format!("option {key}{value}: {e}")))?;
    }
    Ok(())
}

fn propagate(mount: BorrowedFd<'_>, kinds: &[Propagation]) -> io::Result<()> {
    for p in kinds {
        sys::mount_setattr(mount, p.recursive, 0, 0, p.kind, None)?;
    }
    Ok(())
}

/// Labels the root of a new file system, unless the policy has the type's files all alike.
fn label_root(mount: BorrowedFd<'_>, label: &str) -> io::Result<()> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(mount, ".", folder, rustix::fs::Mode::empty())?;
    match rustix::fs::fsetxattr(&root, "security.selinux", label.as_bytes(), rustix::fs::XattrFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(()),
        Err(e) => Err(io::Error::new(io::Error::from(e).kind(), format!("label it {label}: {e}"))),
    }
}

/// A copy of the mount at a descriptor, mounted nowhere yet.
pub(crate) fn clone_mount(at: BorrowedFd<'_>, path: impl AsRef<Path>, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let path = path.as_ref();
    if path.as_os_str().is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(at, path, flags)?)
}

pub(crate) fn attach(mount: BorrowedFd<'_>, at: BorrowedFd<'_>, path: &str) -> io::Result<()> {
    let mut flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    if path.is_empty() {
        flags |= MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    }
    Ok(rustix::mount::move_mount(mount, "", at, path, flags)?)
}

/// The host's null device, and surely that (the class of CVE-2025-31133).
fn null_device() -> io::Result<OwnedFd> {
    let null = clone_mount(CWD.as_fd(), "/dev/null", false)?;
    let stat = rustix::fs::statat(&null, "", AtFlags::EMPTY_PATH)?;
    let character = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_char_device();
    if character && stat.st_rdev == rustix::fs::makedev(1, 3) {
        Ok(null)
    } else {
        Err(io::Error::other("/dev/null isn't the null device"))
    }
}

/// A file system with nothing in it, mounted nowhere yet.
fn empty_file_system(label: Option<&str>) -> io::Result<OwnedFd> {
    let mut options = vec![("mode".to_owned(), Some("555".to_owned())), ("size".into(), Some("4k".into()))];
    options.extend(label.map(|label| ("context".to_owned(), Some(label.to_owned()))));
    new_file_system("tmpfs", None, &options, attr::RDONLY | attr::NOSUID | attr::NODEV | attr::NOEXEC)
}

/// Through the host's proc, which the container has no influence on; what it shows is of the writer's namespaces.
fn write_sysctl(name: &str, value: &str) -> io::Result<()> {
    procfs::write(Path::new("sys").join(name), value)
}
