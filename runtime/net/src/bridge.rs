//! A network's bridge, and what the host's kernel has to be told.

use std::io;
use std::path::Path;

use crate::Error;
use crate::error::kernel;
use crate::inside::set;
use crate::netlink::Socket;
use crate::network::Network;
use crate::{ipam, link, route};

/// Most interfaces whose settings are looked at.
const MAX_INTERFACES: usize = 4096;

/// Makes a network's bridge if it isn't there, with its addresses, and lets packets through.
pub(crate) fn ensure(socket: &Socket, network: &Network) -> Result<(), Error> {
    let name = network.bridge();
    let gateways: Vec<_> =
        network.pools.iter().filter_map(|pool| Some((pool.gateway?, pool.subnet.prefix()))).collect();
    let Some((first, _)) = gateways.first() else { return Ok(()) };
    let index = link::ensure_bridge(socket, &name, ipam::mac(*first), network.mtu())
        .map_err(kernel(|| format!("make bridge {name}")))?;
    let settings = || -> io::Result<()> {
        set("net/ipv4/ip_forward", "1")?;
        keep_frames_bridged()?;
        set(&format!("net/ipv4/conf/{name}/route_localnet"), "1")?;
        if network.ipv6 {
            set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "0")?;
            set(&format!("net/ipv6/conf/{name}/accept_ra"), "0")?;
            forward_ipv6()?;
        } else if Path::new("/proc/sys/net/ipv6").exists() {
            set(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1")?;
        }
        Ok(())
    };
    settings().map_err(kernel(|| format!("set up bridge {name}")))?;
    for (gateway, prefix) in gateways {
        route::add_address(socket, index, gateway, prefix)
            .map_err(kernel(|| format!("give bridge {name} the address {gateway}/{prefix}")))?;
    }
    Ok(())
}

/// Where `br_netfilter` is loaded, frames between two ports of a bridge pass the rules for routed packets as well: slower,
/// and a published port would be looked for behind the port it is asked at (Documentation/networking/ip-sysctl.rst,
/// `/proc/sys/net/bridge`).
fn keep_frames_bridged() -> io::Result<()> {
    for name in ["net/bridge/bridge-nf-call-iptables", "net/bridge/bridge-nf-call-ip6tables"] {
        if Path::new("/proc/sys").join(name).exists() {
            set(name, "0")?;
        }
    }
    Ok(())
}

/// A host that forwards ignores routers' advertisements by default, and would lose its own way out: interfaces that
/// heed them are told to go on (Documentation/networking/ip-sysctl.rst, `accept_ra`).
fn forward_ipv6() -> io::Result<()> {
    let all = Path::new("/proc/sys/net/ipv6/conf");
    if std::fs::read_to_string(all.join("all/forwarding"))?.trim() == "1" {
        return Ok(());
    }
    for entry in std::fs::read_dir(all)?.take(MAX_INTERFACES) {
        let file = entry?.path().join("accept_ra");
        // An interface may go while we look.
        if std::fs::read_to_string(&file).is_ok_and(|value| value.trim() == "1") {
            let _ = std::fs::write(&file, "2");
        }
    }
    set("net/ipv6/conf/all/forwarding", "1")
}

/// Removes a network's bridge; one that isn't there is fine.
pub(crate) fn remove(socket: &Socket, network: &Network) -> Result<(), Error> {
    let name = network.bridge();
    link::remove(socket, &name).map_err(kernel(|| format!("remove interface {name}")))
}
