//! The machine that the tests boot, and what they boot it with.
//!
//! - [`bare`]: a guest without a disk, for programs that need a kernel of their own
//! - [`bench`]: the figures that the project steers by
//! - [`build`]: releases and disks, made by the project's own `keel-image`
//! - [`clients`]: `docker` and `keelctl`, run as an operator runs them
//! - [`conformance`]: the OCI runtime's suite, here and in a bare guest
//! - [`engines`]: Podman and containerd with our OCI runtime
//! - [`images`]: container images of Debian's busybox
//! - [`machine`]: QEMU with firmware, disk, network, watchdog and a serial console
//! - [`packages`]: Debian packages, fetched and unpacked
//! - [`policies`]: AppArmor profiles and a SELinux policy, compiled for a guest
//! - [`proxy`]: an HTTP proxy that knows a host which nobody else knows
//! - [`registry`]: Debian's `docker-registry` on loopback
//! - [`repository`]: a static file server for update repositories, with faults on request
//! - [`scenario`]: runs scenarios side by side and counts them
//! - [`scenarios`]: what is tested end to end
//! - [`sealed`]: the store's tests that need fs-verity
//! - `tpm`: a TPM for a machine
//! - [`whole`]: whether a disk boots a release whole, told without booting it
//! - [`writes`]: what reached a machine's disk, and the states in which a power cut may leave it
#![forbid(unsafe_code)]

pub mod bare;
pub mod bench;
pub mod build;
pub mod clients;
pub mod conformance;
pub mod engines;
pub mod images;
pub mod machine;
pub mod packages;
pub mod policies;
pub mod proxy;
pub mod registry;
pub mod repository;
pub mod scenario;
pub mod scenarios;
pub mod sealed;
mod tpm;
pub mod whole;
pub mod writes;
