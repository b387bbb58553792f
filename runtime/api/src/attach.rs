//! `POST /containers/{id}/attach`: the connection itself becomes the container's standard streams.

use keel_engine::{AttachOptions, Attachment};

use crate::call::{Call, blocking};
use crate::detach::DetachKeys;
use crate::hijack::{self, Streams};
use crate::router::Answer;

/// `POST /containers/{id}/attach`
pub async fn attach(call: Call) -> Answer {
    let query = &call.query;
    let options = AttachOptions {
        stdin: query.flag("stdin"),
        stdout: query.flag("stdout"),
        stderr: query.flag("stderr"),
        logs: query.flag("logs"),
        stream: query.flag("stream"),
    };
    let detach = DetachKeys::parse(query.get("detachKeys"))?;
    let Call { context, head, body, name, api_minor, .. } = call;
    let engine = context.engine.clone();
    let Attachment { stdin, output, terminal } = blocking(move || Ok(engine.attach(&name, &options)?)).await?;
    hijack::answer(&context, head, Some(body), api_minor, Streams { output, stdin, terminal, detach })
}
