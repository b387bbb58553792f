//! `keel-image`: turns Debian's kernel and our programs into a signed release and into disk images.
//!
//! - [`publish`]: the update repository: keys, metadata, signing
#![forbid(unsafe_code)]

pub mod publish;
