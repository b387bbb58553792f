//! IDs and names of containers.

use ring::rand::{SecureRandom, SystemRandom};

use crate::error::Error;

/// Hexadecimal digits of an ID.
const ID_DIGITS: usize = 64;
/// Longest name; it becomes a host name's source and part of messages.
const MAX_NAME_BYTES: usize = 128;

/// A new random ID. Like Docker's, its first twelve digits are never all decimal, since such a host name
/// would look like a number.
pub fn random() -> Result<String, Error> {
    let mut bytes = [0_u8; ID_DIGITS / 2];
    // Each turn fails with probability (10/16)^12, so eight never do.
    for _ in 0..8 {
        SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| Error::internal("making a container ID", "the kernel gives no random bytes"))?;
        let id: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if !id.bytes().take(12).all(|digit| digit.is_ascii_digit()) {
            return Ok(id);
        }
    }
    Err(Error::internal("making a container ID", "the kernel's random bytes are not random"))
}

/// Whether `text` is an ID.
pub fn is_id(text: &str) -> bool {
    text.len() == ID_DIGITS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Checks a name that a client chose; a leading slash is taken off, as Docker does.
pub fn check_name(name: &str) -> Result<&str, Error> {
    let bare = name.strip_prefix('/').unwrap_or(name);
    let mut bytes = bare.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first && rest && bare.len() >= 2 && bare.len() <= MAX_NAME_BYTES {
        return Ok(bare);
    }
    Err(Error::BadParameter(format!(
        "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed (2 to {MAX_NAME_BYTES} characters)"
    )))
}

/// A random name that `is_free`.
pub fn random_name(id: &str, is_free: impl Fn(&str) -> bool) -> String {
    const KINDS: [&str; 16] = [
        "amber", "brisk", "calm", "clear", "deep", "early", "fair", "fresh", "keen", "light", "mild", "quiet",
        "steady", "still", "swift", "warm",
    ];
    const THINGS: [&str; 16] = [
        "anchor", "bay", "beacon", "breeze", "buoy", "current", "delta", "harbour", "island", "lagoon", "pier", "reef",
        "sail", "shore", "tide", "wave",
    ];
    let digits: Vec<usize> = id.bytes().filter_map(|byte| (byte as char).to_digit(16)).map(|d| d as usize).collect();
    for pair in digits.chunks_exact(2) {
        let name = format!("{}_{}", KINDS[pair[0]], THINGS[pair[1]]);
        if is_free(&name) {
            return name;
        }
    }
    // All of the pairs that the ID offers are taken, so the ID itself tells them apart.
    format!("{}_{}", KINDS[digits.first().copied().unwrap_or(0)], id.get(..12).unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_64_hex_digits() {
        let id = random().unwrap();
        assert!(is_id(&id));
        assert!(!is_id("c0ffee"));
    }

    #[test]
    fn names_follow_dockers_rule() {
        for good in ["ab", "/web", "a.b-c_d", "0x"] {
            assert!(check_name(good).is_ok(), "{good}");
        }
        for bad in ["", "a", "/", "-a", "a/b", "ä1", "a b", "../x", &"x".repeat(129)] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_random_name_is_free_even_when_all_pairs_are_taken() {
        let id = random().unwrap();
        assert!(check_name(&random_name(&id, |_| true)).is_ok());
        let name = random_name(&id, |name| name.contains(&id[..12]));
        assert!(name.contains(&id[..12]) && check_name(&name).is_ok());
    }
}
