//! What `docker logs --details` shows before each line: the log options `labels`, `env` and `tag`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::bad;
use crate::disk::Config;
use crate::error::Error;

/// Digits of a short ID.
const SHORT: usize = 12;

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
    let mut found = BTreeMap::new();
    let asked = config.body.host_config.as_ref().and_then(|host| host.log_config.as_ref());
    let Some(options) = asked.and_then(|asked| asked.config.as_ref()) else { return found };
    let names =
        |option: &str| options.get(option).map(String::as_str).unwrap_or_default().split(',').map(str::to_owned);
    for name in names("labels") {
        if let Some(value) = config.body.labels.as_ref().and_then(|labels| labels.get(&name)) {
            found.insert(name, value.clone());
        }
    }
    for name in names("env") {
        let mut variables = config.body.env.iter().flatten().filter_map(|variable| variable.split_once('='));
        if let Some((_, value)) = variables.find(|(of, _)| *of == name) {
            found.insert(name, value.to_owned());
        }
    }
    if let Some(template) = options.get("tag").filter(|template| !template.is_empty()) {
        found.insert("tag".into(), pieces(template).iter().map(|piece| piece.of(config)).collect());
    }
    found
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
        assert_eq!(of(r#"{"labels":"m,none,l","env":"B,A"}"#), "A=1,B=two+words,l=%C3%A9,m=x%3Dy ");
        assert_eq!(of(r#"{"tag":"{{.Name}}/{{ .ID }}-{{.ImageID}}"}"#), "tag=web%2F0123456789ab-fedcba987654 ");
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
