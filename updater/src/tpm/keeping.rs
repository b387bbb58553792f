//! A version in the TPM's non-volatile memory: a record says which, a counter whether that is the last word.
//!
//! The record is an ordinary index. The counter is one that the TPM can only add to, and that doesn't go back even if
//! the index is deleted and defined anew: a new counter begins above all that the TPM ever had. Each record has the
//! number that the counter had, or was about to get, when it was written; so has the copy on the state partition. A
//! copy with a smaller number is an old one, whoever put it back, and whatever was done to the indices.

use keel_spec::release::Version;

use super::wire::{Error, Public, Reader};
use super::{Transport, nv};

/// The indices, in the range that is an owner's (TCG "Registry of Reserved TPM 2.0 Handles and Localities", 2.2.2).
const RECORD: u32 = 0x0180_4B45;
const COUNTER: u32 = 0x0180_4B46;
/// `TPMA_NV` (Part 2, 13.4): owner and password may write and read; wrong passwords aren't counted.
const ATTRIBUTES: u32 = 1 << 1 | 1 << 2 | 1 << 17 | 1 << 18 | 1 << 25;
/// `TPM_NT_COUNTER`, in its place.
const TYPE_COUNTER: u32 = 1 << 4;
/// What the TPM itself changes: WRITELOCKED, READLOCKED, WRITTEN.
const CHANGING: u32 = 1 << 11 | 1 << 28 | 1 << 29;
const WRITTEN: u32 = 1 << 29;
const COUNTER_BYTES: u16 = 8;
/// Begins a record; the last byte is its form.
const MAGIC: [u8; 8] = *b"keelmin\x01";
/// A version's longest text.
const TEXT_BYTES: usize = 64;
/// Magic, number, length of the text, text.
const RECORD_BYTES: u16 = (MAGIC.len() + 8 + 1 + TEXT_BYTES) as u16;

/// A version, and the counter's number that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The version.
    pub version: Version,
    /// The number.
    pub number: u64,
}

/// What a TPM holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The counter, once it has counted.
    pub counter: Option<u64>,
    /// The record, once there is one.
    pub record: Option<Record>,
}

/// The version in a TPM.
pub struct Keeping<'a>(pub &'a mut dyn Transport);

impl Keeping<'_> {
    /// What is held. Changes nothing.
    pub fn read(&mut self) -> Result<Held, Error> {
        let counter = match self.index(COUNTER)? {
            Some(public) if public.attributes & WRITTEN != 0 => nv::read(self.0, COUNTER, COUNTER_BYTES)?,
            _ => None,
        };
        let record = match self.index(RECORD)? {
            Some(public) if public.attributes & WRITTEN != 0 => nv::read(self.0, RECORD, RECORD_BYTES)?,
            _ => None,
        };
        let counter = counter.map(|bytes| Reader(&bytes).u64()).transpose()?;
        Ok(Held { counter, record: record.and_then(|bytes| parse(&bytes)) })
    }

    /// The counter's number, of a counter that is made if there is none.
    pub fn begin(&mut self) -> Result<u64, Error> {
        for index in [RECORD, COUNTER] {
            if self.index(index)?.is_none() {
                nv::define(self.0, &wanted(index))?;
            }
        }
        match self.read()?.counter {
            Some(number) => Ok(number),
            None => {
                nv::increment(self.0, COUNTER)?;
                self.read()?.counter.ok_or(Error::Malformed("nothing for a counter that has just counted"))
            }
        }
    }

    /// Writes a record, then lets the counter reach its number, which is at most one more than it has. May be repeated
    /// after a power cut.
    pub fn put(&mut self, record: &Record) -> Result<(), Error> {
        nv::write(self.0, RECORD, &bytes(record))?;
        if self.read()?.counter.is_some_and(|counter| counter < record.number) {
            nv::increment(self.0, COUNTER)?;
        }
        match self.read()?.counter {
            Some(counter) if counter == record.number => Ok(()),
            _ => Err(Error::Malformed("another number than its counter should have")),
        }
    }

    /// What an index of ours is; one that somebody else defined isn't touched.
    fn index(&mut self, index: u32) -> Result<Option<Public>, Error> {
        match nv::read_public(self.0, index)? {
            Some(public) if Public { attributes: public.attributes & !CHANGING, ..public } != wanted(index) => {
                Err(Error::Foreign(index))
            }
            public => Ok(public),
        }
    }
}

fn wanted(index: u32) -> Public {
    match index {
        COUNTER => Public { index, attributes: ATTRIBUTES | TYPE_COUNTER, size_bytes: COUNTER_BYTES },
        _ => Public { index, attributes: ATTRIBUTES, size_bytes: RECORD_BYTES },
    }
}

fn bytes(record: &Record) -> Vec<u8> {
    let text = record.version.to_string();
    let mut bytes = MAGIC.to_vec();
    bytes.extend(record.number.to_be_bytes());
    // A version has at most 64 bytes.
    bytes.push(text.len() as u8);
    bytes.extend(text.as_bytes());
    bytes.resize(usize::from(RECORD_BYTES), 0);
    bytes
}

/// A record; `None`: it is of a form that this release doesn't know, or torn.
pub fn parse(bytes: &[u8]) -> Option<Record> {
    let rest = bytes.strip_prefix(&MAGIC)?;
    let (number, rest) = rest.split_first_chunk()?;
    let (length, rest) = rest.split_first()?;
    let text = std::str::from_utf8(rest.get(..usize::from(*length))?).ok()?;
    Some(Record { version: text.parse().ok()?, number: u64::from_be_bytes(*number) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_torn_records_are_none() {
        let longest = format!("1.2.3-{}", "x".repeat(58));
        for text in ["0.1.0", &longest] {
            let record = Record { version: text.parse().unwrap(), number: 7 };
            let written = bytes(&record);
            assert_eq!(written.len(), usize::from(RECORD_BYTES));
            assert_eq!(parse(&written), Some(record));
            assert_eq!(parse(&written[..written.len() - TEXT_BYTES + 2]), None);
        }
        assert_eq!(parse(&[0xff; RECORD_BYTES as usize]), None);
    }
}
