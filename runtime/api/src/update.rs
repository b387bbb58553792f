//! `/keel/v1/update…`: the updater, as seen through the API.

use futures_util::{StreamExt as _, future};
use hyper::StatusCode;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_LENGTH;
use keel_spec::api::plan::UpdatePlan;
use keel_spec::api::{
    ApiError, ErrorCode, InstallEvent, InstallRequest, PluggedBundles, Rollback, UpdateCheck, UpdateStatus,
};
use keel_spec::bus::UpdaterProxy;
use keel_spec::release::Version;
use serde::de::DeserializeOwned;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::time::Duration;

use crate::call::{BodyReader, Call, blocking, long_permit, read_body};
use crate::context::Context;
use crate::host::{Host, bus_failure};
use crate::respond::{ChannelBody, Failure, Producer, json, stream};
use crate::router::Answer;
use crate::spool;

/// Longest look at a repository: its metadata is small, but its servers may be slow.
const CHECK_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest install; the updater gives up on a stalled server long before.
const INSTALL_TIMEOUT: Duration = Duration::from_secs(6 * 3600);
/// Longest wait until the next kernel is loaded: it is read from the EFI system partition, perhaps a slow disk.
const LOAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a rollback: a few writes to the EFI system partition.
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(60);
/// Longest wait for a pause or its end: one small file is written.
const PAUSE_TIMEOUT: Duration = Duration::from_secs(30);

/// `GET /keel/v1/update`
pub async fn status(call: Call) -> Answer {
    let text = call.context.host.updater_status().await?;
    Ok(json(StatusCode::OK, &parse::<UpdateStatus>(&text)?))
}

/// `POST /keel/v1/update/check`
pub async fn check(call: Call) -> Answer {
    let updater = call.context.host.updater().await?;
    let text = within(CHECK_TIMEOUT, "check", updater.check()).await?;
    Ok(json(StatusCode::OK, &parse::<UpdateCheck>(&text)?))
}

/// `POST /keel/v1/update/rollback`
pub async fn rollback(call: Call) -> Answer {
    let updater = call.context.host.updater().await?;
    let version = within(ROLLBACK_TIMEOUT, "rollback", updater.rollback()).await?;
    let next_boot = version.parse().map_err(|error| Failure::internal(format!("the updater's answer: {error}")))?;
    Ok(json(StatusCode::OK, &Rollback { next_boot }))
}

/// `POST /keel/v1/update/pause`
pub async fn pause(call: Call) -> Answer {
    let updater = call.context.host.updater().await?;
    let text = within(PAUSE_TIMEOUT, "pause", updater.pause()).await?;
    Ok(json(StatusCode::OK, &parse::<UpdateStatus>(&text)?))
}

/// `POST /keel/v1/update/resume`
pub async fn resume(call: Call) -> Answer {
    let updater = call.context.host.updater().await?;
    let text = within(PAUSE_TIMEOUT, "resume", updater.resume()).await?;
    Ok(json(StatusCode::OK, &parse::<UpdateStatus>(&text)?))
}

/// `POST /keel/v1/update/bundles`
pub async fn bundles(call: Call) -> Answer {
    let updater = call.context.host.updater().await?;
    let text = within(CHECK_TIMEOUT, "look at disks", updater.plugged()).await?;
    Ok(json(StatusCode::OK, &parse::<PluggedBundles>(&text)?))
}

/// Has the updater load what boots next, to be started without the firmware.
pub async fn load_next(host: &Host) -> Result<Version, Failure> {
    let updater = host.updater().await?;
    let version = within(LOAD_TIMEOUT, "look at what boots next", updater.load_next()).await?;
    version.parse().map_err(|error| Failure::internal(format!("the updater's answer: {error}")))
}

/// `POST /keel/v1/update/plan`
pub async fn plan(call: Call) -> Answer {
    let request = read_request(call.body).await?;
    if request.from.is_some() || request.disk.is_some() {
        return Err(Failure::bad_request("a plan is made for a release of the update repository, not for a bundle"));
    }
    let version = request.version.map(|version| version.to_string()).unwrap_or_default();
    let updater = call.context.host.updater().await?;
    let text = within(CHECK_TIMEOUT, "plan", updater.plan(&version)).await?;
    Ok(json(StatusCode::OK, &parse::<UpdatePlan>(&text)?))
}

async fn read_request(body: Incoming) -> Result<InstallRequest, Failure> {
    let body = read_body(body).await?;
    if body.is_empty() {
        return Ok(InstallRequest::default());
    }
    serde_json::from_slice(&body)
        .map_err(|error| Failure::bad_request(format!("request body can't be read as JSON: {error}")))
}

/// What is to be installed.
enum Order {
    /// A version of the repository; empty: the newest that may follow.
    Version(String),
    /// The bundle at this address.
    From(String),
    /// The bundle in this file.
    Bundle(File),
    /// A bundle on a disk that is plugged in; empty: the only one.
    Disk(String),
}

/// `POST /keel/v1/update/install`. The install goes on if the client leaves: half of one is of no use to anybody.
pub async fn install(call: Call) -> Answer {
    let request = read_request(call.body).await?;
    let order = match (request.from, request.disk, request.version) {
        (None, None, version) => Order::Version(version.map(|version| version.to_string()).unwrap_or_default()),
        (Some(url), None, None) => Order::From(url),
        (None, Some(name), None) => Order::Disk(name),
        _ => return Err(Failure::bad_request("a bundle holds one version: name it or the bundle")),
    };
    carry_out(&call.context, order).await
}

/// `POST /keel/v1/update/bundle`, the body being the bundle.
pub async fn bundle(call: Call) -> Answer {
    let context = call.context;
    // Not after half an hour of sending.
    let status = parse::<UpdateStatus>(&context.host.updater_status().await?)?;
    if status.on_trial || status.activity != "idle" {
        let doing = if status.on_trial { "the running release is on trial" } else { &status.activity };
        return Err(Failure::new(
            ErrorCode::Conflict,
            format!("take a bundle: the updater is busy ({doing}): try later"),
        ));
    }
    let length = call.head.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let (folder, body) = (context.state.clone(), BodyReader::limited(call.body));
    let permit = long_permit(&context)?;
    let file = blocking(move || spool::take(&folder, length, body)).await?;
    drop(permit);
    carry_out(&context, Order::Bundle(file)).await
}

async fn carry_out(context: &Context, order: Order) -> Answer {
    let updater = context.host.updater().await?;
    let (producer, mut body) = ChannelBody::new();
    let (refusal, refused) = tokio::sync::oneshot::channel();
    tokio::spawn(follow(updater, order, producer, refusal));
    // A refusal before anything was done is an answer with a status of its own.
    let started = tokio::select! {
        biased;
        some = body.wait_for_first() => some,
        Ok(error) = refused => return Err(Failure::from(error)),
    };
    if started {
        Ok(stream(StatusCode::OK, "application/x-ndjson", body))
    } else {
        Err(Failure::unavailable("the updater went away; see `keelctl services`"))
    }
}

/// Runs an install and tells how far it is. `refusal` takes a failure that comes before any progress.
async fn follow(
    updater: UpdaterProxy<'static>,
    order: Order,
    producer: Producer,
    refusal: tokio::sync::oneshot::Sender<ApiError>,
) {
    let mut signals = match updater.receive_progress().await {
        Ok(signals) => Some(signals),
        Err(error) => {
            log::warn!("cannot follow the updater's progress: {error}");
            None
        }
    };
    let ask = async {
        match &order {
            Order::Version(version) => updater.install(version).await,
            Order::From(url) => updater.install_from(url).await,
            Order::Disk(name) => updater.install_disk(name).await,
            Order::Bundle(file) => updater.install_bundle(file.as_fd().into()).await,
        }
    };
    let mut install = std::pin::pin!(within(INSTALL_TIMEOUT, "install", ask));
    let mut begun = false;
    let result = loop {
        let next = async {
            match &mut signals {
                Some(signals) => signals.next().await,
                None => future::pending().await,
            }
        };
        tokio::select! {
            result = &mut install => break result,
            signal = next => match signal {
                Some(signal) => {
                    let Ok(arguments) = signal.args() else { continue };
                    let progress = arguments.progress;
                    begun = true;
                    // A client that can't keep up misses steps, never the end.
                    let _ = producer.try_send(line(&InstallEvent::Progress {
                        stage: progress.stage,
                        done_bytes: progress.done_bytes,
                        total_bytes: progress.total_bytes,
                    }));
                }
                None => signals = None,
            }
        }
    };
    let parsed = result.and_then(|version| {
        version.parse().map_err(|error| Failure::internal(format!("the updater's answer can't be read: {error}")))
    });
    match parsed {
        Ok(version) => {
            log::info!("release {version} is installed");
            let _ = producer.send(line(&InstallEvent::Installed { version })).await;
        }
        Err(failure) => {
            log::warn!("install failed: {}", failure.message);
            let error = failure.to_api_error();
            if begun {
                let _ = producer.send(line(&InstallEvent::Failed(error))).await;
            } else {
                let _ = refusal.send(error);
                // Keep the body open until the refusal was taken, so that its end isn't seen first.
                producer.closed().await;
            }
        }
    }
}

fn line(event: &InstallEvent) -> Bytes {
    let mut text = serde_json::to_string(event).unwrap_or_default();
    text.push('\n');
    Bytes::from(text)
}

async fn within<T>(
    limit: Duration,
    what: &'static str,
    ask: impl Future<Output = zbus::Result<T>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(limit, ask).await {
        Ok(answer) => answer.map_err(|error| bus_failure(&error)),
        Err(_) => Err(Failure::new(
            ErrorCode::Unavailable,
            format!("the updater's {what} took longer than {} s; see `keelctl logs updater`", limit.as_secs()),
        )),
    }
}

fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::internal(format!("the updater's answer can't be read: {error}")))
}
