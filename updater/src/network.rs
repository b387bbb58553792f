//! Whether this host is connected: a release that loses the network couldn't be helped from afar.

use std::path::Path;

/// Tables of routes, as the kernel shows them (proc(5), Documentation/networking/proc_net_tcp.rst for the numbers' form).
const ROUTES_4: &str = "/proc/net/route";
const ROUTES_6: &str = "/proc/net/ipv6_route";
/// A folder for each link; links that are a device's have an entry `device`.
const LINKS: &str = "/sys/class/net";
/// `RTF_UP` and `RTF_REJECT` (include/uapi/linux/route.h).
const UP: u32 = 1;
const REJECT: u32 = 0x200;

/// Whether something is reached over a device of this host's, further than the link itself. Networks of containers, which
/// need no device, don't count.
pub fn is_connected() -> bool {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let is_device = |link: &str| Path::new(LINKS).join(link).join("device").exists();
    connects(&read(ROUTES_4), &read(ROUTES_6), &is_device)
}

fn connects(routes_4: &str, routes_6: &str, is_device: &dyn Fn(&str) -> bool) -> bool {
    let hex = |word: Option<&&str>| word.and_then(|word| u32::from_str_radix(word, 16).ok()).unwrap_or(0);
    let usable = |flags: u32| flags & UP != 0 && flags & REJECT == 0;
    // Interface, destination, gateway, flags, …; the first line has the headings.
    let of_4 = routes_4.lines().skip(1).map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let mut of_4 = of_4.filter(|words| usable(hex(words.get(3))));
    // Destination, its length, …, flags, interface.
    let of_6 = routes_6.lines().map(|line| line.split_ascii_whitespace().collect::<Vec<_>>());
    let mut of_6 = of_6.filter(|words| {
        // Each link has these by itself: link-local ones (RFC 4291, 2.5.6) and multicast.
        let is_own = words.first().is_some_and(|to| to.starts_with("fe8") || to.starts_with("ff"));
        usable(hex(words.get(8))) && !is_own
    });
    of_4.any(|words| words.first().is_some_and(|link| is_device(link)))
        || of_6.any(|words| words.get(9).is_some_and(|link| is_device(link)))
}

#[cfg(test)]
mod tests {
    use super::connects;

    const HEAD: &str = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n";

    fn connected(routes_4: &str, routes_6: &str) -> bool {
        connects(&format!("{HEAD}{routes_4}"), routes_6, &|link| link == "eth0")
    }

    #[test]
    fn a_route_over_a_device_is_a_connection() {
        assert!(connected("eth0\t00000000\t0202000A\t0003\t0\t0\t1024\t00000000\t0\t0\t0\n", ""));
        assert!(
            connected("eth0\t0002000A\t00000000\t0001\t0\t0\t1024\t00FFFFFF\t0\t0\t0\n", ""),
            "a network without a way out"
        );
        let six = "20010db8000000000000000000000000 40 00000000000000000000000000000000 00 \
                   00000000000000000000000000000000 00000400 00000001 00000000 00000001     eth0\n";
        assert!(connected("", six));
    }

    #[test]
    fn what_every_link_has_and_networks_of_containers_are_none() {
        assert!(!connected("", ""));
        assert!(!connected("keel0\t000011AC\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n", ""));
        assert!(!connected("eth0\t00000000\t00000000\t0201\t0\t0\t0\t00000000\t0\t0\t0\n", ""), "a rejecting route");
        for to in ["fe800000000000000000000000000000 40", "ff000000000000000000000000000000 08"] {
            let line = format!(
                "{to} 00000000000000000000000000000000 00 00000000000000000000000000000000 00000100 00000001 00000000 \
                 00000001     eth0\n"
            );
            assert!(!connected("", &line));
        }
        let lo = "00000000000000000000000000000001 80 00000000000000000000000000000000 00 \
                  00000000000000000000000000000000 00000000 00000002 00000000 80200001       lo\n";
        assert!(!connected("torn\nlines\n", lo));
    }
}
