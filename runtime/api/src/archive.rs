//! `/containers/{id}/archive` and `/containers/{id}/export`: files of a container as archives.
//!
//! A container that doesn't run can't be started while its files are read or written; a client that stalls is cut
//! off, so that it can't hold that up.

use base64::Engine as _;
use hyper::header::{HeaderName, HeaderValue};
use hyper::{Response, StatusCode};
use keel_engine::PathStat;
use serde_json::json;
use tokio::sync::oneshot;

use crate::call::{BodyReader, Call, ChannelWriter, blocking, long_permit};
use crate::respond::{Body, ChannelBody, Failure, empty, stream};
use crate::router::Answer;

const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");
const TAR: &str = "application/x-tar";

/// `HEAD /containers/{id}/archive`
pub async fn stat(call: Call) -> Answer {
    let path = path(&call)?;
    let engine = call.context.engine.clone();
    let found = blocking(move || Ok(engine.stat_path(&call.name, &path)?)).await?;
    with_stat(empty(StatusCode::OK), &found)
}

/// `GET /containers/{id}/archive`
pub async fn get(call: Call) -> Answer {
    let path = path(&call)?;
    let permit = long_permit(&call.context)?;
    let (engine, name) = (call.context.engine.clone(), call.name);
    let (producer, body) = ChannelBody::new();
    let (found, finding) = oneshot::channel::<Result<PathStat, Failure>>();
    tokio::task::spawn_blocking(move || {
        let mut found = Some(found);
        let mut writer = ChannelWriter::new(producer);
        let ready = |stat| found.take().is_some_and(|found| found.send(Ok(stat)).is_ok());
        let result = engine.read_archive(&name, &path, ready, &mut writer);
        if let Err(error) = result.and_then(|()| writer.finish()) {
            match found {
                Some(found) => drop(found.send(Err(error.into()))),
                None => {
                    log::info!("an archive of container {name} ended early: {}", error.chain());
                    writer.fail();
                }
            }
        }
        drop(permit);
    });
    let found = finding.await.map_err(|_| Failure::internal("a worker ended early"))??;
    with_stat(stream(StatusCode::OK, TAR, body), &found)
}

/// `PUT /containers/{id}/archive`
pub async fn put(call: Call) -> Answer {
    let path = path(&call)?;
    let keep_kinds = call.query.flag("noOverwriteDirNonDir");
    let as_user = call.query.flag("copyUIDGID");
    let permit = long_permit(&call.context)?;
    let (engine, name) = (call.context.engine.clone(), call.name);
    let mut body = BodyReader::limited(call.body);
    blocking(move || {
        let written = engine.write_archive(&name, &path, keep_kinds, as_user, &mut body);
        let result = body.or_drain(written);
        drop(permit);
        Ok(result?)
    })
    .await?;
    Ok(empty(StatusCode::OK))
}

/// `GET /containers/{id}/export`
pub async fn export(call: Call) -> Answer {
    let permit = long_permit(&call.context)?;
    let (engine, name) = (call.context.engine.clone(), call.name);
    let name = blocking({
        let engine = engine.clone();
        move || Ok(engine.resolve(&name)?)
    })
    .await?;
    let (producer, body) = ChannelBody::new();
    tokio::task::spawn_blocking(move || {
        let mut writer = ChannelWriter::new(producer);
        if let Err(error) = engine.export(&name, &mut writer).and_then(|()| writer.finish()) {
            log::warn!("container {name} was not wholly exported: {}", error.chain());
            writer.fail();
        }
        drop(permit);
    });
    Ok(stream(StatusCode::OK, "application/octet-stream", body))
}

fn path(call: &Call) -> Result<String, Failure> {
    let path = call.query.text("path").ok_or_else(|| Failure::bad_request("path cannot be empty"))?;
    Ok(path.to_owned())
}

fn with_stat(mut response: Response<Body>, stat: &PathStat) -> Answer {
    let mtime = time::OffsetDateTime::from_unix_timestamp(stat.mtime_s).unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    let mtime = mtime.format(&time::format_description::well_known::Rfc3339).unwrap_or_default();
    let text = json!({
        "name": stat.name, "size": stat.size_bytes, "mode": stat.go_mode, "mtime": mtime,
        "linkTarget": stat.link_target,
    });
    let encoded = base64::engine::general_purpose::STANDARD.encode(text.to_string());
    let value = HeaderValue::from_str(&encoded).map_err(|error| Failure::internal(error.to_string()))?;
    response.headers_mut().insert(PATH_STAT, value);
    Ok(response)
}
