//! Names of images, as people type them.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// Longest name without tag and digest (distribution's reference grammar).
const MAX_NAME_BYTES: usize = 255;
/// Registry of names that name none.
pub const DEFAULT_REGISTRY: &str = "docker.io";

/// A name of an image: registry, repository, and a tag or a digest or both. With neither, the tag is `latest`.
/// `alpine` is `docker.io/library/alpine:latest`. Grammar: github.com/distribution/reference.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text isn't a name of an image. The first words are Docker's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format: {reason}")]
pub struct BadReference {
    /// What is wrong.
    pub reason: &'static str,
}

impl Reference {
    /// Registry, `docker.io` for Docker's, with a port if it has one.
    pub fn registry(&self) -> &str {
        &self.registry
    }

    /// Repository within the registry, `library/alpine`.
    pub fn repository(&self) -> &str {
        &self.repository
    }

    /// Tag; `None` only where there is a digest.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Digest of a manifest.
    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// What a registry is asked for: the digest if there is one, otherwise the tag.
    pub fn manifest(&self) -> String {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => digest.to_string(),
            (None, Some(tag)) => tag.clone(),
            (None, None) => "latest".into(),
        }
    }

    /// The name without tag and digest as Docker shows it: `alpine`, `a/b`, `registry.example/a`.
    pub fn familiar_name(&self) -> String {
        if self.registry != DEFAULT_REGISTRY {
            return format!("{}/{}", self.registry, self.repository);
        }
        match self.repository.strip_prefix("library/") {
            Some(rest) if !rest.contains('/') => rest.to_owned(),
            _ => self.repository.clone(),
        }
    }

    /// The same name with this tag and no digest.
    pub fn with_tag(&self, tag: &str) -> Result<Self, BadReference> {
        Ok(Self { tag: Some(check_tag(tag)?), digest: None, ..self.clone() })
    }

    /// The same name with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }
}

/// As Docker shows it: [`Reference::familiar_name`] with tag and digest.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.familiar_name())?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = BadReference;

    fn from_str(text: &str) -> Result<Self, BadReference> {
        let (rest, digest) = match text.split_once('@') {
            None => (text, None),
            Some((rest, digest)) => {
                let digest = digest.parse().map_err(|_| bad("the digest isn't sha256:<64 hexadecimal digits>"))?;
                (rest, Some(digest))
            }
        };
        // A colon after the last slash begins a tag; before it, a port.
        let (name, tag) = match rest.rsplit_once(':') {
            Some((name, tag)) if !tag.contains('/') => (name, Some(check_tag(tag)?)),
            _ => (rest, None),
        };
        let (registry, repository) = split_registry(name);
        let repository = if registry == DEFAULT_REGISTRY && !repository.contains('/') {
            format!("library/{repository}")
        } else {
            repository.to_owned()
        };
        if registry.len() + repository.len() + 1 > MAX_NAME_BYTES {
            return Err(bad("the name is longer than 255 bytes"));
        }
        check_registry(registry)?;
        repository.split('/').try_for_each(check_component)?;
        let tag = if tag.is_none() && digest.is_none() { Some("latest".into()) } else { tag };
        Ok(Self { registry: registry.to_owned(), repository, tag, digest })
    }
}

/// The part before the first slash is a registry if it looks like a host: a dot, a port, `localhost`, a capital.
fn split_registry(name: &str) -> (&str, &str) {
    match name.split_once('/') {
        Some(("index.docker.io", rest)) => (DEFAULT_REGISTRY, rest),
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.contains(char::is_uppercase) =>
        {
            (first, rest)
        }
        _ => (DEFAULT_REGISTRY, name),
    }
}

fn bad(reason: &'static str) -> BadReference {
    BadReference { reason }
}

fn check_registry(registry: &str) -> Result<(), BadReference> {
    let host = if registry.starts_with('[') {
        let (host, port) = registry.split_once(']').ok_or(bad("the registry's IPv6 address isn't closed"))?;
        if !host.get(1..).unwrap_or_default().bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b':') {
            return Err(bad("the registry's IPv6 address is malformed"));
        }
        return check_port(port.strip_prefix(':'), port.is_empty());
    } else {
        registry
    };
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    let fits = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    if !host.split('.').all(fits) {
        return Err(bad("the registry isn't a host name"));
    }
    check_port(port, port.is_none())
}

fn check_port(port: Option<&str>, none: bool) -> Result<(), BadReference> {
    match port {
        Some(port) if !port.is_empty() && port.len() <= 5 && port.bytes().all(|byte| byte.is_ascii_digit()) => Ok(()),
        None if none => Ok(()),
        _ => Err(bad("the registry's port isn't a number")),
    }
}

/// Lower-case letters and digits, separated by single `.`, one or two `_`, or any number of `-`.
fn check_component(text: &str) -> Result<(), BadReference> {
    let alphanumeric = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if text.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Err(bad("repository name must be lowercase"));
    }
    let (Some(first), Some(last)) = (text.bytes().next(), text.bytes().next_back()) else {
        return Err(bad("a part of the repository name is empty"));
    };
    let separators = text.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()).filter(|part| !part.is_empty());
    let mut separators = separators;
    let good = alphanumeric(first)
        && alphanumeric(last)
        && separators.all(|part| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-'));
    if good { Ok(()) } else { Err(bad("the repository name has characters, or a row of them, that aren't allowed")) }
}

fn check_tag(tag: &str) -> Result<String, BadReference> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    let good = bytes.next().is_some_and(word)
        && bytes.all(|byte| word(byte) || byte == b'.' || byte == b'-')
        && tag.len() <= 128;
    if good { Ok(tag.to_owned()) } else { Err(bad("the tag has characters that aren't allowed, or is too long")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Reference, BadReference> {
        text.parse()
    }

    #[test]
    fn short_names_are_expanded_and_shown_short() {
        for (text, registry, repository, manifest, shown) in [
            ("alpine", "docker.io", "library/alpine", "latest", "alpine:latest"),
            ("alpine:3", "docker.io", "library/alpine", "3", "alpine:3"),
            ("a/b", "docker.io", "a/b", "latest", "a/b:latest"),
            ("docker.io/alpine", "docker.io", "library/alpine", "latest", "alpine:latest"),
            ("index.docker.io/library/alpine", "docker.io", "library/alpine", "latest", "alpine:latest"),
            ("localhost/a", "localhost", "a", "latest", "localhost/a:latest"),
            ("127.0.0.1:5000/a/b:x-1", "127.0.0.1:5000", "a/b", "x-1", "127.0.0.1:5000/a/b:x-1"),
            ("[::1]:5000/a", "[::1]:5000", "a", "latest", "[::1]:5000/a:latest"),
        ] {
            let reference = parse(text).unwrap();
            assert_eq!((reference.registry(), reference.repository()), (registry, repository), "{text}");
            assert_eq!((reference.manifest().as_str(), reference.to_string().as_str()), (manifest, shown), "{text}");
            assert_eq!(parse(&reference.to_string()).unwrap(), reference);
        }
    }

    #[test]
    fn a_digest_stands_without_tag() {
        let text = format!("a/b@{}", Digest::of(b""));
        let reference = parse(&text).unwrap();
        assert_eq!(reference.tag(), None);
        assert_eq!(reference.to_string(), text);
    }

    #[test]
    fn hostile_names_are_refused() {
        let long = "a".repeat(300);
        let long_tag = format!("a:{}", "t".repeat(129));
        for text in [
            "",
            "/",
            "a/",
            "/a",
            "a//b",
            "../a",
            "a/../b",
            "A",
            "a:",
            "a:b:c",
            "a:/b",
            "a b",
            "a\nb",
            "a\0",
            "ä",
            "a@",
            "a@sha256:0",
            "a?b",
            "a#b",
            "u:p@h.x/a",
            "h.x:port/a",
            "-h.x/a",
            "a:.t",
            "a___b",
            "a._b",
            "[::1/a",
            "h.x:123456/a",
            long.as_str(),
            long_tag.as_str(),
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
