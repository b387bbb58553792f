//! The three files of `/etc` that each container gets: `hosts`, `hostname`, `resolv.conf`.

use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use bollard_stubs::models::HostConfig;
use keel_spec::paths;

use crate::disk::Config;
use crate::error::{Doing, Error};
use crate::start::write_in_place;

/// What they depend on beside the request.
#[derive(Default)]
pub struct Around<'a> {
    /// Host name inside.
    pub hostname: &'a str,
    /// The container's own addresses.
    pub addresses: Vec<IpAddr>,
    /// Whether names are answered for inside its own namespace.
    pub own_names: bool,
    /// What `host-gateway` stands for.
    pub host_gateway: Option<IpAddr>,
    /// Containers that it is linked to, with their names.
    pub linked: Vec<(IpAddr, String)>,
}

/// Writes them, in place, owned by the container's root.
pub fn write(folder: &Path, config: &Config, around: &Around<'_>) -> Result<(), Error> {
    let default = HostConfig::default();
    let host = config.body.host_config.as_ref().unwrap_or(&default);
    // A host that has no network yet has no name servers either.
    let resolv = fs::read_to_string(paths::RESOLV_CONF).unwrap_or_default();
    let texts = [
        ("hosts", hosts(host, &full_name(config, around.hostname), around)),
        ("hostname", format!("{}\n", around.hostname)),
        ("resolv.conf", resolv_conf(host, &resolv, around.own_names)),
    ];
    for (name, text) in texts {
        let path = folder.join(name);
        let save = || -> std::io::Result<()> {
            let file = write_in_place(&path, &text)?;
            file.set_permissions(fs::Permissions::from_mode(0o644))?;
            fchown(&file, Some(config.uid_base.unwrap_or(0)), Some(config.uid_base.unwrap_or(0)))
        };
        save().doing(|| format!("writing {}", path.display()))?;
    }
    Ok(())
}

/// The names that the container's own addresses have: with its domain, if it has one, and without.
fn full_name(config: &Config, hostname: &str) -> String {
    match config.body.domainname.as_deref().unwrap_or_default() {
        "" => hostname.into(),
        domain => format!("{hostname}.{domain} {hostname}"),
    }
}

fn hosts(host: &HostConfig, names: &str, around: &Around<'_>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for extra in host.extra_hosts.iter().flatten() {
        // `name:address`, where the address may be IPv6; `=` is accepted instead of the colon.
        let Some((name, address)) = extra.split_once(['=', ':']) else { continue };
        let address = match address {
            "host-gateway" => around.host_gateway,
            address => address.trim_matches(['[', ']']).parse::<IpAddr>().ok(),
        };
        if let Some(address) = address {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    for (address, names) in &around.linked {
        let _ = writeln!(text, "{address}\t{names}");
    }
    for address in &around.addresses {
        let _ = writeln!(text, "{address}\t{names}");
    }
    text
}

/// Address of the name server inside.
pub const NAME_SERVER: &str = "127.0.0.11";

/// The host's, but for what was asked for instead. Where names are answered for inside, the servers asked for
/// are those that other questions are passed on to.
fn resolv_conf(host: &HostConfig, of_host: &str, own_names: bool) -> String {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (mut dns, search, mut options) = (list(&host.dns), list(&host.dns_search), list(&host.dns_options));
    if own_names {
        dns = vec![NAME_SERVER.into()];
        // Names of containers have no dot, and are never anybody else's.
        if !options.iter().any(|option| option.starts_with("ndots:")) {
            options.push("ndots:0".into());
        }
    }
    let mut text = String::new();
    for line in of_host.lines() {
        let replaced = match line.split_whitespace().next() {
            Some("nameserver") => !dns.is_empty(),
            Some("search" | "domain") => !search.is_empty(),
            Some("options") => !options.is_empty(),
            _ => false,
        };
        if !replaced {
            let _ = writeln!(text, "{line}");
        }
    }
    for server in dns {
        let _ = writeln!(text, "nameserver {server}");
    }
    if !search.is_empty() && search != ["."] {
        let _ = writeln!(text, "search {}", search.join(" "));
    }
    if !options.is_empty() {
        let _ = writeln!(text, "options {}", options.join(" "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn name_servers_asked_for_replace_the_hosts() {
        let host = HostConfig { dns: Some(vec!["9.9.9.9".into()]), ..Default::default() };
        let text = resolv_conf(&host, "nameserver 10.0.2.3\nsearch lan\n", false);
        assert_eq!(text, "search lan\nnameserver 9.9.9.9\n");
        assert_eq!(resolv_conf(&HostConfig::default(), "nameserver 10.0.2.3\n", false), "nameserver 10.0.2.3\n");
    }

    #[test]
    fn where_names_are_answered_inside_that_is_the_one_server() {
        let host = HostConfig { dns: Some(vec!["9.9.9.9".into()]), ..Default::default() };
        let text = resolv_conf(&host, "nameserver 10.0.2.3\nsearch lan\n", true);
        assert_eq!(text, "search lan\nnameserver 127.0.0.11\noptions ndots:0\n");
    }

    #[test]
    fn hosts_has_the_container_and_what_was_asked_for() {
        let extra = ["db:10.0.0.9", "six=[fd00::1]", "bad:name", "host.docker.internal:host-gateway"];
        let host = HostConfig { extra_hosts: Some(extra.map(String::from).to_vec()), ..Default::default() };
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let around = Around {
            addresses: vec![ip("172.17.0.2"), ip("fd00::2")],
            host_gateway: Some(ip("172.17.0.1")),
            linked: vec![(ip("172.17.0.3"), "alias".into())],
            ..Around::default()
        };
        let text = hosts(&host, "box", &around);
        let expected = "10.0.0.9\tdb\nfd00::1\tsix\n172.17.0.1\thost.docker.internal\n172.17.0.3\talias\n\
                        172.17.0.2\tbox\nfd00::2\tbox\n";
        assert!(text.ends_with(expected), "{text}");
    }
}
