//! The host's own addresses, and word of their changes.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket};
use tokio::io::unix::AsyncFd;

/// Most addresses that are looked at.
const MAX_ADDRESSES: usize = 256;
/// `RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR` (rtnetlink(7)).
const ADDRESS_GROUPS: u32 = 0x10 | 0x100;

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// Name of the interface.
    pub interface: String,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix in bits.
    pub prefix: u32,
}

/// Addresses of all interfaces that are up, but for the loopback, link-local ones and the container networks' own.
pub fn current() -> io::Result<Vec<InterfaceAddress>> {
    let mut found = Vec::new();
    for entry in getifaddrs()?.take(MAX_ADDRESSES) {
        let up = entry.flags.contains(InterfaceFlags::IFF_UP) && !entry.flags.contains(InterfaceFlags::IFF_LOOPBACK);
        let Some(address) = entry.address.as_ref().and_then(ip) else { continue };
        let prefix = entry.netmask.as_ref().and_then(ip).map_or(0, ones);
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if up && !link_local {
            found.push(InterfaceAddress { interface: entry.interface_name, address, prefix });
        }
    }
    Ok(found)
}

/// Whether an interface leads to containers: a bridge or veth of ours is no way to reach the host.
pub fn is_internal(interface: &str) -> bool {
    ["keel", "veth", "docker", "br-"].iter().any(|prefix| interface.starts_with(prefix))
}

fn ip(address: &nix::sys::socket::SockaddrStorage) -> Option<IpAddr> {
    if let Some(v4) = address.as_sockaddr_in() {
        return Some(v4.ip().into());
    }
    address.as_sockaddr_in6().map(|v6| v6.ip().into())
}

fn ones(mask: IpAddr) -> u32 {
    match mask {
        IpAddr::V4(v4) => v4.to_bits().count_ones(),
        IpAddr::V6(v6) => v6.to_bits().count_ones(),
    }
}

/// Tells when an address came or went.
pub struct Changes(AsyncFd<OwnedFd>);

impl Changes {
    /// Listens to the kernel from now on.
    #[expect(
        deprecated,
        reason = "the successor is unsafe over types that may lie about their descriptor; OwnedFd doesn't"
    )]
    pub fn open() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(std::os::fd::AsRawFd::as_raw_fd(&fd), &NetlinkAddr::new(0, ADDRESS_GROUPS))?;
        Ok(Self(AsyncFd::new(fd)?))
    }

    /// Waits for a change; what changed isn't told. A burst of messages counts as one.
    pub async fn next(&mut self) -> io::Result<()> {
        let mut guard = self.0.readable().await?;
        let mut buffer = [0; 4096];
        // A burst longer than this leaves the rest for the next call.
        for _ in 0..1000 {
            match recv(
                std::os::fd::AsRawFd::as_raw_fd(guard.get_inner()),
                &mut buffer,
                nix::sys::socket::MsgFlags::empty(),
            ) {
                // ENOBUFS: messages were lost; there was a change all the same.
                Ok(_) | Err(nix::errno::Errno::ENOBUFS | nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => {
                    guard.clear_ready();
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mask_becomes_a_prefix_length() {
        assert_eq!(ones("255.255.255.0".parse().unwrap()), 24);
        assert_eq!(ones("ffff:ffff::".parse().unwrap()), 32);
    }

    #[test]
    fn the_loopback_is_not_among_the_addresses() {
        assert!(current().unwrap().iter().all(|address| !address.address.is_loopback()));
    }
}
