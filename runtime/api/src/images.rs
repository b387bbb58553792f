//! `/images/…`: what is in the store.

use std::collections::HashMap;

use hyper::StatusCode;
use keel_spec::api::ErrorCode;
use keel_store::error::Kind;
use keel_store::{Error, Image, Reference, Removed};
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::call::{Call, blocking};
use crate::respond::{Failure, empty, json};
use crate::router::Answer;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let message = keel_link::logger::chain(&error);
        match error.kind() {
            Kind::NotFound => Self::not_found(message),
            Kind::Conflict => Self::new(ErrorCode::Conflict, message),
            Kind::BadParameter => Self::bad_request(message),
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
    let filters = call.query.filters()?;
    let api_minor = call.api_minor;
    let images = blocking(move || {
        let containers = call.context.engine.list(&keel_engine::ListWant { all: true, ..Default::default() })?;
        let mut used: HashMap<String, i64> = HashMap::new();
        for id in containers.into_iter().filter_map(|container| container.image_id) {
            *used.entry(id).or_default() += 1;
        }
        let images = call.context.engine.store().images();
        let mut found = Vec::new();
        for image in &images {
            if matches(image, &filters)? {
                found.push(summary(image, used.get(&image.id.to_string()).copied().unwrap_or(0), api_minor));
            }
        }
        Ok(found)
    })
    .await?;
    Ok(json(StatusCode::OK, &images))
}

fn matches(image: &Image, filters: &HashMap<String, Vec<String>>) -> Result<bool, Failure> {
    for (name, values) in filters {
        let fits = match name.as_str() {
            "reference" => values.iter().any(|pattern| image.tags.iter().any(|tag| reference_fits(pattern, tag))),
            "label" => values.iter().all(|wanted| label_fits(wanted, image)),
            "dangling" => values.iter().all(|value| matches!(value.as_str(), "1" | "true") == image.tags.is_empty()),
            other => return Err(Failure::bad_request(format!("invalid filter '{other}'"))),
        };
        if !fits {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A pattern names a repository, a repository with a tag, or holds one `*` at its end.
fn reference_fits(pattern: &str, tag: &str) -> bool {
    if let Some(beginning) = pattern.strip_suffix('*') {
        return tag.starts_with(beginning);
    }
    tag == pattern || tag.rsplit_once(':').is_some_and(|(repository, _)| repository == pattern)
}

fn label_fits(wanted: &str, image: &Image) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => image.config.labels.get(name).is_some_and(|found| found == value),
        None => image.config.labels.contains_key(wanted),
    }
}

fn summary(image: &Image, containers: i64, api_minor: u32) -> Value {
    // Until 1.43 clients got a placeholder for an image without a name and would print nothing else for it.
    let or_none = |names: &[String], none: &str| -> Vec<String> {
        if names.is_empty() && api_minor < 43 { vec![none.to_owned()] } else { names.to_vec() }
    };
    json!({
        "Id": image.id.to_string(),
        "ParentId": "",
        "RepoTags": or_none(&image.tags, "<none>:<none>"),
        "RepoDigests": or_none(&image.digests, "<none>@<none>"),
        "Created": created_unix_s(&image.created),
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "SharedSize": -1,
        "Labels": image.config.labels,
        "Containers": containers,
    })
}

fn created_unix_s(text: &str) -> i64 {
    OffsetDateTime::parse(text, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}

/// `GET /images/{name}/json`
pub async fn inspect(call: Call) -> Answer {
    let image = blocking(move || Ok(call.context.engine.store().image(&call.name)?)).await?;
    let layers: Vec<String> = image.layers.iter().map(ToString::to_string).collect();
    let created = if image.created.is_empty() { "0001-01-01T00:00:00Z" } else { &image.created };
    Ok(json(
        StatusCode::OK,
        &json!({
            "Id": image.id.to_string(),
            "RepoTags": image.tags,
            "RepoDigests": image.digests,
            "Parent": "", "Comment": "",
            "Created": created,
            "Author": image.author,
            "Config": image.config,
            "Architecture": image.architecture,
            "Os": image.os,
            "Size": image.size_bytes,
            "VirtualSize": image.size_bytes,
            "GraphDriver": { "Name": "overlay", "Data": null },
            "RootFS": { "Type": "layers", "Layers": layers },
            "Metadata": { "LastTagTime": "0001-01-01T00:00:00Z" },
        }),
    ))
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
        Ok(call.context.engine.store().tag(&call.name, &name)?)
    })
    .await?;
    Ok(empty(StatusCode::CREATED))
}

/// `DELETE /images/{name}`
pub async fn remove(call: Call) -> Answer {
    let removed = blocking(move || {
        let engine = &call.context.engine;
        Ok(engine.store().remove(&call.name, call.query.flag("force"), &|id| engine.image_in_use(id))?)
    })
    .await?;
    let removed: Vec<Value> = removed
        .into_iter()
        .map(|step| match step {
            Removed::Untagged(name) => json!({ "Untagged": name }),
            Removed::Deleted(id) => json!({ "Deleted": id }),
        })
        .collect();
    Ok(json(StatusCode::OK, &removed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_fit_by_repository_tag_or_beginning() {
        assert!(reference_fits("alpine", "alpine:3.20"));
        assert!(reference_fits("alpine:3.20", "alpine:3.20"));
        assert!(reference_fits("alp*", "alpine:3.20"));
        assert!(!reference_fits("alp", "alpine:3.20"));
        assert!(reference_fits("localhost:5000/a", "localhost:5000/a:1"));
    }
}
