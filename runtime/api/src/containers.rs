//! `/containers/…`: lifecycles. Each call is one of the engine's.

use hyper::StatusCode;
use keel_engine::{Engine, Error};
use serde_json::json;

use crate::call::{Call, blocking, read_json};
use crate::respond::{Failure, empty, json};
use crate::router::Answer;
use keel_spec::api::ErrorCode;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.chain();
        match error {
            Error::NotFound(_) => Self::not_found(message),
            Error::Conflict(_) => Self::new(ErrorCode::Conflict, message),
            Error::BadParameter(_) => Self::bad_request(message),
            Error::NotModified(_) => Self { status: StatusCode::NOT_MODIFIED, code: ErrorCode::Conflict, message },
            Error::Cancelled | Error::Internal { .. } => Self::internal(message),
        }
    }
}

/// Runs one of the engine's calls on the container that the path names.
async fn on_container<T: Send + 'static>(
    call: Call,
    work: impl FnOnce(&Engine, &Call) -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    blocking(move || work(&call.context.engine, &call)).await
}

/// `GET /containers/json`
pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    let limit = call.query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|l| *l > 0);
    // Docker: a limit, or a filter by status, asks for stopped ones too.
    let all = call.query.flag("all") || limit.is_some() || filters.contains_key("status");
    let found = on_container(call, move |engine, _| Ok(engine.list(all, limit, &filters)?)).await?;
    Ok(json(StatusCode::OK, &found))
}

/// `POST /containers/create`
pub async fn create(call: Call) -> Answer {
    let name = call.query.text("name").map(|name| name.trim_start_matches('/').to_owned());
    let engine = call.context.engine.clone();
    let body = read_json(call.body).await?;
    let created = blocking(move || Ok(engine.create(name.as_deref(), body)?)).await?;
    Ok(json(StatusCode::CREATED, &created))
}

/// `GET /containers/{id}/json`
pub async fn inspect(call: Call) -> Answer {
    let found = on_container(call, |engine, call| Ok(engine.inspect(&call.name)?)).await?;
    Ok(json(StatusCode::OK, &found))
}

/// `POST /containers/{id}/start`
pub async fn start(call: Call) -> Answer {
    on_container(call, |engine, call| Ok(engine.start(&call.name)?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/stop`
pub async fn stop(call: Call) -> Answer {
    let timeout_s = call.query.number("t")?;
    on_container(call, move |engine, call| Ok(engine.stop(&call.name, call.query.text("signal"), timeout_s)?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/kill`
pub async fn kill(call: Call) -> Answer {
    on_container(call, |engine, call| Ok(engine.kill(&call.name, call.query.text("signal"))?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/restart`
pub async fn restart(call: Call) -> Answer {
    let timeout_s = call.query.number("t")?;
    on_container(call, move |engine, call| Ok(engine.restart(&call.name, call.query.text("signal"), timeout_s)?))
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/rename`
pub async fn rename(call: Call) -> Answer {
    on_container(call, |engine, call| {
        let name = call.query.text("name").ok_or_else(|| Failure::bad_request("a new name is wanted: ?name=NAME"))?;
        Ok(engine.rename(&call.name, name)?)
    })
    .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/resize`: containers have no terminals here, so there is nothing to be resized.
pub async fn resize(call: Call) -> Answer {
    on_container(call, |engine, call| Ok(engine.resolve(&call.name).map(drop)?)).await?;
    Ok(empty(StatusCode::OK))
}

/// `DELETE /containers/{id}`
pub async fn remove(call: Call) -> Answer {
    if call.query.flag("link") {
        return Err(Failure::unsupported("links between containers are not served by Keel"));
    }
    on_container(call, |engine, call| Ok(engine.remove(&call.name, call.query.flag("force"), call.query.flag("v"))?))
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/prune`
pub async fn prune(call: Call) -> Answer {
    if !call.query.filters()?.is_empty() {
        return Err(Failure::unsupported("filters on prune are not served by Keel"));
    }
    let deleted = on_container(call, |engine, _| {
        let mut deleted = Vec::new();
        for container in engine.list(true, None, &std::collections::HashMap::new())? {
            let Some(id) = container.id else { continue };
            // Without force only those that don't run go; one that has started meanwhile stays.
            if engine.remove(&id, false, false).is_ok() {
                deleted.push(id);
            }
        }
        Ok(deleted)
    })
    .await?;
    Ok(json(StatusCode::OK, &json!({ "ContainersDeleted": deleted, "SpaceReclaimed": 0 })))
}
