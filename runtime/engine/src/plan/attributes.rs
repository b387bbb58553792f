//! What `docker logs --details` shows before each line: the log options `labels`, `labels-regex`, `env`, `env-regex` and
//! `tag`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use regex_lite::{Regex, RegexBuilder};

use super::bad;
use crate::disk::Config;
use crate::error::Error;

/// Digits of a short ID.
const SHORT: usize = 12;
/// Longest pattern of names, bytes.
const MAX_PATTERN_BYTES: usize = 1024;
/// Most memory of a pattern that was read, bytes: looking for it takes as many steps in a name's every byte.
const MAX_COMPILED_BYTES: usize = 64 << 10;
/// Deepest pattern: groups and repetitions in each other.
const MAX_NESTED: u32 = 50;

/// What a template of `tag` may stand for.
const WORDS: [&str; 7] = ["ID", "FullID", "Name", "ImageID", "ImageFullID", "ImageName", "DaemonName"];

/// Refuses a template with something else in it than [`WORDS`], such as a function.
pub fn check_tag(template: &str) -> Result<(), Error> {
    match pieces(template).iter().find_map(|piece| match piece {
        Piece::Word(word) if !WORDS.contains(&word.as_str()) => Some(word),
        _ => None,
    }) {
        Some(word) => bad(format!("log opt tag: {{{{.{word:.40}}}}} isn't known: {} are", WORDS.join(", "))),
        None => Ok(()),
    }
}

/// Refuses what is no pattern of names, or one that is too large.
pub fn check_pattern(option: &str, text: &str) -> Result<(), Error> {
    match pattern(text) {
        Ok(_) => Ok(()),
        Err(reason) => {
            bad(format!("invalid value for {option}: {text:.60}: {reason}: want a regular expression (RE2)"))
        }
    }
}

/// A pattern that fits anywhere in a name, in the syntax that Docker's (Go's `regexp/syntax`) and `regex-lite` share.
fn pattern(text: &str) -> Result<Regex, String> {
    if text.len() > MAX_PATTERN_BYTES {
        return Err(format!("longer than {MAX_PATTERN_BYTES} bytes"));
    }
    let mut builder = RegexBuilder::new(text);
    builder.size_limit(MAX_COMPILED_BYTES).nest_limit(MAX_NESTED).build().map_err(|error| error.to_string())
}

/// All of a container's attributes, as Docker has them in front of a line: sorted and escaped, with a blank behind.
pub fn details(config: &Config) -> Vec<u8> {
    let mut text = String::new();
    for (name, value) in attributes(config) {
        let comma = if text.is_empty() { "" } else { "," };
        let _ = write!(text, "{comma}{}={}", escaped(&name), escaped(&value));
    }
    text.push(' ');
    text.into_bytes()
}

fn attributes(config: &Config) -> BTreeMap<String, String> {
    let asked = config.body.host_config.as_ref().and_then(|host| host.log_config.as_ref());
    let Some(options) = asked.and_then(|asked| asked.config.as_ref()) else { return BTreeMap::new() };
    let option = |name: &str| options.get(name).map(String::as_str).filter(|value| !value.is_empty());
    let wanted = |list: &str, regex: &str| Wanted {
        names: option(list).unwrap_or_default().split(',').map(str::to_owned).collect(),
        // What this release can't read, but another one took, fits nothing.
        pattern: option(regex).and_then(|text| pattern(text).ok()),
    };
    let (labels, variables) = (wanted("labels", "labels-regex"), wanted("env", "env-regex"));
    let mut found = BTreeMap::new();
    for (name, value) in config.body.labels.iter().flatten().filter(|(name, _)| labels.has(name)) {
        found.insert(name.clone(), value.clone());
    }
    let environment = config.body.env.iter().flatten().filter_map(|variable| variable.split_once('='));
    for (name, value) in environment.filter(|(name, _)| variables.has(name)) {
        found.insert(name.to_owned(), value.to_owned());
    }
    if let Some(template) = option("tag") {
        found.insert("tag".into(), pieces(template).iter().map(|piece| piece.of(config)).collect());
    }
    found
}

/// Which labels, or variables, are attributes.
struct Wanted {
    names: Vec<String>,
    pattern: Option<Regex>,
}

impl Wanted {
    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|wanted| wanted == name)
            || self.pattern.as_ref().is_some_and(|pattern| pattern.is_match(name))
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Word(String),
}

impl Piece {
    fn of(&self, config: &Config) -> String {
        let short = |id: &str| id.rsplit(':').next().unwrap_or_default().chars().take(SHORT).collect();
        match self {
            Self::Text(text) => text.clone(),
            Self::Word(word) => match word.as_str() {
                "ID" => short(&config.id),
                "FullID" => config.id.clone(),
                "Name" => config.name.clone(),
                "ImageID" => short(&config.image_id),
                "ImageFullID" => config.image_id.clone(),
                "ImageName" => config.body.image.clone().unwrap_or_default(),
                _ => "keel".into(),
            },
        }
    }
}

/// `{{.Name}}` and what stands between.
fn pieces(template: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    let mut rest = template;
    while let Some((before, inner)) = rest.split_once("{{") {
        let (inside, after) = inner.split_once("}}").unwrap_or((inner, ""));
        found.push(Piece::Text(before.to_owned()));
        // Without its dot it is a function, which isn't known.
        let word = inside.trim();
        found.push(Piece::Word(word.strip_prefix('.').unwrap_or(inside).to_owned()));
        rest = after;
    }
    found.push(Piece::Text(rest.to_owned()));
    found
}

/// As in a query (application/x-www-form-urlencoded).
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(byte)),
            b' ' => out.push('+'),
            other => {
                let _ = write!(out, "%{other:02X}");
            }
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(options: &str) -> String {
        let body = format!(
            r#"{{"Image":"box:1","Env":["A=1","B=two words","A=2"],"Labels":{{"l":"é","m":"x=y"}},
               "HostConfig":{{"LogConfig":{{"Type":"json-file","Config":{options}}}}}}}"#
        );
        let config = Config {
            id: "0123456789abcdef".into(),
            name: "web".into(),
            created_unix_ns: 0,
            image_id: "sha256:fedcba9876543210".into(),
            body: serde_json::from_str(&body).unwrap(),
            uid_base: None,
        };
        String::from_utf8(details(&config)).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_shown_sorted_and_escaped() {
        assert_eq!(of("{}"), " ");
        assert_eq!(of(r#"{"labels":"m,none,l","env":"B,A"}"#), "A=2,B=two+words,l=%C3%A9,m=x%3Dy ");
        assert_eq!(of(r#"{"tag":"{{.Name}}/{{ .ID }}-{{.ImageID}}"}"#), "tag=web%2F0123456789ab-fedcba987654 ");
    }

    #[test]
    fn patterns_of_names_fit_anywhere_in_them_and_add_to_what_is_named() {
        for (options, expected) in [
            (r#"{"labels-regex":"^[lx]$"}"#, "l=%C3%A9 "),
            (r#"{"labels":"m","labels-regex":"l"}"#, "l=%C3%A9,m=x%3Dy "),
            (r#"{"env-regex":"(?i)^a|[[:upper:]]"}"#, "A=2,B=two+words "),
            (r#"{"env-regex":"\\d"}"#, " "),
            (r#"{"env-regex":"","labels-regex":""}"#, " "),
            (r#"{"env-regex":"(","env":"B"}"#, "B=two+words "),
        ] {
            assert_eq!(of(options), expected, "{options}");
        }
    }

    #[test]
    fn what_is_no_pattern_and_what_grows_too_large_is_refused_at_once() {
        for fine in ["", "^a.*b$", r"\Acom\.docker\.", "(?P<x>a|b){2,30}?", "[^[:space:]é]+", r"\bx\B"] {
            check_pattern("labels-regex", fine).unwrap();
        }
        let long = "a".repeat(MAX_PATTERN_BYTES + 1);
        let deep = format!("{}a{}", "(".repeat(400), ")".repeat(400));
        let before = std::time::Instant::now();
        let grow = ["(((a{100}){100}){100}){100}", "(?:){4294967295}", "((){1000}){1000000}", "a{1000000}"];
        for text in ["(", "[a", "a{2,1}", "*", r"\pN", r"(a)\1", "(?=a)", &long, &deep].into_iter().chain(grow) {
            let error = check_pattern("env-regex", text).unwrap_err().to_string();
            assert!(error.starts_with("invalid value for env-regex: ") && error.len() < 250, "{error}");
        }
        assert!(before.elapsed() < std::time::Duration::from_secs(10), "{:?}", before.elapsed());
    }

    #[test]
    fn a_template_of_other_things_is_refused() {
        check_tag("plain").unwrap();
        check_tag("{{.ImageName}}/{{.Name}}/{{.ID}}").unwrap();
        for template in ["{{.ExtraAttributes nil}}", "{{upper .Name}}", "{{", "{{.Name"] {
            let is_open = template == "{{.Name";
            assert_eq!(check_tag(template).is_ok(), is_open, "{template}");
        }
    }
}
