//! Fuzzing of all parsers that read what others wrote: in one process, deterministic, without a nightly compiler.
//!
//! - [`mutate`]: changes to inputs, from a seeded generator
//! - [`runner`]: runs a target, and tells crashes from refusals
//! - [`targets`]: the parsers, with inputs to begin with and what must hold of what they accept
#![forbid(unsafe_code)]

pub mod mutate;
pub mod runner;
pub mod targets;
