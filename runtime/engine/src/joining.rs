//! Containers enter networks at their start, and change them while they run.

use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use bollard_stubs::models::{ContainerCreateBody, EndpointSettings};
use keel_net::{Endpoint, Net, Request, Sandbox, Wanted};
use keel_oci::Created;
use keel_oci::spec::{NamespaceKind, Spec};

use crate::container::Container;
use crate::disk::Config;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::files::Around;
use crate::plan::networks::{self, Mode};
use crate::plan::{ports, spec, sysctls};

/// Why a container can't be in a network.
pub(crate) const NO_NETWORK: &str = "this engine has no network: use --network none or host";
/// Files of `/etc` that are the other container's where its network is shared.
const SHARED_FILES: [&str; 3] = ["hosts", "hostname", "resolv.conf"];

impl Engine {
    /// What is wrong with the networks of a request.
    pub(crate) fn check_networks(&self, body: &ContainerCreateBody) -> Result<(), Error> {
        networks::servers(body)?;
        match networks::mode(body)? {
            Mode::None | Mode::Host => Ok(()),
            // Whether the other container, or a network, is there is asked at the start: to Docker's clients "not found" at a
            // creation is a missing image.
            Mode::Container(_) => {
                let published = body.host_config.as_ref().and_then(|host| host.port_bindings.as_ref());
                if published.is_some_and(|ports| !ports.is_empty()) {
                    return Err(Error::BadParameter(
                        "conflicting options: port publishing and the container type network mode".into(),
                    ));
                }
                Ok(())
            }
            Mode::Network(_) => {
                if !self.network.is_possible() {
                    return Err(Error::BadParameter(NO_NETWORK.into()));
                }
                for (name, settings) in networks::asked(body)? {
                    networks::wanted(&settings, name == networks::DEFAULT)?;
                }
                Ok(())
            }
        }
    }

    /// Gives a container that waits for its start its places in networks.
    pub(crate) fn join_networks(&self, config: &Config, created: &Created) -> Result<Option<Sandbox>, Error> {
        match networks::mode(&config.body)? {
            Mode::Host | Mode::Container(_) => return Ok(None),
            Mode::None => {
                let namespace = created.net_ns().doing(|| "opening the container's network namespace")?;
                let sysctls = sysctls::of_network(&config.body);
                keel_net::set_up_alone(namespace.as_fd(), &sysctls).doing(|| "setting up its loopback")?;
                return Ok(None);
            }
            Mode::Network(_) => {}
        }
        let net = self.network.get()?;
        let namespace = created.net_ns().doing(|| "opening the container's network namespace")?;
        self.check_links(config)?;
        let mut request = Request {
            wanted: Vec::new(),
            ports: ports::published(&config.body)?,
            servers: networks::servers(&config.body)?,
            sysctls: sysctls::of_network(&config.body),
        };
        for (name, settings) in networks::asked(&config.body)? {
            request.wanted.push(self.wanted(&net, config, &name, &settings)?);
        }
        match net.attach(&config.id, namespace.as_fd(), &request) {
            Ok(sandbox) => Ok(Some(sandbox)),
            Err(error @ keel_net::Error::PortTaken { .. }) => Err(Error::internal(
                format!("driver failed programming external connectivity on endpoint {}", config.name),
                error,
            )),
            Err(error) => Err(from_net(error)),
        }
    }

    /// On the default network, links are lines in a file: whom they lead to has to run there already.
    fn check_links(&self, config: &Config) -> Result<(), Error> {
        // Elsewhere they are names, which clients say once more with the network's settings.
        if networks::mode(&config.body)? != Mode::Network(networks::DEFAULT.into()) {
            return Ok(());
        }
        let links = config.body.host_config.iter().flat_map(|host| host.links.iter().flatten());
        for link in links {
            let (name, alias) = networks::link(link)?;
            let other = self.find(name)?;
            let state = other.state();
            let mut endpoints = state.networks.iter().flat_map(|sandbox| &sandbox.endpoints);
            if !state.is_running() || !endpoints.any(|endpoint| endpoint.network_name == networks::DEFAULT) {
                return Err(Error::BadParameter(format!(
                    "Cannot link to a non running container: /{name} AS {alias}: it has to run in network {}",
                    networks::DEFAULT
                )));
            }
        }
        Ok(())
    }

    /// One endpoint, with the names under which it is found and those under which it finds others.
    fn wanted(&self, net: &Net, config: &Config, name: &str, settings: &EndpointSettings) -> Result<Wanted, Error> {
        let network = net.find(name).map_err(from_net)?;
        let mut wanted = networks::wanted(settings, network.name == networks::DEFAULT)?;
        if network.has_names() {
            let short = config.id.get(..12).unwrap_or(&config.id);
            wanted.names.insert(0, config.name.clone());
            wanted.names.push(short.into());
            wanted.names.extend(config.body.hostname.clone().filter(|name| !name.is_empty()));
            let mut seen = std::collections::HashSet::new();
            wanted.names.retain(|name| seen.insert(name.clone()));
            for link in settings.links.iter().flatten() {
                let (other, alias) = networks::link(link)?;
                wanted.links.push((alias.into(), self.find(other)?.id.clone()));
            }
        }
        wanted.network = network.id;
        Ok(wanted)
    }

    /// What the files of `/etc` depend on.
    pub(crate) fn around<'a>(
        &self,
        config: &'a Config,
        hostname: &'a str,
        networks: Option<&'a Sandbox>,
    ) -> Around<'a> {
        let endpoints = networks.map(|sandbox| sandbox.endpoints.as_slice()).unwrap_or_default();
        let both = |e: &Endpoint| [Some(IpAddr::from(e.ip)), e.ip6.map(IpAddr::from)].into_iter().flatten();
        Around {
            hostname,
            addresses: endpoints.iter().flat_map(both).collect(),
            own_names: endpoints.iter().any(|endpoint| !endpoint.names.is_empty()),
            host_gateway: self.host_gateway(config),
            linked: self.linked(config, endpoints),
        }
    }

    /// The address that `host-gateway` stands for, where it is asked for.
    fn host_gateway(&self, config: &Config) -> Option<IpAddr> {
        let mut extra = config.body.host_config.iter().flat_map(|host| host.extra_hosts.iter().flatten());
        let wanted = extra.any(|line| line.ends_with("host-gateway")) && self.network.is_possible();
        if wanted { self.network.get().ok()?.host_gateway() } else { None }
    }

    /// Lines for the containers that one on the default network is linked to.
    fn linked(&self, config: &Config, endpoints: &[Endpoint]) -> Vec<(IpAddr, String)> {
        let links = config.body.host_config.as_ref().and_then(|host| host.links.clone()).unwrap_or_default();
        let mut lines = Vec::new();
        for (name, alias) in links.iter().filter_map(|link| networks::link(link).ok()) {
            let Ok(other) = self.find(name) else { continue };
            let Some(sandbox) = other.state().networks else { continue };
            let shared = sandbox.endpoints.iter().find(|o| endpoints.iter().any(|e| e.network == o.network));
            if let Some(endpoint) = shared {
                let other_name = &other.config().name;
                let short = other.id.get(..12).unwrap_or(&other.id);
                lines.push((endpoint.ip.into(), format!("{alias} {short} {other_name}")));
            }
        }
        lines
    }

    /// Has a container that shares another's network do so.
    pub(crate) fn share_network(&self, config: &Config, spec: &mut Spec) -> Result<(), Error> {
        let Mode::Container(name) = networks::mode(&config.body)? else { return Ok(()) };
        let other = self.find(&name)?;
        let Some(pid) = other.state().pid.filter(|_| other.state().is_running()) else {
            let id = &other.id;
            return Err(Error::Conflict(format!("cannot join network of a non running container: {id}")));
        };
        for namespace in &mut spec.linux.namespaces {
            if namespace.kind == NamespaceKind::Network {
                namespace.path = Some(format!("/proc/{pid}/ns/net"));
            }
        }
        for file in SHARED_FILES {
            let target = format!("/etc/{file}");
            if let Some(mount) = spec.mounts.iter_mut().find(|mount| mount.destination == target) {
                mount.source = Some(other.folder.join(file).to_string_lossy().into_owned());
            }
        }
        Ok(())
    }

    /// Puts a container into one more network, at once if it runs.
    pub fn network_connect(&self, network: &str, wanted: &str, settings: EndpointSettings) -> Result<(), Error> {
        let net = self.network.get()?;
        let container = self.find(wanted)?;
        let _gate = container.enter();
        let config = container.config();
        let found = net.find(network).map_err(from_net)?;
        may_connect(&networks::mode(&config.body)?, &found.name)?;
        let asked = networks::asked(&config.body)?;
        let known = asked.into_iter().map(|(name, _)| name).find(|name| *name == found.name || *name == found.id);
        if known.is_some() && container.state().is_running() {
            let name = &config.name;
            return Err(Error::Forbidden(format!(
                "endpoint with name {name} already exists in network {}",
                found.name
            )));
        }
        let place = self.wanted(&net, &config, &found.name, &settings)?;
        net.check(&place).map_err(from_net)?;
        if container.state().is_running() {
            let namespace = namespace(&container)?;
            let sandbox = net.connect(&container.id, namespace.as_fd(), &place).map_err(from_net)?;
            self.note_networks(&container, sandbox)?;
            self.tell_of_network(&found, "connect", &[("container", container.id.clone())]);
        }
        let mut body = config.body.clone();
        let map = body.networking_config.get_or_insert_default().endpoints_config.get_or_insert_default();
        // One that doesn't run is in it already, maybe: with these settings from now on.
        map.insert(known.unwrap_or(found.name), settings);
        container.set_config(Config { body, ..Config::clone(&config) })
    }

    /// Takes a container off a network, at once if it runs.
    pub fn network_disconnect(&self, network: &str, wanted: &str, force: bool) -> Result<(), Error> {
        let net = self.network.get()?;
        let container = self.find(wanted)?;
        let _gate = container.enter();
        let config = container.config();
        let found = match net.find(network) {
            Ok(found) => found,
            // A network that is gone may still be written down.
            Err(_) if force => return forget(&container, &config, network),
            Err(error) => return Err(from_net(error)),
        };
        let is_in = networks::asked(&config.body)?.iter().any(|(name, _)| *name == found.name || *name == found.id);
        let runs = container.state().is_running();
        if runs && found.name == "host" && networks::mode(&config.body)? == Mode::Host {
            return Err(Error::BadParameter(
                "cannot disconnect container from host network - container was created in host network mode".into(),
            ));
        }
        if !is_in {
            let (id, the) = (&container.id, if runs { "" } else { "the " });
            return Err(Error::Forbidden(format!("container {id} is not connected to {the}network {}", found.name)));
        }
        if runs {
            net.disconnect(&container.id, namespace(&container)?.as_fd(), &found.id).map_err(from_net)?;
            self.note_networks(&container, net.sandbox(&container.id).unwrap_or_default())?;
        }
        forget(&container, &config, &found.name)?;
        self.tell_of_network(&found, "disconnect", &[("container", container.id.clone())]);
        Ok(())
    }

    /// Takes note of the networks of a container that runs; its files of `/etc` follow.
    fn note_networks(&self, container: &Arc<Container>, sandbox: Sandbox) -> Result<(), Error> {
        let config = container.config();
        let hostname = spec::hostname(&config, &self.host_name)?;
        crate::files::write(&container.folder, &config, &self.around(&config, &hostname, Some(&sandbox)))?;
        container.update(|state| state.networks = Some(sandbox))
    }

    /// The network namespaces of all containers that run and have their own.
    pub(crate) fn namespaces(&self) -> Vec<(String, OwnedFd)> {
        let running = self.all().into_iter().filter(|container| container.state().networks.is_some());
        let running = running.filter(|container| container.state().is_running());
        running.filter_map(|container| Some((container.id.clone(), namespace(&container).ok()?))).collect()
    }
}

/// Whether a container that was made in this mode can be put into a network. Refused in Docker's words.
fn may_connect(mode: &Mode, network: &str) -> Result<(), Error> {
    let reason = match (mode, network) {
        (Mode::Container(_) | Mode::Host, _) => {
            "container sharing network namespace with another container or host cannot be connected to any other network"
        }
        (Mode::Network(_) | Mode::None, "host") => {
            "cannot connect container to host network - container must be created in host network mode"
        }
        (Mode::None, _) | (_, "none") => {
            "container cannot be connected to multiple networks with one of the networks in private (none) mode"
        }
        (Mode::Network(_), _) => return Ok(()),
    };
    Err(Error::BadParameter(reason.into()))
}

/// Takes a network out of what a container asks for. The first one is replaced by the next.
fn forget(container: &Arc<Container>, config: &Config, network: &str) -> Result<(), Error> {
    let mut body = config.body.clone();
    let left: Vec<_> = networks::asked(&body)?.into_iter().filter(|(name, _)| name != network).collect();
    if let Some((first, _)) = left.first() {
        body.host_config.get_or_insert_default().network_mode = Some(first.clone());
    }
    body.networking_config.get_or_insert_default().endpoints_config = Some(left.into_iter().collect());
    container.set_config(Config { body, ..Config::clone(config) })
}

fn namespace(container: &Container) -> Result<OwnedFd, Error> {
    let pid = container.state().pid.unwrap_or(0);
    let path = format!("/proc/{pid}/ns/net");
    std::fs::File::open(&path).map(OwnedFd::from).doing(|| format!("opening {path}"))
}

/// The network's error as ours.
pub(crate) fn from_net(error: keel_net::Error) -> Error {
    match error {
        keel_net::Error::NotFound(text) => Error::NotFound(text),
        keel_net::Error::Conflict(text) => Error::Conflict(text),
        keel_net::Error::Invalid(text) => Error::BadParameter(text),
        keel_net::Error::Forbidden(text) => Error::Forbidden(text),
        error => Error::internal("setting up networks", error),
    }
}
