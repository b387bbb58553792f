//! `Range` and `Content-Range`, RFC 9110 section 14.

use std::ops::Range;

/// Value of the `Range` header; `None` for an empty range, which HTTP can't ask for.
pub fn header(range: &Range<u64>) -> Option<String> {
    (range.start < range.end).then(|| format!("bytes={}-{}", range.start, range.end - 1))
}

/// Value of the `Range` header for several ranges; `None` if there is none, or one is empty.
pub fn header_of_all(ranges: &[Range<u64>]) -> Option<String> {
    let each: Option<Vec<String>> = ranges.iter().map(|range| Some(header(range)?.split_off("bytes=".len()))).collect();
    each.filter(|each| !each.is_empty()).map(|each| format!("bytes={}", each.join(",")))
}

/// Whether a `Content-Range` is the range asked for. The server may end it early only where the whole ends.
pub fn check(asked: &Range<u64>, told: &str, length: Option<u64>) -> Result<(), String> {
    let (got, total) = parse(told).ok_or_else(|| format!("206 with the unusable Content-Range {told:?}"))?;
    let end = total.map_or(asked.end, |total| asked.end.min(total));
    if got.start != asked.start || got.end != end {
        return Err(format!("asked for bytes {}-{} but got {told:?}", asked.start, asked.end.saturating_sub(1)));
    }
    match length {
        Some(length) if length != got.end - got.start => {
            Err(format!("Content-Range {told:?} doesn't fit a Content-Length of {length}"))
        }
        _ => Ok(()),
    }
}

fn parse(value: &str) -> Option<(Range<u64>, Option<u64>)> {
    let (span, total) = value.strip_prefix("bytes ")?.trim().split_once('/')?;
    let (first, last) = span.split_once('-')?;
    let (first, last) = (number(first)?, number(last)?);
    let total = if total == "*" { None } else { Some(number(total)?) };
    let end = last.checked_add(1)?;
    (first < end && total.is_none_or(|total| end <= total)).then_some((first..end, total))
}

/// Digits only: `u64::from_str` takes a plus sign as well.
fn number(text: &str) -> Option<u64> {
    if text.bytes().all(|byte| byte.is_ascii_digit()) { text.parse().ok() } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_range_asked_for_passes() {
        let ok = |told, length| check(&(10..20), told, length).is_ok();
        assert!(ok("bytes 10-19/100", Some(10)));
        assert!(ok("bytes 10-19/*", None));
        assert!(ok("bytes 10-14/15", Some(5)), "the whole ends early");
        for told in ["bytes 10-18/100", "bytes 11-19/100", "bytes 10-19/15", "", "bytes */100", "bytes +10-19/100"] {
            assert!(!ok(told, None), "{told}");
        }
        assert!(!ok("bytes 10-18446744073709551615/*", None));
        assert!(!ok("bytes 10-19/100", Some(9)));
    }

    #[test]
    fn empty_ranges_cannot_be_asked_for() {
        assert_eq!(header(&(5..5)), None);
        assert_eq!(header(&(5..6)).as_deref(), Some("bytes=5-5"));
        assert_eq!(header_of_all(&[5..6, 9..20]).as_deref(), Some("bytes=5-5,9-19"));
        assert_eq!(header_of_all(&[5..6, 9..9]), None);
    }
}
