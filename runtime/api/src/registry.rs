//! What goes to registries: `/images/{name}/push`, `/images/search`, `/distribution/{name}/json`, `/auth`.

use hyper::StatusCode;
use keel_spec::api::ErrorCode;
use keel_store::registry::look::SearchResult;
use keel_store::{Error, Reference};
use serde_json::json;

use crate::call::{Call, blocking, read_json};
use crate::pull::{reference, streamed};
use crate::registry_auth::{self, Credentials};
use crate::respond::{Failure, json};
use crate::router::Answer;

/// Results of a search where the client doesn't say how many.
const DEFAULT_RESULTS: u32 = 25;

/// `POST /images/{name}/push`: one tag, or without one all tags of the repository.
pub async fn push(call: Call) -> Answer {
    let auth = registry_auth::read(call.head.headers())?;
    let tag = call.query.text("tag").map(str::to_owned);
    let name: Reference = reference(&call.name, tag.as_deref())?;
    if name.digest().is_some() {
        return Err(Failure::bad_request("cannot push a digest reference: name a tag"));
    }
    let store = call.context.engine.store();
    let all = tag.is_none() && name.familiar_name() == call.name;
    let names = if all { store.tags_of(&call.name) } else { vec![name] };
    if names.is_empty() {
        let message = format!("An image does not exist locally with the tag: {}", call.name);
        return Err(Failure::not_found(message));
    }
    for name in &names {
        store.image(&name.to_string()).map_err(|_| {
            Failure::not_found(format!("An image does not exist locally with the tag: {}", name.familiar_name()))
        })?;
    }
    let engine = call.context.engine.clone();
    streamed(call.context, move |store, progress| {
        for name in &names {
            store.push(name, auth.as_ref(), progress)?;
            engine.tell_moved("push", name);
        }
        Ok(Vec::new())
    })
    .await
}

/// `GET /images/search`
pub async fn search(call: Call) -> Answer {
    let auth = registry_auth::read(call.head.headers())?;
    let filters = call.query.filters()?;
    let limit = call.query.number("limit")?.filter(|limit| *limit > 0).unwrap_or(DEFAULT_RESULTS);
    let found = blocking(move || {
        let term = call.query.text("term").ok_or_else(|| Failure::bad_request("a term is wanted: ?term=WORDS"))?;
        Ok(call.context.engine.store().search(term, limit, auth.as_ref())?)
    })
    .await?;
    let mut fitting = Vec::new();
    for result in found {
        let mut fits = true;
        for (name, values) in &filters {
            for value in values {
                fits &= fits_filter(&result, name, value)?;
            }
        }
        if fits {
            fitting.push(result);
        }
    }
    Ok(json(StatusCode::OK, &fitting))
}

fn fits_filter(result: &SearchResult, name: &str, value: &str) -> Result<bool, Failure> {
    let bad = || Failure::bad_request(format!("invalid filter '{name}={value}'"));
    Ok(match name {
        "is-official" => result.is_official == value.parse::<bool>().map_err(|_| bad())?,
        "is-automated" => result.is_automated == value.parse::<bool>().map_err(|_| bad())?,
        "stars" => result.star_count >= value.parse().map_err(|_| bad())?,
        _ => return Err(bad()),
    })
}

/// `GET /distribution/{name}/json`
pub async fn distribution(call: Call) -> Answer {
    let auth = registry_auth::read(call.head.headers())?;
    let found = blocking(move || {
        let name = reference(&call.name, None)?;
        Ok(call.context.engine.store().distribution(&name, auth.as_ref())?)
    })
    .await?;
    Ok(json(StatusCode::OK, &json!({ "Descriptor": found.descriptor, "Platforms": found.platforms })))
}

/// `POST /auth`: tries credentials; nothing of them is kept here, clients send them with each request.
pub async fn login(call: Call) -> Answer {
    let credentials: Credentials = read_json(call.body).await?;
    let server = credentials.serveraddress.clone();
    let auth = credentials.auth().ok_or_else(|| Failure::bad_request("a user name and a password are wanted"))?;
    let context = call.context;
    blocking(move || match context.engine.store().login(&server, &auth) {
        Ok(()) => Ok(()),
        Err(error @ Error::Denied { .. }) => {
            let message = format!("unauthorized: {}", keel_link::logger::chain(&error));
            let failure = Failure::new(ErrorCode::BadRequest, message);
            Err(Failure { status: StatusCode::UNAUTHORIZED, ..failure })
        }
        Err(error) => Err(error.into()),
    })
    .await?;
    Ok(json(StatusCode::OK, &json!({ "Status": "Login Succeeded", "IdentityToken": "" })))
}
