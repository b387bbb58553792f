//! Ranges of addresses, of both families alike.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A range of addresses: `172.20.0.0/16`, `fd00::/64`. The bits behind the prefix are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Cidr {
    base: IpAddr,
    prefix: u8,
}

impl Cidr {
    /// The range of this length that `ip` is in; `None`: the prefix is too long.
    pub fn around(ip: IpAddr, prefix: u8) -> Option<Self> {
        let width = width(ip);
        (prefix <= width).then(|| Self { base: from_bits(ip, bits(ip) & !host_mask(width, prefix)), prefix })
    }

    /// Its first address.
    pub fn base(&self) -> IpAddr {
        self.base
    }

    /// Length of its prefix in bits.
    pub fn prefix(&self) -> u8 {
        self.prefix
    }

    /// Whether it is IPv4.
    pub fn is_v4(&self) -> bool {
        self.base.is_ipv4()
    }

    /// Whether an address is in it.
    pub fn contains(&self, ip: IpAddr) -> bool {
        ip.is_ipv4() == self.is_v4() && Self::around(ip, self.prefix).is_some_and(|range| range.base == self.base)
    }

    /// Whether two ranges have an address in common.
    pub fn overlaps(&self, other: &Cidr) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }

    /// The address at a distance from the first; `None`: it is outside.
    pub(crate) fn nth(&self, distance: u128) -> Option<IpAddr> {
        (distance <= self.last()).then(|| from_bits(self.base, bits(self.base) + distance))
    }

    /// The distance of an address from the first.
    pub(crate) fn distance(&self, ip: IpAddr) -> Option<u128> {
        self.contains(ip).then(|| bits(ip) - bits(self.base))
    }

    /// The distance of the last address from the first.
    pub(crate) fn last(&self) -> u128 {
        host_mask(width(self.base), self.prefix)
    }

    /// The mask as bytes: four or sixteen.
    pub(crate) fn mask(&self) -> Vec<u8> {
        octets(from_bits(self.base, !host_mask(width(self.base), self.prefix)))
    }
}

/// The bytes of an address.
pub(crate) fn octets(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    }
}

fn width(ip: IpAddr) -> u8 {
    if ip.is_ipv4() { 32 } else { 128 }
}

fn bits(ip: IpAddr) -> u128 {
    match ip {
        IpAddr::V4(ip) => ip.to_bits().into(),
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

/// Of the family of `like`.
fn from_bits(like: IpAddr, bits: u128) -> IpAddr {
    match like {
        IpAddr::V4(_) => Ipv4Addr::from_bits(bits as u32).into(),
        IpAddr::V6(_) => Ipv6Addr::from_bits(bits).into(),
    }
}

fn host_mask(width: u8, prefix: u8) -> u128 {
    match u32::from(width.saturating_sub(prefix)) {
        128 => u128::MAX,
        free => (1 << free) - 1,
    }
}

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:.60} isn't a range of addresses like 10.1.0.0/16");
        let (ip, prefix) = text.split_once('/').ok_or_else(refuse)?;
        let ip: IpAddr = ip.parse().map_err(|_| refuse())?;
        let digits = prefix.bytes().all(|byte| byte.is_ascii_digit());
        let prefix = prefix.parse().ok().filter(|_| digits).ok_or_else(refuse)?;
        Self::around(ip, prefix).ok_or_else(refuse)
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_of_both_families_are_read_and_compared() {
        let one: Cidr = "10.1.2.3/16".parse().unwrap();
        assert_eq!(one.to_string(), "10.1.0.0/16");
        assert!(one.contains("10.1.255.255".parse().unwrap()) && !one.contains("10.2.0.0".parse().unwrap()));
        assert!(one.overlaps(&"10.1.7.0/24".parse().unwrap()) && !one.overlaps(&"10.2.0.0/16".parse().unwrap()));
        assert_eq!(one.nth(2).unwrap().to_string(), "10.1.0.2");
        assert!(one.nth(65536).is_none());
        let six: Cidr = "fd00::/64".parse().unwrap();
        assert_eq!(six.nth(2).unwrap().to_string(), "fd00::2");
        assert!(!six.overlaps(&one) && !one.overlaps(&six));
        assert_eq!("0.0.0.0/0".parse::<Cidr>().unwrap().mask(), [0; 4]);
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for text in ["", "10.0.0.0", "10.0.0.0/33", "fd00::/129", "10.0.0.0/-1", "10.0.0.0/+8", "x/8", "10.0.0.0/"] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }
}
