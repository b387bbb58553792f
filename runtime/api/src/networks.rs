//! `/networks/…`. Each call is one of the engine's.

use std::time::{SystemTime, UNIX_EPOCH};

use bollard_stubs::models::{NetworkConnectRequest, NetworkCreateRequest, NetworkDisconnectRequest};
use hyper::StatusCode;
use serde_json::json;

use crate::call::{Call, blocking, read_json};
use crate::respond::{Failure, empty, json};
use crate::router::Answer;

/// `GET /networks`
pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    let found = blocking(move || Ok(call.context.engine.network_list(&filters)?)).await?;
    Ok(json(StatusCode::OK, &found))
}

/// `POST /networks/create`
pub async fn create(call: Call) -> Answer {
    let engine = call.context.engine.clone();
    let asked: NetworkCreateRequest = read_json(call.body).await?;
    let created = blocking(move || Ok(engine.network_create(asked)?)).await?;
    Ok(json(StatusCode::CREATED, &created))
}

/// `GET /networks/{id}`
pub async fn inspect(call: Call) -> Answer {
    let found = blocking(move || Ok(call.context.engine.network_inspect(&call.name)?)).await?;
    Ok(json(StatusCode::OK, &found))
}

/// `DELETE /networks/{id}`
pub async fn remove(call: Call) -> Answer {
    blocking(move || Ok(call.context.engine.network_remove(&call.name)?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /networks/{id}/connect`
pub async fn connect(call: Call) -> Answer {
    let (engine, name) = (call.context.engine.clone(), call.name);
    let asked: NetworkConnectRequest = read_json(call.body).await?;
    let settings = asked.endpoint_config.unwrap_or_default();
    blocking(move || Ok(engine.network_connect(&name, &asked.container, settings)?)).await?;
    Ok(empty(StatusCode::OK))
}

/// `POST /networks/{id}/disconnect`
pub async fn disconnect(call: Call) -> Answer {
    let (engine, name) = (call.context.engine.clone(), call.name);
    let asked: NetworkDisconnectRequest = read_json(call.body).await?;
    let force = asked.force == Some(true);
    blocking(move || Ok(engine.network_disconnect(&name, &asked.container, force)?)).await?;
    Ok(empty(StatusCode::OK))
}

/// `POST /networks/prune`
pub async fn prune(call: Call) -> Answer {
    let filters = call.query.filters()?;
    let until = filters.get("until").and_then(|list| list.first()).map(|text| moment_unix_ms(text)).transpose()?;
    let removed = blocking(move || Ok(call.context.engine.network_prune(&filters, until)?)).await?;
    Ok(json(StatusCode::OK, &json!({ "NetworksDeleted": removed })))
}

/// Seconds since the Unix epoch, or so long ago (`10m`, `1h30m`).
fn moment_unix_ms(text: &str) -> Result<u64, Failure> {
    let refuse = || Failure::bad_request(format!("until={text:?} is neither a time since 1970 in seconds nor an age"));
    if let Ok(seconds) = text.parse::<u64>() {
        return seconds.checked_mul(1000).ok_or_else(refuse);
    }
    let (mut ago_ms, mut number) = (0_u64, None::<u64>);
    for byte in text.bytes() {
        let unit_ms = match byte {
            b'0'..=b'9' => {
                let digit = u64::from(byte - b'0');
                number =
                    Some(number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(digit)).ok_or_else(refuse)?);
                continue;
            }
            b's' => 1000,
            b'm' => 60_000,
            b'h' => 3_600_000,
            _ => return Err(refuse()),
        };
        let part = number.take().and_then(|n| n.checked_mul(unit_ms)).ok_or_else(refuse)?;
        ago_ms = ago_ms.checked_add(part).ok_or_else(refuse)?;
    }
    if number.is_some() {
        return Err(refuse());
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis());
    Ok(u64::try_from(now).unwrap_or(u64::MAX).saturating_sub(ago_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_times_or_ages() {
        assert_eq!(moment_unix_ms("12").unwrap(), 12_000);
        assert!(moment_unix_ms("1h30m").unwrap() > 1_000_000_000_000);
        for text in ["x", "5m3", "5x", "m", "99999999999999999999"] {
            assert!(moment_unix_ms(text).is_err(), "{text}");
        }
    }
}
