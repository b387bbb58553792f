//! What single values of the machine config must look like. Each function takes the text and says what is wrong.

use std::net::{IpAddr, SocketAddr};

/// A host name of RFC 1123: labels of letters, digits and inner hyphens. `most` is 64 for a machine's own name
/// (`HOST_NAME_MAX` of Linux), 253 for one in the DNS.
pub(super) fn host_name(text: &str, most: usize) -> Result<String, String> {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if text.is_empty() || text.len() > most || !text.split('.').all(label) {
        return Err(format!(
            "is not a host name: want labels of letters, digits and inner hyphens, at most {most} bytes"
        ));
    }
    Ok(text.into())
}

/// A name or an address.
pub(super) fn host(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(text.into()),
        Err(_) => host_name(text, 253),
    }
}

/// `host[:port]`; an IPv6 address stands in brackets.
pub(super) fn host_port(text: &str, port_needed: bool) -> Result<String, String> {
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port)),
        _ => (text, None),
    };
    match port {
        None if port_needed => return Err("has no port: want host:port".into()),
        Some(port) if port.parse::<u16>().map_or(true, |port| port == 0) => {
            return Err("has no port number between 1 and 65535 after its last colon".into());
        }
        _ => {}
    }
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(literal) => match literal.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(text.into()),
            Err(_) => Err("has no IPv6 address between its brackets".into()),
        },
        None => host_name(name, 253).map(|_| text.into()),
    }
}

/// An `http://` or `https://` address without user, query-less or not.
pub(super) fn url(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or("is not a web address: want http://… or https://…")?;
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.contains('@') {
        return Err("holds a user name or password: not supported".into());
    }
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) || text.contains('#') || text.len() > 2048 {
        return Err("holds a character that has no place in a web address, or is longer than 2048 bytes".into());
    }
    host_port(authority, false).map(|_| text.into())
}

/// `http://[user:password@]host:port`, or https.
pub(super) fn proxy(text: &str) -> Result<String, String> {
    let (scheme, rest) = text.split_once("://").ok_or("is not a proxy's address: want http://host:port")?;
    let rest = rest.trim_end_matches('/');
    let (user, host) = rest.rsplit_once('@').unwrap_or(("", rest));
    if !user.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/') {
        return Err("holds a user or password with characters that have to be written as %XX".into());
    }
    url(&format!("{scheme}://{host}"))?;
    Ok(format!("{scheme}://{rest}"))
}

/// A host that is reached without a proxy: a name or `.name`, an address, a network, each also with a port, or `*`.
pub(super) fn direct_host(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("*.").or_else(|| text.strip_prefix('.')).unwrap_or(text);
    let is_network = || {
        let (address, prefix) = text.split_once('/')?;
        Some(address.parse::<IpAddr>().is_ok() && prefix.parse::<u8>().is_ok_and(|prefix| prefix <= 128))
    };
    if text == "*" || text.parse::<IpAddr>().is_ok() || is_network() == Some(true) {
        return Ok(text.into());
    }
    host_port(name, false).map(|_| text.into())
}

/// `192.0.2.7/24`.
pub(super) fn prefixed_address(text: &str) -> Result<(IpAddr, u8), String> {
    let want = "is not an address with prefix length: want one like 192.0.2.7/24";
    let (ip, prefix) = text.split_once('/').ok_or(want)?;
    let ip = usable(ip.parse().map_err(|_| want)?)?;
    let most = if ip.is_ipv4() { 32 } else { 128 };
    match prefix.parse::<u8>() {
        Ok(prefix) if (1..=most).contains(&prefix) => Ok((ip, prefix)),
        _ => Err(format!("has no prefix length between 1 and {most}")),
    }
}

/// An address of one host.
pub(super) fn address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| "is not an IP address".to_owned()).and_then(usable)
}

fn usable(ip: IpAddr) -> Result<IpAddr, String> {
    let broadcast = matches!(ip, IpAddr::V4(ip) if ip.is_broadcast());
    if ip.is_unspecified() || ip.is_multicast() || broadcast {
        return Err("is not the address of one host".into());
    }
    Ok(ip)
}

/// A name of a container, a network or a volume, by Docker's rule.
pub(super) fn object_name(text: &str) -> Result<(), &'static str> {
    let rest = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    let first = text.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    match first && text.len() > 1 && text.len() <= 128 && text.bytes().all(rest) {
        true => Ok(()),
        false => {
            Err("is not a name: want 2 to 128 letters, digits, dots, hyphens and underscores, a letter or digit first")
        }
    }
}

/// An address to listen on.
pub(super) fn listen(text: &str) -> Result<SocketAddr, String> {
    match text.parse::<SocketAddr>() {
        Ok(listen) if listen.port() != 0 => Ok(listen),
        _ => Err("is not an address to listen on: want one like 0.0.0.0:2376".into()),
    }
}

/// Text that looks like PEM (RFC 7468) with at least one block whose label ends in `label`. What is inside the block
/// is for its user to check.
pub(super) fn pem(text: &str, label: &str) -> Result<String, String> {
    let begin =
        |line: &str| line.strip_prefix("-----BEGIN ").and_then(|line| line.strip_suffix("-----")).map(str::to_owned);
    let mut open: Option<String> = None;
    let mut blocks = 0_usize;
    for line in text.lines().map(str::trim_end) {
        match &open {
            None => match begin(line) {
                Some(found) if found.ends_with(label) => open = Some(found),
                Some(found) => return Err(format!("holds a PEM block {found:?} where {label:?} belongs")),
                // Explanatory text between blocks is allowed (RFC 7468, section 5.2).
                None => {}
            },
            Some(found) if line == format!("-----END {found}-----") => {
                blocks += 1;
                open = None;
            }
            Some(_) => {
                let base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
                if !line.bytes().all(base64) {
                    return Err("holds a PEM block with something else than base64 in it".into());
                }
            }
        }
    }
    match (open, blocks) {
        (None, 1..) => Ok(text.into()),
        (Some(_), _) => Err("ends within a PEM block".into()),
        (None, 0) => Err(format!("is not PEM: want -----BEGIN {label}-----")),
    }
}
