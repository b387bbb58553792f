//! The resolver configuration (resolv.conf(5)): name servers alone, at most [`MAX_SERVERS`].

use std::fmt::Write as _;
use std::net::IpAddr;

/// Most name servers that are written.
const MAX_SERVERS: usize = 8;

/// The file's text: each server once, in this order.
pub(super) fn render(servers: impl IntoIterator<Item = IpAddr>) -> String {
    let mut known: Vec<IpAddr> = Vec::new();
    for server in servers {
        if known.len() < MAX_SERVERS && !known.contains(&server) {
            known.push(server);
        }
    }
    let mut text = String::from("# Written by the network service.\n");
    for server in known {
        let _ = writeln!(text, "nameserver {server}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_written_once_and_in_order() {
        let server = |text: &str| text.parse::<IpAddr>().unwrap();
        let text = render([server("192.0.2.2"), server("192.0.2.1"), server("192.0.2.2")]);
        assert!(text.ends_with("\nnameserver 192.0.2.2\nnameserver 192.0.2.1\n"), "{text}");
    }
}
