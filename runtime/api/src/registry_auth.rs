//! Credentials for registries, as clients send them with each request: the `X-Registry-Auth` header.

use std::collections::HashMap;

use base64::Engine as _;
use hyper::HeaderMap;
use keel_spec::config::Login;
use keel_store::Auth;
use keel_store::reference::DEFAULT_REGISTRY;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::respond::Failure;

/// Longest header that is read.
const MAX_BYTES: usize = 32 << 10;
/// Docker's name for its own registry in credentials.
const DOCKER_INDEX: &str = "index.docker.io";

/// Credentials as a client writes them, also in the body of `POST /auth`.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Credentials {
    username: String,
    password: String,
    identitytoken: String,
    registrytoken: String,
    /// The registry, for a login.
    pub serveraddress: String,
}

impl Credentials {
    /// What of them is to be used, if there is anything.
    pub fn auth(self) -> Option<Auth> {
        if !self.registrytoken.is_empty() {
            Some(Auth::Bearer(self.registrytoken))
        } else if !self.identitytoken.is_empty() {
            Some(Auth::Identity(self.identitytoken))
        } else {
            (!self.username.is_empty()).then_some(Auth::Basic { user: self.username, password: self.password })
        }
    }
}

/// Reads the header: base64url of a JSON document, `{}` for none (Docker Engine API, "Authentication").
pub fn read(headers: &HeaderMap) -> Result<Option<Auth>, Failure> {
    headers.get("x-registry-auth").map_or(Ok(None), |value| decode(value.as_bytes()))
}

/// Reads `X-Registry-Config`, credentials by registry (Docker Engine API, "Build an image").
pub fn read_all(headers: &HeaderMap) -> Result<HashMap<String, Auth>, Failure> {
    let Some(value) = headers.get("x-registry-config") else { return Ok(HashMap::new()) };
    let all: Option<HashMap<String, Credentials>> = parse("X-Registry-Config", value.as_bytes())?;
    let named = all.unwrap_or_default().into_iter();
    Ok(named.filter_map(|(server, credentials)| Some((registry(&server), credentials.auth()?))).collect())
}

/// Adds the machine config's, for registries that a client has sent none for.
pub fn add_logins(auths: &mut HashMap<String, Auth>, logins: &[Login]) {
    for Login { registry, user, password } in logins {
        let machine = || Auth::Basic { user: user.clone(), password: password.clone() };
        auths.entry(registry.clone()).or_insert_with(machine);
    }
}

/// A registry as images' names have it: `https://index.docker.io/v1/` is Docker's.
fn registry(server: &str) -> String {
    let host = server.split_once("://").map_or(server, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or(host);
    if host == DOCKER_INDEX { DEFAULT_REGISTRY.into() } else { host.to_owned() }
}

fn decode(header: &[u8]) -> Result<Option<Auth>, Failure> {
    let credentials: Option<Credentials> = parse("X-Registry-Auth", header)?;
    Ok(credentials.and_then(Credentials::auth))
}

/// base64url of a JSON document; `None`: nothing.
fn parse<T: DeserializeOwned>(name: &str, header: &[u8]) -> Result<Option<T>, Failure> {
    let bad = || Failure::bad_request(format!("{name} can't be read: want base64url of a JSON document"));
    if header.len() > MAX_BYTES {
        return Err(bad());
    }
    // Clients disagree on padding and on the alphabet.
    let text: Vec<u8> = header
        .iter()
        .filter(|byte| **byte != b'=')
        .map(|byte| match byte {
            b'+' => b'-',
            b'/' => b'_',
            other => *other,
        })
        .collect();
    let json = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).map_err(|_| bad())?;
    if json.is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(&json).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_however_they_are_padded() {
        let json = r#"{"username":"a","password":"b?>"}"#;
        let engine = base64::engine::general_purpose::STANDARD;
        for header in [engine.encode(json), base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)] {
            let Some(Auth::Basic { user, password }) = decode(header.as_bytes()).unwrap() else { panic!() };
            assert_eq!((user.as_str(), password.as_str()), ("a", "b?>"));
        }
        assert!(decode(engine.encode("{}").as_bytes()).unwrap().is_none());
        assert!(decode(b"!!!").is_err());
    }

    #[test]
    fn tokens_go_before_passwords() {
        let engine = base64::engine::general_purpose::STANDARD;
        let identity = engine.encode(r#"{"username":"<token>","identitytoken":"t"}"#);
        assert!(matches!(decode(identity.as_bytes()).unwrap(), Some(Auth::Identity(token)) if token == "t"));
    }

    #[test]
    fn a_build_gets_the_credentials_of_each_registry() {
        let engine = base64::engine::general_purpose::STANDARD;
        let json = r#"{"https://index.docker.io/v1/":{"username":"a","password":"b"},"r.example:5000":{"registrytoken":"t"},"x":{}}"#;
        let headers = HeaderMap::from_iter([(
            hyper::header::HeaderName::from_static("x-registry-config"),
            engine.encode(json).parse().unwrap(),
        )]);
        let all = read_all(&headers).unwrap();
        assert!(matches!(&all["docker.io"], Auth::Basic { user, .. } if user == "a"));
        assert!(matches!(&all["r.example:5000"], Auth::Bearer(token) if token == "t"));
        assert_eq!(all.len(), 2);
    }

    #[test]
    fn the_machines_login_serves_where_a_client_has_none() {
        let login = |registry: &str| Login { registry: registry.into(), user: "host".into(), password: "p".into() };
        let own = Auth::Basic { user: "client".into(), password: "p".into() };
        let mut auths = HashMap::from([("a.example".to_owned(), own)]);
        add_logins(&mut auths, &[login("a.example"), login("b.example")]);
        assert!(matches!(&auths["a.example"], Auth::Basic { user, .. } if user == "client"));
        assert!(matches!(&auths["b.example"], Auth::Basic { user, .. } if user == "host"));
    }
}
