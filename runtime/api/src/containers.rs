//! `/containers/…`: lifecycles. Each call is one of the engine's.

use bollard_stubs::models::ContainerCreateBody;
use hyper::StatusCode;
use keel_engine::{Engine, Error, ListWant, PruneWant};
use serde_json::json;

use crate::call::{Call, blocking, read_json};
use crate::exec::size;
use crate::respond::{Failure, empty, json};
use crate::roles::require_to_create;
use crate::router::Answer;
use crate::when::moment;
use keel_spec::api::ErrorCode;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = error.chain();
        match error {
            Error::NotFound(_) => Self::not_found(message),
            Error::Conflict(_) => Self::new(ErrorCode::Conflict, message),
            Error::BadParameter(_) => Self::bad_request(message),
            Error::Forbidden(_) => Self { status: StatusCode::FORBIDDEN, code: ErrorCode::Conflict, message },
            Error::Unsupported(_) => Self::unsupported(message),
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
    let limit = call.query.number::<i64>("limit")?.and_then(|limit| usize::try_from(limit).ok()).filter(|l| *l > 0);
    let (all, size) = (call.query.flag("all"), call.query.flag("size"));
    let want = ListWant { all, limit, size, filters: call.query.filters()? };
    let found = on_container(call, move |engine, _| Ok(engine.list(&want)?)).await?;
    Ok(json(StatusCode::OK, &found))
}

/// `POST /containers/create`
pub async fn create(call: Call) -> Answer {
    let name = call.query.text("name").map(|name| name.trim_start_matches('/').to_owned());
    let platform = call.query.text("platform").map(str::to_owned);
    let engine = call.context.engine.clone();
    let caller = call.caller;
    let body: ContainerCreateBody = read_json(call.body).await?;
    let created = blocking(move || {
        if let Some(platform) = platform {
            check_platform(&engine, &body, &platform)?;
        }
        require_to_create(&caller, &engine, &body)?;
        Ok(engine.create(name.as_deref(), body)?)
    })
    .await?;
    Ok(json(StatusCode::CREATED, &created))
}

/// Refuses a platform other than the image's, which is this machine's. To clients it is "not found": they pull another.
fn check_platform(engine: &Engine, body: &ContainerCreateBody, wanted: &str) -> Result<(), Failure> {
    let name = body.image.as_deref().unwrap_or_default();
    // One that isn't there is the engine's to tell of.
    let Ok(image) = engine.store().image(name) else { return Ok(()) };
    if keel_store::runs_here(wanted) {
        return Ok(());
    }
    let is = [image.os.as_str(), image.architecture.as_str(), image.variant.as_str()];
    let is = is.join("/");
    Err(Failure::not_found(format!(
        "image with reference {name} was found but does not match the specified platform: wanted {wanted}, actual: {}",
        is.trim_end_matches('/')
    )))
}

/// `GET /containers/{id}/json`
pub async fn inspect(call: Call) -> Answer {
    let found = on_container(call, |engine, call| Ok(engine.inspect(&call.name, call.query.flag("size"))?)).await?;
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

/// `POST /containers/{id}/resize`
pub async fn resize(call: Call) -> Answer {
    let (rows, columns) = size(&call)?;
    on_container(call, move |engine, call| Ok(engine.resize(&call.name, rows, columns)?)).await?;
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

/// `POST /containers/{id}/pause`
pub async fn pause(call: Call) -> Answer {
    on_container(call, |engine, call| Ok(engine.pause(&call.name)?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/unpause`
pub async fn unpause(call: Call) -> Answer {
    on_container(call, |engine, call| Ok(engine.unpause(&call.name)?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /containers/{id}/update`
pub async fn update(call: Call) -> Answer {
    let (engine, name) = (call.context.engine.clone(), call.name);
    let change = read_json(call.body).await?;
    blocking(move || Ok(engine.update(&name, &change)?)).await?;
    Ok(json(StatusCode::OK, &json!({ "Warnings": [] })))
}

/// `GET /containers/{id}/top`
pub async fn top(call: Call) -> Answer {
    let table =
        on_container(call, |engine, call| Ok(engine.top(&call.name, call.query.text("ps_args").unwrap_or_default())?))
            .await?;
    Ok(json(StatusCode::OK, &table))
}

/// `GET /containers/{id}/changes`
pub async fn changes(call: Call) -> Answer {
    let found = on_container(call, |engine, call| Ok(engine.changes(&call.name)?)).await?;
    let list: Vec<_> = found.iter().map(|change| json!({ "Path": change.path, "Kind": change.kind })).collect();
    Ok(json(StatusCode::OK, &list))
}

/// `POST /containers/prune`
pub async fn prune(call: Call) -> Answer {
    let mut want = PruneWant::default();
    for (key, values) in call.query.filters()? {
        match key.as_str() {
            "label" => want.labels = values,
            "label!" => want.not_labels = values,
            "until" => {
                let [one] = values.as_slice() else {
                    return Err(Failure::bad_request("more than one until filter specified"));
                };
                want.until_unix_ns = Some(moment(one)?);
            }
            other => return Err(Failure::bad_request(format!("invalid filter '{other}'"))),
        }
    }
    let pruned = on_container(call, move |engine, _| Ok(engine.prune(&want)?)).await?;
    let answer = json!({ "ContainersDeleted": pruned.ids, "SpaceReclaimed": pruned.freed_bytes });
    Ok(json(StatusCode::OK, &answer))
}
