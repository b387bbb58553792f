//! User namespaces that nobody lives in: the kernel takes an ID mapping only in this shape.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

use crate::store::IdMap;
use crate::sys;

/// Namespaces kept for the next container with the same mapping.
const MAX_KEPT: usize = 64;

/// Namespaces by mapping.
#[derive(Debug, Default)]
pub struct Namespaces {
    kept: Mutex<Vec<(IdMap, OwnedFd)>>,
}

impl Namespaces {
    /// A namespace with this mapping, for users and groups alike.
    pub fn get(&self, mapping: IdMap) -> io::Result<OwnedFd> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, namespace)) = kept.iter().find(|(known, _)| *known == mapping) {
            return namespace.as_fd().try_clone_to_owned();
        }
        let namespace = make(mapping)?;
        if kept.len() >= MAX_KEPT {
            kept.remove(0);
        }
        kept.push((mapping, namespace.try_clone()?));
        Ok(namespace)
    }
}

fn make(mapping: IdMap) -> io::Result<OwnedFd> {
    // The process lives until the end of this function, in a new user namespace, doing nothing.
    let idle = sys::Idle::in_user_namespace()?;
    let line = format!("0 {} {}\n", mapping.host_base, mapping.count);
    for file in ["uid_map", "gid_map"] {
        std::fs::write(format!("/proc/{}/{file}", idle.pid()), &line)?;
    }
    Ok(std::fs::File::open(format!("/proc/{}/ns/user", idle.pid()))?.into())
}
