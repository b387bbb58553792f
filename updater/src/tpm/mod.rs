//! The few commands of a TPM 2.0 that keeping a version takes: what is in them, and how they get there.
//!
//! - [`device`]: the kernel's device, with a time limit
//! - [`keeping`]: a counter and a record in the TPM's non-volatile memory
//! - [`nv`]: the commands
//! - [`wire`]: bytes of commands and answers
//!
//! "Part 2" and "Part 3" are those of the Trusted Computing Group's "Trusted Platform Module Library", revision 1.59.

pub mod device;
pub mod keeping;
pub mod nv;
pub mod wire;

pub use keeping::{Held, Keeping, Record};
pub use wire::Error;

/// Takes a command to a TPM and brings the answer.
pub trait Transport: Send {
    /// The answer, of at most [`wire::MAX_ANSWER_BYTES`].
    fn exchange(&mut self, command: &[u8]) -> std::io::Result<Vec<u8>>;
}
