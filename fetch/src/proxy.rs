//! Proxies: which requests go through one, in the terms of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
//!
//! All go by CONNECT (RFC 9110 section 9.3.6), so the proxy sees host and port and, with https, nothing else.

use std::net::IpAddr;

use ureq::http::Uri;

/// Which requests go through a proxy. Nothing is taken from the environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// For `http://` addresses: `http://[user:password@]host:port`.
    pub http: Option<String>,
    /// For `https://` addresses.
    pub https: Option<String>,
    /// Hosts that are reached directly: a name (and the names below it), an address, a network such as `10.0.0.0/8`,
    /// each also with `:port`, or `*`. Loopback always is.
    pub no_proxy: Vec<String>,
}

/// The same, read and checked.
#[derive(Clone, Debug, Default)]
pub struct Chosen {
    http: Option<ureq::Proxy>,
    https: Option<ureq::Proxy>,
    direct: Vec<String>,
}

impl Chosen {
    /// Reads the addresses of proxies. The error says which isn't one, without its password.
    pub fn new(proxies: Proxies) -> Result<Self, String> {
        let read = |text: Option<String>, name: &str| {
            let is_http = |text: &str| text.starts_with("http://") || text.starts_with("https://");
            let proxy = text.map(|text| if is_http(&text) { ureq::Proxy::new(&text).ok() } else { None });
            proxy.map(|proxy| proxy.ok_or_else(|| format!("the {name} proxy isn't http://host:port"))).transpose()
        };
        Ok(Self { http: read(proxies.http, "http")?, https: read(proxies.https, "https")?, direct: proxies.no_proxy })
    }

    /// The proxy for an address.
    pub fn of(&self, target: &Uri) -> Option<&ureq::Proxy> {
        let is_https = target.scheme_str() == Some("https");
        let host = target.host()?;
        let port = target.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let proxy = if is_https { &self.https } else { &self.http };
        proxy.as_ref().filter(|_| !is_loopback(host) && !self.direct.iter().any(|entry| is_direct(entry, host, port)))
    }
}

fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || address(host).is_some_and(|address| address.is_loopback())
}

/// Whether an entry of the list means a host.
fn is_direct(entry: &str, host: &str, port: u16) -> bool {
    let entry = match entry.rsplit_once(':') {
        // A single colon begins a port; more are an IPv6 address.
        Some((name, number)) if !name.contains(':') || name.ends_with(']') => {
            if number.parse() != Ok(port) {
                return false;
            }
            name
        }
        _ => entry,
    };
    if entry == "*" {
        return true;
    }
    if let Some(address) = address(host) {
        return network(entry).is_some_and(|(network, prefix)| is_within(address, network, prefix));
    }
    let suffix = entry.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
    let host = host.to_ascii_lowercase();
    !suffix.is_empty() && host.strip_suffix(&suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
}

fn network(entry: &str) -> Option<(IpAddr, u32)> {
    match entry.split_once('/') {
        Some((address, prefix)) => Some((address.parse().ok()?, prefix.parse().ok()?)),
        None => address(entry).map(|address| (address, 128)),
    }
}

fn is_within(host: IpAddr, network: IpAddr, prefix: u32) -> bool {
    let same = |host: u128, network: u128, bits: u32| {
        let left = bits.saturating_sub(prefix);
        host.checked_shr(left).unwrap_or(0) == network.checked_shr(left).unwrap_or(0)
    };
    match (host, network) {
        (IpAddr::V4(host), IpAddr::V4(network)) => same(host.to_bits().into(), network.to_bits().into(), 32),
        (IpAddr::V6(host), IpAddr::V6(network)) => same(host.to_bits(), network.to_bits(), 128),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(no_proxy: &[&str], url: &str) -> bool {
        let proxies = Proxies {
            http: Some("http://proxy:1".into()),
            https: Some("http://user:secret@proxy:2".into()),
            no_proxy: no_proxy.iter().map(|entry| (*entry).to_owned()).collect(),
        };
        Chosen::new(proxies).unwrap().of(&url.parse().unwrap()).is_some()
    }

    #[test]
    fn what_goes_direct() {
        for (entries, url, direct) in [
            (&[][..], "https://a.example/", false),
            (&[], "http://127.0.0.2:5000/", true),
            (&[], "https://[::1]/", true),
            (&["example"], "https://a.example/", true),
            (&["example"], "https://notexample/", false),
            (&[".example"], "https://A.EXAMPLE/", true),
            (&["*.example"], "https://a.example/", true),
            (&["a.example:5000"], "https://a.example/", false),
            (&["a.example:443"], "https://a.example/", true),
            (&["10.0.0.0/8"], "http://10.9.8.7/", true),
            (&["10.0.0.0/8"], "http://11.9.8.7/", false),
            (&["0.0.0.0/0"], "http://11.9.8.7/", true),
            (&["10.0.0.1"], "http://10.0.0.1:80/", true),
            (&["fd00::/8"], "http://[fd12::1]/", true),
            (&["*"], "https://a.example/", true),
            (&["", "x/99"], "https://a.example/", false),
        ] {
            assert_eq!(!proxied(entries, url), direct, "{entries:?} {url}");
        }
    }

    #[test]
    fn each_scheme_has_its_proxy_and_a_bad_one_is_told_without_its_password() {
        let only = Proxies { https: Some("http://p:1".into()), ..Proxies::default() };
        let chosen = Chosen::new(only).unwrap();
        assert!(chosen.of(&"http://a/".parse().unwrap()).is_none());
        assert_eq!(chosen.of(&"https://a/".parse().unwrap()).unwrap().port(), 1);
        let bad = Proxies { http: Some("socks5://u:secret@p".into()), ..Proxies::default() };
        assert!(Chosen::new(bad).is_err_and(|reason| !reason.contains("secret")));
    }
}
