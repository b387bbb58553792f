//! Leave to restart, by the FleetLock protocol: `POST v1/pre-reboot` takes it, `POST v1/steady-state` gives it back.
//! Both may be said again by the same host without harm (coreos.github.io/zincati/development/fleetlock/protocol).

use keel_fetch::Client;
use keel_spec::config::FleetLock;
use serde::{Deserialize, Serialize};

use super::http::{self, Answer};

/// What the protocol wants on every request.
const HEADER: (&str, &str) = ("fleet-lock-protocol", "true");

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Leave {
    /// The lock is held.
    Granted,
    /// It isn't: the server says no.
    Denied(String),
    /// Nobody knows: no answer, or one that a server in distress gave.
    Unknown(String),
}

#[derive(Serialize)]
struct Body<'a> {
    client_params: Parameters<'a>,
}

#[derive(Serialize)]
struct Parameters<'a> {
    id: &'a str,
    group: &'a str,
}

/// An error of the protocol.
#[derive(Deserialize)]
struct Refusal {
    kind: String,
    value: String,
}

/// Takes the lock.
pub fn take(client: &Client, lock: &FleetLock, host_id: &str) -> Leave {
    let doing = format!("ask {} for leave to restart (group {})", lock.url, lock.group);
    match post(client, lock, host_id, "pre-reboot") {
        Err(why) => Leave::Unknown(format!("{doing}: {why}")),
        Ok(Answer { status: 200, .. }) => Leave::Granted,
        Ok(answer) => {
            let why = format!("{doing}: {}", words(&answer));
            match answer.status {
                400..=499 => Leave::Denied(why),
                _ => Leave::Unknown(why),
            }
        }
    }
}

/// Gives it back. It isn't held afterwards, or there is an error.
pub fn give_back(client: &Client, lock: &FleetLock, host_id: &str) -> Result<(), String> {
    let doing = format!("give {} the leave to restart back (group {})", lock.url, lock.group);
    match post(client, lock, host_id, "steady-state") {
        Ok(Answer { status: 200, .. }) => Ok(()),
        Ok(answer) => Err(format!("{doing}: {}", words(&answer))),
        Err(why) => Err(format!("{doing}: {why}")),
    }
}

fn post(client: &Client, lock: &FleetLock, host_id: &str, what: &str) -> Result<Answer, String> {
    let body = Body { client_params: Parameters { id: host_id, group: &lock.group } };
    let json = serde_json::to_vec(&body).map_err(|error| error.to_string())?;
    http::post(client, &format!("{}/v1/{what}", lock.url), &[HEADER], &json)
}

/// What the server says, for people.
fn words(answer: &Answer) -> String {
    match serde_json::from_slice::<Refusal>(&answer.body) {
        Ok(refusal) => {
            let text: String = format!("{}: {}", refusal.kind, refusal.value).chars().take(200).collect();
            let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
            format!("it answers {}, {shown}", answer.status)
        }
        Err(_) => format!("it answers {}", answer.status),
    }
}
