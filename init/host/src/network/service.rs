//! The loop that holds the network service together: it waits for DHCP packets, for changes of links and for the next
//! deadline, hands them to each link's state machine, and does what that wants done.

use std::fs::File;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use keel_durable as durable;
use keel_link::control;
use keel_spec::config::Settings;
use keel_spec::paths;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::dhcp::machine::{self, Action, Event, State};
use super::dhcp::message::{self, Lease, MAX_PACKET_BYTES, Query};
use super::dhcp::socket;
use super::links::{self, Link};
use super::netlink::{self, Netlink};
use super::resolv;

/// The service counts as up after this long even without a lease: the host is of use without a network.
const READY_WITHOUT_LEASE: Duration = Duration::from_secs(10);
/// Most packets taken from a socket before the others have their turn.
const MAX_PACKETS_A_TURN: usize = 32;
/// Metric of routes of the first link; later links' are higher.
const METRIC: u32 = 100;

/// A link that is looked after.
struct Port {
    link: Link,
    client: Option<Client>,
}

/// Its DHCP client.
struct Client {
    socket: UdpSocket,
    state: State,
}

pub(super) struct Service {
    settings: Settings,
    control: Option<control::Client>,
    resolv_conf: PathBuf,
    virtual_too: bool,
    netlink: Netlink,
    changes: netlink_sys::Socket,
    ports: Vec<Port>,
    began: Instant,
    random: u32,
    ready: bool,
    told: String,
}

impl Service {
    pub(super) fn new(settings: &Settings, control: Option<control::Client>) -> anyhow::Result<Self> {
        let mut seed = [0; 4];
        File::open("/dev/urandom")
            .and_then(|mut file| file.read_exact(&mut seed))
            .context("cannot read /dev/urandom")?;
        Ok(Self {
            settings: settings.clone(),
            control,
            resolv_conf: paths::RESOLV_CONF.into(),
            virtual_too: false,
            netlink: Netlink::open().context("cannot open a netlink socket")?,
            changes: netlink::watch_links().context("cannot watch for changes of links")?,
            ports: Vec::new(),
            began: Instant::now(),
            random: u32::from_ne_bytes(seed) | 1,
            ready: false,
            told: String::new(),
        })
    }

    pub(super) fn with_resolv_conf(mut self, path: &Path) -> Self {
        self.resolv_conf = path.into();
        self
    }

    pub(super) fn virtual_links_too(mut self) -> Self {
        self.virtual_too = true;
        self
    }

    /// Configures the network and keeps it so.
    pub(super) fn run(mut self) -> anyhow::Result<()> {
        if let Err(error) = self.netlink.set_up(netlink::LOOPBACK) {
            log::error!("cannot set the loopback link up: {error}");
        }
        self.write_resolv_conf();
        self.look_at_links();
        loop {
            self.advance();
            self.tell()?;
            self.wait().context("cannot wait for packets")?;
        }
    }

    /// Waits until something is readable or due, then handles what is readable.
    fn wait(&mut self) -> anyhow::Result<()> {
        let due = self.ports.iter().filter_map(|port| Some(port.client.as_ref()?.state.next_ms())).min();
        let ready = (!self.ready).then_some(READY_WITHOUT_LEASE.as_millis() as u64);
        let due = due.into_iter().chain(ready).min().filter(|due| *due != u64::MAX);
        let timeout = due.map(|due| due.saturating_sub(self.now_ms()));
        let timeout =
            timeout.map(|ms| Timespec { tv_sec: (ms / 1_000) as i64, tv_nsec: (ms % 1_000 * 1_000_000) as i64 });
        let sockets = self.ports.iter().filter_map(|port| Some(port.client.as_ref()?.socket.as_fd()));
        let mut fds: Vec<_> = std::iter::once(self.changes.as_fd())
            .chain(sockets)
            .map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN))
            .collect();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        let links_changed = !fds[0].revents().is_empty();
        drop(fds);
        if links_changed {
            // Bounded: what comes in meanwhile is looked at in the next turn.
            for _ in 0..MAX_PACKETS_A_TURN {
                if self.changes.recv_from_full().is_err() {
                    break;
                }
            }
            self.look_at_links();
        }
        self.receive();
        Ok(())
    }

    /// New links are set up, gone ones forgotten, those whose carrier came get a client.
    fn look_at_links(&mut self) {
        let links = links::physical(self.virtual_too);
        self.ports.retain(|port| links.iter().any(|link| link.index == port.link.index && link.name == port.link.name));
        for link in links {
            match self.ports.iter().position(|port| port.link.index == link.index) {
                None => {
                    log::info!("link {}", link.name);
                    if let Err(error) = self.netlink.set_up(link.index) {
                        log::error!("cannot set link {} up: {error}", link.name);
                    }
                    self.ports.push(Port { link: Link { carrier: false, ..link.clone() }, client: None });
                    self.carrier(self.ports.len() - 1, link.carrier);
                }
                Some(at) => self.carrier(at, link.carrier),
            }
        }
    }

    fn carrier(&mut self, at: usize, carrier: bool) {
        let was = std::mem::replace(&mut self.ports[at].link.carrier, carrier);
        if was == carrier {
            return;
        }
        let name = self.ports[at].link.name.clone();
        log::info!("link {name} has {} carrier", if carrier { "a" } else { "no" });
        if !carrier {
            // The lease stays in force while the cable is out; it is asked for anew when it is back.
            return;
        }
        if let Some((address, prefix)) = self.settings.network.address {
            if at == 0 {
                self.apply_static(address, prefix);
            }
            return;
        }
        let old = self.ports[at].client.take().and_then(|client| client.state.lease().cloned());
        match socket::open(&name) {
            Ok(socket) => {
                let state = machine::start(self.now_ms(), self.next_random());
                self.ports[at].client = Some(Client { socket, state });
            }
            Err(error) => log::error!("cannot open a DHCP socket on {name}: {error}"),
        }
        if let Some(lease) = old {
            self.withdraw(at, &lease);
        }
    }

    /// Gives every client whose time has come a tick.
    fn advance(&mut self) {
        for at in 0..self.ports.len() {
            let due = self.ports[at].client.as_ref().map(|client| client.state.next_ms());
            if due.is_some_and(|due| due <= self.now_ms()) {
                self.step(at, Event::Tick);
            }
        }
    }

    fn receive(&mut self) {
        let mut packet = [0; MAX_PACKET_BYTES];
        for at in 0..self.ports.len() {
            for _ in 0..MAX_PACKETS_A_TURN {
                let port = &self.ports[at];
                let Some(client) = &port.client else { break };
                let Ok((length, _)) = client.socket.recv_from(&mut packet) else { break };
                if let Some(answer) = message::decode(&packet[..length], client.state.xid(), port.link.mac) {
                    self.step(at, Event::Answer(answer));
                }
            }
        }
    }

    fn step(&mut self, at: usize, event: Event) {
        let (now, random) = (self.now_ms(), self.next_random());
        let Some(client) = &mut self.ports[at].client else { return };
        let (state, actions) = machine::step(client.state.clone(), event, now, random);
        let before = std::mem::replace(&mut client.state, state);
        for action in actions {
            match action {
                Action::Broadcast(query) => self.send(at, &query, None),
                Action::Unicast(query, server) => self.send(at, &query, Some(server)),
                Action::Apply(lease) => self.apply(at, before.lease(), &lease),
                Action::Withdraw(lease) => self.withdraw(at, &lease),
            }
        }
    }

    fn send(&self, at: usize, query: &Query, server: Option<Ipv4Addr>) {
        let Port { link, client: Some(client) } = &self.ports[at] else { return };
        let sent = message::encode(query, link.mac, &self.settings.hostname)
            .map_err(std::io::Error::other)
            .and_then(|packet| socket::send(&client.socket, &packet, server));
        if let Err(error) = sent {
            log::warn!("cannot send a DHCP query on {}: {error}", link.name);
        }
    }

    fn apply(&mut self, at: usize, before: Option<&Lease>, lease: &Lease) {
        let Link { index, name, .. } = self.ports[at].link.clone();
        if let Some(before) = before.filter(|before| (before.address, before.prefix) != (lease.address, lease.prefix)) {
            self.withdraw(at, &before.clone());
        }
        let mut failures = Vec::new();
        if let Some(mtu) = lease.mtu {
            failures.extend(self.netlink.set_mtu(index, mtu).err().map(|error| format!("MTU {mtu}: {error}")));
        }
        let added = self.netlink.add_address(index, lease.address.into(), lease.prefix);
        failures.extend(added.err().map(|error| format!("address {}: {error}", lease.address)));
        // Routes on the link first: routers may be reached by them.
        let (direct, routed): (Vec<_>, Vec<_>) =
            lease.routes.iter().partition(|(_, _, router)| router.is_unspecified());
        for (destination, prefix, router) in direct.into_iter().chain(routed) {
            let to = (IpAddr::V4(destination), prefix);
            let added = self.netlink.add_route(index, to, IpAddr::V4(router), METRIC + at as u32);
            failures.extend(added.err().map(|error| format!("route {destination}/{prefix} via {router}: {error}")));
        }
        failures.iter().for_each(|failure| log::error!("link {name}: cannot set {failure}"));
        self.write_resolv_conf();
    }

    fn withdraw(&mut self, at: usize, lease: &Lease) {
        let Link { index, name, .. } = &self.ports[at].link;
        log::warn!("link {name}: {} is given up", lease.address);
        // Its routes go with the link's last address.
        if let Err(error) = self.netlink.remove_address(*index, lease.address.into(), lease.prefix) {
            log::warn!("link {name}: cannot remove {}: {error}", lease.address);
        }
        self.write_resolv_conf();
    }

    fn apply_static(&mut self, address: IpAddr, prefix: u8) {
        let Some(Port { link, .. }) = self.ports.first() else { return };
        let (index, name) = (link.index, link.name.clone());
        if let Err(error) = self.netlink.add_address(index, address, prefix) {
            log::error!("link {name}: cannot set address {address}/{prefix}: {error}");
        }
        if let Some(gateway) = self.settings.network.gateway {
            let everywhere: IpAddr = match gateway {
                IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
                IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
            };
            if let Err(error) = self.netlink.add_route(index, (everywhere, 0), gateway, METRIC) {
                log::error!("link {name}: cannot set the default route via {gateway}: {error}");
            }
        }
    }

    fn write_resolv_conf(&self) {
        let leased = self.ports.iter().filter_map(|port| port.client.as_ref()?.state.lease());
        let leased = leased.flat_map(|lease| lease.dns.iter().copied().map(IpAddr::V4));
        let text = resolv::render(self.settings.network.dns.iter().copied().chain(leased));
        if let Err(error) = durable::write_volatile(&self.resolv_conf, text.as_bytes()) {
            log::error!("cannot write {}: {error}", self.resolv_conf.display());
        }
    }

    /// Tells PID 1 what has changed, and when the service is up.
    fn tell(&mut self) -> anyhow::Result<()> {
        let status = self.status();
        let configured = match self.settings.network.address {
            Some(_) => self.ports.first().is_some_and(|port| port.link.carrier),
            None => {
                self.ports.iter().any(|port| port.client.as_ref().is_some_and(|client| client.state.lease().is_some()))
            }
        };
        let ready = !self.ready && (configured || self.began.elapsed() >= READY_WITHOUT_LEASE);
        if status != self.told {
            log::info!("{status}");
            if let Some(control) = &mut self.control {
                control.status(&status)?;
            }
            self.told = status;
        }
        if ready {
            self.ready = true;
            if let Some(control) = &mut self.control {
                control.ready()?;
            }
        }
        Ok(())
    }

    fn status(&self) -> String {
        if self.ports.is_empty() {
            return "no link".into();
        }
        let mut lines = Vec::new();
        for (at, Port { link, client }) in self.ports.iter().enumerate() {
            let lease = client.as_ref().and_then(|client| client.state.lease());
            lines.push(match (lease, self.settings.network.address) {
                (Some(lease), _) => {
                    let via = lease.routes.iter().find(|(_, prefix, _)| *prefix == 0);
                    let via = via.map(|(_, _, router)| format!(" via {router}")).unwrap_or_default();
                    format!("{} {}/{}{via}, lease {} s", link.name, lease.address, lease.prefix, lease.lease_s)
                }
                (None, Some((address, prefix))) if at == 0 => format!("{} {address}/{prefix}", link.name),
                (None, _) if !link.carrier => format!("{} no carrier", link.name),
                (None, _) => format!("{} no lease yet", link.name),
            });
        }
        lines.join("; ")
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Xorshift: jitter and transaction numbers needn't be secret.
    fn next_random(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 17;
        self.random ^= self.random << 5;
        self.random
    }
}
