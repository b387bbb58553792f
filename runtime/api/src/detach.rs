//! What a client types to leave a terminal without ending what runs in it: `ctrl-p,ctrl-q` unless it says otherwise.

use crate::respond::Failure;

/// Docker's default, Ctrl-P and Ctrl-Q.
const DEFAULT: [u8; 2] = [16, 17];
/// Longest sequence.
const MAX_KEYS: usize = 16;

/// A sequence of keys, and how much of it was typed.
#[derive(Debug, PartialEq, Eq)]
pub struct DetachKeys {
    keys: Vec<u8>,
    typed: usize,
}

impl DetachKeys {
    /// Reads `ctrl-p,ctrl-q`, `a,b`, …; absent or empty is the default.
    pub fn parse(text: Option<&str>) -> Result<Self, Failure> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self { keys: DEFAULT.to_vec(), typed: 0 });
        };
        let keys: Option<Vec<u8>> = text.split(',').map(key).collect();
        match keys {
            Some(keys) if keys.len() <= MAX_KEYS => Ok(Self { keys, typed: 0 }),
            _ => Err(Failure::bad_request(format!("Invalid detach keys ({text:.80}) provided"))),
        }
    }

    /// Takes what was typed: what of it goes on to the process, and whether the sequence is complete. Keys that may
    /// begin it are held back until it is clear that they don't.
    pub fn feed(&mut self, bytes: &[u8]) -> (Vec<u8>, bool) {
        let mut through = Vec::with_capacity(bytes.len());
        for byte in bytes {
            if self.keys.get(self.typed) == Some(byte) {
                self.typed += 1;
                if self.typed == self.keys.len() {
                    self.typed = 0;
                    return (through, true);
                }
                continue;
            }
            through.extend(self.keys.iter().take(self.typed));
            self.typed = 0;
            if self.keys.first() == Some(byte) {
                self.typed = 1;
            } else {
                through.push(*byte);
            }
        }
        (through, false)
    }
}

/// One key: a character, or `ctrl-` with a letter or one of `@[\\]^_`.
fn key(text: &str) -> Option<u8> {
    let mut bytes = text.bytes();
    if let (Some(only), None) = (bytes.next(), bytes.next()) {
        return Some(only);
    }
    let [key] = text.strip_prefix("ctrl-")?.as_bytes() else { return None };
    match key.to_ascii_lowercase() {
        letter @ b'a'..=b'z' => Some(letter - b'a' + 1),
        b'@' => Some(0),
        sign @ b'['..=b'_' => Some(sign - b'[' + 27),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_dockers() {
        let keys = |text| DetachKeys::parse(Some(text)).map(|keys| keys.keys);
        assert_eq!(DetachKeys::parse(None).unwrap().keys, DEFAULT);
        assert_eq!(keys("ctrl-a,x,ctrl-[,ctrl-_").unwrap(), [1, b'x', 27, 31]);
        for text in ["ctrl-", "ctrl-ab", "ab", "ctrl-1", "a,,b"] {
            assert!(keys(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_sequence_is_found_over_several_reads_and_its_beginning_goes_on_otherwise() {
        let mut keys = DetachKeys::parse(None).unwrap();
        assert_eq!(keys.feed(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.feed(b"b\x10\x10"), (b"\x10b\x10".to_vec(), false));
        assert_eq!(keys.feed(b"\x11rest"), (Vec::new(), true));
    }
}
