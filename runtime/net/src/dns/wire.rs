//! Questions read and answers written (RFC 1035, section 4). Answers of others pass through as they are, so no more of
//! the format is needed than this.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a header.
const HEADER: usize = 12;
/// Longest answer that any client takes over UDP.
const MAX_UDP_BYTES: usize = 512;
/// How long an answer of ours holds, seconds: as Docker's.
const TTL_S: u32 = 600;
/// Longest name as text.
const MAX_NAME_BYTES: usize = 253;
/// `IN`.
const INTERNET: u16 = 1;

const A: u16 = 1;
const PTR: u16 = 12;
const AAAA: u16 = 28;

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// IPv4 addresses of a name.
    V4,
    /// IPv6 addresses of a name.
    V6,
    /// The name of this address.
    Name(IpAddr),
    /// Anything else.
    Other,
}

/// One question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Question {
    /// In lower case, without the dot at its end.
    pub name: String,
    pub kind: Kind,
    /// Where the question ends in the message.
    end: usize,
}

/// An answer to be given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// These addresses; none: the name is there, but has no such address.
    Addresses(Vec<IpAddr>),
    /// This name.
    Name(String),
    /// It can't be said.
    Failed,
}

/// The question of a query; `None`: it is no query that could be answered.
pub(super) fn question(message: &[u8]) -> Option<Question> {
    let header = message.get(..HEADER)?;
    let word = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
    // A standard query (QR and OPCODE are 0) with one question.
    if word(2) & 0xF800 != 0 || word(4) != 1 {
        return None;
    }
    let (mut name, mut at) = (String::new(), HEADER);
    loop {
        let len = usize::from(*message.get(at)?);
        at += 1;
        if len == 0 {
            break;
        }
        // Labels are at most 63 bytes long; what looks longer is a pointer, which no question needs.
        if len > 63 {
            return None;
        }
        let label = message.get(at..at + len)?;
        at += len;
        if !name.is_empty() {
            name.push('.');
        }
        // Bytes that are no text match no name of ours, but others may know them.
        name.extend(label.iter().map(|byte| char::from(byte.to_ascii_lowercase())));
        if name.len() > 2 * MAX_NAME_BYTES || at > HEADER + MAX_NAME_BYTES + 1 {
            return None;
        }
    }
    let fixed = message.get(at..at + 4)?;
    let (kind, class) = (u16::from_be_bytes([fixed[0], fixed[1]]), u16::from_be_bytes([fixed[2], fixed[3]]));
    let kind = match kind {
        _ if class != INTERNET => Kind::Other,
        A => Kind::V4,
        AAAA => Kind::V6,
        PTR => reverse(&name).map_or(Kind::Other, Kind::Name),
        _ => Kind::Other,
    };
    Some(Question { name, kind, end: at + 4 })
}

/// The address that a name under `in-addr.arpa` or `ip6.arpa` is of.
fn reverse(name: &str) -> Option<IpAddr> {
    if let Some(digits) = name.strip_suffix(".in-addr.arpa") {
        let mut octets: Vec<u8> = digits.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?;
        octets.reverse();
        return Some(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?).into());
    }
    let digits = name.strip_suffix(".ip6.arpa")?;
    let digit = |part: &str| if part.len() == 1 { u128::from_str_radix(part, 16).ok() } else { None };
    let parts: Vec<u128> = digits.split('.').map(digit).collect::<Option<_>>()?;
    (parts.len() == 32).then(|| Ipv6Addr::from_bits(parts.iter().rev().fold(0, |bits, digit| bits << 4 | digit)).into())
}

/// The message that answers a query.
pub(super) fn reply(query: &[u8], question: &Question, answer: &Answer) -> Vec<u8> {
    let mut message = query.get(..question.end).unwrap_or_default().to_vec();
    let wanted_recursion = message.get(2).is_some_and(|byte| byte & 1 == 1);
    let code = if *answer == Answer::Failed { 2 } else { 0 };
    // An answer (QR), with the client's wish for recursion and our readiness for it.
    let flags = [0x80 | u8::from(wanted_recursion), 0x80 | code];
    let mut count: u16 = 0;
    let mut add = |message: &mut Vec<u8>, kind: u16, data: &[u8]| {
        if message.len() + HEADER + data.len() > MAX_UDP_BYTES {
            return;
        }
        // The name is the question's, which begins right after the header.
        message.extend([0xC0, HEADER as u8]);
        message.extend(kind.to_be_bytes());
        message.extend(INTERNET.to_be_bytes());
        message.extend(TTL_S.to_be_bytes());
        message.extend((data.len() as u16).to_be_bytes());
        message.extend(data);
        count += 1;
    };
    match answer {
        Answer::Addresses(addresses) => {
            for ip in addresses {
                match ip {
                    IpAddr::V4(ip) => add(&mut message, A, &ip.octets()),
                    IpAddr::V6(ip) => add(&mut message, AAAA, &ip.octets()),
                }
            }
        }
        Answer::Name(name) => add(&mut message, PTR, &labels(name)),
        Answer::Failed => {}
    }
    // One question, so many answers, nothing else.
    let [high, low] = count.to_be_bytes();
    let counts = [0, 1, high, low, 0, 0, 0, 0];
    if let Some(header) = message.get_mut(2..HEADER) {
        header.copy_from_slice(&[&flags[..], &counts].concat());
    }
    message
}

/// A name as labels. What can't be one is left out.
fn labels(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for label in name.split('.').filter(|label| (1..=63).contains(&label.len())) {
        out.push(label.len() as u8);
        out.extend(label.bytes());
    }
    out.push(0);
    out
}

/// Whether a message answers a query: the same ID, and the same question if it repeats one.
pub(super) fn answers(query: &[u8], question: &Question, message: &[u8]) -> bool {
    let (Some(id), Some(header)) = (query.get(..2), message.get(..HEADER)) else { return false };
    let repeated = || {
        // Upper and lower case may differ; the bytes before and after letters may not.
        let asked = query.get(HEADER..question.end).unwrap_or_default();
        message.get(HEADER..question.end).is_some_and(|found| found.eq_ignore_ascii_case(asked))
    };
    header.starts_with(id) && header[2] & 0x80 != 0 && (header[4..6] == [0, 0] || repeated())
}

/// A question for tests of others.
#[cfg(test)]
pub(super) fn tests_question(name: &str, kind: Kind) -> Question {
    Question { name: name.into(), kind, end: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(name: &str, kind: u16) -> Vec<u8> {
        let mut message = vec![0xAB, 0xCD, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        message.extend(labels(name));
        message.extend([kind.to_be_bytes(), [0, 1]].concat());
        message
    }

    #[test]
    fn questions_are_read_whatever_their_case() {
        let read = question(&query("Web.MyNet", A)).unwrap();
        assert_eq!((read.name.as_str(), read.kind), ("web.mynet", Kind::V4));
        let of = |name: &str| question(&query(name, PTR)).unwrap().kind;
        assert_eq!(of("2.0.1.10.in-addr.arpa"), Kind::Name("10.1.0.2".parse().unwrap()));
        let six = format!("2.{}d.f.ip6.arpa", "0.".repeat(29));
        assert_eq!(of(&six), Kind::Name("fd00::2".parse().unwrap()));
        assert_eq!(of("1.2.in-addr.arpa"), Kind::Other);
        assert_eq!(question(&query("x", 15)).unwrap().kind, Kind::Other);
    }

    #[test]
    fn hostile_queries_are_no_questions() {
        let good = query("web", A);
        for len in 0..good.len() {
            assert!(question(&good[..len]).is_none(), "{len}");
        }
        let pointer = [&good[..12], &[0xC0, 12, 0, 1, 0, 1]].concat();
        assert!(question(&pointer).is_none());
        let endless = [&good[..12], &[1, b'x'].repeat(400)].concat();
        assert!(question(&endless).is_none());
        for byte in 0..=255 {
            let _ = question(&[byte; 64]);
        }
        let mut answer = good.clone();
        answer[2] |= 0x80;
        assert!(question(&answer).is_none());
    }

    #[test]
    fn answers_are_as_resolvers_expect_them() {
        let query = query("web", A);
        let asked = question(&query).unwrap();
        let message = reply(&query, &asked, &Answer::Addresses(vec!["10.1.0.2".parse().unwrap()]));
        assert_eq!(message[..12], [0xAB, 0xCD, 0x81, 0x80, 0, 1, 0, 1, 0, 0, 0, 0]);
        assert_eq!(message[query.len()..], [0xC0, 12, 0, 1, 0, 1, 0, 0, 2, 88, 0, 4, 10, 1, 0, 2]);
        assert!(answers(&query, &asked, &message));
        let failed = reply(&query, &asked, &Answer::Failed);
        assert_eq!(failed[3] & 15, 2);
        let many = reply(&query, &asked, &Answer::Addresses(vec!["10.1.0.2".parse().unwrap(); 100]));
        assert!(many.len() <= 512 && many[7] > 20);
        let mut other = message.clone();
        other[0] = 0;
        assert!(!answers(&query, &asked, &other) && !answers(&query, &asked, &query) && !answers(&query, &asked, &[]));
    }
}
