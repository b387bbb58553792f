//! `/containers/{id}/exec` and `/exec/…`: further processes in containers.

use hyper::StatusCode;
use keel_engine::ExecStreams;
use keel_spec::config::Role;
use serde::Deserialize;
use serde_json::json;

use crate::call::{Call, blocking, read_body, read_json};
use crate::detach::DetachKeys;
use crate::hijack::{self, Streams};
use crate::respond::{Failure, empty, json};
use crate::router::Answer;

/// `POST /containers/{id}/exec`
pub async fn create(call: Call) -> Answer {
    let (engine, name) = (call.context.engine.clone(), call.name);
    let asked: bollard_stubs::models::ExecConfig = read_json(call.body).await?;
    DetachKeys::parse(asked.detach_keys.as_deref())?;
    if asked.privileged == Some(true) {
        call.caller.require(Role::Admin, "a privileged process")?;
    }
    let id = blocking(move || Ok(engine.exec_create(&name, asked)?)).await?;
    Ok(json(StatusCode::CREATED, &json!({ "Id": id })))
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
struct Start {
    detach: bool,
    console_size: Option<[u16; 2]>,
}

/// `POST /exec/{id}/start`
pub async fn start(call: Call) -> Answer {
    let Call { context, head, body, name, api_minor, .. } = call;
    let bytes = read_body(body).await?;
    let start: Start = match bytes.is_empty() {
        true => Start::default(),
        false => serde_json::from_slice(&bytes)
            .map_err(|error| Failure::bad_request(format!("request body can't be read as JSON: {error}")))?,
    };
    let engine = context.engine.clone();
    let size = start.console_size.map(|[rows, columns]| (rows, columns)).filter(|(rows, _)| *rows > 0);
    let (streams, detach) = blocking(move || {
        let detach = DetachKeys::parse(engine.exec_inspect(&name)?.asked.detach_keys.as_deref())?;
        Ok((engine.exec_start(&name, !start.detach, size)?, detach))
    })
    .await?;
    let Some(ExecStreams { output, stdin, terminal }) = streams else { return Ok(empty(StatusCode::OK)) };
    hijack::answer(&context, head, None, api_minor, Streams { output, stdin, terminal, detach })
}

/// `GET /exec/{id}/json`
pub async fn inspect(call: Call) -> Answer {
    let engine = call.context.engine.clone();
    let info = blocking(move || Ok(engine.exec_inspect(&call.name)?)).await?;
    let asked = info.asked;
    let words = asked.cmd.unwrap_or_default();
    let flag = |flag: Option<bool>| flag == Some(true);
    Ok(json(
        StatusCode::OK,
        &json!({
            "ID": info.id, "ContainerID": info.container, "Running": info.running, "ExitCode": info.exit_code,
            "Pid": info.pid.unwrap_or(0), "CanRemove": !info.running,
            "DetachKeys": asked.detach_keys.unwrap_or_default(),
            "OpenStdin": flag(asked.attach_stdin), "OpenStdout": flag(asked.attach_stdout),
            "OpenStderr": flag(asked.attach_stderr),
            "ProcessConfig": {
                "tty": flag(asked.tty), "privileged": flag(asked.privileged), "user": asked.user.unwrap_or_default(),
                "entrypoint": words.first(), "arguments": words.get(1..).unwrap_or_default(),
            },
        }),
    ))
}

/// `POST /exec/{id}/resize`
pub async fn resize(call: Call) -> Answer {
    let (rows, columns) = size(&call)?;
    let engine = call.context.engine.clone();
    blocking(move || Ok(engine.exec_resize(&call.name, rows, columns)?)).await?;
    Ok(empty(StatusCode::OK))
}

/// `h` and `w` of a request.
pub fn size(call: &Call) -> Result<(u16, u16), Failure> {
    let number = |name: &str| {
        call.query
            .number::<u16>(name)?
            .ok_or_else(|| Failure::bad_request(format!("invalid resize {name}: it is absent")))
    };
    Ok((number("h")?, number("w")?))
}
