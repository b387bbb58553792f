//! Questions written and answers read, RFC 1035 section 4.

use std::net::IpAddr;
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::{Name as WireName, RData, RecordType};

/// Aliases (CNAME) followed within one answer.
const MAX_ALIASES: usize = 8;

/// A host name that can be asked for.
#[derive(Clone, Debug)]
pub struct Name(WireName);

impl Name {
    /// Letters, digits, hyphens, underscores and dots (RFC 1123 section 2.1, and what is found in practice).
    pub fn new(text: &str) -> Option<Self> {
        let fits = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        if text.len() > 253 || !text.split('.').all(fits) {
            return None;
        }
        let mut name = WireName::from_ascii(text).ok()?;
        name.set_fqdn(true);
        Some(Self(name))
    }
}

/// The two kinds of address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A records.
    V4,
    /// AAAA records.
    V6,
}

impl Kind {
    fn record_type(self) -> RecordType {
        match self {
            Self::V4 => RecordType::A,
            Self::V6 => RecordType::AAAA,
        }
    }
}

/// What a name server said.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    /// Addresses, at least one, and for how long they hold.
    Found {
        /// Addresses.
        addresses: Vec<IpAddr>,
        /// Least TTL among the records used.
        ttl: Duration,
    },
    /// The name exists without such an address.
    NoAddress,
    /// NXDOMAIN.
    NoSuchName,
}

/// What came as a reply to one question.
#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Not a reply to this question: to be ignored, someone may be guessing.
    Stray,
    /// Too long for UDP: ask over TCP.
    Truncated,
    /// The server can't or won't answer.
    Refused(String),
    /// An answer.
    Answer(Answer),
}

/// A question under a random ID.
pub struct Question {
    message: Message,
}

impl Question {
    /// Asks for one kind of address.
    pub fn new(name: &Name, kind: Kind) -> Self {
        let mut message = Message::query();
        message.metadata.recursion_desired = true;
        message.add_query(Query::query(name.0.clone(), kind.record_type()));
        Self { message }
    }

    /// The bytes to send.
    pub fn bytes(&self) -> Result<Vec<u8>, String> {
        self.message.to_vec().map_err(|error| format!("question can't be written ({error})"))
    }

    /// Reads a reply. Never fails: hostile bytes are [`Reply::Stray`].
    pub fn read(&self, bytes: &[u8]) -> Reply {
        let Ok(reply) = Message::from_vec(bytes) else { return Reply::Stray };
        let head = &reply.metadata;
        if head.id != self.message.metadata.id
            || head.message_type != MessageType::Response
            || head.op_code != OpCode::Query
            || reply.queries != self.message.queries
        {
            return Reply::Stray;
        }
        if head.truncation {
            return Reply::Truncated;
        }
        match head.response_code {
            ResponseCode::NoError => Reply::Answer(self.addresses(&reply)),
            ResponseCode::NXDomain => Reply::Answer(Answer::NoSuchName),
            code => Reply::Refused(format!("answered {code}")),
        }
    }

    fn addresses(&self, reply: &Message) -> Answer {
        let Some(query) = self.message.queries.first() else { return Answer::NoAddress };
        let mut owner = query.name().clone();
        let mut ttl = u32::MAX;
        for _ in 0..=MAX_ALIASES {
            let mut addresses = Vec::new();
            let mut alias = None;
            for record in reply.answers.iter().filter(|record| record.name == owner) {
                match &record.data {
                    RData::A(address) if query.query_type() == RecordType::A => addresses.push(IpAddr::V4(address.0)),
                    RData::AAAA(address) if query.query_type() == RecordType::AAAA => {
                        addresses.push(IpAddr::V6(address.0));
                    }
                    RData::CNAME(target) => alias = Some(target.0.clone()),
                    _ => continue,
                }
                ttl = ttl.min(record.ttl);
            }
            if !addresses.is_empty() {
                addresses.truncate(super::MAX_ADDRESSES);
                return Answer::Found { addresses, ttl: Duration::from_secs(ttl.into()) };
            }
            match alias {
                Some(target) => owner = target,
                None => break,
            }
        }
        Answer::NoAddress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hickory_proto::rr::Record;
    use hickory_proto::rr::rdata::{A, CNAME};

    fn reply(question: &Question, answers: Vec<Record>) -> Vec<u8> {
        let mut message = Message::response(question.message.metadata.id, OpCode::Query);
        message.add_queries(question.message.queries.clone());
        message.insert_answers(answers);
        message.to_vec().unwrap()
    }

    fn name(text: &str) -> WireName {
        Name::new(text).unwrap().0
    }

    #[test]
    fn aliases_are_followed_and_circles_end() {
        let question = Question::new(&Name::new("a.example").unwrap(), Kind::V4);
        let alias = |from, to| Record::from_rdata(name(from), 9, RData::CNAME(CNAME(name(to))));
        let address = Record::from_rdata(name("b.example"), 30, RData::A(A([192, 0, 2, 1].into())));
        assert_eq!(
            question.read(&reply(&question, vec![alias("a.example", "B.example"), address.clone()])),
            Reply::Answer(Answer::Found { addresses: vec!["192.0.2.1".parse().unwrap()], ttl: Duration::from_secs(9) })
        );
        let circle = vec![alias("a.example", "c.example"), alias("c.example", "a.example"), address];
        assert_eq!(question.read(&reply(&question, circle)), Reply::Answer(Answer::NoAddress));
    }

    #[test]
    fn replies_to_other_questions_and_junk_are_stray() {
        let name = Name::new("a.example").unwrap();
        let (mine, other) = (Question::new(&name, Kind::V4), Question::new(&name, Kind::V6));
        assert_eq!(mine.read(&reply(&other, vec![])), Reply::Stray);
        let good = reply(&mine, vec![]);
        for cut in 0..good.len() {
            assert_eq!(mine.read(&good[..cut]), Reply::Stray);
        }
        assert_eq!(mine.read(&mine.bytes().unwrap()), Reply::Stray, "a question sent back");
    }

    #[test]
    fn names_that_no_host_has_are_refused() {
        for bad in ["", ".", "a..b", "a b", "ä.example", &"a".repeat(64), &"a.".repeat(130)] {
            assert!(Name::new(bad).is_none(), "{bad}");
        }
    }
}
