//! Addresses: checked, joined, and shown without secrets.

use ureq::http::Uri;

use crate::error::Error;

/// Longest address.
const MAX_URL_BYTES: usize = 8 * 1024;

/// An absolute http(s) address without credentials in it.
pub fn parse(text: &str) -> Result<Uri, Error> {
    check(text).map_err(|reason| Error::Url { url: redact(text), reason })
}

fn check(text: &str) -> Result<Uri, &'static str> {
    if text.len() > MAX_URL_BYTES {
        return Err("it is longer than 8 KiB");
    }
    let text = text.split_once('#').map_or(text, |(before, _)| before);
    let uri = text.parse::<Uri>().map_err(|_| "it is not a valid URL")?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err("it begins with neither http:// nor https://");
    }
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.as_str().contains('@') {
        return Err("it holds credentials; give them as a header");
    }
    if authority.host().is_empty() {
        return Err("it names no host");
    }
    Ok(uri)
}

/// The target of a redirect: RFC 3986 section 5.2 for what servers send.
pub fn join(base: &Uri, location: &str) -> Result<Uri, Error> {
    let scheme = base.scheme_str().unwrap_or("https");
    let authority = base.authority().map_or("", |authority| authority.as_str());
    // With a scheme it is a whole address, and refused unless that is http or https.
    let first = location.split(['/', '?', '#']).next().unwrap_or_default();
    if first.contains(':') && first.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return parse(location);
    }
    if let Some(rest) = location.strip_prefix("//") {
        return parse(&format!("{scheme}://{rest}"));
    }
    if location.starts_with('/') {
        return parse(&format!("{scheme}://{authority}{location}"));
    }
    let folder = base.path().rsplit_once('/').map_or("", |(folder, _)| folder);
    if location.starts_with('?') {
        return parse(&format!("{scheme}://{authority}{}{location}", base.path()));
    }
    parse(&format!("{scheme}://{authority}{folder}/{location}"))
}

/// The target of a `Location` header, seen from the address that sent it.
pub fn resolve_location(base: &str, location: &str) -> Result<String, Error> {
    join(&parse(base)?, location).map(|uri| uri.to_string())
}

/// Whether two addresses have the same scheme, host and port; not if one isn't an address.
pub fn is_same_origin(a: &str, b: &str) -> bool {
    matches!((parse(a), parse(b)), (Ok(a), Ok(b)) if same_origin(&a, &b))
}

/// Whether two addresses have the same scheme, host and port: a token for one may go to the other.
pub fn same_origin(a: &Uri, b: &Uri) -> bool {
    let port = |uri: &Uri| uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let host = |uri: &Uri| uri.host().map(str::to_ascii_lowercase);
    a.scheme_str() == b.scheme_str() && host(a) == host(b) && port(a) == port(b)
}

/// For messages: without the query, which is where signed addresses carry their secret.
pub fn shown(uri: &Uri) -> String {
    let authority = uri.authority().map_or("", |authority| authority.as_str());
    format!("{}://{authority}{}", uri.scheme_str().unwrap_or_default(), uri.path())
}

fn redact(text: &str) -> String {
    let text = text.split(['?', '#']).next().unwrap_or_default();
    let text = match (text.find("://"), text.rfind('@')) {
        (Some(scheme), Some(at)) if at > scheme => format!("{}://{}", &text[..scheme], &text[at + 1..]),
        _ => text.to_owned(),
    };
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_addresses_are_refused_and_shown_without_secrets() {
        for text in ["", "ftp://a/b", "a/b", "http://", "http://u:secret@h/p?t=secret", "https://h h/", "/x"] {
            let message = parse(text).unwrap_err().to_string();
            assert!(!message.contains("secret"), "{message}");
        }
    }

    #[test]
    fn redirect_targets_are_joined() {
        let base = parse("https://h:8443/a/b?q=1").unwrap();
        for (location, want) in [
            ("http://o/x", "http://o/x"),
            ("//o/x", "https://o/x"),
            ("/x?y", "https://h:8443/x?y"),
            ("c", "https://h:8443/a/c"),
            ("?z", "https://h:8443/a/b?z"),
        ] {
            assert_eq!(join(&base, location).unwrap().to_string(), want);
        }
        assert_eq!(join(&base, "HTTPS://o/x").unwrap().host(), Some("o"));
        for location in ["file:///etc/passwd", "gopher:x", "javascript:x/y"] {
            assert!(join(&base, location).is_err(), "{location}");
        }
    }

    #[test]
    fn origins_differ_by_scheme_host_or_port() {
        let same = |a, b| same_origin(&parse(a).unwrap(), &parse(b).unwrap());
        assert!(same("https://H/x", "https://h:443/y"));
        assert!(!same("https://h/", "http://h/"));
        assert!(!same("https://h/", "https://h:444/"));
        assert!(!same("https://h/", "https://i/"));
    }
}
