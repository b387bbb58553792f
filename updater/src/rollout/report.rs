//! Outcomes of updates, and who is told of them.
//!
//! An outcome is a JSON document, posted to `update.report_url`; any 2xx status takes it. A publisher who counts them
//! sees a bad release early, and withdraws it.

use keel_fetch::Client;
use keel_spec::release::Version;
use serde::{Deserialize, Serialize};

use super::http;

/// Longest reason that is told, in bytes.
const MAX_REASON_BYTES: usize = 1024;

/// How an update ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// The release.
    pub version: Version,
    /// The release before it; of a bad one, the release that the host is back at.
    pub other: Version,
    /// Whether it proved good.
    pub good: bool,
    /// Why it didn't; empty for a good one.
    pub reason: String,
    /// When that was known, seconds since the Unix epoch.
    pub at_unix_s: u64,
}

/// What is posted.
#[derive(Serialize)]
struct Document<'a> {
    host_id: &'a str,
    hostname: &'a str,
    channel: &'a str,
    version: &'a Version,
    other: &'a Version,
    outcome: &'static str,
    reason: &'a str,
    at_unix_s: u64,
}

/// Who a host is, for those it tells.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Its ID.
    pub host_id: String,
    /// Its name.
    pub hostname: String,
    /// The channel that it follows.
    pub channel: String,
}

/// The document that is posted.
pub fn document(sender: &Sender, outcome: &Outcome) -> Vec<u8> {
    let end = outcome.reason.floor_char_boundary(MAX_REASON_BYTES);
    let document = Document {
        host_id: &sender.host_id,
        hostname: &sender.hostname,
        channel: &sender.channel,
        version: &outcome.version,
        other: &outcome.other,
        outcome: if outcome.good { "good" } else { "bad" },
        reason: outcome.reason.get(..end).unwrap_or_default(),
        at_unix_s: outcome.at_unix_s,
    };
    // Text and numbers alone can always be written.
    serde_json::to_vec(&document).unwrap_or_default()
}

/// Tells somebody.
pub fn send(client: &Client, url: &str, sender: &Sender, outcome: &Outcome) -> Result<(), String> {
    let answer = http::post(client, url, &[], &document(sender, outcome))
        .map_err(|why| format!("report the outcome of {} to {url}: {why}", outcome.version))?;
    match answer.status {
        200..=299 => Ok(()),
        status => Err(format!("report the outcome of {} to {url}: it answers {status}", outcome.version)),
    }
}
