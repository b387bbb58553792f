//! Where a container's output goes: `--log-driver` and `--log-opt`. All drivers keep it in the container's own folder,
//! in files of one format; `none` keeps just enough for clients that are attached, and shows it to nobody else.

use bollard_stubs::models::{ContainerCreateBody, HostConfigLogConfig};

use super::attributes::{check_pattern, check_tag};
use super::bad;
use crate::error::Error;
use crate::log::writer::Keep;

/// Drivers that are served.
const DRIVERS: [&str; 3] = ["json-file", "local", "none"];
/// Least size of a file, bytes.
const MIN_FILE_BYTES: u64 = 4096;
/// Most bytes of all files of a container.
const MAX_BYTES: u64 = 100 << 30;
/// Most files of a container.
const MAX_FILES: u64 = 1000;
/// What is kept for attached clients without a driver.
const NONE: Keep = Keep { file_bytes: 1 << 20, files: 1 };

/// Where a container's output goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Logging {
    /// The driver's name.
    pub driver: &'static str,
    /// How much is kept.
    pub keep: Keep,
}

/// What was asked for.
pub fn logging(body: &ContainerCreateBody) -> Result<Logging, Error> {
    let asked = body.host_config.as_ref().and_then(|host| host.log_config.as_ref());
    let name = asked.and_then(|config| config.typ.as_deref()).filter(|name| !name.is_empty()).unwrap_or("json-file");
    let Some(driver) = DRIVERS.into_iter().find(|known| *known == name) else {
        return bad(format!("logger: no log driver named '{name:.60}' is registered: json-file, local and none are"));
    };
    let mut keep = if driver == "none" { NONE } else { Keep::default() };
    for (key, value) in asked.and_then(|config| config.config.as_ref()).into_iter().flatten() {
        match (driver, key.as_str()) {
            ("json-file" | "local", "max-size") => keep.file_bytes = bytes(value)?,
            ("json-file" | "local", "max-file") => match value.parse() {
                Ok(files @ 1..=MAX_FILES) => keep.files = files,
                _ => return bad(format!("invalid value for max-file: {value:.40}: want 1 to {MAX_FILES}")),
            },
            // What is kept is never compressed, so that nothing is lost by saying so.
            ("json-file" | "local", "compress") if value == "false" || driver == "local" => {}
            // Output never waits for a reader, and nothing of it is dropped, whichever is asked for.
            (_, "mode") if matches!(value.as_str(), "blocking" | "non-blocking") => {}
            (_, "mode") => return bad(format!("log opt mode={value:.40}: blocking and non-blocking are known")),
            (_, "max-buffer-size") if asked_for_non_blocking(asked) => drop(bytes(value)?),
            ("json-file", "tag") => check_tag(value)?,
            ("json-file", "labels" | "env") => {}
            ("json-file", "labels-regex" | "env-regex") => check_pattern(key, value)?,
            _ => return bad(format!("unknown log opt '{key:.60}' for {driver} log driver")),
        }
    }
    if keep.file_bytes.saturating_mul(keep.files) > MAX_BYTES {
        return bad("log options: max-size times max-file is more than 100g");
    }
    Ok(Logging { driver, keep })
}

fn asked_for_non_blocking(asked: Option<&HostConfigLogConfig>) -> bool {
    let options = asked.and_then(|config| config.config.as_ref());
    options.and_then(|options| options.get("mode")).is_some_and(|mode| mode == "non-blocking")
}

/// `10m`, `1g`, bytes; -1: as much as there may be.
fn bytes(text: &str) -> Result<u64, Error> {
    let parse = || {
        let lower = text.to_ascii_lowercase();
        if lower == "-1" {
            return Some(MAX_BYTES / MAX_FILES);
        }
        let digits = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
        let unit = match lower.get(digits..)?.trim_end_matches('b') {
            "" => 1,
            "k" => 1 << 10,
            "m" => 1 << 20,
            "g" => 1_u64 << 30,
            _ => return None,
        };
        lower.get(..digits)?.parse::<u64>().ok()?.checked_mul(unit)
    };
    match parse() {
        Some(bytes) if bytes >= MIN_FILE_BYTES => Ok(bytes),
        _ => bad(format!("invalid value for max-size: {text:.40}: want a size like 10m, at least 4k")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Result<Logging, Error> {
        logging(&serde_json::from_str(&format!(r#"{{"HostConfig":{{"LogConfig":{json}}}}}"#)).unwrap())
    }

    #[test]
    fn sizes_and_numbers_of_files_are_read() {
        let keep = of(r#"{"Type":"local","Config":{"max-size":"10m","max-file":"3"}}"#).unwrap().keep;
        assert_eq!(keep, Keep { file_bytes: 10 << 20, files: 3 });
        assert_eq!(of(r#"{"Type":"","Config":{}}"#).unwrap(), of(r#"{"Type":"json-file"}"#).unwrap());
        assert_eq!(of(r#"{"Type":"none"}"#).unwrap().keep, NONE);
        for taken in [
            r#"{"mode":"blocking","tag":"","labels":"","env-regex":""}"#,
            r#"{"mode":"non-blocking","max-buffer-size":"4m","tag":"{{.Name}}","labels":"a,b","env":"C","env-regex":"^C_"}"#,
        ] {
            assert!(of(&format!(r#"{{"Config":{taken}}}"#)).is_ok(), "{taken}");
        }
    }

    #[test]
    fn what_is_not_served_is_refused_by_name() {
        for (json, word) in [
            (r#"{"Type":"syslog"}"#, "'syslog'"),
            (r#"{"Config":{"max-size":"1"}}"#, "max-size"),
            (r#"{"Config":{"max-size":"lots"}}"#, "max-size"),
            (r#"{"Config":{"max-file":"0"}}"#, "max-file"),
            (r#"{"Config":{"tag":"{{.Other}}"}}"#, "{{.Other}}"),
            (r#"{"Config":{"labels-regex":"a("}}"#, "invalid value for labels-regex: a(: "),
            (r#"{"Type":"local","Config":{"env-regex":"a"}}"#, "'env-regex'"),
            (r#"{"Config":{"mode":"sometimes"}}"#, "mode=sometimes"),
            (r#"{"Config":{"mode":"blocking","max-buffer-size":"4m"}}"#, "'max-buffer-size'"),
            (r#"{"Type":"none","Config":{"max-size":"1m"}}"#, "'max-size'"),
            (r#"{"Config":{"max-size":"1g","max-file":"1000"}}"#, "100g"),
        ] {
            let error = of(json).unwrap_err().to_string();
            assert!(error.contains(word), "{error}");
        }
    }
}
