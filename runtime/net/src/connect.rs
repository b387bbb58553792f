//! Containers change networks while they run.

use std::net::IpAddr;
use std::os::fd::BorrowedFd;

use crate::attach::{check_place, make_link, place, remove_link};
use crate::error::kernel;
use crate::inside::{self, inside};
use crate::net::Net;
use crate::netlink::Socket;
use crate::state::State;
use crate::types::{Endpoint, Sandbox, Wanted};
use crate::{Error, dns, ipam, link};

impl Net {
    /// Refuses a place that no container could have, before one asks for it.
    pub fn check(&self, wanted: &Wanted) -> Result<(), Error> {
        let state = self.lock();
        let network = state.find(&wanted.network)?;
        check_place(network, &Sandbox::default(), wanted)?;
        for ip in [wanted.ip.map(IpAddr::from), wanted.ip6.map(IpAddr::from)].into_iter().flatten() {
            if !network.pool(ip.is_ipv4()).is_some_and(|pool| pool.subnet.contains(ip)) {
                return ipam::out_of_range(ip);
            }
        }
        Ok(())
    }

    /// Gives a container that runs one more place. Nothing is left behind by a failure.
    pub fn connect(&self, id: &str, netns: BorrowedFd<'_>, wanted: &Wanted) -> Result<Sandbox, Error> {
        let mut state = self.lock();
        let before = state.sandboxes.get(id).cloned().unwrap_or_default();
        let endpoint = place(&mut state, &before, wanted)?;
        let mut after = before.clone();
        after.endpoints.push(endpoint.clone());
        state.aim(&mut after);
        state.sandboxes.insert(id.into(), after.clone());
        let done = self.store.write_sandboxes(&state).and_then(|()| {
            make_link(&state, id, netns, &endpoint)?;
            let set_up = || {
                let socket = Socket::route()?;
                inside::interface(&socket, &endpoint)?;
                redirect(&socket, &before, &after)?;
                let first_names = dns::has_names(&state, &after) && !dns::has_names(&state, &before);
                first_names.then(dns::open).transpose()
            };
            let step = || format!("set up {} inside container {id}", endpoint.interface);
            if let Some(sockets) = inside(netns, set_up).map_err(kernel(step))? {
                self.dns.serve(id, sockets).map_err(kernel(|| format!("serve names to container {id}")))?;
            }
            self.publish_names(&state, &after);
            self.change_ports(&state, id, &before, &after)
        });
        if let Err(e) = done {
            if let Err(undo) = self.take_away(&mut state, id, Some(netns), &endpoint) {
                log::warn!("network of container {id}: what a failed connection left behind wasn't removed: {undo}");
            }
            return Err(e);
        }
        Ok(after)
    }

    /// Takes a container that runs off one network.
    pub fn disconnect(&self, id: &str, netns: BorrowedFd<'_>, network: &str) -> Result<(), Error> {
        let mut state = self.lock();
        let network = state.find(network)?.clone();
        let endpoint = state.sandboxes.get(id).and_then(|sandbox| sandbox.endpoint(&network.id)).cloned();
        let endpoint = endpoint
            .ok_or_else(|| Error::Forbidden(format!("container {id} is not connected to network {}", network.name)))?;
        self.take_away(&mut state, id, Some(netns), &endpoint)
    }

    fn take_away(
        &self,
        state: &mut State,
        id: &str,
        netns: Option<BorrowedFd<'_>>,
        endpoint: &Endpoint,
    ) -> Result<(), Error> {
        let Some(before) = state.sandboxes.get(id).cloned() else { return Ok(()) };
        let mut after = before.clone();
        after.endpoints.retain(|other| other.id != endpoint.id);
        state.aim(&mut after);
        state.sandboxes.insert(id.into(), after.clone());
        let rules = self.change_ports(state, id, &before, &after);
        let removed = remove_link(endpoint);
        let ways = netns.map_or(Ok(()), |netns| {
            let set_up = || {
                let socket = Socket::route()?;
                // One over the host's own link has no end that could be removed from outside.
                link::remove(&socket, &endpoint.interface)?;
                redirect(&socket, &before, &after)
            };
            inside(netns, set_up).map_err(kernel(|| format!("take {} from container {id}", endpoint.interface)))
        });
        self.publish_names(state, &before);
        let written = self.store.write_sandboxes(state);
        rules.and(removed).and(ways).and(written)
    }
}

/// Sets the ways out anew if they have changed.
fn redirect(socket: &Socket, before: &Sandbox, after: &Sandbox) -> std::io::Result<()> {
    if before.outward == after.outward { Ok(()) } else { inside::ways_out(socket, after) }
}
