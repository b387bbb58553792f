//! Which endpoint answers which request: one table, looked through from top to bottom.
//!
//! In a pattern `{}` stands for one segment of a path and `{*}` for one or more (image names hold slashes).

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use hyper::body::Incoming;
use hyper::header::{HeaderName, HeaderValue, SERVER};
use hyper::{Method, Request, Response, StatusCode};

use crate::call::{Call, read_body};
use crate::context::Context;
use crate::query::{Query, decode};
use crate::respond::{Body, Failure};
use crate::roles::{self, Caller, Need};
use crate::{
    archive, attach, audit, boots, build, commit, containers, disk_usage, events, exec, images, keel, logs, metrics,
    networks, pull, registry, save, stats, system, update, volumes, wait, websocket,
};

/// Minor version of the newest Docker Engine API that is served, 1.47.
pub const MAX_API_MINOR: u32 = 47;
/// Minor version of the oldest one, 1.24.
pub const MIN_API_MINOR: u32 = 24;
/// What the audit log has for a route where there is none; the path is the object then.
const UNROUTED: &str = "(not routed)";
/// Longest path in bytes.
const MAX_PATH_BYTES: usize = 4096;

/// What an endpoint comes to.
pub type Answer = Result<Response<Body>, Failure>;
type Answering = Pin<Box<dyn Future<Output = Answer> + Send>>;

struct Route {
    /// It is there to refuse.
    refuses: bool,
    /// What it needs of its caller.
    need: Need,
    method: &'static str,
    pattern: &'static str,
    endpoint: fn(Call) -> Answering,
}

/// Words of the table's third column.
mod need {
    #![allow(non_upper_case_globals, reason = "they are words of a table")]
    use crate::roles::Need;

    pub const read: Need = Need::Read;
    pub const run: Need = Need::Run;
    pub const inside: Need = Need::Inside;
    pub const admin: Need = Need::Admin;
}

/// A row of the table: method, pattern, what it needs of its caller, and the endpoint, an `async fn(Call) -> Answer`.
macro_rules! routes {
    ($($method:literal $pattern:literal $need:ident => $endpoint:path;)*) => {
        &[$(Route {
            need: need::$need,
            refuses: matches!(stringify!($endpoint).as_bytes(), b"absent" | b"unsupported"),
            method: $method, pattern: $pattern, endpoint: |call| Box::pin($endpoint(call)) },)*]
    };
}

static ROUTES: &[Route] = routes! {
    "GET" "/_ping" read => system::ping;
    "HEAD" "/_ping" read => system::ping;
    "GET" "/version" read => system::version;
    "GET" "/info" read => system::info;
    "GET" "/events" read => events::events;
    "GET" "/system/df" read => disk_usage::disk_usage;
    "POST" "/commit" run => commit::commit;
    "POST" "/build" run => build::build;
    "POST" "/build/prune" run => build::prune;
    "POST" "/auth" run => registry::login;

    "GET" "/containers/json" read => containers::list;
    "POST" "/containers/create" run => containers::create;
    "POST" "/containers/prune" run => containers::prune;
    "GET" "/containers/{}/json" read => containers::inspect;
    "POST" "/containers/{}/start" run => containers::start;
    "POST" "/containers/{}/stop" run => containers::stop;
    "POST" "/containers/{}/kill" run => containers::kill;
    "POST" "/containers/{}/restart" run => containers::restart;
    "POST" "/containers/{}/rename" run => containers::rename;
    "POST" "/containers/{}/resize" run => containers::resize;
    "POST" "/containers/{}/wait" read => wait::wait;
    "POST" "/containers/{}/attach" inside => attach::attach;
    "GET" "/containers/{}/attach/ws" inside => websocket::attach;
    "POST" "/containers/{}/pause" run => containers::pause;
    "POST" "/containers/{}/unpause" run => containers::unpause;
    "POST" "/containers/{}/update" run => containers::update;
    "GET" "/containers/{}/top" read => containers::top;
    "GET" "/containers/{}/stats" read => stats::stats;
    "GET" "/containers/{}/changes" read => containers::changes;
    "GET" "/containers/{}/export" inside => archive::export;
    "HEAD" "/containers/{}/archive" read => archive::stat;
    "GET" "/containers/{}/archive" inside => archive::get;
    "PUT" "/containers/{}/archive" inside => archive::put;
    "POST" "/containers/{}/exec" inside => exec::create;
    "POST" "/exec/{}/start" inside => exec::start;
    "POST" "/exec/{}/resize" run => exec::resize;
    "GET" "/exec/{}/json" read => exec::inspect;
    "GET" "/containers/{}/logs" read => logs::logs;
    "DELETE" "/containers/{}" run => containers::remove;

    "GET" "/images/json" read => images::list;
    "POST" "/images/create" run => pull::create;
    "POST" "/images/load" run => pull::load;
    "GET" "/images/get" run => save::several;
    "POST" "/images/prune" run => images::prune;
    "GET" "/images/search" read => registry::search;
    "POST" "/images/{*}/push" run => registry::push;
    "GET" "/distribution/{*}/json" read => registry::distribution;
    "GET" "/images/{*}/get" run => save::one;
    "GET" "/images/{*}/json" read => images::inspect;
    "GET" "/images/{*}/history" read => images::history;
    "POST" "/images/{*}/tag" run => images::tag;
    "DELETE" "/images/{*}" run => images::remove;

    "GET" "/volumes" read => volumes::list;
    "POST" "/volumes/create" run => volumes::create;
    "POST" "/volumes/prune" run => volumes::prune;
    "GET" "/volumes/{*}" read => volumes::inspect;
    "DELETE" "/volumes/{*}" run => volumes::remove;

    "GET" "/networks" read => networks::list;
    "POST" "/networks/create" run => networks::create;
    "POST" "/networks/prune" run => networks::prune;
    "GET" "/networks/{}" read => networks::inspect;
    "DELETE" "/networks/{}" run => networks::remove;
    "POST" "/networks/{}/connect" run => networks::connect;
    "POST" "/networks/{}/disconnect" run => networks::disconnect;

    // `docker inspect NAME` asks one kind of object after the other and takes only a 404 for "not of this kind".
    "GET" "/plugins" read => system::plugins;
    "GET" "/plugins/{*}" read => absent;
    "GET" "/services/{}" read => absent;
    "GET" "/tasks/{}" read => absent;
    "GET" "/nodes/{}" read => absent;
    "GET" "/secrets/{}" read => absent;
    "GET" "/configs/{}" read => absent;

    "GET" "/keel/v1/status" read => keel::status;
    "GET" "/keel/v1/services" read => keel::services;
    "GET" "/keel/v1/containers" read => keel::containers;
    "GET" "/keel/v1/metrics" read => metrics::metrics;
    "GET" "/keel/v1/logs/{}" read => keel::logs;
    "POST" "/keel/v1/reboot" admin => keel::reboot;
    "POST" "/keel/v1/poweroff" admin => keel::poweroff;
    "GET" "/keel/v1/boots" read => boots::list;
    "GET" "/keel/v1/boots/{}/log" read => boots::log;
    "GET" "/keel/v1/update" read => update::status;
    "POST" "/keel/v1/update/check" admin => update::check;
    "POST" "/keel/v1/update/plan" admin => update::plan;
    "POST" "/keel/v1/update/install" admin => update::install;
    "POST" "/keel/v1/update/bundle" admin => update::bundle;
    "POST" "/keel/v1/update/bundles" admin => update::bundles;
    "POST" "/keel/v1/update/rollback" admin => update::rollback;
    "POST" "/keel/v1/update/pause" admin => update::pause;
    "POST" "/keel/v1/update/resume" admin => update::resume;
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
pub async fn answer(
    context: Arc<Context>,
    caller: Arc<Caller>,
    request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let head = request.method() == Method::HEAD;
    let mut response = match dispatch(context, caller, request).await {
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

async fn dispatch(context: Arc<Context>, caller: Arc<Caller>, request: Request<Incoming>) -> Answer {
    let (parts, body) = request.into_parts();
    let head = Request::from_parts(parts, ());
    let begun = Instant::now();
    let (route, name, query, api_minor) = match route(&head) {
        Ok(found) => found,
        Err(failure) => {
            // A client that is still sending when the connection closes never sees why.
            let _ = read_body(body).await;
            let (method, object, status) = (head.method().as_str(), head.uri().path(), failure.status);
            let took = begun.elapsed();
            audit::log(&audit::Entry { caller: &caller, method, route: UNROUTED, object, status, took });
            return Err(failure);
        }
    };
    let method = head.method().clone();
    let object = match query.text("name").or(query.text("fromImage")) {
        Some(object) if name.is_empty() => object.to_owned(),
        _ => name.clone(),
    };
    let (reads, reads_told) = (Arc::clone(&context.reads), context.settings.api.audit_reads);
    let answer = match allow(&context, &caller, route, &method, &name).await {
        Ok(()) => {
            let caller = Arc::clone(&caller);
            (route.endpoint)(Call { context, caller, head, body, name, query, api_minor }).await
        }
        Err(failure) => {
            let _ = read_body(body).await;
            Err(failure)
        }
    };
    let status = answer.as_ref().map_or_else(|failure| failure.status, Response::status);
    let (method, took) = (method.as_str(), begun.elapsed());
    let entry = audit::Entry { caller: &caller, method, route: route.pattern, object: &object, status, took };
    if route.need != Need::Read || status == StatusCode::FORBIDDEN {
        audit::log(&entry);
    } else if reads_told {
        reads.log(&entry);
    }
    answer
}

/// Refuses a caller who may not.
async fn allow(context: &Context, caller: &Caller, route: &Route, method: &Method, name: &str) -> Result<(), Failure> {
    caller.require(route.need.role(), &format!("{method} {}", route.pattern))?;
    if route.need == Need::Inside {
        roles::require_inside(caller, &context.engine, route.pattern, name).await?;
    }
    Ok(())
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
            "client version {major}.{minor} is too old. Minimum supported API version is 1.{MIN_API_MINOR}, \
             please upgrade your client to a newer version"
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
    fn what_changes_something_needs_more_than_to_read_and_the_host_is_for_administrators() {
        let reads = ["/containers/{}/wait"];
        for route in ROUTES {
            let changes = !matches!(route.method, "GET" | "HEAD") && !reads.contains(&route.pattern);
            assert!(!changes || route.need != Need::Read, "{} {}", route.method, route.pattern);
            let of_host = changes && route.pattern.starts_with("/keel/");
            assert_eq!(route.need == Need::Admin, of_host, "{} {}", route.method, route.pattern);
            let into = ["/attach", "/attach/ws", "/exec", "/export", "/archive"]
                .iter()
                .any(|end| route.pattern.ends_with(end));
            let into = (into || route.pattern == "/exec/{}/start") && route.method != "HEAD";
            assert_eq!(route.need == Need::Inside, into, "{} {}", route.method, route.pattern);
        }
    }

    #[test]
    fn the_header_names_the_version_that_is_served() {
        assert_eq!(MAX_API_MINOR, 47);
    }
}
