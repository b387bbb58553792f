//! Builds that can't be, and what they are answered: status and words as Docker's classic builder has them. Where that blames
//! itself (500) for what its client got wrong, a status of the client's stands here, with Docker's words. What a step fails
//! of is told in the stream of an answer that has begun with 200.

mod common;

use common::Daemon;
use common::http::Api;

/// Parameters, Dockerfile (`None`: the context has none), status, and a part of what is answered.
type Row = (&'static str, Option<&'static str>, u16, &'static str);

/// Beside the Dockerfile the context holds `file` and, in the folder `sub`, a Dockerfile of one line; the images are `box:1`
/// alone.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Parameters.
    ("buildargs=%7B", Some("FROM box:1\n"), 400, "error reading build args"),
    ("buildargs=%5B%5D", Some("FROM box:1\n"), 400, "error reading build args"),
    ("labels=x", Some("FROM box:1\n"), 400, "error reading labels"),
    ("ulimits=x", Some("FROM box:1\n"), 400, "error reading ulimit settings"),
    ("cachefrom=x", Some("FROM box:1\n"), 400, "error reading cache-from"),
    ("memory=x", Some("FROM box:1\n"), 400, "memory"),
    ("version=3", Some("FROM box:1\n"), 400, "invalid version 3"),
    ("isolation=hyperv", Some("FROM box:1\n"), 400, "Unsupported isolation: \"hyperv\""),
    ("squash=1", Some("FROM box:1\n"), 400, "squash is only supported with experimental mode"),
    ("securityopt=%5B%22a%22%5D", Some("FROM box:1\n"), 400, "does not support setting security options on build"),
    ("t=UPPER", Some("FROM box:1\n"), 400, "must be lowercase"),
    ("t=a%3Ab%3Ac", Some("FROM box:1\n"), 400, "invalid reference format"),
    ("t=a@sha256:0000000000000000000000000000000000000000000000000000000000000000", Some("FROM box:1\n"), 400, "build tag cannot contain a digest"),
    ("remote=nonsense", None, 400, "remoteURL (nonsense) could not be recognized as URL"),
    ("platform=odd%2F%2F", Some("FROM box:1\n"), 400, "\"\" is an invalid component of \"odd//\": platform specifier component must match"),
    ("target=nope", Some("FROM box:1 AS one\n"), 400, "failed to reach build target nope in Dockerfile"),
    // Which Dockerfile.
    ("", None, 400, "Cannot locate specified Dockerfile: Dockerfile"),
    ("dockerfile=nope", Some("FROM box:1\n"), 400, "Cannot locate specified Dockerfile: nope"),
    ("dockerfile=..%2F..%2Fetc%2Fpasswd", Some("FROM box:1\n"), 400, "Cannot locate specified Dockerfile: ../../etc/passwd"),
    ("dockerfile=%2Fetc%2Fpasswd", Some("FROM box:1\n"), 400, "Cannot locate specified Dockerfile: /etc/passwd"),
    ("dockerfile=sub", Some("FROM box:1\n"), 400, "Cannot locate specified Dockerfile: sub"),
    ("", Some(""), 400, "the Dockerfile (Dockerfile) cannot be empty"),
    ("", Some("# only words\n"), 400, "file with no instructions"),
    // What it says.
    ("", Some("FROM box:1\nFETCH x\n"), 400, "line 2: unknown instruction: FETCH"),
    ("", Some("RUN true\n"), 400, "no build stage in current context"),
    ("", Some("FROM box:1 as\n"), 400, "FROM requires either one or three arguments"),
    ("", Some("FROM box:1 AS 1st\n"), 400, "invalid name for build stage: \"1st\", name can't start with a number or contain symbols"),
    ("", Some("FROM $NONE\n"), 400, "base name ($NONE) should not be blank"),
    ("", Some("FROM box:1\nCOPY file\n"), 400, "COPY requires at least two arguments, but only one was provided. Destination could not be determined"),
    ("", Some("FROM box:1\nADD file\n"), 400, "ADD requires at least two arguments, but only one was provided. Destination could not be determined"),
    ("", Some("FROM box:1\nCOPY --odd=1 file /\n"), 400, "unknown flag: --odd"),
    ("", Some("FROM box:1\nENV x\n"), 400, "ENV must have two arguments"),
    ("", Some("FROM box:1\nEXPOSE\n"), 400, "EXPOSE requires at least one argument"),
    ("", Some("FROM box:1\nRUN\n"), 400, "RUN requires at least one argument"),
    ("", Some("FROM box:1\nSHELL sh\n"), 400, "SHELL requires the arguments to be in JSON form"),
    ("", Some("FROM box:1\nHEALTHCHECK ODD x\n"), 400, "Unknown type \"ODD\" in HEALTHCHECK (try CMD)"),
    ("", Some("FROM box:1\nONBUILD ONBUILD RUN true\n"), 400, "Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed"),
    ("", Some("FROM box:1\nONBUILD FROM box:1\n"), 400, "FROM isn't allowed as an ONBUILD trigger"),
    ("", Some("# escape=x\nFROM box:1\n"), 400, "escape"),
    ("", Some("FROM box:1\nRUN <<END\ntrue\n"), 400, "heredoc"),
    // What its steps fail of.
    ("", Some("FROM box:1\nCOPY nope /\n"), 200, "COPY failed: file not found in build context or excluded by .dockerignore: stat nope: file does not exist"),
    ("", Some("FROM box:1\nCOPY ../file /\n"), 200, "forbidden path outside the build context: ../file"),
    ("", Some("FROM box:1\nCOPY file sub /a\n"), 200, "When using COPY with more than one source file, the destination must be a directory and end with a /"),
    ("", Some("FROM box:1\nCOPY --from=nope x /\n"), 200, "invalid from flag value nope"),
    ("", Some("FROM box:1\nRUN exit 9\n"), 200, "The command '/bin/sh -c exit 9' returned a non-zero code: 9"),
    ("", Some("FROM box:1\nEXPOSE many\n"), 200, "invalid containerPort: many"),
];

fn context(dockerfile: Option<&str>) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let files = [("Dockerfile", dockerfile), ("file", Some("text")), ("sub/Dockerfile", Some("FROM box:1\n"))];
    for (name, text) in files.into_iter().filter_map(|(name, text)| Some((name, text?))) {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes()).unwrap();
    }
    archive.into_inner().unwrap()
}

/// Status, and the message or all that was streamed.
fn build(api: &Api, parameters: &str, dockerfile: Option<&str>) -> (u16, String) {
    let body = context(dockerfile);
    let head = format!(
        "POST /build?networkmode=none&{parameters} HTTP/1.1\r\nHost: keel\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    let answer = api.raw(&[head.as_bytes(), &body].concat()).unwrap();
    if answer.status != 200 {
        return (answer.status, answer.message());
    }
    let lines = answer.body.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let errors: Vec<String> = lines.filter_map(|line| line["error"].as_str().map(str::to_owned)).collect();
    (answer.status, errors.join("\n"))
}

#[test]
fn wrong_builds_are_answered_as_dockers_daemon_does() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    let api = Api::new(&daemon.socket());
    let mut wrong = Vec::new();
    for (parameters, dockerfile, status, words) in TABLE {
        let (have, message) = build(&api, parameters, *dockerfile);
        if have != *status || !message.contains(words) {
            wrong.push(format!("{parameters} {dockerfile:?}\n  want {status} {words:?}\n  have {have} {message:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TABLE.len(), wrong.join("\n"));
    assert_eq!(daemon.ok(&["images", "-aq"]).lines().count(), 1, "nothing refused leaves an image behind");
    assert_eq!(build(&api, "", Some("FROM box:1\nCOPY file /\n")), (200, String::new()), "the context is fine");
}
