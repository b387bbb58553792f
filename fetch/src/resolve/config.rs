//! resolv.conf(5) and hosts(5): the parts that a host of ours needs.

use std::net::IpAddr;

/// Name servers taken from resolv.conf; the C library takes three.
const MAX_SERVERS: usize = 4;
/// Longest part of either file that is looked at.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// The `nameserver` lines. Other lines, and addresses with a zone, are passed over.
pub fn servers(text: &[u8]) -> Vec<IpAddr> {
    lines(text)
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some("nameserver")).then(|| words.next())?.and_then(|word| word.parse().ok())
        })
        .take(MAX_SERVERS)
        .collect()
}

/// Addresses that hosts(5) gives a name (lower case), IPv4 first.
pub fn known(text: &[u8], name: &str) -> Vec<IpAddr> {
    let mut found: Vec<IpAddr> = lines(text)
        .filter_map(|line| {
            let mut words = line.split_ascii_whitespace();
            let address = words.next()?.parse().ok()?;
            words.any(|word| word.eq_ignore_ascii_case(name)).then_some(address)
        })
        .take(super::MAX_ADDRESSES)
        .collect();
    found.sort_by_key(|address: &IpAddr| address.is_ipv6());
    found
}

fn lines(text: &[u8]) -> impl Iterator<Item = &str> {
    let text = text.get(..MAX_FILE_BYTES).unwrap_or(text);
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| std::str::from_utf8(line).ok())
        .map(|line| line.split(['#', ';']).next().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_survive_junk() {
        let text = b"# x\nsearch a b\nnameserver 192.0.2.1\nnameserver fe80::1%eth0\n\xff\xfe\nnameserver\n nameserver ::1 ; y\nnameserver 1\n";
        assert_eq!(servers(text), ["192.0.2.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert_eq!(servers("nameserver 192.0.2.1\n".repeat(100).as_bytes()).len(), MAX_SERVERS);
    }

    #[test]
    fn hosts_match_whole_names_and_put_ipv4_first() {
        let text = b"::1 me here\n127.0.0.1 me # not you\n192.0.2.9 you.example";
        assert_eq!(known(text, "me"), ["127.0.0.1".parse::<IpAddr>().unwrap(), "::1".parse().unwrap()]);
        assert!(known(text, "you").is_empty());
    }
}
