//! The one DNS question that the time service has: which IPv4 addresses a name has (RFC 1035). Small, because the
//! whole resolver would bring an HTTP client along; pure.

use std::net::Ipv4Addr;

/// Longest answer that is read.
pub const MAX_ANSWER_BYTES: usize = 1232;
/// Most records that are looked at, and most addresses that are taken.
const MAX_RECORDS: usize = 32;
const MAX_ADDRESSES: usize = 8;

/// A question for the addresses of `name`; `None`: it isn't a name that fits.
pub fn question(id: u16, name: &str) -> Option<Vec<u8>> {
    let mut packet = Vec::with_capacity(64);
    packet.extend(id.to_be_bytes());
    // Recursion desired; one question.
    packet.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len()).ok().filter(|length| (1..=63).contains(length))?;
        packet.push(length);
        packet.extend(label.as_bytes());
    }
    // The end of the name, type A, class IN.
    packet.extend([0, 0, 1, 0, 1]);
    (packet.len() <= 12 + 255 + 4).then_some(packet)
}

/// The addresses in an answer to this question; `None`: it isn't one, or can't be read.
pub fn addresses(packet: &[u8], question: &[u8]) -> Option<Vec<Ipv4Addr>> {
    let number = |at: usize| Some(u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]));
    let is_answer = packet.get(2)? & 0x80 != 0 && packet.get(3)? & 0x0f == 0;
    // The question comes back as it was: ID and text.
    let echoed = packet.get(..2)? == question.get(..2)?
        && packet.get(12..question.len())?.eq_ignore_ascii_case(question.get(12..)?);
    if !is_answer || !echoed || number(4)? != 1 {
        return None;
    }
    let mut at = question.len();
    let mut found = Vec::new();
    for _ in 0..usize::from(number(6)?).min(MAX_RECORDS) {
        at = after_name(packet, at)?;
        let (kind, class, length) = (number(at)?, number(at + 2)?, usize::from(number(at + 8)?));
        let data = packet.get(at + 10..at + 10 + length)?;
        // CNAMEs are passed over: a recursive server puts the addresses behind them.
        if let (1, 1, &[a, b, c, d]) = (kind, class, data)
            && found.len() < MAX_ADDRESSES
        {
            found.push(Ipv4Addr::new(a, b, c, d));
        }
        at += 10 + length;
    }
    Some(found)
}

/// Where a name ends: labels, then a zero or a pointer.
fn after_name(packet: &[u8], mut at: usize) -> Option<usize> {
    // A name has at most 127 labels.
    for _ in 0..128 {
        match *packet.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(question: &[u8]) -> Vec<u8> {
        let mut packet = question.to_vec();
        (packet[2], packet[7]) = (0x81, 2);
        // A CNAME, then an address.
        packet.extend([0xc0, 12, 0, 5, 0, 1, 0, 0, 0, 9, 0, 2, 0xc0, 12]);
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, 7]);
        packet
    }

    #[test]
    fn addresses_are_found_behind_an_alias() {
        let question = question(7, "ntp.example.org").unwrap();
        assert_eq!(addresses(&reply(&question), &question), Some(vec![Ipv4Addr::new(192, 0, 2, 7)]));
        assert_eq!(addresses(&reply(&question), &super::question(8, "ntp.example.org").unwrap()), None);
    }

    #[test]
    fn hostile_bytes_never_panic() {
        let question = question(7, "a.b").unwrap();
        let good = reply(&question);
        for length in 0..good.len() {
            let _ = addresses(&good[..length], &question);
        }
        for at in 0..good.len() {
            for value in [0, 1, 63, 64, 0xc0, 0xff] {
                let mut bytes = good.clone();
                bytes[at] = value;
                let _ = addresses(&bytes, &question);
            }
        }
    }

    #[test]
    fn names_that_do_not_fit_are_refused() {
        assert!(question(1, "").is_none() && question(1, &"a".repeat(64)).is_none());
        assert!(question(1, &["abcdefgh"; 40].join(".")).is_none());
    }
}
