//! Images on their way in: `/images/create` (pull, import) and `/images/load`. Answers are streams of JSON lines.

use std::sync::Arc;

use base64::Engine as _;
use hyper::StatusCode;
use hyper::body::Bytes;
use keel_store::{Auth, Digest, Error, Progress, Reference, Status, Store};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::call::{BodyReader, Call, long_permit};
use crate::context::Context;
use crate::respond::{ChannelBody, Failure, Producer, json, stream};
use crate::router::Answer;

/// Longest `X-Registry-Auth` header that is read.
const MAX_AUTH_BYTES: usize = 16 << 10;

/// `POST /images/create`: `fromImage` pulls, `fromSrc=-` imports the request's body.
pub async fn create(call: Call) -> Answer {
    if call.query.text("fromImage").is_some() {
        return pull(call).await;
    }
    match call.query.text("fromSrc") {
        Some("-") => import(call).await,
        Some(_) => Err(Failure::unsupported("images are imported from the request's body only: fromSrc=-")),
        None => Err(Failure::bad_request("fromImage or fromSrc is wanted")),
    }
}

async fn pull(call: Call) -> Answer {
    let name = call.query.text("fromImage").unwrap_or_default();
    let reference = reference(name, call.query.text("tag"))?;
    if let Some(platform) = call.query.text("platform")
        && !platform.starts_with("linux/amd64")
        && platform != "linux"
    {
        return Err(Failure::not_found(format!("no image for {platform} can run here: want linux/amd64")));
    }
    let auth = call.head.headers().get("x-registry-auth").map(|value| registry_auth(value.as_bytes())).transpose()?;
    let auth = auth.flatten();
    streamed(call.context, move |store, progress| {
        store.pull(&reference, auth.as_ref(), progress)?;
        Ok(Vec::new())
    })
    .await
}

async fn import(call: Call) -> Answer {
    if call.query.text("changes").is_some() {
        return Err(Failure::unsupported("changes of an imported image's config (--change) are not served by Keel"));
    }
    let name = call.query.text("repo").map(|repository| reference(repository, call.query.text("tag"))).transpose()?;
    let mut body = BodyReader::new(call.body);
    streamed(call.context, move |store, _| {
        let id = store.import(&mut body, name.as_ref())?;
        Ok(vec![json!({ "status": id.to_string() })])
    })
    .await
}

/// `POST /images/load`
pub async fn load(call: Call) -> Answer {
    let mut body = BodyReader::new(call.body);
    let quiet = call.query.flag("quiet");
    streamed(call.context, move |store, progress| {
        let mut told = false;
        let mut watch = |step: Progress| {
            told |= matches!(step.status, Status::Loaded(_));
            if !quiet || step.status.bytes().is_none() {
                progress(step);
            }
        };
        let loaded = store.load(&mut body, &mut watch)?;
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
async fn streamed(
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
        });
        match result {
            Ok(lines) => lines.iter().for_each(|line| send(&producer, line)),
            Err(error) if told => {
                let message = keel_link::logger::chain(&error);
                log::warn!("bringing an image in failed: {message}");
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

fn progress_line(step: &Progress) -> Value {
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

/// A name, with the tag or digest that came beside it.
fn reference(name: &str, tag: Option<&str>) -> Result<Reference, Failure> {
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

/// Reads `X-Registry-Auth`: base64url of a JSON document, `{}` for none (Docker Engine API, "Authentication").
fn registry_auth(header: &[u8]) -> Result<Option<Auth>, Failure> {
    #[derive(Default, Deserialize)]
    #[serde(default)]
    struct Credentials {
        username: String,
        password: String,
        registrytoken: String,
    }
    let bad = || Failure::bad_request("X-Registry-Auth can't be read: want base64url of a JSON document");
    if header.len() > MAX_AUTH_BYTES {
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
    if !credentials.registrytoken.is_empty() {
        return Ok(Some(Auth::Bearer(credentials.registrytoken)));
    }
    Ok((!credentials.username.is_empty())
        .then_some(Auth::Basic { user: credentials.username, password: credentials.password }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_however_they_are_padded() {
        let json = r#"{"username":"a","password":"b?>"}"#;
        let engine = base64::engine::general_purpose::STANDARD;
        for header in [engine.encode(json), base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json)] {
            let Some(Auth::Basic { user, password }) = registry_auth(header.as_bytes()).unwrap() else { panic!() };
            assert_eq!((user.as_str(), password.as_str()), ("a", "b?>"));
        }
        assert!(registry_auth(engine.encode("{}").as_bytes()).unwrap().is_none());
        assert!(registry_auth(b"!!!").is_err());
    }

    #[test]
    fn progress_has_the_keys_that_clients_draw_bars_from() {
        let step = Progress { id: Some("abc".into()), status: Status::Downloading { current: 5, total: 10 } };
        let line = progress_line(&step);
        assert_eq!(line["progressDetail"], json!({ "current": 5, "total": 10 }));
        assert_eq!((&line["status"], &line["id"]), (&json!("Downloading"), &json!("abc")));
    }
}
