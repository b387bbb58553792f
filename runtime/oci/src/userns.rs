//! User namespaces that exist for the mapping they hold.

use std::borrow::Cow;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use crate::error::Step;
use crate::spec::{IdMapping, Spec};
use crate::{Error, procfs, sys};

/// Makes a user namespace with these mappings.
pub(crate) fn make(uids: &[IdMapping], gids: &[IdMapping]) -> io::Result<OwnedFd> {
    make_mapped(|pid| write_maps(pid, uids, gids))
}

/// Makes a user namespace, whose mappings are written by `map` for a process in it. That process lives as long as it takes.
pub(crate) fn make_mapped<E: From<io::Error>>(map: impl FnOnce(u32) -> Result<(), E>) -> Result<OwnedFd, E> {
    let carrier = sys::Carrier::new()?;
    let pid = carrier.pid();
    map(pid)?;
    let path = format!("/proc/{pid}/ns/user");
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map_err(io::Error::from)?)
}

/// Whether this process is in a user namespace other than the initial one, without the host's rights: it can make no device
/// nodes and no device filters, and lower no `oom_score_adj`.
pub(crate) fn is_confined() -> bool {
    let whole = |text: String| text.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    // What can't be found out is taken for the usual.
    std::fs::read_to_string("/proc/self/uid_map").is_ok_and(|text| !whole(text))
}

/// The configuration with the mappings of a user namespace that it joins, if it doesn't tell them itself.
pub(crate) fn with_mappings<'a>(spec: &'a Spec, joined: Option<&(OwnedFd, i32)>) -> Result<Cow<'a, Spec>, Error> {
    let Some((namespace, _)) = joined.filter(|_| spec.linux.uid_mappings.is_empty()) else {
        return Ok(Cow::Borrowed(spec));
    };
    let step = || "read the mappings of the user namespace to join".to_owned();
    let carrier = sys::Carrier::joined(namespace.as_fd()).host(step)?;
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{}/{file}", carrier.pid())).map(|t| parse(&t));
    let mut spec = spec.clone();
    spec.linux.uid_mappings = read("uid_map").host(step)?;
    spec.linux.gid_mappings = read("gid_map").host(step)?;
    Ok(Cow::Owned(spec))
}

/// Lines of `uid_map`.
fn parse(text: &str) -> Vec<IdMapping> {
    let line = |line: &str| {
        let mut numbers = line.split_ascii_whitespace().map(|n| n.parse::<u32>().ok());
        let mut next = || numbers.next().flatten();
        Some(IdMapping { container_id: next()?, host_id: next()?, size: next()? })
    };
    text.lines().filter_map(line).collect()
}

/// Writes the mappings of a process's new user namespace.
pub(crate) fn write_maps(pid: u32, uids: &[IdMapping], gids: &[IdMapping]) -> io::Result<()> {
    for (file, lines) in [("uid_map", uids), ("gid_map", gids)] {
        let text: String = lines.iter().map(|l| format!("{} {} {}\n", l.container_id, l.host_id, l.size)).collect();
        if file == "gid_map" && !rustix::process::geteuid().is_root() {
            // Without privileges groups can be mapped only by who gives up setgroups(2) (user_namespaces(7)).
            procfs::write(format!("{pid}/setgroups"), "deny")?;
        }
        let name = |e: io::Error| io::Error::new(e.kind(), format!("write {text:?} to {file}: {e}"));
        procfs::write(format!("{pid}/{file}"), &text).map_err(name)?;
    }
    Ok(())
}
