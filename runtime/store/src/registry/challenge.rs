//! `WWW-Authenticate`, RFC 9110 section 11.6.1, as far as registries use it.

/// Parameters of a challenge.
const MAX_PARAMETERS: usize = 16;
/// Longest header that is looked at.
const MAX_HEADER_BYTES: usize = 8 * 1024;

/// What a registry wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// User and password.
    Basic,
    /// A token, from the service at `realm`.
    Bearer {
        /// Address of the token service.
        realm: String,
        /// Name of the registry there.
        service: Option<String>,
        /// What the token must allow.
        scope: Option<String>,
    },
}

impl Challenge {
    /// Reads a header; `None` for schemes we don't speak and for junk.
    pub fn parse(header: &str) -> Option<Self> {
        if header.len() > MAX_HEADER_BYTES {
            return None;
        }
        let (scheme, rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest)?;
        let get =
            |name: &str| parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, v)| v.clone());
        Some(Self::Bearer { realm: get("realm")?, service: get("service"), scope: get("scope") })
    }
}

fn parameters(mut text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    while !text.trim_start_matches([' ', ',']).is_empty() {
        if found.len() >= MAX_PARAMETERS {
            return None;
        }
        let (key, rest) = text.trim_start_matches([' ', ',']).split_once('=')?;
        let (value, rest) = match rest.strip_prefix('"') {
            None => rest.split_once(',').unwrap_or((rest, "")),
            Some(quoted) => quoted.split_once('"')?,
        };
        found.push((key.trim().to_owned(), value.trim().to_owned()));
        text = rest;
    }
    Some(found)
}

/// A value as part of a query (RFC 3986 section 2.1).
pub fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_of_real_registries() {
        let header = r#"Bearer realm="https://auth.x/token",service="registry.x",scope="repository:a/b:pull,push""#;
        assert_eq!(
            Challenge::parse(header),
            Some(Challenge::Bearer {
                realm: "https://auth.x/token".into(),
                service: Some("registry.x".into()),
                scope: Some("repository:a/b:pull,push".into()),
            })
        );
        assert_eq!(Challenge::parse(r#"basic realm="x""#), Some(Challenge::Basic));
    }

    #[test]
    fn junk_is_no_challenge() {
        let many = format!("Bearer {}", "a=b,".repeat(100));
        for header in ["", "Bearer", "Bearer realm", "Bearer realm=\"x", "Digest realm=\"x\"", many.as_str()] {
            assert_eq!(Challenge::parse(header), None, "{header}");
        }
        assert_eq!(encode("a b&c=é"), "a%20b%26c%3D%C3%A9");
    }
}
