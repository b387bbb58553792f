//! A small POST whose answer can't hold anybody up.

use std::io::Read as _;
use std::time::{Duration, Instant};

use keel_fetch::{Client, Method, Options, Proxies, Request};
use keel_spec::config::Settings;

use crate::failure::chain;

/// For resolving, for connecting, and for each single read and write.
const STEP_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer that are read.
const MAX_ANSWER_BYTES: u64 = 4 << 10;
/// Longest that reading an answer's body takes, but for the last step.
const ANSWER_PATIENCE: Duration = Duration::from_secs(3);

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// The beginning of its body.
    pub body: Vec<u8>,
}

/// A client for the servers of an update's rollout, with the proxies and authorities that updates have.
pub fn client(settings: &Settings) -> Result<Client, String> {
    client_with(settings, STEP_TIMEOUT)
}

/// The same with another time for each step.
pub fn client_with(settings: &Settings, step: Duration) -> Result<Client, String> {
    let proxy = settings.proxy.clone();
    let options = Options {
        extra_ca_pem: settings.update.ca_pem.clone(),
        proxies: Proxies { http: proxy.http, https: proxy.https, no_proxy: proxy.no_proxy },
        connect_timeout: step,
        idle_timeout: step,
        ..Options::default()
    };
    Client::new(options).map_err(|error| chain(&error))
}

/// Posts JSON; an error says why no answer came. Redirects aren't followed.
pub fn post(client: &Client, url: &str, headers: &[(&str, &str)], json: &[u8]) -> Result<Answer, String> {
    let headers: Vec<(&str, &str)> = [("Content-Type", "application/json")].iter().chain(headers).copied().collect();
    // The cap is ours below: a longer answer is cut, not an error.
    let request = Request::new(url, u64::MAX).headers(&headers).body(json);
    let mut response = client.request(Method::Post, &request).map_err(|error| chain(&error))?;
    let (began, mut body, mut buffer) = (Instant::now(), Vec::new(), [0; 512]);
    // Bounded: at least a byte each time, or the end.
    while (body.len() as u64) < MAX_ANSWER_BYTES && began.elapsed() < ANSWER_PATIENCE {
        match response.body.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => body.extend_from_slice(buffer.get(..count).unwrap_or_default()),
            // The status says enough.
            Err(_) => break,
        }
    }
    Ok(Answer { status: response.status, body })
}
