//! Containers' places in networks, put into Docker's words and types.

use std::collections::HashMap;

use bollard_stubs::models::{EndpointSettings, PortBinding, PortMap, PortSummary, PortSummaryTypeEnum};
use keel_net::{Endpoint, PortMap as Published, Proto};

use crate::disk::{Config, State};
use crate::plan::networks;
use crate::plan::ports;

/// The network mode, as it was asked for.
pub fn network_name(config: &Config) -> &str {
    if config.body.network_disabled == Some(true) {
        return "none";
    }
    match config.body.host_config.as_ref().and_then(|host| host.network_mode.as_deref()).unwrap_or_default() {
        "" | "default" => networks::DEFAULT,
        name => name,
    }
}

/// The networks it is in, or will be.
pub fn networks(config: &Config, state: &State) -> HashMap<String, EndpointSettings> {
    let asked = networks::asked(&config.body).unwrap_or_default();
    let mut all: HashMap<String, EndpointSettings> =
        asked.into_iter().map(|(name, settings)| (name, empty(settings))).collect();
    let mode = network_name(config);
    if matches!(mode, "host" | "none") {
        all.insert(mode.into(), empty(EndpointSettings::default()));
    }
    for endpoint in state.networks.iter().flat_map(|sandbox| &sandbox.endpoints) {
        fill(all.entry(endpoint.network_name.clone()).or_default(), endpoint);
    }
    all
}

/// With what clients read even where there is nothing.
fn empty(settings: EndpointSettings) -> EndpointSettings {
    EndpointSettings {
        endpoint_id: Some(String::new()),
        gateway: Some(String::new()),
        ip_address: Some(String::new()),
        ip_prefix_len: Some(0),
        ipv6_gateway: Some(String::new()),
        global_ipv6_address: Some(String::new()),
        global_ipv6_prefix_len: Some(0),
        mac_address: Some(settings.mac_address.clone().unwrap_or_default()),
        network_id: Some(settings.network_id.clone().unwrap_or_default()),
        ..settings
    }
}

fn fill(settings: &mut EndpointSettings, endpoint: &Endpoint) {
    let text = |value: Option<String>| Some(value.unwrap_or_default());
    settings.network_id = Some(endpoint.network.clone());
    settings.endpoint_id = Some(endpoint.id.clone());
    settings.gateway = text(endpoint.gateway.map(|ip| ip.to_string()));
    settings.ip_address = Some(endpoint.ip.to_string());
    settings.ip_prefix_len = Some(endpoint.prefix.into());
    settings.ipv6_gateway = text(endpoint.gateway6.map(|ip| ip.to_string()));
    settings.global_ipv6_address = text(endpoint.ip6.map(|ip| ip.to_string()));
    settings.global_ipv6_prefix_len = Some(endpoint.prefix6.into());
    settings.mac_address = Some(endpoint.shown_mac());
    settings.dns_names = (!endpoint.names.is_empty()).then(|| endpoint.names.clone());
}

/// Exposed and published ports.
pub fn port_map(config: &Config, state: &State) -> PortMap {
    let mut map = PortMap::new();
    if !state.is_running() {
        return map;
    }
    for name in config.body.exposed_ports.iter().flatten() {
        if let Ok((proto, number)) = ports::port(name) {
            map.insert(format!("{number}/{proto}"), None);
        }
    }
    for (port, ip) in published(state) {
        let binding = PortBinding { host_ip: Some(ip), host_port: Some(port.host_port.to_string()) };
        let name = format!("{}/{}", port.container_port, port.proto);
        map.entry(name).or_default().get_or_insert_default().push(binding);
    }
    map
}

/// The published ports with the addresses of the host: one for all is told once for each family.
fn published(state: &State) -> Vec<(Published, String)> {
    let Some(sandbox) = &state.networks else { return Vec::new() };
    let v6 = sandbox.published().is_some_and(|endpoint| endpoint.ip6.is_some());
    let addresses = |port: &Published| match port.host_ip {
        Some(ip) => vec![ip.to_string()],
        None if v6 => vec!["0.0.0.0".into(), "::".into()],
        None => vec!["0.0.0.0".into()],
    };
    sandbox.ports.iter().flat_map(|port| addresses(port).into_iter().map(|ip| (*port, ip))).collect()
}

/// The same for lists.
pub fn port_list(config: &Config, state: &State) -> Vec<PortSummary> {
    let kind = |proto| match proto {
        Proto::Tcp => PortSummaryTypeEnum::TCP,
        Proto::Udp => PortSummaryTypeEnum::UDP,
        Proto::Sctp => PortSummaryTypeEnum::SCTP,
    };
    let summary =
        |ip, private_port, public_port, proto| PortSummary { ip, private_port, public_port, typ: Some(kind(proto)) };
    let published = published(state);
    let mut list: Vec<PortSummary> = published
        .iter()
        .map(|(port, ip)| summary(Some(ip.clone()), port.container_port, Some(port.host_port), port.proto))
        .collect();
    let exposed = config.body.exposed_ports.iter().flatten().filter_map(|name| ports::port(name).ok());
    for (proto, number) in exposed.filter(|_| state.is_running()) {
        if !published.iter().any(|(port, _)| port.proto == proto && port.container_port == number) {
            list.push(summary(None, number, None, proto));
        }
    }
    list
}
