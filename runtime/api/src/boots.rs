//! `/keel/v1/boots…`: the history of this machine's boots, which the updater keeps.

use hyper::StatusCode;
use keel_spec::api::boots::Boot;

use crate::call::Call;
use crate::respond::{Failure, bytes_body, json};
use crate::router::Answer;

/// `GET /keel/v1/boots`
pub async fn list(call: Call) -> Answer {
    Ok(json(StatusCode::OK, &call.context.host.boots().await?))
}

/// `GET /keel/v1/boots/{number}/log`
pub async fn log(call: Call) -> Answer {
    let number: u64 = call.name.parse().map_err(|_| {
        Failure::bad_request(format!("{:?} is not the number of a boot; see `keelctl boots`", call.name))
    })?;
    let text = call.context.host.boot_log(number).await?;
    Ok(bytes_body(StatusCode::OK, "text/plain; charset=utf-8", text.into_bytes()))
}

/// Reads the updater's answer.
pub fn parse(text: &str) -> Result<Vec<Boot>, Failure> {
    serde_json::from_str(text)
        .map_err(|error| Failure::internal(format!("the updater's history of boots can't be read: {error}")))
}
