//! A further process in a running container.

use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use crate::create::{self, Child, Extras, Parent};
use crate::created::{CgroupGuard, Created};
use crate::error::Step;
use crate::host::Owner;
use crate::plan;
use crate::spec::{Process, Spec};
use crate::{Error, affinity, cgroup, rdt, userns};

/// What a further process is made from.
pub struct Exec<'a> {
    /// The container's ID, for messages.
    pub id: &'a str,
    /// The container's configuration: its namespaces are joined, its mappings and system call filter apply.
    pub spec: &'a Spec,
    /// The container's first process (a pidfd), which must be running.
    pub container: BorrowedFd<'a>,
    /// What runs, in place of the configuration's `process`.
    pub process: &'a Process,
    /// Standard input. The three are closed unused where `process.terminal` is set.
    pub stdin: OwnedFd,
    /// Standard output.
    pub stdout: OwnedFd,
    /// Standard error.
    pub stderr: OwnedFd,
    /// The cgroup v2 folder that it starts in, which must exist: the container's, or one below; `None`: the caller's.
    pub cgroup: Option<&'a Path>,
    /// Who becomes its parent.
    pub parent: Parent,
    /// As [`crate::Create::init`].
    pub init: Option<&'a Path>,
}

/// Makes a process in a running container, up to where its program would be executed: [`Created::start`] does that.
/// The process leaves with its container's first one where that has a process ID namespace of its own.
pub fn exec(e: Exec<'_>) -> Result<Created, Error> {
    exec_with(e, Extras::default())
}

/// [`exec`] with what few callers need.
pub fn exec_with(e: Exec<'_>, extras: Extras<'_>) -> Result<Created, Error> {
    let (kinds, confined) = (kinds(e.spec), userns::is_confined());
    let plan = plan::exec(e.spec, e.process, kinds)?;
    let mapped = kinds & libc::CLONE_NEWUSER != 0;
    let container = e.container.try_clone_to_owned().host(|| "copy a pidfd".into())?;
    let spec = &*userns::with_mappings(e.spec, mapped.then_some(&(container, libc::CLONE_NEWUSER)))?;
    let owner = Owner::new(spec, mapped);
    let cgroup = e.cgroup.map(cgroup::open).transpose()?;
    let stdio = [e.stdin, e.stdout, e.stderr];
    if !plan.process.terminal {
        create::own_pipes(&stdio, owner, &plan.process, confined)?;
    }
    let mut joined = Vec::new();
    if kinds & libc::CLONE_NEWPID != 0 {
        let container = e.container.try_clone_to_owned().host(|| "copy a pidfd".into())?;
        joined.push((container, libc::CLONE_NEWPID));
    }
    let child = Child {
        id: e.id,
        flags: 0,
        cgroup: (CgroupGuard(None), cgroup),
        stdio,
        parent: e.parent,
        init: e.init,
        mapped: false,
        joined,
    };
    let affinity = affinity::of(e.process)?;
    let created = affinity.while_made(|| child.make(&plan.process))?;
    affinity.apply(created.pid())?;
    rdt::join(e.spec, e.id, created.pid())?;
    create::prepare(&created, e.process, None, confined)?;
    created.go()?;
    let mut plan = plan;
    let bundle = extras.bundle.map(|b| b.to_string_lossy()).unwrap_or_default();
    let notified = create::notify(&mut plan, e.spec, e.id, &bundle, created.pid())?;
    extras.send(&created, plan, vec![e.container], notified.as_ref(), e.id)?;
    created.until_ready()
}

/// The namespaces that the container doesn't share with the host, `CLONE_NEW…`.
fn kinds(spec: &Spec) -> i32 {
    spec.linux.namespaces.iter().fold(0, |kinds, n| kinds | create::clone_flag(n.kind))
}
