//! User namespaces that exist for the mapping they hold.

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags};

use crate::spec::IdMapping;
use crate::sys;

/// Makes a user namespace with these mappings. A process that lives as long as it takes carries it there.
pub(crate) fn make(uids: &[IdMapping], gids: &[IdMapping]) -> io::Result<OwnedFd> {
    let carrier = sys::Carrier::new()?;
    let pid = carrier.pid();
    write_maps(pid, uids, gids)?;
    let path = format!("/proc/{pid}/ns/user");
    Ok(rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Writes the mappings of a process's new user namespace.
pub(crate) fn write_maps(pid: u32, uids: &[IdMapping], gids: &[IdMapping]) -> io::Result<()> {
    for (file, lines) in [("uid_map", uids), ("gid_map", gids)] {
        let text: String = lines.iter().map(|l| format!("{} {} {}\n", l.container_id, l.host_id, l.size)).collect();
        if file == "gid_map" && !rustix::process::geteuid().is_root() {
            // Without privileges groups can be mapped only by who gives up setgroups(2) (user_namespaces(7)).
            std::fs::write(format!("/proc/{pid}/setgroups"), "deny")?;
        }
        let name = |e: io::Error| io::Error::new(e.kind(), format!("write {text:?} to {file}: {e}"));
        std::fs::write(format!("/proc/{pid}/{file}"), &text).map_err(name)?;
    }
    Ok(())
}
