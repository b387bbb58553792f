//! From what a client asked for to what `keel_oci` is told, as data. `create` runs all of it to find what is wrong
//! before anything exists; `start` runs it again with the paths and the user that it has found by then.
//!
//! - [`refuse`]: options that aren't done yet; none is ever passed over silently
//! - [`merge`]: the image's settings below the client's
//! - [`process`]: words, environment, capabilities, limits of the process
//! - [`users`]: users and groups from the image's own `/etc/passwd` and `/etc/group`
//! - [`mounts`]: binds, volumes, tmpfs
//! - [`devices`], [`blkio`]: devices of the host, limits on them
//! - [`logging`]: where output goes; [`attributes`]: what `docker logs --details` shows of a container
//! - [`networks`], [`ports`]: networks, published ports
//! - [`resources`]: cgroup limits; [`cgroup`]: the group that the container's is in
//! - [`security`]: namespaces, privileges, filters; [`seccomp`]: filters that clients bring
//! - [`sysctls`]: kernel parameters
//! - [`spec`]: all of it as one OCI configuration

pub mod attributes;
pub mod blkio;
pub mod cgroup;
pub mod devices;
pub mod logging;
pub mod merge;
pub mod mounts;
pub mod networks;
pub mod ports;
pub mod process;
pub mod refuse;
pub mod resources;
pub mod seccomp;
pub mod security;
pub mod spec;
pub mod sysctls;
pub mod users;

/// A wrong request.
pub(crate) fn bad<T>(message: impl Into<String>) -> Result<T, crate::Error> {
    Err(crate::Error::BadParameter(message.into()))
}
