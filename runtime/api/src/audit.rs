//! The audit log: a JSON line for each call that changes something or is refused, through this service's own log, so
//! that it is bounded and read like that: `keelctl logs runtime`.

use std::time::Duration;

use hyper::StatusCode;
use serde_json::json;

use crate::roles::Caller;

/// Longest object that is named, characters.
const MAX_OBJECT: usize = 256;

/// One call, for the log.
pub struct Entry<'a> {
    /// Who called.
    pub caller: &'a Caller,
    /// How.
    pub method: &'a str,
    /// The route, as the table has it.
    pub route: &'static str,
    /// What it is about.
    pub object: &'a str,
    /// What was answered.
    pub status: StatusCode,
    /// How long that took.
    pub took: Duration,
}

/// Writes a line. Of a streamed answer the status is that of its beginning.
pub fn log(entry: &Entry<'_>) {
    ::log::info!("audit {}", line(entry));
}

fn line(entry: &Entry<'_>) -> String {
    let object: String = entry.object.chars().take(MAX_OBJECT).collect();
    json!({
        "who": entry.caller.name, "role": entry.caller.role.name(),
        "from": entry.caller.address.map(|address| address.to_string()),
        "verb": format!("{} {}", entry.method, entry.route), "object": object,
        "status": entry.status.as_u16(), "took_ms": u64::try_from(entry.took.as_millis()).unwrap_or(u64::MAX),
    })
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_json_and_bounded_whatever_is_asked_for() {
        let caller = Caller { address: Some("192.0.2.1:9".parse().unwrap()), ..Caller::local() };
        let object = "\"\n".repeat(1000);
        let entry = Entry {
            caller: &caller,
            method: "POST",
            route: "/containers/{}/start",
            object: &object,
            status: StatusCode::NO_CONTENT,
            took: Duration::from_millis(7),
        };
        let line = line(&entry);
        assert!(line.len() < 1200 && !line.contains('\n'), "{line}");
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&value["verb"], &value["status"]), (&json!("POST /containers/{}/start"), &json!(204)));
        assert_eq!((&value["from"], &value["took_ms"]), (&json!("192.0.2.1:9"), &json!(7)));
    }
}
