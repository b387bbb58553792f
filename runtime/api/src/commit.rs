//! `POST /commit`: an image made of a container.

use hyper::StatusCode;
use keel_build::settings;
use keel_store::{Commit, ImageConfig};
use serde_json::json;

use crate::call::{Call, blocking, long_permit, read_body};
use crate::pull::reference;
use crate::respond::{Failure, json};
use crate::router::Answer;

/// `POST /commit`
pub async fn commit(call: Call) -> Answer {
    let query = &call.query;
    let container =
        query.text("container").ok_or_else(|| Failure::bad_request("a container is wanted: ?container=NAME"))?;
    let name = query.text("repo").map(|repository| reference(repository, query.text("tag"))).transpose()?;
    if name.as_ref().is_some_and(|name| name.digest().is_some()) {
        return Err(Failure::bad_request("an image can't be given a digest as its name"));
    }
    let mut commit = Commit {
        name,
        author: query.text("author").unwrap_or_default().to_owned(),
        message: query.text("comment").unwrap_or_default().to_owned(),
        ..Commit::default()
    };
    let changes: Vec<String> = query.all("changes").map(str::to_owned).collect();
    let (container, pause) = (container.to_owned(), query.flag_or("pause", true));
    let permit = long_permit(&call.context)?;
    let engine = call.context.engine.clone();
    let body = read_body(call.body).await?;
    commit.config = read_config(&body)?;
    let id = blocking(move || {
        let committed = engine.commit(&container, pause, commit, &|config| settings::apply_all(config, &changes));
        drop(permit);
        Ok(committed?)
    })
    .await?;
    Ok(json(StatusCode::CREATED, &json!({ "Id": id.to_string() })))
}

/// The settings that a client wants for the image: clients send `null`, or nothing, for those of the container.
fn read_config(body: &[u8]) -> Result<Option<ImageConfig>, Failure> {
    if body.trim_ascii().is_empty() {
        return Ok(None);
    }
    serde_json::from_slice(body)
        .map_err(|error| Failure::bad_request(format!("request body can't be read as an image's settings: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_settings_are_sent_in_three_ways() {
        for body in [&b""[..], b"null\n"] {
            assert_eq!(read_config(body).unwrap(), None);
        }
        let config = read_config(br#"{"Hostname":"","Env":null,"Cmd":["x"],"ExposedPorts":{"80/tcp":{}}}"#).unwrap();
        assert_eq!(config.unwrap().cmd.unwrap(), ["x"]);
        assert!(read_config(b"[").is_err());
    }
}
