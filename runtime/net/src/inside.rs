//! What is set up in a container's own network namespace. Its thread enters the namespace, and ends there.

use std::io;
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::link;
use crate::netlink::Socket;
use crate::route::{self, Way};
use crate::types::{Endpoint, Sandbox};

/// Stack of the thread that enters a namespace.
const STACK_BYTES: usize = 256 << 10;

/// Prefix length of IPv4 link-local addresses (RFC 3927, section 2.1).
const LINK_LOCAL_PREFIX: u8 = 16;
/// Of those of IPv6 (RFC 4291, section 2.5.6).
const LINK_LOCAL_PREFIX6: u8 = 64;

/// Runs something in another network namespace.
pub(crate) fn inside<T: Send>(netns: BorrowedFd<'_>, what: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().stack_size(STACK_BYTES).spawn_scoped(scope, move || {
            move_into_link_name_space(netns, Some(LinkNameSpaceType::Network))?;
            what()
        })?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the thread in the namespace panicked")))
    })
}

/// Sets the loopback up, which a namespace begins without.
pub(crate) fn loopback(socket: &Socket) -> io::Result<()> {
    link::set_up(socket, link::index_of(socket, "lo")?)
}

/// Sets kernel parameters by their dotted names.
pub(crate) fn parameters(sysctls: &[(String, String)]) -> io::Result<()> {
    sysctls.iter().try_for_each(|(name, value)| set(&name.replace('.', "/"), value))
}

/// Sets an endpoint's interface up.
pub(crate) fn interface(socket: &Socket, endpoint: &Endpoint) -> io::Result<()> {
    let name = &endpoint.interface;
    let index = link::index_of(socket, name)?;
    // Where the kernel has no IPv6 there is nothing to be turned off.
    let has_ipv6 = Path::new("/proc/sys/net/ipv6").exists();
    if endpoint.ip6.is_some() || endpoint.link_local.iter().any(IpAddr::is_ipv6) {
        // Routes come from us, not from whoever is on the network.
        set(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
        set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
    } else if has_ipv6 {
        set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
    }
    route::add_address(socket, index, endpoint.ip.into(), endpoint.prefix)?;
    if let Some(ip) = endpoint.ip6 {
        route::add_address(socket, index, ip.into(), endpoint.prefix6)?;
    }
    for ip in &endpoint.link_local {
        let prefix = if ip.is_ipv4() { LINK_LOCAL_PREFIX } else { LINK_LOCAL_PREFIX6 };
        route::add_address(socket, index, *ip, prefix)?;
    }
    link::set_up(socket, index)
}

/// Sets the ways out.
pub(crate) fn ways_out(socket: &Socket, sandbox: &Sandbox) -> io::Result<()> {
    let outward = sandbox.outward();
    for v4 in [true, false] {
        let way = match outward {
            Some(e) => way(socket, e, v4)?,
            None => None,
        };
        route::set_default(socket, v4, way)?;
    }
    Ok(())
}

fn way(socket: &Socket, endpoint: &Endpoint, v4: bool) -> io::Result<Option<Way>> {
    let gateway = if v4 { endpoint.gateway.map(IpAddr::from) } else { endpoint.gateway6.map(IpAddr::from) };
    // Without any gateway everybody is a neighbour, but one of the other family leads nowhere in this one.
    let other_family_only = gateway.is_none() && (endpoint.gateway.is_some() || endpoint.gateway6.is_some());
    if other_family_only || (!v4 && endpoint.ip6.is_none()) {
        return Ok(None);
    }
    Ok(Some(Way { index: link::index_of(socket, &endpoint.interface)?, gateway }))
}

/// Sets a kernel parameter of the calling thread's network namespace.
pub(crate) fn set(name: &str, value: &str) -> io::Result<()> {
    let write = std::fs::write(Path::new("/proc/sys").join(name), value);
    write.map_err(|e| io::Error::new(e.kind(), format!("set {name} to {value}: {e}")))
}
