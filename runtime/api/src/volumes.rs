//! `/volumes/…`. Each call is one of the engine's.

use bollard_stubs::models::VolumeCreateRequest;
use hyper::StatusCode;
use keel_spec::config::Role;
use serde_json::json;

use crate::call::{Call, blocking, read_json};
use crate::respond::{empty, json};
use crate::router::Answer;

/// First minor version of the API in which a prune spares volumes with a name unless told otherwise.
const PRUNES_ANONYMOUS: u32 = 42;

/// `GET /volumes`
pub async fn list(call: Call) -> Answer {
    let filters = call.query.filters()?;
    let found = blocking(move || Ok(call.context.engine.volume_list(&filters)?)).await?;
    Ok(json(StatusCode::OK, &json!({ "Volumes": found, "Warnings": [] })))
}

/// `POST /volumes/create`
pub async fn create(call: Call) -> Answer {
    let engine = call.context.engine.clone();
    let asked: VolumeCreateRequest = read_json(call.body).await?;
    // Such a volume may be any folder of the host.
    if asked.driver_opts.as_ref().is_some_and(|options| options.contains_key("device")) {
        call.caller.require(Role::Admin, "making a volume with a device")?;
    }
    let created = blocking(move || Ok(engine.volume_create(asked)?)).await?;
    Ok(json(StatusCode::CREATED, &created))
}

/// `GET /volumes/{name}`
pub async fn inspect(call: Call) -> Answer {
    let found = blocking(move || Ok(call.context.engine.volume_inspect(&call.name)?)).await?;
    Ok(json(StatusCode::OK, &found))
}

/// `DELETE /volumes/{name}`
pub async fn remove(call: Call) -> Answer {
    let force = call.query.flag("force");
    blocking(move || Ok(call.context.engine.volume_remove(&call.name, force)?)).await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// `POST /volumes/prune`
pub async fn prune(call: Call) -> Answer {
    let mut filters = call.query.filters()?;
    if call.api_minor < PRUNES_ANONYMOUS {
        filters.insert("all".into(), vec!["true".into()]);
    }
    let (removed, freed) = blocking(move || Ok(call.context.engine.volume_prune(&filters)?)).await?;
    Ok(json(StatusCode::OK, &json!({ "VolumesDeleted": removed, "SpaceReclaimed": freed })))
}
