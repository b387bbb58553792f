//! The thread: one epoll loop over all ports and what goes on at them.

use std::io;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::{Timespec, epoll};

use super::Shared;
use super::table::BELL;

/// Stack of the thread.
const STACK_BYTES: usize = 256 << 10;
/// Events taken at once.
const EVENTS: usize = 64;
/// How often sessions of UDP are looked over while there are any, seconds.
const TICK_S: i64 = 10;

/// Starts the thread. It ends when the table does.
pub(super) fn start(shared: Arc<Shared>) -> io::Result<()> {
    let thread = std::thread::Builder::new().name("ports".into()).stack_size(STACK_BYTES);
    thread.spawn(move || {
        if let Err(e) = run(&shared) {
            log::error!("ports on ::1: {e}");
            shared.table().end();
        }
    })?;
    Ok(())
}

fn run(shared: &Shared) -> io::Result<()> {
    // What had more to do than its turn allowed; each edge is told of once.
    let mut again: Vec<u64> = Vec::new();
    let mut is_ticking = false;
    loop {
        let seconds = if again.is_empty() { TICK_S } else { 0 };
        let timeout = (is_ticking || !again.is_empty()).then_some(Timespec { tv_sec: seconds, tv_nsec: 0 });
        let mut events = [MaybeUninit::uninit(); EVENTS];
        let mut keys = std::mem::take(&mut again);
        match epoll::wait(&shared.epoll, &mut events, timeout.as_ref()) {
            Ok((ready, _)) => keys.extend(ready.iter().map(|event| event.data.u64())),
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
        let mut table = shared.table();
        if table.has_ended() {
            return Ok(());
        }
        again.extend(keys.into_iter().filter(|key| *key != BELL).filter(|key| table.step(&shared.epoll, *key)));
        is_ticking = table.expire(Instant::now());
    }
}
