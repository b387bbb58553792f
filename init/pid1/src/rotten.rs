//! A good slot that rots: the last boot of this very root ended in a panic of dm-verity.
//!
//! A release that proved good has no tries left to count down, so the boot loader would offer it for ever. The
//! panic's message survives in the firmware's store (efi-pstore). If it is there and names dm-verity, the UKI's name
//! gets a counter at zero, which makes the boot loader offer the other release first, if there is one.

use keel_spec::verity::RootHash;

use crate::console::Console;

/// Restarts the machine with the other release first in line, if this root rotted. Otherwise just returns.
pub fn leave_if_rotten(_root_hash: &RootHash, _disk: &str, _console: &mut Console) {}
