//! Images on their way in: `/images/create` (pull, import) and `/images/load`. Answers are streams of JSON lines.

use std::sync::Arc;

use hyper::StatusCode;
use hyper::body::Bytes;
use keel_store::{Digest, Error, ImageConfig, Import, Progress, Pull, Reference, Status, Store};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::call::{BodyReader, Call, long_permit};
use crate::context::Context;
use crate::registry_auth;
use crate::respond::{ChannelBody, Failure, Producer, json, stream};
use crate::router::Answer;

/// `POST /images/create`: `fromImage` pulls, `fromSrc` imports, from the request's body (`-`) or from an address.
pub async fn create(call: Call) -> Answer {
    if call.query.text("fromImage").is_some() {
        return pull(call).await;
    }
    match call.query.text("fromSrc") {
        Some(_) => import(call).await,
        None => Err(Failure::bad_request("fromImage or fromSrc is wanted")),
    }
}

async fn pull(call: Call) -> Answer {
    let name = call.query.text("fromImage").unwrap_or_default();
    let (reference, all) = wanted(name, call.query.text("tag"))?;
    let platform = call.query.text("platform").map(str::to_owned);
    let auth = registry_auth::read(call.head.headers())?;
    let auth = auth.or_else(|| keel_engine::auth_of(&call.context.settings.registry.logins, &reference));
    let engine = call.context.engine.clone();
    streamed(call.context, move |store, progress| {
        let pull = Pull { auth: auth.as_ref(), platform: platform.as_deref() };
        let names = if all { store.tagged(&reference, auth.as_ref())? } else { vec![reference] };
        for name in names {
            store.pull(&name, &pull, progress)?;
            engine.tell_moved("pull", &name);
        }
        Ok(Vec::new())
    })
    .await
}

async fn import(call: Call) -> Answer {
    let name = call.query.text("repo").map(|repository| reference(repository, call.query.text("tag"))).transpose()?;
    let changes: Vec<String> = call.query.all("changes").map(str::to_owned).collect();
    let mut config = ImageConfig::default();
    keel_build::settings::apply_all(&mut config, &changes).map_err(Failure::bad_request)?;
    let import = Import { name, message: call.query.text("message").unwrap_or_default().to_owned(), config };
    let address = call.query.text("fromSrc").filter(|source| *source != "-").map(address);
    let mut body = BodyReader::new(call.body);
    let engine = call.context.engine.clone();
    streamed(call.context, move |store, progress| {
        let id = match address {
            None => {
                let imported = store.import(&mut body, &import);
                body.or_drain(imported)?
            }
            Some(address) => store.import_from(&address, &import, progress)?,
        };
        engine.tell_of_image("import", &id);
        Ok(vec![json!({ "status": id.to_string() })])
    })
    .await
}

/// `POST /images/load`
pub async fn load(call: Call) -> Answer {
    let mut body = BodyReader::new(call.body);
    let quiet = call.query.flag("quiet");
    let engine = call.context.engine.clone();
    streamed(call.context, move |store, progress| {
        let mut told = false;
        let mut watch = |step: Progress| {
            told |= matches!(step.status, Status::Loaded(_));
            if !quiet || step.status.bytes().is_none() {
                progress(step);
            }
        };
        let loaded = store.load(&mut body, &mut watch);
        let loaded = body.or_drain(loaded)?;
        loaded.iter().for_each(|image| engine.tell_of_image("load", &image.id));
        if told {
            return Ok(Vec::new());
        }
        let line = |name: String| json!({ "stream": format!("{}\n", Status::Loaded(name).text()) });
        Ok(loaded
            .into_iter()
            .flat_map(|image| if image.tags.is_empty() { vec![image.id.to_string()] } else { image.tags })
            .map(line)
            .collect())
    })
    .await
}

/// Runs `work` on a thread of its own and sends what it tells as it comes. A failure before the first word becomes
/// the answer's status; a later one is the last line. The last lines are what `work` returns.
pub async fn streamed(
    context: Arc<Context>,
    work: impl FnOnce(&Store, &mut dyn FnMut(Progress)) -> Result<Vec<Value>, Error> + Send + 'static,
) -> Answer {
    let permit = long_permit(&context)?;
    let (producer, mut body) = ChannelBody::new();
    let (refusal, refused) = oneshot::channel();
    tokio::task::spawn_blocking(move || {
        let mut told = false;
        let result = work(context.engine.store(), &mut |step| {
            told = true;
            send(&producer, &progress_line(&step));
            if let Status::PushDone { tag, digest, size } = &step.status {
                // In a line of its own: clients don't show those that hold it.
                send(
                    &producer,
                    &json!({ "progressDetail": {}, "aux": { "Tag": tag, "Digest": digest, "Size": size } }),
                );
            }
        });
        match result {
            Ok(lines) => lines.iter().for_each(|line| send(&producer, line)),
            Err(error) if told => {
                let message = keel_link::logger::chain(&error);
                log::warn!("moving an image failed: {message}");
                send(&producer, &json!({ "errorDetail": { "message": message }, "error": message }));
            }
            Err(error) => {
                let _ = refusal.send(Failure::from(error));
            }
        }
        drop(permit);
    });
    if body.wait_for_first().await {
        return Ok(stream(StatusCode::OK, "application/json", body));
    }
    match refused.await {
        Ok(failure) => Err(failure),
        Err(_) => Ok(json(StatusCode::OK, &json!({ "status": "Done" }))),
    }
}

/// A client that is gone misses lines; the work goes on, since what was fetched is of use to the next one.
fn send(producer: &Producer, line: &Value) {
    let _ = producer.blocking_send(Bytes::from(format!("{line}\r\n")));
}

/// How a client is told of progress.
pub fn progress_line(step: &Progress) -> Value {
    let mut line = match &step.status {
        Status::Loaded(_) => json!({ "stream": format!("{}\n", step.status.text()) }),
        status => json!({ "status": status.text() }),
    };
    if let Some(id) = &step.id {
        line["id"] = json!(id);
    } else if let Status::PullingFrom(_) = step.status {
        line["id"] = json!("");
    }
    if let Some((current, total)) = step.status.bytes() {
        line["progressDetail"] =
            if total == 0 { json!({ "current": current }) } else { json!({ "current": current, "total": total }) };
        line["progress"] = json!(bar(current, total));
    }
    line
}

/// What clients without a bar of their own print.
fn bar(current: u64, total: u64) -> String {
    let mib = |bytes: u64| format!("{}.{} MiB", bytes >> 20, ((bytes & ((1 << 20) - 1)) * 10) >> 20);
    if total == 0 { mib(current) } else { format!("{} of {}", mib(current), mib(total)) }
}

/// An address without a scheme is one of HTTP, as with Docker.
fn address(source: &str) -> String {
    if source.contains("://") { source.to_owned() } else { format!("http://{source}") }
}

/// What is to be pulled. A name alone asks for all tags (Docker Engine API, "Create an image"), as `docker pull -a` does.
fn wanted(name: &str, tag: Option<&str>) -> Result<(Reference, bool), Failure> {
    let last = name.rsplit('/').next().unwrap_or(name);
    Ok((reference(name, tag)?, tag.is_none() && !last.contains([':', '@'])))
}

/// A name, with the tag or digest that came beside it.
pub fn reference(name: &str, tag: Option<&str>) -> Result<Reference, Failure> {
    let reference: Reference = name.parse().map_err(Error::from)?;
    match tag {
        None => Ok(reference),
        Some(digest) if digest.contains(':') => {
            let digest: Digest =
                digest.parse().map_err(|error| Failure::bad_request(format!("invalid digest {digest:?}: {error}")))?;
            Ok(reference.with_digest(digest))
        }
        Some(tag) => Ok(reference.with_tag(tag).map_err(Error::from)?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_alone_asks_for_all_tags() {
        let digest = format!("sha256:{}", "a".repeat(64));
        let named = |name: &str, tag| wanted(name, tag).map(|(one, all)| (one.to_string(), all)).unwrap();
        assert_eq!(named("r.example:5000/a", Some("1")), ("r.example:5000/a:1".into(), false));
        assert_eq!(named("a:1", None), ("a:1".into(), false));
        assert_eq!(named(&format!("a@{digest}"), None), (format!("a@{digest}"), false));
        assert!(named("a", None).1 && named("r.example:5000/a", None).1);
    }

    #[test]
    fn an_address_has_a_scheme() {
        assert_eq!(address("a.example/root.tar.xz"), "http://a.example/root.tar.xz");
        assert_eq!(address("https://a.example/root.tar"), "https://a.example/root.tar");
    }

    #[test]
    fn progress_has_the_keys_that_clients_draw_bars_from() {
        let step = Progress { id: Some("abc".into()), status: Status::Downloading { current: 5, total: 10 } };
        let line = progress_line(&step);
        assert_eq!(line["progressDetail"], json!({ "current": 5, "total": 10 }));
        assert_eq!((&line["status"], &line["id"]), (&json!("Downloading"), &json!("abc")));
    }
}
