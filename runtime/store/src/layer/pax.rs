//! Records of POSIX pax headers (IEEE 1003.1, "pax Extended Header").

use std::collections::BTreeMap;
use std::io;

use super::archive::bad;

/// Digits only: `u64::from_str` takes a plus sign as well.
pub fn number(text: &[u8]) -> Option<u64> {
    if text.iter().all(u8::is_ascii_digit) { std::str::from_utf8(text).ok()?.parse().ok() } else { None }
}

/// A number in a pax record; some programs put blanks around it.
pub fn pax_number(text: &[u8]) -> Option<u64> {
    number(text.trim_ascii())
}

/// Decimal seconds with an optional fraction (POSIX pax, "mtime").
pub fn pax_time(text: &[u8]) -> Option<(i64, u32)> {
    let text = std::str::from_utf8(text).ok()?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().ok()?;
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanoseconds: u32 = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse().ok()? } else { return None };
    match (whole.starts_with('-'), nanoseconds) {
        (true, 1..) => Some((seconds.checked_sub(1)?, 1_000_000_000 - nanoseconds)),
        _ => Some((seconds, nanoseconds)),
    }
}

/// Records of the form `length key=value\n`, where the length counts itself; values may hold any byte.
pub fn pax_records(mut bytes: &[u8]) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let malformed = || bad("a malformed pax header");
    let mut records = BTreeMap::new();
    while !bytes.is_empty() {
        let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(malformed)?;
        let (digits, _) = bytes.split_at_checked(space).ok_or_else(malformed)?;
        let length = number(digits).and_then(|length| usize::try_from(length).ok()).ok_or_else(malformed)?;
        let record =
            bytes.get(space + 1..length).and_then(|record| record.strip_suffix(b"\n")).ok_or_else(malformed)?;
        let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(malformed)?;
        let (key, value) = record.split_at_checked(equals).ok_or_else(malformed)?;
        let value = value.get(1..).unwrap_or_default();
        // Version 0.0 of sparse files: a record for each number, as if they were one with commas between.
        if matches!(key, b"GNU.sparse.offset" | b"GNU.sparse.numbytes") {
            let map: &mut Vec<u8> = records.entry(b"GNU.sparse.map".to_vec()).or_default();
            map.extend_from_slice(value);
            map.push(b',');
        } else {
            records.insert(key.to_vec(), value.to_vec());
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_hold_any_bytes_and_lie_about_their_length_in_vain() {
        let records = pax_records(b"12 path=a\xff\n\n11 mtime=1\n".as_slice());
        assert_eq!(records.unwrap().get(b"path".as_slice()).unwrap(), b"a\xff\n");
        for text in [&b"0 a=b\n"[..], b"99 a=b\n", b"6 a=b", b"+6 a=b\n", b"x", b"4 a\n"] {
            assert!(pax_records(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn times_before_1970_count_backwards() {
        assert_eq!(pax_time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(pax_time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(pax_time(b"-0.25"), Some((-1, 750_000_000)));
        assert_eq!(pax_time(b"x"), None);
    }
}
