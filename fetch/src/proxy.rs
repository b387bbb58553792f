//! Proxies: which requests go through one, in the terms of `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY`.
//!
//! Requests with https go by CONNECT, so the proxy sees host and port and nothing else. Those with http are handed to the
//! proxy as they are: most proxies open tunnels to port 443 alone.

use std::net::IpAddr;

use ureq::ProxyProtocol;
use ureq::http::uri::{Parts, PathAndQuery, Scheme};
use ureq::http::{HeaderValue, Request, Uri, header};

use crate::auth;

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

/// How a request gets to its server.
#[derive(Clone, Copy, Debug)]
pub enum Route<'a> {
    /// Without a proxy.
    Direct,
    /// Through a tunnel that the proxy opens (CONNECT, RFC 9110 section 9.3.6).
    Tunnel(&'a ureq::Proxy),
    /// By a request to the proxy that names the server's address in full (absolute form, RFC 9112 section 3.2.2).
    Forward(&'a ureq::Proxy),
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

    /// The way to an address.
    pub fn route(&self, target: &Uri) -> Route<'_> {
        let is_https = target.scheme_str() == Some("https");
        let Some(host) = target.host() else { return Route::Direct };
        let port = target.port_u16().unwrap_or(if is_https { 443 } else { 80 });
        let is_direct = is_loopback(host) || self.direct.iter().any(|entry| is_direct(entry, host, port));
        match (is_direct, is_https) {
            (true, _) => Route::Direct,
            (false, true) => self.https.as_ref().map_or(Route::Direct, Route::Tunnel),
            (false, false) => self.http.as_ref().map_or(Route::Direct, Route::Forward),
        }
    }
}

/// Turns a request into one to a proxy, see [`Route::Forward`]. Its `Host` is still the server's.
pub fn forward<T>(proxy: &ureq::Proxy, message: &mut Request<T>) -> Result<(), ureq::http::Error> {
    let target = message.uri().clone();
    let mut parts = Parts::default();
    parts.scheme = Some(if proxy.protocol() == ProxyProtocol::Https { Scheme::HTTPS } else { Scheme::HTTP });
    parts.authority = Some(format!("{}:{}", proxy.host(), proxy.port()).parse()?);
    parts.path_and_query = Some(target.path_and_query().map_or_else(|| PathAndQuery::from_static("/"), Clone::clone));
    *message.uri_mut() = Uri::from_parts(parts)?;
    let headers = message.headers_mut();
    if let Some(authority) = target.authority() {
        headers.insert(header::HOST, HeaderValue::from_str(authority.as_str())?);
    }
    if let Some(user) = proxy.username() {
        let mut value = HeaderValue::from_str(&auth::basic(user, proxy.password().unwrap_or_default()))?;
        value.set_sensitive(true);
        headers.insert(header::PROXY_AUTHORIZATION, value);
    }
    Ok(())
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
        !matches!(Chosen::new(proxies).unwrap().route(&url.parse().unwrap()), Route::Direct)
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
        assert!(matches!(chosen.route(&"http://a/".parse().unwrap()), Route::Direct));
        assert!(matches!(chosen.route(&"https://a/".parse().unwrap()), Route::Tunnel(proxy) if proxy.port() == 1));
        let bad = Proxies { http: Some("socks5://u:secret@p".into()), ..Proxies::default() };
        assert!(Chosen::new(bad).is_err_and(|reason| !reason.contains("secret")));
    }
}
