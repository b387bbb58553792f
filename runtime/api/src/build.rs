//! `/build`: images from Dockerfiles, by the classic builder.

use std::collections::BTreeMap;
use std::sync::Arc;

use bollard_stubs::models::{ContainerCreateBody, HostConfig};
use hyper::StatusCode;
use hyper::body::Bytes;
use keel_build::{Error, Interrupt, Options, Told};
use keel_store::Reference;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::call::{BodyReader, Call, blocking, long_permit};
use crate::pull::{progress_line, reference};
use crate::query::Query;
use crate::registry_auth;
use crate::respond::{ChannelBody, Failure, json, stream};
use crate::roles::require_to_create;
use crate::router::Answer;
use keel_spec::api::ErrorCode;

/// Most names of one image.
const MAX_NAMES: usize = 64;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.chain();
        match error {
            Error::Bad(_) | Error::Parse(_) => Self::bad_request(message),
            Error::Busy(_) => Self::unavailable(message),
            Error::Store(error) => Self { message, ..Self::from(error) },
            Error::Engine(error) => Self { message, ..Self::from(error) },
            Error::Fetch(_) => Self { code: ErrorCode::Network, ..Self::internal(message) },
            _ => Self::internal(message),
        }
    }
}

/// `POST /build`
pub async fn build(call: Call) -> Answer {
    let mut options = read(&call.query)?;
    options.auths = registry_auth::read_all(call.head.headers())?;
    registry_auth::add_logins(&mut options.auths, &call.context.settings.registry.logins);
    // What its steps are run with gives no more power over the host than a container's own options.
    let steps = ContainerCreateBody { host_config: Some(options.host.clone()), ..ContainerCreateBody::default() };
    require_to_create(&call.caller, &call.context.engine, &steps)?;
    let permit = long_permit(&call.context)?;
    let builder = Arc::clone(&call.context.builder);
    let (producer, mut body) = ChannelBody::new();
    let (refusal, refused) = oneshot::channel();
    let interrupt = Interrupt::default();
    let (gone, leaves) = (producer.clone(), interrupt.clone());
    let building = tokio::task::spawn_blocking(move || {
        let mut context = BodyReader::limited(call.body);
        let mut told = false;
        let send = |line: &Value| producer.blocking_send(Bytes::from(format!("{line}\r\n"))).is_ok();
        let built = builder.build(&options, &mut context, &interrupt, &mut |what| {
            told = true;
            send(&line(&what))
        });
        let built = context
            .or_drain(built)
            .map(|id| options.names.iter().for_each(|name| call.context.engine.tell_tagged(&id, name)));
        if let Err(error) = built {
            let message = error.chain();
            log::info!("a build failed: {message}");
            if told {
                send(&json!({ "errorDetail": { "code": error.code(), "message": message }, "error": message }));
            } else {
                let _ = refusal.send(Failure::from(error));
            }
        }
        drop(permit);
    });
    tokio::spawn(async move {
        tokio::select! {
            () = gone.closed() => leaves.interrupt(),
            _ = building => {}
        }
    });
    if body.wait_for_first().await {
        return Ok(stream(StatusCode::OK, "application/json", body));
    }
    Err(refused.await.unwrap_or_else(|_| Failure::internal("the worker that builds ended early")))
}

/// `POST /build/prune`: what builds remember takes no room of its own; they forget it all the same.
pub async fn prune(call: Call) -> Answer {
    blocking(move || {
        call.context.builder.forget();
        Ok(())
    })
    .await?;
    Ok(json(StatusCode::OK, &json!({ "CachesDeleted": [], "SpaceReclaimed": 0 })))
}

fn line(told: &Told) -> Value {
    match told {
        Told::Text(text) => json!({ "stream": text }),
        Told::Pull(progress) => progress_line(progress),
        Told::Image(id) => json!({ "aux": { "ID": id.to_string() } }),
    }
}

fn read(query: &Query) -> Result<Options, Failure> {
    refuse(query)?;
    let mut names: Vec<Reference> = Vec::new();
    for name in query.all("t").filter(|name| !name.is_empty()) {
        let name = reference(name, None)?;
        if name.digest().is_some() {
            return Err(Failure::bad_request("build tag cannot contain a digest"));
        }
        if names.len() == MAX_NAMES {
            return Err(Failure::bad_request(format!("an image can't be given more than {MAX_NAMES} names at once")));
        }
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let arguments: BTreeMap<String, Option<String>> = from_json(query, "buildargs", "build args")?;
    Ok(Options {
        dockerfile: query.text("dockerfile").unwrap_or("Dockerfile").to_owned(),
        names,
        arguments: arguments.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
        labels: from_json(query, "labels", "labels")?,
        target: query.text("target").map(str::to_owned),
        no_cache: query.flag("nocache"),
        pull: query.flag("pull"),
        quiet: query.flag("q"),
        platform: query.text("platform").map(platform).transpose()?,
        host: limits(query)?,
        auths: Default::default(),
    })
}

/// A platform as clients write it, `os[/architecture[/variant]]`. Refused in Docker's words.
fn platform(text: &str) -> Result<String, Failure> {
    let plain = |part: &str| {
        !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'))
    };
    match text.split('/').enumerate().find(|(number, part)| *number > 2 || !plain(part)) {
        None => Ok(text.to_owned()),
        Some((3.., _)) => Err(Failure::bad_request(format!("\"{text:.60}\": cannot parse platform specifier"))),
        Some((_, part)) => Err(Failure::bad_request(format!(
            "\"{part:.60}\" is an invalid component of \"{text:.60}\": platform specifier component must match \
             \"^[A-Za-z0-9_.-]+$\""
        ))),
    }
}

/// Refuses what isn't done, by name.
fn refuse(query: &Query) -> Result<(), Failure> {
    if query.get("version").is_some_and(|version| version == "2") {
        return Err(Failure::unsupported("BuildKit is not served by Keel: set DOCKER_BUILDKIT=0"));
    }
    if let Some(version) = query.text("version").filter(|version| *version != "1") {
        return Err(Failure::bad_request(format!("invalid version {version:.60}")));
    }
    if let Some(remote) = query.text("remote") {
        return Err(
            match ["http://", "https://", "git://", "git@", "github.com/"].iter().any(|p| remote.starts_with(p)) {
                true => Failure::unsupported("contexts aren't fetched from an address: send the context's files"),
                false => Failure::bad_request(format!("remoteURL ({remote:.60}) could not be recognized as URL")),
            },
        );
    }
    // What Docker's own builder refuses on Linux, in its words.
    if query.flag("squash") {
        return Err(Failure::bad_request("squash is only supported with experimental mode"));
    }
    if let Some(isolation) = query.text("isolation").filter(|isolation| !isolation.eq_ignore_ascii_case("default")) {
        return Err(Failure::bad_request(format!("Unsupported isolation: {isolation:?}")));
    }
    let security: Option<Vec<String>> = from_json(query, "securityopt", "security options")?;
    if security.is_some_and(|options| !options.is_empty()) {
        return Err(Failure::bad_request(
            "the daemon on this platform does not support setting security options on build",
        ));
    }
    let _: Vec<String> = from_json(query, "cachefrom", "cache-from")?;
    match query.text("outputs") {
        Some(outputs) if outputs != "[]" => Err(Failure::unsupported("outputs other than an image need BuildKit")),
        _ => Ok(()),
    }
}

fn limits(query: &Query) -> Result<HostConfig, Failure> {
    let text = |name: &str| query.text(name).map(str::to_owned);
    let ulimits: Option<Vec<_>> = from_json(query, "ulimits", "ulimit settings")?;
    let hosts: Vec<String> = query.all("extrahosts").filter(|host| !host.is_empty()).map(str::to_owned).collect();
    Ok(HostConfig {
        network_mode: text("networkmode"),
        memory: query.number("memory")?,
        memory_swap: query.number("memswap")?,
        cpu_shares: query.number("cpushares")?,
        cpu_period: query.number("cpuperiod")?,
        cpu_quota: query.number("cpuquota")?,
        cpuset_cpus: text("cpusetcpus"),
        cpuset_mems: text("cpusetmems"),
        shm_size: query.number("shmsize")?.filter(|bytes| *bytes > 0),
        cgroup_parent: text("cgroupparent"),
        extra_hosts: Some(hosts).filter(|hosts| !hosts.is_empty()),
        ulimits: ulimits.filter(|list| !list.is_empty()),
        ..HostConfig::default()
    })
}

/// A parameter that is JSON; absent, empty and `null` are its default. What it holds is told in Docker's words.
fn from_json<T: DeserializeOwned + Default>(query: &Query, name: &str, what: &str) -> Result<T, Failure> {
    let Some(text) = query.text(name) else { return Ok(T::default()) };
    let read: Result<Option<T>, _> = serde_json::from_str(text);
    read.map(Option::unwrap_or_default).map_err(|error| {
        Failure::bad_request(format!("error reading {what}: parameter {name} is no such JSON: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(query: &str) -> Result<Options, Failure> {
        read(&Query::parse(query).unwrap())
    }

    #[test]
    fn what_the_docker_client_sends_is_read() {
        let query = "buildargs=%7B%22A%22%3A%221%22%2C%22B%22%3Anull%7D&cachefrom=%5B%22a%3A1%22%5D&isolation=default&securityopt=null&forcerm=1&cgroupparent=&cpuperiod=0\
                     &cpuquota=0&cpusetcpus=&cpushares=0&dockerfile=Dockerfile&labels=%7B%22l%22%3A%22x%22%7D&memory=0\
                     &memswap=0&networkmode=none&rm=1&shmsize=0&t=a&t=b%3A2&t=a%3Alatest&target=&ulimits=null&version=1";
        let options = options(query).unwrap();
        assert_eq!(options.names.iter().map(Reference::to_string).collect::<Vec<_>>(), ["a:latest", "b:2"]);
        assert_eq!(options.arguments, BTreeMap::from([("A".to_owned(), "1".to_owned())]));
        assert_eq!((options.labels["l"].as_str(), options.host.network_mode.as_deref()), ("x", Some("none")));
        assert_eq!((options.host.shm_size, options.host.ulimits, options.target), (None, None, None));
    }

    #[test]
    fn what_is_not_done_is_refused_by_name() {
        for (query, word) in [
            ("version=2", "DOCKER_BUILDKIT=0"),
            ("remote=https%3A%2F%2Fx", "address"),
            ("squash=1", "squash"),
            ("t=A", "lowercase"),
            ("buildargs=x", "buildargs"),
            ("isolation=hyperv", "hyperv"),
            ("platform=a%2F%2F", "invalid component"),
            ("platform=a%2Fb%2Fc%2Fd", "cannot parse platform"),
            ("securityopt=%5B%22seccomp%3Dx%22%5D", "security options"),
            ("cachefrom=x", "cachefrom"),
        ] {
            let failure = options(query).unwrap_err();
            assert!(failure.status.as_u16() >= 400 && failure.message.contains(word), "{query}: {}", failure.message);
        }
    }
}
