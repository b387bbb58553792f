//! `/images/…`: what is in the store.

use std::collections::HashMap;

use hyper::StatusCode;
use keel_engine::events::Subject;
use keel_spec::api::ErrorCode;
use keel_store::error::Kind;
use keel_store::{Error, Image, Reference, Removed};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::{Call, blocking};
use crate::context::Context;
use crate::image_filters::{Filters, created_unix_s};
use crate::respond::{Failure, empty, json};
use crate::router::Answer;

/// What clients take for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = keel_link::logger::chain(&error);
        match error.kind() {
            Kind::NotFound => Self::not_found(message),
            Kind::Conflict => Self::new(ErrorCode::Conflict, message),
            Kind::BadParameter => Self::bad_request(message),
            Kind::Forbidden => Self { status: StatusCode::FORBIDDEN, ..Self::bad_request(message) },
            Kind::Internal if matches!(error, Error::Fetch { .. } | Error::Registry { .. }) => {
                // 500 as Docker has it, while programs of ours see where the fault lies.
                Self { code: ErrorCode::Network, ..Self::internal(message) }
            }
            Kind::Internal => Self::internal(message),
        }
    }
}

/// `GET /images/json`
pub async fn list(call: Call) -> Answer {
    const FILTERS: &[&str] = &["reference", "label", "dangling", "before", "since", "until"];
    let given = call.query.filters()?;
    let images = blocking(move || {
        let store = call.context.engine.store();
        let filters = Filters::read(given, FILTERS, store)?;
        let shared = call.query.flag("shared-size").then(|| store.usage().shared_bytes);
        let used = used(&call.context)?;
        let summary = |image: &Image| {
            let shared = shared.as_ref().and_then(|shared| shared.get(&image.id).copied());
            summary(image, used.get(&image.id.to_string()).copied().unwrap_or(0), shared, call.api_minor)
        };
        let images = store.images();
        let shown = images.iter().filter(|image| filters.fit(image));
        Ok(shown.map(|image| summary(&filters.named(image))).collect::<Vec<_>>())
    })
    .await?;
    Ok(json(StatusCode::OK, &images))
}

/// How many containers each image has.
fn used(context: &Context) -> Result<HashMap<String, i64>, Failure> {
    let mut used = HashMap::new();
    let containers = context.engine.list(&keel_engine::ListWant { all: true, ..Default::default() })?;
    for id in containers.into_iter().filter_map(|container| container.image_id) {
        *used.entry(id).or_default() += 1;
    }
    Ok(used)
}

fn summary(image: &Image, containers: i64, shared: Option<u64>, api_minor: u32) -> Value {
    // Until 1.43 clients got a placeholder for an image without a name and would print nothing else for it.
    let or_none = |names: &[String], none: &str| -> Vec<String> {
        if names.is_empty() && api_minor < 43 { vec![none.to_owned()] } else { names.to_vec() }
    };
    let mut summary = json!({
        "Id": image.id.to_string(),
        "ParentId": "",
        "RepoTags": or_none(&image.tags, "<none>:<none>"),
        "RepoDigests": or_none(&image.digests, "<none>@<none>"),
        "Created": created_unix_s(image),
        "Size": image.size_bytes,
        "SharedSize": shared.map_or(-1, u64::cast_signed),
        "Labels": image.config.labels,
        "Containers": containers,
    });
    if api_minor < 44 {
        summary["VirtualSize"] = json!(image.size_bytes);
    }
    summary
}

/// The images' part of `GET /system/df`: bytes of all layers, each once, and a summary of each image.
pub fn disk_usage(context: &Context, api_minor: u32) -> Result<(u64, Vec<Value>), Failure> {
    let store = context.engine.store();
    let (usage, used) = (store.usage(), used(context)?);
    let summary = |image: &Image| {
        let shared = usage.shared_bytes.get(&image.id).copied();
        summary(image, used.get(&image.id.to_string()).copied().unwrap_or(0), shared, api_minor)
    };
    Ok((usage.layers_bytes, store.images().iter().map(summary).collect()))
}

/// `GET /images/{name}/json`
pub async fn inspect(call: Call) -> Answer {
    let api_minor = call.api_minor;
    let image = blocking(move || Ok(call.context.engine.store().image(&call.name)?)).await?;
    let layers: Vec<String> = image.layers.iter().map(ToString::to_string).collect();
    let created = if image.created.is_empty() { NEVER } else { &image.created };
    let tagged = image.tagged_unix_s.and_then(|moment| OffsetDateTime::from_unix_timestamp(moment).ok());
    let tagged = tagged.and_then(|moment| moment.format(&Rfc3339).ok());
    let mut answer = json!({
        "Id": image.id.to_string(),
        "RepoTags": image.tags,
        "RepoDigests": image.digests,
        "Parent": "",
        "Comment": image.comment,
        "Created": created,
        "DockerVersion": "",
        "Author": image.author,
        "Config": image.config,
        "Architecture": image.architecture,
        "Variant": image.variant,
        "Os": image.os,
        "Size": image.size_bytes,
        "GraphDriver": { "Name": "overlay", "Data": null },
        "RootFS": { "Type": "layers", "Layers": layers },
        "Metadata": { "LastTagTime": tagged.as_deref().unwrap_or(NEVER) },
    });
    if api_minor < 44 {
        answer["VirtualSize"] = json!(image.size_bytes);
    }
    // Gone since 1.45; what older clients copy volumes over by, docker-compose 1 among them, breaks off without it.
    if api_minor < 45 {
        answer["ContainerConfig"] = json!(image.config);
    }
    Ok(json(StatusCode::OK, &answer))
}

/// `GET /images/{name}/history`
pub async fn history(call: Call) -> Answer {
    let image = blocking(move || Ok(call.context.engine.store().image(&call.name)?)).await?;
    Ok(json(StatusCode::OK, &steps(&image)))
}

/// How an image came to be, the last step first. Only the last has an ID: it is the image.
fn steps(image: &Image) -> Vec<Value> {
    let mut sizes = image.layer_bytes.iter();
    let described = image.history.iter().map(|step| {
        let size = if step.empty_layer { 0 } else { sizes.next().copied().unwrap_or(0) };
        let created = OffsetDateTime::parse(&step.created, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp);
        (created, step.created_by.as_str(), size, step.comment.as_str())
    });
    let mut steps: Vec<_> = described.collect();
    // Some tools leave the history out, or some of it.
    steps.extend(sizes.map(|size| (0, "", *size, "")));
    let last = steps.len().saturating_sub(1);
    let line = |(index, (created, by, size, comment)): (usize, (i64, &str, u64, &str))| {
        let id = if index == last { image.id.to_string() } else { "<missing>".into() };
        let tags = if index == last { image.tags.clone() } else { Vec::new() };
        json!({ "Id": id, "Created": created, "CreatedBy": by, "Tags": tags, "Size": size, "Comment": comment })
    };
    steps.into_iter().enumerate().map(line).rev().collect()
}

/// `POST /images/{name}/tag`
pub async fn tag(call: Call) -> Answer {
    blocking(move || {
        let repository = call.query.text("repo").ok_or_else(|| Failure::bad_request("a name is wanted: ?repo=NAME"))?;
        let name: Reference = repository.parse().map_err(Error::from)?;
        let name = match call.query.text("tag") {
            Some(tag) => name.with_tag(tag).map_err(Error::from)?,
            None => name,
        };
        let engine = &call.context.engine;
        engine.store().tag(&call.name, &name)?;
        if let Ok(image) = engine.store().image(&name.to_string()) {
            engine.tell_tagged(&image.id, &name);
        }
        Ok(())
    })
    .await?;
    Ok(empty(StatusCode::CREATED))
}

/// `DELETE /images/{name}`
pub async fn remove(call: Call) -> Answer {
    let removed = blocking(move || {
        let engine = &call.context.engine;
        let found = engine.store().image(&call.name);
        let removed = engine.store().remove(&call.name, call.query.flag("force"), &|id| engine.image_in_use(id))?;
        if let Ok(image) = found {
            engine.tell_removed(&image.id, &removed);
        }
        Ok(removed)
    })
    .await?;
    Ok(json(StatusCode::OK, &told(removed)))
}

fn told(removed: Vec<Removed>) -> Vec<Value> {
    let line = |step| match step {
        Removed::Untagged(name) => json!({ "Untagged": name }),
        Removed::Deleted(id) => json!({ "Deleted": id }),
    };
    removed.into_iter().map(line).collect()
}

/// `POST /images/prune`: images without a tag, with `dangling=false` all that no container has.
pub async fn prune(call: Call) -> Answer {
    let given = call.query.filters()?;
    let answer = blocking(move || {
        let engine = &call.context.engine;
        let store = engine.store();
        let mut filters = Filters::read(given, &["dangling", "label", "label!", "until"], store)?;
        filters.dangling = if filters.dangling.unwrap_or(true) { Some(true) } else { None };
        let before = store.usage().layers_bytes;
        let mut removed = Vec::new();
        for image in store.images().iter().filter(|image| filters.fit(image)) {
            let steps = store.prune(&image.id, &|id| engine.image_in_use(id))?;
            engine.tell_removed(&image.id, &steps);
            removed.extend(steps);
        }
        let freed = before.saturating_sub(store.usage().layers_bytes);
        engine.tell_pruned(Subject::Image, freed);
        Ok(json!({ "ImagesDeleted": told(removed), "SpaceReclaimed": freed }))
    })
    .await?;
    Ok(json(StatusCode::OK, &answer))
}

#[cfg(test)]
mod tests {
    use keel_store::image::History;

    use super::*;

    #[test]
    fn each_step_has_the_size_of_its_layer() {
        let step = |by: &str, empty_layer| History { created_by: by.into(), empty_layer, ..History::default() };
        let image = Image {
            layer_bytes: vec![1, 2, 3],
            history: vec![step("a", false), step("b", true), step("c", false)],
            ..Image::default()
        };
        let steps = steps(&image);
        let sizes: Vec<_> = steps.iter().map(|step| step["Size"].as_u64().unwrap()).collect();
        assert_eq!(sizes, [3, 2, 0, 1], "a layer without a step is told all the same");
        assert_eq!((&steps[0]["Id"], &steps[3]["Id"]), (&json!(image.id.to_string()), &json!("<missing>")));
    }
}
