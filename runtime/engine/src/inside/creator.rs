//! Making files as a container's root: file systems that belong to its user namespace, or are seen through its mapping,
//! take no files whose maker they have no number for, and the host's root is such a one.

use std::io;

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::thread::{capabilities, set_capabilities};

/// Bytes of stack of the thread.
const STACK_BYTES: usize = 512 * 1024;

/// Does `work` on a thread that makes files as the host's user and group `id`, with the rights of this one.
pub fn as_creator<T: Send>(id: u32, work: impl FnOnce() -> T + Send) -> io::Result<T> {
    if id == 0 {
        return Ok(work());
    }
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("creator".into()).stack_size(STACK_BYTES);
        let spawned = thread.spawn_scoped(scope, || {
            let rights = capabilities(None)?;
            setfsgid(Gid::from_raw(id));
            setfsuid(Uid::from_raw(id));
            // The change took the rights over files away (capabilities(7), "Effect of user ID changes").
            set_capabilities(None, rights)?;
            Ok(work())
        })?;
        spawned.join().unwrap_or_else(|_| Err(io::Error::other("the thread panicked")))
    })
}
