//! From a configuration to a process that waits to be started.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use crate::{Error, spec::Spec};

/// What a container is created from.
pub struct Create<'a> {
    /// The container's ID, for messages.
    pub id: &'a str,
    /// Its configuration.
    pub spec: &'a Spec,
    /// A detached mount of its root file system.
    pub rootfs: BorrowedFd<'a>,
    /// Standard input of the process.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// Its cgroup v2 folder, made if absent, with limits from the configuration; `None`: the caller's.
    pub cgroup: Option<&'a Path>,
    /// Who becomes the parent of its first process.
    pub parent: Parent,
    /// The program to execute inside, which must call [`crate::init_main`] when its first argument is `oci-init`;
    /// `None`: this one, `/proc/self/exe`.
    pub init: Option<&'a Path>,
}

/// Who becomes the parent of the container's first process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parent {
    /// The calling process, which has to reap it.
    Caller,
    /// The parent of the calling process (`CLONE_PARENT`).
    CallersParent,
}

/// A container whose first process is set up and waits. Dropped, it is killed and its cgroup removed.
#[derive(Debug)]
pub struct Created {
    pid: u32,
    pidfd: OwnedFd,
}

/// Creates a container, up to where its program would be executed.
pub fn create(_c: Create<'_>) -> Result<Created, Error> {
    Err(Error::Gone("isn't made yet"))
}

impl Created {
    /// Process ID in the caller's namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }
    /// The process as a descriptor.
    pub fn pidfd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
    /// Its network namespace.
    pub fn net_ns(&self) -> Result<OwnedFd, Error> {
        Err(Error::Gone("isn't made yet"))
    }
    /// Lets it execute its program; returns when that has happened or failed.
    pub fn start(self) -> Result<(), Error> {
        Err(Error::Gone("isn't made yet"))
    }
}
