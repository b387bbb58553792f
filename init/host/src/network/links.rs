//! Which links are the host's own, and their state, as sysfs tells.

use std::fs;
use std::path::Path;

/// Most links with a device behind them.
const MAX_LINKS: usize = 64;
/// Most links of all kinds: each container has one, and they come in no order.
const MAX_ENTRIES: usize = 65_536;

/// A link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Link {
    pub name: String,
    pub index: u32,
    pub mac: [u8; 6],
    /// Whether a signal is there. A link that is down has none.
    pub carrier: bool,
}

/// All Ethernet links with a device behind them, by name: no bridges, no container's veth pairs. In a test's namespace
/// there is nothing but veth pairs, so `virtual_too` counts them.
pub(super) fn physical(virtual_too: bool) -> Vec<Link> {
    among(Path::new("/sys/class/net"), virtual_too)
}

fn among(folder: &Path, virtual_too: bool) -> Vec<Link> {
    let Ok(folder) = fs::read_dir(folder) else { return Vec::new() };
    let mut links: Vec<_> = folder
        .take(MAX_ENTRIES)
        .flatten()
        .filter(|entry| virtual_too || entry.path().join("device").exists())
        .take(MAX_LINKS)
        .filter_map(|entry| read(&entry.path()))
        .collect();
    links.sort_by(|one, other| one.name.cmp(&other.name));
    links
}

fn read(folder: &Path) -> Option<Link> {
    let text = |file: &str| fs::read_to_string(folder.join(file)).ok();
    // ARPHRD_ETHER of linux/if_arp.h.
    if text("type")?.trim() != "1" {
        return None;
    }
    Some(Link {
        name: folder.file_name()?.to_str()?.to_owned(),
        index: text("ifindex")?.trim().parse().ok()?,
        mac: mac(text("address")?.trim())?,
        // Reading it fails while the link is down.
        carrier: text("carrier").is_some_and(|carrier| carrier.trim() == "1"),
    })
}

fn mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_of_containers_hides_the_hosts_own_links() {
        let net = tempfile::tempdir().unwrap();
        let link = |name: &str| {
            let folder = net.path().join(name);
            fs::create_dir(&folder).unwrap();
            for (file, text) in [("type", "1"), ("ifindex", "7"), ("address", "52:54:00:12:34:56"), ("carrier", "1")] {
                fs::write(folder.join(file), text).unwrap();
            }
            folder
        };
        (0..300).for_each(|number| drop(link(&format!("v{number}"))));
        for name in ["eth0", "eth1", "eth2", "eth3"] {
            fs::create_dir(link(name).join("device")).unwrap();
        }
        let found = among(net.path(), false);
        assert_eq!(found.iter().map(|link| link.name.as_str()).collect::<Vec<_>>(), ["eth0", "eth1", "eth2", "eth3"]);
    }

    #[test]
    fn hardware_addresses_are_read_whole_or_not_at_all() {
        assert_eq!(mac("52:54:00:12:34:56"), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
        assert_eq!(mac("52:54:00:12:34"), None);
        assert_eq!(mac("52:54:00:12:34:56:78"), None);
    }
}
