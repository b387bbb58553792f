//! A container's log on disk, the one place its output goes to: attached clients and `logs` alike read it from there.
//! So a client that doesn't read costs no memory and never stops the container; once it is two files behind, it is
//! told how much was left out.
//!
//! - [`record`]: the format
//! - [`writer`]: appending, rotation, repair of a torn tail, the runs of the container
//! - [`reader`]: reading from the start, from the last lines on, or from now on

pub mod reader;
pub mod record;
pub mod writer;

#[cfg(test)]
mod tests;
