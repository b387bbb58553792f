//! Which addresses are whose: pure decisions.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::cidr::{Cidr, octets};
use crate::error::{Error, invalid};
use crate::network::Pool;
use crate::types::Mac;

/// Ranges for the default network to choose from, in this order.
const FIRST: [(Ipv4Addr, u8); 5] = [
    (Ipv4Addr::new(172, 20, 0, 0), 16),
    (Ipv4Addr::new(172, 28, 0, 0), 16),
    (Ipv4Addr::new(10, 88, 0, 0), 16),
    (Ipv4Addr::new(192, 168, 240, 0), 20),
    (Ipv4Addr::new(100, 72, 0, 0), 16),
];
/// Addresses that are looked at before a range counts as full.
const MAX_LOOKS: u128 = 1 << 17;

/// Ranges for the default network, the one it had before first.
pub(crate) fn first_candidates(before: Option<Cidr>) -> Vec<Cidr> {
    let usual = FIRST.into_iter().filter_map(|(base, prefix)| Cidr::around(base.into(), prefix));
    before.into_iter().chain(usual).collect()
}

/// Ranges for all other networks: fifteen of /16, sixteen of /20, then 256 of /24.
fn candidates() -> impl Iterator<Item = Cidr> {
    let large = (17..=31).map(|n| (Ipv4Addr::new(172, n, 0, 0), 16));
    let middle = (0..16).map(|n| (Ipv4Addr::new(192, 168, n * 16, 0), 20));
    let small = (0..=255).map(|n| (Ipv4Addr::new(10, 89, n, 0), 24));
    large.chain(middle).chain(small).filter_map(|(base, prefix)| Cidr::around(base.into(), prefix))
}

/// The first range that overlaps none of these.
pub(crate) fn choose(candidates: impl IntoIterator<Item = Cidr>, taken: &[Cidr]) -> Result<Pool, Error> {
    let found = candidates.into_iter().find(|range| !taken.iter().any(|other| range.overlaps(other)));
    let exhausted = || Error::Exhausted("all predefined address pools have been fully subnetted".into());
    let subnet = found.ok_or_else(exhausted)?;
    let (range, gateway, reserved) = (None, subnet.nth(1), Default::default());
    Ok(Pool { subnet, range, gateway, reserved, asked: false, next: 0 })
}

/// A range for a network for which none was asked.
pub(crate) fn choose_v4(taken: &[Cidr]) -> Result<Pool, Error> {
    choose(candidates(), taken)
}

/// The same for IPv6: a unique local range under the host's own 48 bits (RFC 4193, section 3.1).
pub(crate) fn choose_v6(host: [u8; 5], taken: &[Cidr]) -> Result<Pool, Error> {
    let ranges = (0..=u16::MAX).filter_map(|number| {
        let mut bytes = [0; 16];
        bytes[0] = 0xFD;
        bytes[1..6].copy_from_slice(&host);
        bytes[6..8].copy_from_slice(&number.to_be_bytes());
        Cidr::around(Ipv6Addr::from(bytes).into(), 64)
    });
    choose(ranges, taken)
}

/// An address of a range that nobody has; `wanted`: this one.
pub(crate) fn give(pool: &mut Pool, taken: &HashSet<IpAddr>, wanted: Option<IpAddr>) -> Result<IpAddr, Error> {
    let subnet = pool.subnet;
    // The first address of a network names it, the last of an IPv4 one is for all.
    let usable = |ip: IpAddr| subnet.distance(ip).is_some_and(|at| at != 0 && !(subnet.is_v4() && at == subnet.last()));
    let held = |ip: IpAddr| taken.contains(&ip) || pool.gateway == Some(ip) || pool.reserved.values().any(|r| *r == ip);
    if let Some(ip) = wanted {
        if !usable(ip) {
            return out_of_range(ip);
        }
        if held(ip) {
            return Err(Error::Forbidden(format!("Address already in use: {ip}")));
        }
        return Ok(ip);
    }
    let range = pool.range.unwrap_or(subnet);
    let size = range.last().saturating_add(1);
    for look in 0..size.min(MAX_LOOKS) {
        let at = (u128::from(pool.next) % size + look) % size;
        let Some(ip) = range.nth(at).filter(|ip| usable(*ip) && !held(*ip)) else { continue };
        pool.next = u64::try_from(at + 1).unwrap_or(0);
        return Ok(ip);
    }
    Err(Error::Exhausted(format!("no available addresses in {range}: remove containers")))
}

/// Refuses an address in Docker's words.
pub(crate) fn out_of_range<T>(ip: IpAddr) -> Result<T, Error> {
    invalid(format!("no configured subnet or ip-range contain the IP address {ip}"))
}

/// The Ethernet address of an endpoint: locally administered, and the same whenever it has the same address, so that
/// neighbours' caches never mislead.
pub(crate) fn mac(ip: IpAddr) -> Mac {
    let mut bytes = [0x02, 0x6B, 0, 0, 0, 0];
    let octets = octets(ip);
    bytes[2..].copy_from_slice(&octets[octets.len() - 4..]);
    Mac(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(subnet: &str) -> Pool {
        choose([subnet.parse().unwrap()], &[]).unwrap()
    }

    #[test]
    fn addresses_run_out_by_name_and_come_back() {
        let (mut pool, mut taken) = (pool("10.0.0.0/29"), HashSet::new());
        for i in 2..=6 {
            let ip = give(&mut pool, &taken, None).unwrap();
            assert_eq!(ip, IpAddr::from(Ipv4Addr::new(10, 0, 0, i)));
            taken.insert(ip);
        }
        assert!(matches!(give(&mut pool, &taken, None), Err(Error::Exhausted(_))));
        taken.remove(&"10.0.0.4".parse().unwrap());
        assert_eq!(give(&mut pool, &taken, None).unwrap().to_string(), "10.0.0.4");
    }

    #[test]
    fn an_address_is_not_given_again_at_once() {
        let mut pool = pool("fd00::/64");
        let first = give(&mut pool, &HashSet::new(), None).unwrap();
        assert_eq!(first.to_string(), "fd00::2");
        assert_eq!(give(&mut pool, &HashSet::new(), None).unwrap().to_string(), "fd00::3");
    }

    #[test]
    fn fixed_addresses_are_outside_the_range_but_inside_the_subnet() {
        let mut pool = pool("10.0.0.0/24");
        pool.range = Some("10.0.0.128/25".parse().unwrap());
        pool.reserved.insert("router".into(), "10.0.0.129".parse().unwrap());
        let mut taken = HashSet::new();
        assert_eq!(give(&mut pool, &taken, None).unwrap().to_string(), "10.0.0.128");
        assert_eq!(give(&mut pool, &taken, None).unwrap().to_string(), "10.0.0.130");
        let fixed = "10.0.0.5".parse().unwrap();
        assert_eq!(give(&mut pool, &taken, Some(fixed)).unwrap(), fixed);
        taken.insert(fixed);
        for (ip, refused) in [("10.0.0.5", false), ("10.0.0.1", false), ("10.0.0.129", false), ("10.0.0.0", true)] {
            let error = give(&mut pool, &taken, Some(ip.parse().unwrap())).unwrap_err();
            assert_eq!(matches!(error, Error::Invalid(_)), refused, "{ip}: {error}");
        }
        for ip in ["10.0.0.255", "10.0.1.1", "fd00::1"] {
            assert!(matches!(give(&mut pool, &taken, Some(ip.parse().unwrap())), Err(Error::Invalid(_))), "{ip}");
        }
    }

    #[test]
    fn a_network_that_the_host_uses_is_passed_over() {
        let taken = ["172.16.0.0/12".parse().unwrap(), "10.88.7.0/24".parse().unwrap()];
        assert_eq!(choose(first_candidates(None), &taken).unwrap().subnet.to_string(), "192.168.240.0/20");
        assert_eq!(choose(first_candidates(None), &[]).unwrap().subnet.to_string(), "172.20.0.0/16");
        assert_eq!(choose_v4(&taken).unwrap().subnet.to_string(), "192.168.0.0/20");
        let first = choose_v6([1, 2, 3, 4, 5], &[]).unwrap().subnet;
        assert_eq!(first.to_string(), "fd01:203:405::/64");
        assert_eq!(choose_v6([1, 2, 3, 4, 5], &[first]).unwrap().subnet.to_string(), "fd01:203:405:1::/64");
    }
}
