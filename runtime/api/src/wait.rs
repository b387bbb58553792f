//! `POST /containers/{id}/wait`. The head of the answer is sent as soon as the wait is registered: clients start the
//! container only then, and would otherwise miss the end of a short one.

use hyper::StatusCode;
use hyper::body::Bytes;
use keel_engine::{Cancel, Error, WaitCondition};
use serde_json::json;

use crate::call::{Call, blocking, long_permit};
use crate::respond::{ChannelBody, Failure, stream};
use crate::router::Answer;

/// `POST /containers/{id}/wait`
pub async fn wait(call: Call) -> Answer {
    let condition = condition(call.query.text("condition"))?;
    let permit = long_permit(&call.context)?;
    let engine = call.context.engine.clone();
    let waiter = blocking(move || Ok(engine.waiter(&call.name, condition)?)).await?;
    let (producer, body) = ChannelBody::new();
    let cancel = Cancel::new();
    let bell = cancel.clone();
    let gone = producer.clone();
    let waiting = tokio::task::spawn_blocking(move || {
        let answer = match waiter.wait(&bell) {
            Ok(code) => json!({ "StatusCode": code }),
            Err(Error::Cancelled) => return,
            Err(error) => json!({ "StatusCode": -1, "Error": { "Message": error.chain() } }),
        };
        let _ = producer.blocking_send(Bytes::from(format!("{answer}\n")));
        drop(permit);
    });
    tokio::spawn(async move {
        tokio::select! {
            // The client left: the thread must not wait on.
            () = gone.closed() => cancel.cancel(),
            _ = waiting => {}
        }
    });
    Ok(stream(StatusCode::OK, "application/json", body))
}

fn condition(text: Option<&str>) -> Result<WaitCondition, Failure> {
    match text {
        None | Some("not-running") => Ok(WaitCondition::NotRunning),
        Some("next-exit") => Ok(WaitCondition::NextExit),
        Some("removed") => Ok(WaitCondition::Removed),
        Some(other) => {
            Err(Failure::bad_request(format!("invalid condition: {other:?}, want not-running, next-exit or removed")))
        }
    }
}
