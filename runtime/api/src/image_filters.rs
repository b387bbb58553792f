//! Filters of images, as `docker images --filter` and `docker image prune --filter` send them.

use std::borrow::Cow;
use std::collections::HashMap;

use keel_store::{Image, Store};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::respond::Failure;
use crate::when::moment;

/// Filters, read and checked.
#[derive(Debug, Default)]
pub struct Filters {
    references: Vec<String>,
    labels: Vec<String>,
    not_labels: Vec<String>,
    /// Images with a tag only, or those without only.
    pub dangling: Option<bool>,
    before_unix_s: Option<i64>,
    since_unix_s: Option<i64>,
}

impl Filters {
    /// Reads filters; `names` are those that the endpoint knows.
    pub fn read(filters: HashMap<String, Vec<String>>, names: &[&str], store: &Store) -> Result<Self, Failure> {
        let mut read = Self::default();
        for (name, values) in filters {
            if !names.contains(&name.as_str()) {
                return Err(Failure::bad_request(format!("invalid filter '{name}'")));
            }
            match name.as_str() {
                "reference" => read.references = values,
                "label" => read.labels = values,
                "label!" => read.not_labels = values,
                "dangling" => read.dangling = values.iter().map(|value| flag(value)).next().transpose()?,
                "until" => {
                    for value in &values {
                        read.before(i64::try_from(moment(value)? / 1_000_000_000).unwrap_or(i64::MAX));
                    }
                }
                "before" => {
                    for value in &values {
                        read.before(created_unix_s(&store.image(value)?));
                    }
                }
                _ => {
                    for value in &values {
                        let since = created_unix_s(&store.image(value)?);
                        read.since_unix_s = Some(read.since_unix_s.map_or(since, |other| other.max(since)));
                    }
                }
            }
        }
        Ok(read)
    }

    fn before(&mut self, unix_s: i64) {
        self.before_unix_s = Some(self.before_unix_s.map_or(unix_s, |other| other.min(unix_s)));
    }

    /// Whether a pattern fits the name.
    fn names(&self, name: &str) -> bool {
        self.references.iter().any(|pattern| reference_fits(pattern, name))
    }

    /// The image with those of its names that are asked for, as Docker shows it.
    pub fn named<'a>(&self, image: &'a Image) -> Cow<'a, Image> {
        if self.references.is_empty() {
            return Cow::Borrowed(image);
        }
        let mut image = image.clone();
        image.tags.retain(|name| self.names(name));
        image.digests.retain(|name| self.names(name));
        Cow::Owned(image)
    }

    /// Whether an image is meant.
    pub fn fit(&self, image: &Image) -> bool {
        let created = created_unix_s(image);
        (self.references.is_empty() || image.tags.iter().chain(&image.digests).any(|name| self.names(name)))
            && self.labels.iter().all(|wanted| label_fits(wanted, image))
            && !self.not_labels.iter().any(|unwanted| label_fits(unwanted, image))
            && self.dangling.is_none_or(|dangling| dangling == image.tags.is_empty())
            && self.before_unix_s.is_none_or(|moment| created < moment)
            && self.since_unix_s.is_none_or(|moment| created > moment)
    }
}

/// When an image was made, seconds since 1970; 0: unknown.
pub fn created_unix_s(image: &Image) -> i64 {
    OffsetDateTime::parse(&image.created, &Rfc3339).map_or(0, OffsetDateTime::unix_timestamp)
}

fn flag(value: &str) -> Result<bool, Failure> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        other => Err(Failure::bad_request(format!("invalid filter 'dangling={other}'"))),
    }
}

/// A pattern fits a whole name, or a name without its tag or digest (Go's `reference.FamiliarMatch`).
fn reference_fits(pattern: &str, name: &str) -> bool {
    let repository = match name.split_once('@') {
        Some((repository, _)) => repository,
        None => name.rsplit_once(':').map_or(name, |(repository, _)| repository),
    };
    glob(pattern.as_bytes(), name.as_bytes()) || glob(pattern.as_bytes(), repository.as_bytes())
}

/// `*` and `?` as in Go's `path.Match`: they don't stand for a slash. Goes back to the last `*` only, so its work is
/// bounded by the product of both lengths.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut from) = (0, 0);
    let mut retry: Option<(usize, usize)> = None;
    loop {
        match (pattern.get(at), text.get(from)) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                retry = Some((at, from));
                at += 1;
                continue;
            }
            (Some(wanted), Some(byte)) if wanted == byte || (*wanted == b'?' && *byte != b'/') => {
                at += 1;
                from += 1;
                continue;
            }
            _ => {}
        }
        match retry {
            Some((star, begin)) if text.get(begin).is_some_and(|byte| *byte != b'/') => {
                retry = Some((star, begin + 1));
                at = star + 1;
                from = begin + 1;
            }
            _ => return false,
        }
    }
}

fn label_fits(wanted: &str, image: &Image) -> bool {
    match wanted.split_once('=') {
        Some((name, value)) => image.config.labels.get(name).is_some_and(|found| found == value),
        None => image.config.labels.contains_key(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_fit_by_repository_tag_or_pattern() {
        for (pattern, name, fits) in [
            ("alpine", "alpine:3.20", true),
            ("alpine:3.20", "alpine:3.20", true),
            ("alp*", "alpine:3.20", true),
            ("alp", "alpine:3.20", false),
            ("*:3.2?", "alpine:3.20", true),
            ("*", "a/b:1", false),
            ("*/*", "a/b:1", true),
            ("a*c*", "abcbd:1", true),
            ("localhost:5000/a", "localhost:5000/a:1", true),
            ("a", "a@sha256:00", true),
        ] {
            assert_eq!(reference_fits(pattern, name), fits, "{pattern} {name}");
        }
    }
}
