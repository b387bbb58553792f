//! Which endpoint answers which request: one table, looked through from top to bottom.
//!
//! In a pattern `{}` stands for one segment of a path and `{*}` for one or more (image names hold slashes).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, SERVER};
use hyper::{Method, Request, Response, StatusCode};

use crate::call::{Call, read_body};
use crate::context::Context;
use crate::query::{Query, decode};
use crate::respond::{Body, Failure};
use crate::{
    archive, attach, boots, build, commit, containers, disk_usage, events, exec, images, keel, logs, metrics, networks,
    pull, registry, save, stats, system, update, volumes, wait,
};

/// Minor version of the newest Docker Engine API that is served, 1.47.
pub const MAX_API_MINOR: u32 = 47;
/// Minor version of the oldest one, 1.24.
pub const MIN_API_MINOR: u32 = 24;
/// Longest path in bytes.
const MAX_PATH_BYTES: usize = 4096;

/// What an endpoint comes to.
pub type Answer = Result<Response<Body>, Failure>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

struct Route {
    /// It is there to refuse.
    refuses: bool,
    method: &'static str,
    pattern: &'static str,
    endpoint: fn(Call) -> Answering,
}

/// A row of the table; each endpoint is an `async fn(Call) -> Answer`.
macro_rules! routes {
    ($($method:literal $pattern:literal => $endpoint:path;)*) => {
        &[$(Route {
            refuses: matches!(stringify!($endpoint).as_bytes(), b"absent" | b"unsupported"),
            method: $method, pattern: $pattern, endpoint: |call| Box::pin($endpoint(call)) },)*]
    };
}

static ROUTES: &[Route] = routes! {
    "GET" "/_ping" => system::ping;
    "HEAD" "/_ping" => system::ping;
    "GET" "/version" => system::version;
    "GET" "/info" => system::info;
    "GET" "/events" => events::events;
    "GET" "/system/df" => disk_usage::disk_usage;
    "POST" "/commit" => commit::commit;
    "POST" "/build" => build::build;
    "POST" "/build/prune" => build::prune;
    "POST" "/auth" => registry::login;

    "GET" "/containers/json" => containers::list;
    "POST" "/containers/create" => containers::create;
    "POST" "/containers/prune" => containers::prune;
    "GET" "/containers/{}/json" => containers::inspect;
    "POST" "/containers/{}/start" => containers::start;
    "POST" "/containers/{}/stop" => containers::stop;
    "POST" "/containers/{}/kill" => containers::kill;
    "POST" "/containers/{}/restart" => containers::restart;
    "POST" "/containers/{}/rename" => containers::rename;
    "POST" "/containers/{}/resize" => containers::resize;
    "POST" "/containers/{}/wait" => wait::wait;
    "POST" "/containers/{}/attach" => attach::attach;
    "POST" "/containers/{}/pause" => containers::pause;
    "POST" "/containers/{}/unpause" => containers::unpause;
    "POST" "/containers/{}/update" => containers::update;
    "GET" "/containers/{}/top" => containers::top;
    "GET" "/containers/{}/stats" => stats::stats;
    "GET" "/containers/{}/changes" => containers::changes;
    "GET" "/containers/{}/export" => archive::export;
    "HEAD" "/containers/{}/archive" => archive::stat;
    "GET" "/containers/{}/archive" => archive::get;
    "PUT" "/containers/{}/archive" => archive::put;
    "POST" "/containers/{}/exec" => exec::create;
    "POST" "/exec/{}/start" => exec::start;
    "POST" "/exec/{}/resize" => exec::resize;
    "GET" "/exec/{}/json" => exec::inspect;
    "GET" "/containers/{}/logs" => logs::logs;
    "DELETE" "/containers/{}" => containers::remove;

    "GET" "/images/json" => images::list;
    "POST" "/images/create" => pull::create;
    "POST" "/images/load" => pull::load;
    "GET" "/images/get" => save::several;
    "POST" "/images/prune" => images::prune;
    "GET" "/images/search" => registry::search;
    "POST" "/images/{*}/push" => registry::push;
    "GET" "/distribution/{*}/json" => registry::distribution;
    "GET" "/images/{*}/get" => save::one;
    "GET" "/images/{*}/json" => images::inspect;
    "GET" "/images/{*}/history" => images::history;
    "POST" "/images/{*}/tag" => images::tag;
    "DELETE" "/images/{*}" => images::remove;

    "GET" "/volumes" => volumes::list;
    "POST" "/volumes/create" => volumes::create;
    "POST" "/volumes/prune" => volumes::prune;
    "GET" "/volumes/{*}" => volumes::inspect;
    "DELETE" "/volumes/{*}" => volumes::remove;

    "GET" "/networks" => networks::list;
    "POST" "/networks/create" => networks::create;
    "POST" "/networks/prune" => networks::prune;
    "GET" "/networks/{}" => networks::inspect;
    "DELETE" "/networks/{}" => networks::remove;
    "POST" "/networks/{}/connect" => networks::connect;
    "POST" "/networks/{}/disconnect" => networks::disconnect;

    // `docker inspect NAME` asks one kind of object after the other and takes only a 404 for "not of this kind".
    "GET" "/plugins/{*}" => absent;
    "GET" "/services/{}" => absent;
    "GET" "/tasks/{}" => absent;
    "GET" "/nodes/{}" => absent;
    "GET" "/secrets/{}" => absent;
    "GET" "/configs/{}" => absent;

    "GET" "/keel/v1/status" => keel::status;
    "GET" "/keel/v1/services" => keel::services;
    "GET" "/keel/v1/containers" => keel::containers;
    "GET" "/keel/v1/metrics" => metrics::metrics;
    "GET" "/keel/v1/logs/{}" => keel::logs;
    "POST" "/keel/v1/reboot" => keel::reboot;
    "POST" "/keel/v1/poweroff" => keel::poweroff;
    "GET" "/keel/v1/boots" => boots::list;
    "GET" "/keel/v1/boots/{}/log" => boots::log;
    "GET" "/keel/v1/update" => update::status;
    "POST" "/keel/v1/update/check" => update::check;
    "POST" "/keel/v1/update/plan" => update::plan;
    "POST" "/keel/v1/update/install" => update::install;
    "POST" "/keel/v1/update/bundle" => update::bundle;
    "POST" "/keel/v1/update/rollback" => update::rollback;
    "POST" "/keel/v1/update/pause" => update::pause;
    "POST" "/keel/v1/update/resume" => update::resume;
};

/// First segments of Docker endpoints that aren't served yet.
const UNSUPPORTED: &[&str] = &[
    "auth",
    "build",
    "configs",
    "containers",
    "distribution",
    "events",
    "exec",
    "images",
    "networks",
    "nodes",
    "plugins",
    "secrets",
    "services",
    "session",
    "swarm",
    "system",
    "tasks",
    "volumes",
];

/// Answers any request; failures become answers, too.
pub async fn answer(context: Arc<Context>, request: Request<Incoming>) -> Result<Response<Body>, Infallible> {
    let head = request.method() == Method::HEAD;
    let mut response = match dispatch(context, request).await {
        Ok(response) => response,
        Err(failure) => {
            if failure.status.is_server_error() && failure.status != StatusCode::NOT_IMPLEMENTED {
                log::warn!("request failed: {}", failure.message);
            }
            failure.into_response()
        }
    };
    if head {
        *response.body_mut() = crate::respond::empty(StatusCode::OK).into_body();
    }
    let headers = response.headers_mut();
    headers.insert(SERVER, HeaderValue::from_static(concat!("Keel/", env!("CARGO_PKG_VERSION"), " (linux)")));
    for (name, value) in [("api-version", "1.47"), ("docker-experimental", "false"), ("ostype", "linux")] {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    Ok(response)
}

async fn dispatch(context: Arc<Context>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let head = Request::from_parts(parts, ());
    match route(&head) {
        Ok((route, name, query, api_minor)) => {
            (route.endpoint)(Call { context, head, body, name, query, api_minor }).await
        }
        Err(failure) => {
            // A client that is still sending when the connection closes never sees why.
            let _ = read_body(body).await;
            Err(failure)
        }
    }
}

fn route(head: &Request<()>) -> Result<(&'static Route, String, Query, u32), Failure> {
    let path = head.uri().path();
    if path.len() > MAX_PATH_BYTES {
        return Err(Failure::bad_request(format!("path is longer than {MAX_PATH_BYTES} bytes")));
    }
    let (api_minor, path) = split_version(path)?;
    let (route, name) = find(head.method().as_str(), path)?;
    let query = Query::parse(head.uri().query().unwrap_or_default())?;
    Ok((route, decode(name, false)?, query, api_minor))
}

/// Whether an endpoint is served (`false`: only to say that it isn't there), or status and words of its refusal.
pub fn serves(method: &str, path: &str) -> Result<bool, (u16, String)> {
    let found = find(method, path).map_err(|failure| (failure.status.as_u16(), failure.message))?;
    Ok(!found.0.refuses)
}

fn find<'a>(method: &str, path: &'a str) -> Result<(&'static Route, &'a str), Failure> {
    let mut other_method = false;
    for route in ROUTES {
        let Some(name) = match_path(route.pattern, path) else { continue };
        if route.method == method {
            return Ok((route, name));
        }
        other_method = true;
    }
    let first = path.trim_start_matches('/').split('/').next().unwrap_or_default();
    if UNSUPPORTED.contains(&first) {
        return Err(Failure::unsupported(format!(
            "{method} {path} is a part of the Docker Engine API that Keel does not serve"
        )));
    }
    if other_method {
        let status = StatusCode::METHOD_NOT_ALLOWED;
        let failure = Failure::bad_request(format!("{path} does not take {method}"));
        return Err(Failure { status, ..failure });
    }
    Err(Failure::not_found(format!("page not found: {path}")))
}

/// What stands for the placeholder, empty where the pattern has none; `None`: no match.
fn match_path<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once('{') else {
        return (pattern == path).then_some("");
    };
    let (placeholder, after) = after.split_once('}')?;
    let name = path.strip_prefix(before)?.strip_suffix(after)?;
    (!name.is_empty() && (placeholder == "*" || !name.contains('/'))).then_some(name)
}

/// Takes `/v1.47` off a path. Versions beyond those that are served are refused in words that clients know.
fn split_version(path: &str) -> Result<(u32, &str), Failure> {
    let versioned = || {
        let (version, rest) = path.strip_prefix("/v")?.split_once('/')?;
        let (major, minor) = version.split_once('.')?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
        Some((number(major)?, number(minor)?, path.get(path.len() - rest.len() - 1..)?))
    };
    match versioned() {
        None => Ok((MAX_API_MINOR, path)),
        Some((1, minor @ MIN_API_MINOR..=MAX_API_MINOR, rest)) => Ok((minor, rest)),
        Some((major, minor, _)) if (major, minor) < (1, MIN_API_MINOR) => Err(Failure::bad_request(format!(
            "client version {major}.{minor} is too old. Minimum supported API version is 1.{MIN_API_MINOR}"
        ))),
        Some((major, minor, _)) => Err(Failure::bad_request(format!(
            "client version {major}.{minor} is too new. Maximum supported API version is 1.{MAX_API_MINOR}"
        ))),
    }
}

async fn absent(call: Call) -> Answer {
    Err(Failure::not_found(format!("no such object: {}", call.name)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(method: &str, path: &str) -> Result<(&'static str, String), StatusCode> {
        find(method, path).map(|(route, name)| (route.pattern, name.to_owned())).map_err(|failure| failure.status)
    }

    #[test]
    fn image_names_may_hold_slashes() {
        let name = "registry.example:5000/a/b:1".to_owned();
        assert_eq!(pattern("GET", "/images/registry.example:5000/a/b:1/json"), Ok(("/images/{*}/json", name.clone())));
        assert_eq!(pattern("DELETE", "/images/registry.example:5000/a/b:1"), Ok(("/images/{*}", name)));
        assert_eq!(pattern("GET", "/images/json"), Ok(("/images/json", String::new())));
    }

    #[test]
    fn container_names_may_not() {
        assert_eq!(pattern("POST", "/containers/a/start"), Ok(("/containers/{}/start", "a".into())));
        assert_eq!(pattern("POST", "/containers/a/b/start"), Err(StatusCode::NOT_IMPLEMENTED));
        assert_eq!(pattern("POST", "/containers//start"), Err(StatusCode::NOT_IMPLEMENTED));
    }

    #[test]
    fn what_is_missing_says_whose_fault_it_is() {
        assert_eq!(pattern("POST", "/session"), Err(StatusCode::NOT_IMPLEMENTED));
        assert_eq!(pattern("GET", "/nonsense"), Err(StatusCode::NOT_FOUND));
        assert_eq!(pattern("PUT", "/keel/v1/status"), Err(StatusCode::METHOD_NOT_ALLOWED));
        assert_eq!(pattern("GET", "/volumes/x"), Ok(("/volumes/{*}", "x".into())));
    }

    #[test]
    fn versions_are_taken_off_and_judged() {
        assert_eq!(split_version("/v1.24/info").unwrap(), (24, "/info"));
        assert_eq!(split_version("/_ping").unwrap(), (MAX_API_MINOR, "/_ping"));
        assert_eq!(split_version("/version").unwrap(), (MAX_API_MINOR, "/version"));
        for path in ["/v1.23/info", "/v1.48/info", "/v2.0/info", "/v0.1/info"] {
            assert!(split_version(path).is_err(), "{path}");
        }
    }

    #[test]
    fn the_header_names_the_version_that_is_served() {
        assert_eq!(MAX_API_MINOR, 47);
    }
}
