//! Metadata of The Update Framework (specification 1.0.x), and its canonical JSON.
//!
//! - [`canonical`](mod@canonical): canonical JSON: the bytes that signatures are made over
//! - [`delegation`]: whom a targets role trusts with which files
//! - [`encode`]: names of roles and files, made safe for addresses and folders
//! - [`envelope`]: a signed file as it was received
//! - [`pattern`]: path patterns of delegations
//! - [`public_key`]: public keys of the kinds that the specification names
//! - [`roles`]: what the roles say
//! - [`time`]: points in time as metadata writes them
//!
//! Signatures are made over the canonical form of `signed` *as it was received*, unknown fields included; so an
//! [`Envelope`] keeps it raw and roles are read out of it afterwards. No cryptography and no I/O happen here.

pub mod canonical;
pub mod delegation;
pub mod encode;
pub mod envelope;
pub mod pattern;
pub mod public_key;
pub mod roles;
pub mod time;

pub use canonical::canonical;
pub use delegation::{DelegatedRole, Delegations};
pub use envelope::{Envelope, MAX_DEPTH, MAX_SIGNATURES, MetadataError, Signature};
pub use public_key::PublicKey;
pub use roles::{
    Key, KeyValue, MetaFile, Metadata, Role, RoleKeys, Root, SPEC_VERSION, Snapshot, TargetFile, Targets, Timestamp,
    is_sha256_hex,
};
pub use time::{InvalidTime, Time};

#[cfg(test)]
mod tests;
