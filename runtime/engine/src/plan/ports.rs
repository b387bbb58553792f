//! Published ports.

use bollard_stubs::models::{ContainerCreateBody, HostConfig};
use keel_net::{PortMap, Proto};

use super::bad;
use super::networks::{self, Mode};
use crate::error::Error;

/// Most published ports of one container.
const MAX_PORTS: usize = 1024;

/// The ports to publish. Only a container on the bridge has any.
pub fn published(body: &ContainerCreateBody) -> Result<Vec<PortMap>, Error> {
    let default = HostConfig::default();
    let host = body.host_config.as_ref().unwrap_or(&default);
    let mut ports = Vec::new();
    let mut bound = Vec::new();
    for (name, bindings) in host.port_bindings.iter().flatten() {
        let (proto, container_port) = port(name)?;
        bound.push((proto, container_port));
        for binding in bindings.iter().flatten() {
            let host_ip = match binding.host_ip.as_deref().unwrap_or_default() {
                "" => None,
                ip => Some(ip.parse().or_else(|_| bad(format!("Invalid address {ip} to publish port {name} on")))?),
            };
            let (host_port, host_port_end) = host_ports(name, binding.host_port.as_deref().unwrap_or_default())?;
            let map = PortMap { proto, host_ip, host_port, host_port_end, container_port };
            if host_port == 0 || !ports.contains(&map) {
                ports.push(map);
            }
        }
    }
    for name in body.exposed_ports.iter().flatten() {
        let (proto, container_port) = port(name)?;
        if host.publish_all_ports == Some(true) && !bound.contains(&(proto, container_port)) {
            ports.push(PortMap { proto, host_ip: None, host_port: 0, host_port_end: 0, container_port });
        }
    }
    if ports.len() > MAX_PORTS {
        return bad(format!("more than {MAX_PORTS} published ports"));
    }
    ports.sort_by_key(|map| (map.container_port, map.proto, map.host_port));
    Ok(if matches!(networks::mode(body)?, Mode::Network(_)) { ports } else { Vec::new() })
}

/// `8080`, or `8000-8010` to choose from, or nothing: any.
fn host_ports(name: &str, text: &str) -> Result<(u16, u16), Error> {
    let number =
        |text: &str| text.parse::<u16>().or_else(|_| bad(format!("Invalid port {text:.20?} to publish {name} on")));
    match text.split_once('-') {
        _ if text.is_empty() => Ok((0, 0)),
        None => Ok((number(text)?, 0)),
        Some((first, last)) => {
            let (first, last) = (number(first)?, number(last)?);
            if first == 0 || first > last {
                return bad(format!("Invalid range of ports {text:.20} to publish {name} on"));
            }
            Ok((first, last))
        }
    }
}

/// `80/tcp` or `80`.
pub fn port(name: &str) -> Result<(Proto, u16), Error> {
    let (number, proto) = name.split_once('/').unwrap_or((name, "tcp"));
    let proto = match proto {
        "tcp" => Proto::Tcp,
        "udp" => Proto::Udp,
        "sctp" => Proto::Sctp,
        other => return bad(format!("port {name}: protocol {other} isn't supported")),
    };
    match number.parse() {
        Ok(number) if number > 0 => Ok((proto, number)),
        _ => bad(format!("Invalid port {name:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(json: &str) -> ContainerCreateBody {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn bindings_become_port_maps_once() {
        let body = body(
            r#"{"HostConfig":{"PortBindings":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},
            {"HostIp":"::","HostPort":"8080"}],"53/udp":[{"HostIp":"127.0.0.1","HostPort":""}]}}}"#,
        );
        let ports = published(&body).unwrap();
        assert_eq!(ports.len(), 3);
        assert_eq!((ports[0].container_port, ports[0].host_port, ports[0].host_ip.is_some()), (53, 0, true));
        assert_eq!((ports[1].container_port, ports[1].host_port), (80, 8080));
    }

    #[test]
    fn all_exposed_ports_can_be_published() {
        let mut body =
            ContainerCreateBody { exposed_ports: Some(vec!["80/tcp".into(), "9".into()]), ..Default::default() };
        assert_eq!(published(&body).unwrap(), []);
        body.host_config = Some(HostConfig { publish_all_ports: Some(true), ..Default::default() });
        assert_eq!(published(&body).unwrap().len(), 2);
    }

    #[test]
    fn what_is_no_port_is_refused() {
        for name in ["0/tcp", "65536", "80/dccp", "x", "-1/udp", "80-90/tcp"] {
            assert!(port(name).is_err(), "{name}");
        }
        let range = |text: &str| host_ports("80/sctp", text);
        assert_eq!(range("8000-8010").unwrap(), (8000, 8010));
        assert!(range("8010-8000").is_err() && range("0-5").is_err() && range("-").is_err() && range("x").is_err());
    }
}
