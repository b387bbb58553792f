//! Credentials for registries, as clients send them with each request: the `X-Registry-Auth` header.

use base64::Engine as _;
use hyper::HeaderMap;
use keel_store::Auth;
use serde::Deserialize;

use crate::respond::Failure;

/// Longest header that is read.
const MAX_BYTES: usize = 16 << 10;

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

fn decode(header: &[u8]) -> Result<Option<Auth>, Failure> {
    let bad = || Failure::bad_request("X-Registry-Auth can't be read: want base64url of a JSON document");
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
    let credentials: Credentials = serde_json::from_slice(&json).map_err(|_| bad())?;
    Ok(credentials.auth())
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
}
