//! `GET /events`.

use std::collections::HashMap;

use hyper::StatusCode;
use hyper::body::Bytes;
use keel_engine::events::{Event, EventWant, FILTERS, Subject, Told};
use serde_json::{Value, json};

use crate::call::{Call, long_permit};
use crate::respond::{ChannelBody, Failure, stream};
use crate::router::Answer;
use crate::when::unix_ns;

/// `GET /events`
pub async fn events(call: Call) -> Answer {
    let filters = call.query.filters()?;
    check(&filters)?;
    let want = EventWant {
        since_unix_ns: call.query.text("since").map(unix_ns).transpose()?,
        until_unix_ns: call.query.text("until").map(unix_ns).transpose()?,
        filters,
    };
    if let (Some(since), Some(until)) = (want.since_unix_ns, want.until_unix_ns)
        && until < since
    {
        return Err(Failure::bad_request("`since` time cannot be after `until` time"));
    }
    let permit = long_permit(&call.context)?;
    let mut reader = call.context.engine.events(want);
    let cancel = reader.cancel();
    let (producer, body) = ChannelBody::new();
    let gone = producer.clone();
    let reading = tokio::task::spawn_blocking(move || {
        while let Some(told) = reader.next() {
            let line = match told {
                Told::Event(event) => to_json(&event),
                Told::LeftBehind(lost) => last_word(lost),
            };
            if producer.blocking_send(Bytes::from(format!("{line}\n"))).is_err() {
                break;
            }
        }
        drop(permit);
    });
    tokio::spawn(async move {
        tokio::select! {
            () = gone.closed() => cancel.cancel(),
            _ = reading => {}
        }
    });
    Ok(stream(StatusCode::OK, "application/json", body))
}

fn check(filters: &HashMap<String, Vec<String>>) -> Result<(), Failure> {
    match filters.keys().find(|key| !FILTERS.contains(&key.as_str())) {
        Some(unknown) => Err(Failure::bad_request(format!("invalid filter '{unknown}'"))),
        None => Ok(()),
    }
}

/// With the fields of old clients, too, where they apply.
fn to_json(event: &Event) -> Value {
    let mut value = json!({
        "Type": event.subject.name(), "Action": event.action, "scope": "local",
        "Actor": { "ID": event.id, "Attributes": event.attributes },
        "time": event.unix_ns / 1_000_000_000, "timeNano": event.unix_ns,
    });
    if matches!(event.subject, Subject::Container | Subject::Image) {
        value["status"] = event.action.clone().into();
        value["id"] = event.id.clone().into();
        if let Some(image) = event.attributes.get("image") {
            value["from"] = image.clone().into();
        }
    }
    value
}

/// What a reader that was too slow hears before its stream ends: clients print an unknown event and reconnect.
fn last_word(lost: u64) -> Value {
    let event = Event {
        subject: Subject::Daemon,
        action: "lost".into(),
        id: String::new(),
        attributes: [("events".to_owned(), lost.to_string())].into(),
        unix_ns: time::OffsetDateTime::now_utc().unix_timestamp_nanos().try_into().unwrap_or(0),
    };
    to_json(&event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_have_the_fields_of_old_and_new_clients() {
        let event = Event {
            subject: Subject::Container,
            action: "die".into(),
            id: "c0ffee".into(),
            attributes: [("image".to_owned(), "box:1".to_owned())].into(),
            unix_ns: 5_000_000_007,
        };
        let value = to_json(&event);
        assert_eq!(
            (&value["Type"], &value["status"], &value["from"]),
            (&json!("container"), &json!("die"), &json!("box:1"))
        );
        assert_eq!((&value["time"], &value["timeNano"]), (&json!(5), &json!(5_000_000_007_u64)));
        assert_eq!(last_word(3)["Actor"]["Attributes"]["events"], "3");
    }
}
