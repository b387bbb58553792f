//! `GET /containers/{id}/stats`.

use std::time::Duration;

use hyper::StatusCode;
use hyper::body::Bytes;
use keel_engine::Sample;

use crate::call::{Call, blocking, long_permit};
use crate::respond::{ChannelBody, json, stream};
use crate::router::Answer;

/// Pause between two samples, as Docker's.
const PERIOD: Duration = Duration::from_secs(1);

/// `GET /containers/{id}/stats`. No thread waits between two samples.
pub async fn stats(call: Call) -> Answer {
    let (once, one_shot) = (!call.query.flag_or("stream", true), call.query.flag("one-shot"));
    let first = sample(&call).await?;
    if once && one_shot {
        return Ok(json(StatusCode::OK, &first.to_json(None)));
    }
    if once {
        // Clients compute the load from two samples.
        tokio::time::sleep(PERIOD).await;
        return Ok(json(StatusCode::OK, &sample(&call).await?.to_json(Some(&first))));
    }
    let permit = long_permit(&call.context)?;
    let (producer, body) = ChannelBody::new();
    tokio::spawn(async move {
        let (mut before, mut now) = (None, first);
        loop {
            let line = Bytes::from(format!("{}\n", now.to_json(before.as_ref())));
            if producer.send(line).await.is_err() {
                break;
            }
            tokio::select! {
                () = producer.closed() => break,
                () = tokio::time::sleep(PERIOD) => {}
            }
            // Ends with the container's removal.
            let Ok(next) = sample(&call).await else { break };
            before = Some(std::mem::replace(&mut now, next));
        }
        drop(permit);
    });
    Ok(stream(StatusCode::OK, "application/json", body))
}

async fn sample(call: &Call) -> Result<Sample, crate::respond::Failure> {
    let (engine, name) = (call.context.engine.clone(), call.name.clone());
    blocking(move || Ok(engine.sample(&name)?)).await
}
