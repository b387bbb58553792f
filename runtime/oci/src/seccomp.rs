//! The default system call filter, and the compiler of filters.
use crate::spec::Seccomp;
/// The filter of an ordinary container that holds these capabilities (`CAP_…`).
pub fn default_profile(_capabilities: &[String]) -> Seccomp { Seccomp::default() }
