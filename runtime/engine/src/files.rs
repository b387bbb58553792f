//! The three files of `/etc` that each container gets: `hosts`, `hostname`, `resolv.conf`.

use std::fmt::Write;
use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::{PermissionsExt, fchown};
use std::path::Path;

use bollard_stubs::models::HostConfig;
use keel_spec::paths;

use crate::disk::Config;
use crate::error::{Doing, Error};
use crate::start::write_in_place;

/// Writes them, in place, owned by the container's root.
pub fn write(folder: &Path, config: &Config, hostname: &str, ip: Option<Ipv4Addr>) -> Result<(), Error> {
    let default = HostConfig::default();
    let host = config.body.host_config.as_ref().unwrap_or(&default);
    // A host that has no network yet has no name servers either.
    let resolv = fs::read_to_string(paths::RESOLV_CONF).unwrap_or_default();
    let texts = [
        ("hosts", hosts(host, hostname, ip)),
        ("hostname", format!("{hostname}\n")),
        ("resolv.conf", resolv_conf(host, &resolv)),
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

fn hosts(host: &HostConfig, hostname: &str, ip: Option<Ipv4Addr>) -> String {
    let mut text = String::from(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n",
    );
    for extra in host.extra_hosts.iter().flatten() {
        // `name:address`, where the address may be IPv6; `=` is accepted instead of the colon.
        if let Some((name, address)) = extra.split_once(['=', ':'])
            && let Ok(address) = address.trim_matches(['[', ']']).parse::<IpAddr>()
        {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    if let Some(ip) = ip {
        let _ = writeln!(text, "{ip}\t{hostname}");
    }
    text
}

/// The host's, but for what was asked for instead.
fn resolv_conf(host: &HostConfig, of_host: &str) -> String {
    let list = |list: &Option<Vec<String>>| list.clone().unwrap_or_default();
    let (dns, search, options) = (list(&host.dns), list(&host.dns_search), list(&host.dns_options));
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
        assert_eq!(resolv_conf(&host, "nameserver 10.0.2.3\nsearch lan\n"), "search lan\nnameserver 9.9.9.9\n");
        assert_eq!(resolv_conf(&HostConfig::default(), "nameserver 10.0.2.3\n"), "nameserver 10.0.2.3\n");
    }

    #[test]
    fn hosts_has_the_container_and_what_was_asked_for() {
        let extra = vec!["db:10.0.0.9".into(), "six=[fd00::1]".into(), "bad:name".into()];
        let host = HostConfig { extra_hosts: Some(extra), ..Default::default() };
        let text = hosts(&host, "box", Some(Ipv4Addr::new(172, 17, 0, 2)));
        assert!(text.ends_with("10.0.0.9\tdb\nfd00::1\tsix\n172.17.0.2\tbox\n"), "{text}");
    }
}
