//! Single values, from people's words to the Docker Engine API's.

use serde_json::{Map, Value as Json, json};

use super::super::ConfigError;
use super::node::{Node, Value, refuse};

/// Most entries of a list or table.
pub const MAX_ENTRIES: usize = 256;

/// What a value is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// One text.
    Text,
    /// True or false.
    Flag,
    /// A whole number.
    Number,
    /// A decimal number, in billionths.
    Billionths,
    /// `64m`, `1.5gb`, bytes.
    Bytes,
    /// `1m30s`, in whole seconds.
    Seconds,
    /// `1m30s`, in nanoseconds.
    Nanoseconds,
    /// A list of texts, or one.
    Texts,
    /// A command: a list of words, or one line that is split like a shell's.
    Words,
    /// A table, or a list of `key=value`: becomes a table.
    Pairs,
    /// The same, becomes a list of `key=value`.
    Variables,
    /// The same, becomes a list of `key:value`.
    Hosts,
}

/// A value as the API wants it.
pub fn json(key: &str, node: &Node, kind: Kind) -> Result<Json, ConfigError> {
    Ok(match kind {
        Kind::Text => json!(node.text(key)?),
        Kind::Flag => json!(flag(key, node)?),
        Kind::Number => json!(number(key, node)?),
        Kind::Billionths => {
            let text = node.text(key)?;
            match decimal(&text).and_then(|value| scaled(value, 1_000_000_000)) {
                Some(value) => json!(value),
                None => return refuse(node.at, key, format!("= {text:.40?} is not a decimal number")),
            }
        }
        Kind::Bytes => json!(bytes(key, node)?),
        Kind::Seconds => json!(nanoseconds(key, node)?.div_ceil(1_000_000_000)),
        Kind::Nanoseconds => json!(nanoseconds(key, node)?),
        Kind::Texts => json!(texts(key, node)?),
        Kind::Words => json!(words(key, node)?),
        Kind::Pairs => {
            let pairs = pairs(key, node, '=')?.into_iter();
            Json::Object(pairs.map(|(name, value)| (name, json!(value.unwrap_or_default()))).collect::<Map<_, _>>())
        }
        Kind::Variables => {
            let text = |(name, value): (String, Option<String>)| match value {
                Some(value) => Ok(format!("{name}={value}")),
                None => refuse(node.at, key, format!("{name:.60} has no value, and a host has none to pass on")),
            };
            json!(pairs(key, node, '=')?.into_iter().map(text).collect::<Result<Vec<_>, _>>()?)
        }
        Kind::Hosts => {
            let separator = |text: &str| if text.contains('=') { '=' } else { ':' };
            let mut hosts = Vec::new();
            match &node.value {
                Value::Table(_) => {
                    for (name, value) in pairs(key, node, '=')? {
                        hosts.push(format!("{name}:{}", value.unwrap_or_default()));
                    }
                }
                _ => {
                    for text in texts(key, node)? {
                        match text.split_once(separator(&text)) {
                            Some((name, value)) => hosts.push(format!("{name}:{value}")),
                            None => return refuse(node.at, key, format!("{text:.60?} is not name:address")),
                        }
                    }
                }
            }
            json!(hosts)
        }
    })
}

pub fn flag(key: &str, node: &Node) -> Result<bool, ConfigError> {
    match (&node.value, node.text(key)?.as_str()) {
        (Value::Flag(flag), _) => Ok(*flag),
        (_, "true" | "yes" | "on") => Ok(true),
        (_, "false" | "no" | "off") => Ok(false),
        (_, other) => refuse(node.at, key, format!("= {other:.40?} is neither true nor false")),
    }
}

pub fn number(key: &str, node: &Node) -> Result<i64, ConfigError> {
    let text = node.text(key)?;
    text.parse().or_else(|_| refuse(node.at, key, format!("= {text:.40?} is not a whole number")))
}

/// Texts of a list, or of one value.
pub fn texts(key: &str, node: &Node) -> Result<Vec<String>, ConfigError> {
    let list = node.list(key)?;
    if list.len() > MAX_ENTRIES {
        return refuse(node.at, key, format!("has more than {MAX_ENTRIES} entries"));
    }
    list.iter().map(|entry| entry.text(key)).collect()
}

/// A table, or a list of `name=value`. `None`: there is no value.
pub fn pairs(key: &str, node: &Node, separator: char) -> Result<Vec<(String, Option<String>)>, ConfigError> {
    let all: Vec<(String, Option<String>)> = match &node.value {
        Value::Table(entries) => {
            let value = |node: &Node| if node.value == Value::Null { Ok(None) } else { node.text(key).map(Some) };
            entries.iter().map(|(name, node)| Ok((name.text.clone(), value(node)?))).collect::<Result<_, _>>()?
        }
        _ => {
            let pair = |text: String| match text.split_once(separator) {
                Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
                None => (text, None),
            };
            texts(key, node)?.into_iter().map(pair).collect()
        }
    };
    if all.len() > MAX_ENTRIES {
        return refuse(node.at, key, format!("has more than {MAX_ENTRIES} entries"));
    }
    match all.iter().any(|(name, _)| name.is_empty()) {
        true => refuse(node.at, key, "has an entry without a name"),
        false => Ok(all),
    }
}

/// Bytes: a number with a unit of 1,024 each (`b`, `k`, `m`, `g`, `t`, also `kb`, `kib`), or without.
pub fn bytes(key: &str, node: &Node) -> Result<i64, ConfigError> {
    let text = node.text(key)?;
    let parse = || {
        let lower = text.trim().to_ascii_lowercase();
        if lower == "-1" {
            return Some(-1);
        }
        let digits = lower.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(lower.len());
        let (value, unit) = lower.split_at(digits);
        let unit = match unit.trim().trim_end_matches('b').trim_end_matches('i') {
            "" => 1,
            "k" => 1 << 10,
            "m" => 1 << 20,
            "g" => 1 << 30,
            "t" => 1_i64 << 40,
            _ => return None,
        };
        scaled(decimal(value)?, unit)
    };
    parse().map_or_else(|| refuse(node.at, key, format!("= {text:.40?} is not a size: want one like 64m")), Ok)
}

/// A time: `1h30m`, `90s`, `1.5s`, `200ms`, `5us`; a bare number is seconds.
fn nanoseconds(key: &str, node: &Node) -> Result<u64, ConfigError> {
    let text = node.text(key)?;
    let parse = || {
        let mut rest = text.trim();
        let mut sum = 0_i64;
        if rest.is_empty() {
            return None;
        }
        while !rest.is_empty() {
            let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
            let (value, after) = rest.split_at(digits);
            let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
            let (unit, after) = after.split_at(letters);
            let unit = match unit {
                "us" => 1_000,
                "ms" => 1_000_000,
                "s" => 1_000_000_000,
                "" if after.is_empty() => 1_000_000_000,
                "m" => 60_000_000_000,
                "h" => 3_600_000_000_000_i64,
                _ => return None,
            };
            sum = sum.checked_add(scaled(decimal(value)?, unit)?)?;
            rest = after;
        }
        u64::try_from(sum).ok()
    };
    parse().map_or_else(|| refuse(node.at, key, format!("= {text:.40?} is not a time: want one like 1m30s")), Ok)
}

/// A decimal number as a whole one and the digits after the point.
fn decimal(text: &str) -> Option<(i64, &str)> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    let fine = !(whole.is_empty() && rest.is_empty()) && digits(whole) && digits(rest) && rest.len() <= 12;
    let whole = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    fine.then_some((whole, rest))
}

/// A decimal number times `unit`, what is left of a whole cut off.
fn scaled((whole, rest): (i64, &str), unit: i64) -> Option<i64> {
    let mut sum = i128::from(whole) * i128::from(unit);
    let mut part = i128::from(unit);
    // Digits are few (see `decimal`), so that ten to their power stays far below the type's end.
    let mut fraction = 0_i128;
    let mut scale = 1_i128;
    for digit in rest.bytes() {
        fraction = fraction * 10 + i128::from(digit - b'0');
        scale *= 10;
    }
    part = part * fraction / scale;
    sum += part;
    i64::try_from(sum).ok()
}

/// A command: a list of words, or a line that is split as a shell does, quotes and backslashes included.
pub fn words(key: &str, node: &Node) -> Result<Vec<String>, ConfigError> {
    if !matches!(node.value, Value::Text(_)) {
        return texts(key, node);
    }
    let text = node.text(key)?;
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        match (quote, c) {
            (None, ' ' | '\t' | '\n' | '\r') => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if open == c => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(rest.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    match quote {
        Some(_) => refuse(node.at, key, "has a quote that isn't closed"),
        None => Ok(words),
    }
}

/// Says of keys that people will look for why they aren't there.
pub fn why_unknown(key: &str) -> &'static str {
    match key {
        "build" => "isn't supported: a host builds no images; name one that is in a registry",
        "env_file" | "extends" | "include" | "label_file" => "isn't supported: a host has no files beside this text",
        "secrets" | "configs" => "isn't supported: put the values into a volume or into environment",
        "profiles" => "isn't supported: what is declared is always made",
        "scale" | "replicas" => "isn't supported: declare each container",
        "gpus" => "isn't supported: there are no drivers for them on a host",
        "links" | "external_links" => "isn't supported: containers find each other by name in their networks",
        _ => "is not a known key",
    }
}
