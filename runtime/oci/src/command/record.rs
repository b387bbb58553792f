//! What is remembered of a container: one folder each below `--root`, holding `state.json` and, until the start, the
//! socket on which the process waits for it.
//!
//! A record is written once, when the process is set up, by rename; so it is whole or absent. What changes later is
//! asked of the kernel: whether that process (its number and its time of birth) lives, and whether it is frozen. The
//! lock of a container is flock(2) on its folder.

use std::fs::DirBuilder;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::args::Args;
use super::report::{Doing, Failure};
use super::{Result, rootless};
use crate::spec::Spec;
use crate::{cgroup, open_pidfd, userns};

/// Where records are unless `--root` says.
const DEFAULT_ROOT: &str = "/run/keel-oci";
/// How long another command may hold a container.
const LOCK_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest record: a configuration and a little.
const MAX_BYTES: u64 = 20 << 20;
const RECORD: &str = "state.json";
const START: &str = "start";

/// What is remembered.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub oci_version: String,
    pub id: String,
    pub pid: u32,
    /// When the process was born, in clock ticks since boot (`/proc/PID/stat`, field 22).
    pub born: u64,
    pub bundle: String,
    pub rootfs: String,
    /// Nanoseconds since 1970.
    pub created_ns: u64,
    pub owner_uid: u32,
    #[serde(default)]
    pub cgroup: Option<PathBuf>,
    /// The configuration as it was.
    pub config: Box<RawValue>,
}

/// Where a container is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Created,
    Running,
    Paused,
    Stopped,
}

impl Status {
    pub(super) fn word(self) -> &'static str {
        match self {
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        }
    }
}

/// A container's folder, locked or not.
pub(super) struct Folder {
    pub path: PathBuf,
    fd: OwnedFd,
}

/// A record with its folder.
pub(super) struct Container {
    pub folder: Folder,
    pub record: Record,
}

/// The folder of all records: that of the session where this isn't the host's root.
pub(super) fn root(args: &Args) -> PathBuf {
    let own = || std::env::var_os("XDG_RUNTIME_DIR").filter(|dir| !dir.is_empty());
    let session = (rootless::is_needed() || userns::is_confined()).then(own).flatten();
    let default = || session.map_or_else(|| DEFAULT_ROOT.into(), |dir| Path::new(&dir).join("keel-oci"));
    args.path("root").unwrap_or_else(default)
}

impl Folder {
    /// Makes and locks the folder of a new container.
    pub(super) fn make(root: &Path, id: &str) -> Result<Self> {
        let path = root.join(id);
        let make = |path: &Path, recursive| DirBuilder::new().mode(0o700).recursive(recursive).create(path);
        let made = match make(&path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => make(root, true).and_then(|()| make(&path, false)),
            other => other,
        };
        match made {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Failure::new(format!("container with given ID already exists: {id}")));
            }
            other => other.doing(|| format!("make {}", path.display()))?,
        }
        let folder = Self::open(path.clone()).and_then(|folder| folder.lock().map(|()| folder));
        if folder.is_err() {
            // The error is the one to tell.
            let _ = std::fs::remove_dir(&path);
        }
        folder
    }

    fn open(path: PathBuf) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, &path, flags, Mode::empty()).doing(|| format!("open {}", path.display()))?;
        Ok(Self { path, fd })
    }

    fn lock(&self) -> Result<()> {
        let deadline = Instant::now() + LOCK_TIMEOUT;
        loop {
            match rustix::fs::flock(&self.fd, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => return Ok(()),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) if Instant::now() < deadline => {
                    // flock has no time limit of its own.
                    std::thread::sleep(Duration::from_millis(2));
                }
                Err(e) => return Err(e).doing(|| format!("lock {}, which another command holds", self.path.display())),
            }
        }
    }

    /// The socket of the start. Its name is short whatever the folder's is, which the kernel limits to 108 bytes.
    pub(super) fn start_socket(&self) -> PathBuf {
        self.within(START)
    }

    /// A file of it by a short path.
    pub(super) fn within(&self, name: &str) -> PathBuf {
        use std::os::fd::AsRawFd;
        format!("/proc/self/fd/{}/{name}", self.fd.as_raw_fd()).into()
    }

    /// The folder in which the container's service tells of its readiness, if it does.
    pub(super) fn notify(&self) -> PathBuf {
        self.path.join("notify")
    }

    /// Writes the record, without waiting for a disk: no container outlives the boot.
    pub(super) fn write(&self, record: &Record) -> Result<()> {
        let path = self.path.join(RECORD);
        let text = serde_json::to_vec(record)?;
        keel_durable::write_volatile(&path, &text).doing(|| format!("write {}", path.display()))
    }

    /// Removes it. Nothing but files is in it, and in the one folder that may be there.
    pub(super) fn remove(&self) -> Result<()> {
        fn files(of: &Path) -> io::Result<()> {
            for entry in std::fs::read_dir(of)? {
                let path = entry?.path();
                if !path.is_dir() {
                    std::fs::remove_file(path)?;
                }
            }
            Ok(())
        }
        let remove = || -> io::Result<()> {
            let notify = self.notify();
            if notify.is_dir() {
                files(&notify)?;
                std::fs::remove_dir(&notify)?;
            }
            files(&self.path)?;
            std::fs::remove_dir(&self.path)
        };
        remove().doing(|| format!("remove {}", self.path.display()))
    }

    /// Whether its process waits for the start.
    pub(super) fn waits(&self) -> bool {
        rustix::fs::statat(&self.fd, START, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// The start came.
    pub(super) fn started(&self) -> Result<()> {
        let removed = rustix::fs::unlinkat(&self.fd, START, rustix::fs::AtFlags::empty());
        removed.doing(|| format!("remove {}", self.path.join(START).display()))
    }

    fn read(&self) -> Result<Option<Record>> {
        let path = self.path.join(RECORD);
        let step = || format!("read {}", path.display());
        // Not moved aside where it is damaged: it goes with its folder.
        let Some(bytes) = keel_durable::read(&path, MAX_BYTES).doing(step)? else { return Ok(None) };
        serde_json::from_slice(&bytes).map(Some).doing(step)
    }
}

/// Whether there is a container of this name, whole or not.
pub(super) fn is_there(args: &Args, id: &str) -> bool {
    root(args).join(id).is_dir()
}

/// Opens a container, and reads what is remembered of it. `None`: its creation didn't come to an end.
pub(super) fn find(args: &Args, id: &str, lock: bool) -> Result<(Folder, Result<Option<Record>>)> {
    let path = root(args).join(id);
    if !is_there(args, id) {
        return Err(Failure::new(format!("container {id} does not exist")));
    }
    let folder = Folder::open(path)?;
    if lock {
        folder.lock()?;
    }
    let record = folder.read();
    Ok((folder, record))
}

/// Opens a container that was created whole.
pub(super) fn open(args: &Args, lock: bool) -> Result<Container> {
    let id = args.id()?;
    let (folder, record) = find(args, id, lock)?;
    match record? {
        Some(record) => Ok(Container { folder, record }),
        None => Err(Failure::new(format!("container {id} is still being created, or that was interrupted"))),
    }
}

impl Container {
    /// Its first process as a descriptor; `None`: it has ended. It can't be mistaken for another of the same number:
    /// its time of birth is compared while the descriptor holds it.
    pub(super) fn process(&self) -> Result<Option<OwnedFd>> {
        let Ok(pidfd) = open_pidfd(self.record.pid) else { return Ok(None) };
        match born(self.record.pid) {
            Ok(Some(born)) if born == self.record.born => Ok(Some(pidfd)),
            _ => Ok(None),
        }
    }

    pub(super) fn status(&self) -> Result<Status> {
        if self.process()?.is_none() {
            return Ok(Status::Stopped);
        }
        if self.folder.waits() {
            return Ok(Status::Created);
        }
        let frozen = self.record.cgroup.as_ref().is_some_and(|path| cgroup::is_frozen(path));
        Ok(if frozen { Status::Paused } else { Status::Running })
    }

    /// Its configuration as it was created.
    pub(super) fn spec(&self) -> Result<Spec> {
        super::bundle::parse(self.record.config.get().as_bytes(), "the recorded configuration")
    }

    /// Process IDs in it.
    pub(super) fn pids(&self) -> Result<Vec<u32>> {
        if let Some(path) = &self.record.cgroup {
            return Ok(cgroup::pids(path)?);
        }
        let own = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
        let first = self.record.pid.to_string();
        let Some(namespace) = own(&first) else { return Ok(Vec::new()) };
        if Some(&namespace) == own("self").as_ref() {
            return Ok(vec![self.record.pid]);
        }
        let mut pids: Vec<u32> = Vec::new();
        for entry in std::fs::read_dir("/proc").doing(|| "list processes".into())?.flatten() {
            let name = entry.file_name();
            let Some(name) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else { continue };
            if own(name).as_ref() == Some(&namespace) {
                pids.extend(name.parse::<u32>());
            }
        }
        pids.sort_unstable();
        Ok(pids)
    }
}

/// When a process was born (field 22 of `/proc/PID/stat`); `None`: it has ended or is a zombie.
pub(super) fn born(pid: u32) -> Result<Option<u64>> {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Ok(None) };
    // The name, in parentheses, may hold anything.
    let after = text.rsplit_once(')').map_or("", |(_, after)| after);
    let fields: Vec<&str> = after.split_ascii_whitespace().collect();
    if matches!(fields.first(), None | Some(&"Z" | &"X")) {
        return Ok(None);
    }
    Ok(fields.get(19).and_then(|f| f.parse().ok()))
}
