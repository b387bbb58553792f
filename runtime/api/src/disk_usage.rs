//! `GET /system/df`: what images, containers and volumes take.

use hyper::StatusCode;
use keel_engine::ListWant;
use serde_json::{Map, Value, json};

use crate::call::{Call, blocking};
use crate::context::Context;
use crate::images;
use crate::respond::{Failure, json};
use crate::router::Answer;

/// Kinds of objects, as the parameter `type` names them.
const KINDS: [&str; 4] = ["image", "container", "volume", "build-cache"];

/// `GET /system/df`
pub async fn disk_usage(call: Call) -> Answer {
    let mut wanted: Vec<String> = call.query.all("type").map(str::to_owned).collect();
    if let Some(unknown) = wanted.iter().find(|kind| !KINDS.contains(&kind.as_str())) {
        return Err(Failure::bad_request(format!("unknown object type: {unknown}")));
    }
    if wanted.is_empty() {
        wanted = KINDS.map(str::to_owned).to_vec();
    }
    let api_minor = call.api_minor;
    let usage = blocking(move || measure(&call.context, &wanted, api_minor)).await?;
    Ok(json(StatusCode::OK, &usage))
}

/// Only what is asked for is measured: containers and volumes are walked through, file by file.
fn measure(context: &Context, wanted: &[String], api_minor: u32) -> Result<Value, Failure> {
    let is_wanted = |kind: &str| wanted.iter().any(|wanted| wanted == kind);
    let mut usage = Map::new();
    if is_wanted("image") {
        let (layers_bytes, images) = images::disk_usage(context, api_minor)?;
        usage.insert("LayersSize".into(), json!(layers_bytes));
        usage.insert("Images".into(), json!(images));
    }
    if is_wanted("container") {
        let all = ListWant { all: true, size: true, ..ListWant::default() };
        usage.insert("Containers".into(), json!(context.engine.list(&all)?));
    }
    if is_wanted("volume") {
        usage.insert("Volumes".into(), json!(context.engine.volume_usage()));
    }
    if is_wanted("build-cache") {
        // Builds remember which layers came of what; the layers are images' own and counted there.
        usage.insert("BuildCache".into(), json!([]));
        if api_minor < 42 {
            usage.insert("BuilderSize".into(), json!(0));
        }
    }
    Ok(Value::Object(usage))
}
