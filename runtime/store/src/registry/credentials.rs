//! What a registry asks for before it answers: user and password, or a token from the service that it names
//! (distribution's token specification, also its OAuth2 form).

use keel_fetch::{Method, Request, Response, auth};
use serde::Deserialize;

use super::challenge::{Challenge, encode};
use super::client::{Ask, Registry};
use crate::error::Error;
use crate::reference::Reference;
use crate::remote::Auth;
use crate::store::Store;

/// Longest answer of a token service.
const MAX_TOKEN_BYTES: u64 = 1 << 20;

/// What is wanted of a registry.
pub struct Asked<'a> {
    /// Credentials.
    pub auth: Option<&'a Auth>,
    /// What access a token is to give.
    pub scopes: &'a [String],
    /// Whether the registry is one without TLS; its token service may be, too.
    pub is_plain: bool,
}

/// The `Authorization` header that answers a challenge.
pub fn answer(registry: &Registry<'_>, asked: &Asked<'_>, response: &Response) -> Result<String, Error> {
    let header = response.header("www-authenticate").unwrap_or_default();
    let (realm, service) = match Challenge::parse(header) {
        Some(Challenge::Basic) => {
            let Some(Auth::Basic { user, password }) = asked.auth else {
                return Err(registry.denied("no basic auth credentials".into()));
            };
            return Ok(auth::basic(user, password));
        }
        Some(Challenge::Bearer { realm, service, .. }) => (realm, service),
        None => {
            let message = format!("it asks for credentials in a way that isn't supported ({header:?})");
            return Err(registry.denied(message));
        }
    };
    if !(realm.starts_with("https://") || asked.is_plain && realm.starts_with("http://")) {
        return Err(registry.broken(format!("its token service {realm:?} isn't reached over https")));
    }
    let service = service.unwrap_or_default();
    let token = registry.retried(|| match asked.auth {
        Some(Auth::Identity(token)) => by_identity(registry, asked, &realm, &service, token),
        _ => by_password(registry, asked, &realm, &service),
    })?;
    Ok(auth::bearer(&token))
}

fn by_password(registry: &Registry<'_>, asked: &Asked<'_>, realm: &str, service: &str) -> Result<String, Error> {
    let mut query = Vec::new();
    if !service.is_empty() {
        query.push(format!("service={}", encode(service)));
    }
    query.extend(asked.scopes.iter().map(|scope| format!("scope={}", encode(scope))));
    let basic = match asked.auth {
        Some(Auth::Basic { user, password }) => {
            query.push(format!("account={}", encode(user)));
            Some(auth::basic(user, password))
        }
        _ => None,
    };
    let url = format!("{realm}{}{}", if realm.contains('?') { '&' } else { '?' }, query.join("&"));
    let headers: Vec<_> = basic.as_deref().map(|value| ("Authorization", value)).into_iter().collect();
    token(registry, Method::Get, &Request::new(&url, MAX_TOKEN_BYTES).headers(&headers))
}

/// With an identity token, which `docker login` got in place of keeping the password (RFC 6749 section 6).
fn by_identity(
    registry: &Registry<'_>,
    asked: &Asked<'_>,
    realm: &str,
    service: &str,
    identity: &str,
) -> Result<String, Error> {
    let body = format!(
        "grant_type=refresh_token&client_id=keel&service={}&scope={}&refresh_token={}",
        encode(service),
        encode(&asked.scopes.join(" ")),
        encode(identity)
    );
    let headers = [("Content-Type", "application/x-www-form-urlencoded")];
    token(registry, Method::Post, &Request::new(realm, MAX_TOKEN_BYTES).headers(&headers).body(body.as_bytes()))
}

fn token(registry: &Registry<'_>, method: Method, request: &Request<'_>) -> Result<String, Error> {
    #[derive(Deserialize)]
    struct Token {
        token: Option<String>,
        access_token: Option<String>,
    }
    let response = registry.store.client.request(method, request).map_err(|source| registry.fetch(source))?;
    if matches!(response.status, 400 | 401 | 403) {
        return Err(registry.denied(format!("its token service answered {}", response.status)));
    }
    let bytes = response.success().and_then(Response::bytes).map_err(|source| registry.fetch(source))?;
    let token: Token = serde_json::from_slice(&bytes)
        .map_err(|error| registry.broken(format!("its token service sent no token ({error})")))?;
    let token = token.token.or(token.access_token).filter(|token| !token.is_empty());
    token.ok_or_else(|| registry.broken("its token service sent no token".into()))
}

/// The message in the errors of a registry (distribution spec, "Error Codes"), where it is complete.
pub fn message(body: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Errors {
        errors: Vec<Detail>,
    }
    #[derive(Deserialize)]
    struct Detail {
        #[serde(default)]
        message: String,
    }
    let errors: Errors = serde_json::from_str(body).ok()?;
    Some(errors.errors.into_iter().next()?.message).filter(|message| !message.is_empty())
}

/// Tries credentials on a registry, which is named as in an image's name, or as `https://index.docker.io/v1/`.
pub fn login(store: &Store, server: &str, auth: &Auth) -> Result<(), Error> {
    let host = server.trim_start_matches("https://").trim_start_matches("http://");
    let host = host.split('/').next().unwrap_or_default();
    let host = if host.is_empty() || host == "index.docker.io" { "docker.io" } else { host };
    // Any name in it: only the registry is asked for.
    let reference: Reference = format!("{host}/library/login").parse()?;
    let registry = Registry::new(store, &reference, Some(auth)).for_login();
    let ask = Ask { max_bytes: MAX_TOKEN_BYTES, ..Ask::default() };
    registry.send(&format!("{}/v2/", registry.root()), &ask).map(|_| ())
}
