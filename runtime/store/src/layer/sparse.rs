//! Sparse files in tar archives: which parts of a file an entry's content is (GNU tar manual, "Storing Sparse Files").
//!
//! Four forms are in use: GNU's own entry type `S` with a map in the header and in blocks after it, and pax records of
//! version 0.0 (a record for each number), 0.1 (one record) and 1.0 (the map stands before the content).

use std::io::{self, Read};

use super::archive::{BLOCK_BYTES, bad};
use super::pax::{number, pax_number};
use super::recipe::{MAX_SEGMENTS, Segment};

/// Longest sparse file: what copies or hashes such a file reads its holes, too.
const MAX_REAL_BYTES: u64 = 1 << 36;
/// Offset and length in a header of GNU's.
const PAIR_BYTES: usize = 24;
/// Digits of a number in the map of version 1.0.
const MAX_DIGITS: usize = 20;

/// Where the content of a sparse file belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Map {
    /// The parts that have content, in order.
    pub segments: Vec<Segment>,
    /// Length of the file with its holes.
    pub real_bytes: u64,
}

impl Map {
    /// Checks that the parts fit the content, the file, and one another.
    pub fn checked(segments: Vec<Segment>, real_bytes: u64, content_bytes: u64) -> io::Result<Self> {
        let mut end = 0;
        let mut sum: u64 = 0;
        for (offset, length) in &segments {
            let next = offset.checked_add(*length).filter(|next| *offset >= end && *next <= real_bytes);
            end = next.ok_or_else(|| bad("a sparse file whose parts overlap or lie beyond its end"))?;
            sum = sum.saturating_add(*length);
        }
        if real_bytes > MAX_REAL_BYTES {
            return Err(bad(format!("a sparse file of {real_bytes} bytes, more than {MAX_REAL_BYTES}")));
        }
        if sum != content_bytes {
            return Err(bad("a sparse file whose parts aren't as long as its content"));
        }
        let segments = segments.into_iter().filter(|(_, length)| *length > 0).collect();
        Ok(Self { segments, real_bytes })
    }
}

/// The map of an entry of type `S`, whose `header` has been read; further blocks of the map come from `next`.
pub fn gnu(
    header: &[u8; BLOCK_BYTES],
    mut next: impl FnMut() -> io::Result<[u8; BLOCK_BYTES]>,
) -> io::Result<Vec<Segment>> {
    let mut segments = Vec::new();
    pairs(header.get(386..482).unwrap_or_default(), &mut segments)?;
    let mut more = header.get(482) == Some(&1);
    while more {
        let block = next()?;
        pairs(block.get(..504).unwrap_or_default(), &mut segments)?;
        more = block.get(504) == Some(&1);
        check_count(segments.len())?;
    }
    Ok(segments)
}

/// Length of an entry of type `S` with its holes.
pub fn gnu_real_bytes(header: &[u8; BLOCK_BYTES]) -> io::Result<u64> {
    field(header.get(483..495).unwrap_or_default())
}

fn pairs(bytes: &[u8], segments: &mut Vec<Segment>) -> io::Result<()> {
    for pair in bytes.chunks_exact(PAIR_BYTES).take_while(|pair| pair.first().is_some_and(|byte| *byte != 0)) {
        let (offset, length) = pair.split_at(PAIR_BYTES / 2);
        segments.push((field(offset)?, field(length)?));
    }
    Ok(())
}

/// An octal number, or (first bit set) a binary one.
fn field(bytes: &[u8]) -> io::Result<u64> {
    let unusable = || bad("an unusable number in the map of a sparse file");
    if let Some((first, rest)) = bytes.split_first()
        && first & 0x80 != 0
    {
        let (high, low) = rest.split_at_checked(3).ok_or_else(unusable)?;
        let low: [u8; 8] = low.try_into().map_err(|_| unusable())?;
        return if first & 0x7f == 0 && high == [0; 3] { Ok(u64::from_be_bytes(low)) } else { Err(unusable()) };
    }
    let text = std::str::from_utf8(bytes).map_err(|_| unusable())?;
    u64::from_str_radix(text.trim_matches(['\0', ' ']), 8).map_err(|_| unusable())
}

/// The map of version 0.1: `offset,length,offset,length`. Version 0.0 is brought into this form by its reader.
pub fn pax_0(map: &[u8]) -> io::Result<Vec<Segment>> {
    let numbers = map.split(|byte| *byte == b',').filter(|text| !text.is_empty());
    let numbers = numbers.map(pax_number).collect::<Option<Vec<u64>>>();
    let numbers = numbers.ok_or_else(|| bad("an unusable number in the map of a sparse file"))?;
    check_count(numbers.len() / 2)?;
    if numbers.len() % 2 == 1 {
        return Err(bad("the map of a sparse file ends in the middle"));
    }
    Ok(numbers.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?))).collect())
}

/// The map of version 1.0 at the start of an entry's content: lines with the number of parts, then each offset and
/// length, padded to a block. Returns the map and how many bytes it took.
pub fn pax_1(content: &mut impl Read) -> io::Result<(Vec<Segment>, u64)> {
    let mut lines = Lines { content, block: [0; BLOCK_BYTES], at: BLOCK_BYTES, taken: 0 };
    let count = usize::try_from(lines.number()?).unwrap_or(usize::MAX);
    check_count(count)?;
    let segments = (0..count).map(|_| Ok((lines.number()?, lines.number()?))).collect::<io::Result<_>>()?;
    Ok((segments, lines.taken))
}

struct Lines<'a, R> {
    content: &'a mut R,
    block: [u8; BLOCK_BYTES],
    at: usize,
    taken: u64,
}

impl<R: Read> Lines<'_, R> {
    fn number(&mut self) -> io::Result<u64> {
        let mut digits = Vec::new();
        while digits.len() <= MAX_DIGITS {
            if self.at == BLOCK_BYTES {
                self.content.read_exact(&mut self.block)?;
                self.at = 0;
                self.taken += BLOCK_BYTES as u64;
            }
            let byte = self.block.get(self.at).copied().unwrap_or_default();
            self.at += 1;
            match byte {
                b'\n' => return number(&digits).ok_or_else(|| bad("an unusable number in the map of a sparse file")),
                digit => digits.push(digit),
            }
        }
        Err(bad("an unusable number in the map of a sparse file"))
    }
}

fn check_count(count: usize) -> io::Result<()> {
    if count > MAX_SEGMENTS {
        return Err(bad(format!("a sparse file of more than {MAX_SEGMENTS} parts")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_that_do_not_fit_are_refused() {
        assert_eq!(Map::checked(vec![(0, 3), (5, 0)], 5, 3).unwrap().segments, [(0, 3)]);
        for (segments, real, content) in [
            (vec![(0, 3)], 2, 3),
            (vec![(3, 3), (0, 1)], 9, 4),
            (vec![(u64::MAX, 2)], 9, 2),
            (vec![(0, 3)], 9, 4),
            (vec![], u64::MAX, 0),
        ] {
            assert!(Map::checked(segments.clone(), real, content).is_err(), "{segments:?}");
        }
    }

    #[test]
    fn numbers_of_all_forms() {
        assert_eq!(field(b"00000000017\0").unwrap(), 15);
        assert_eq!(field(&[0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]).unwrap(), 1 << 32);
        assert!(field(&[0xff; 12]).is_err() && field(b"9").is_err());
        assert_eq!(pax_0(b"1,2,3,4").unwrap(), [(1, 2), (3, 4)]);
        assert!(pax_0(b"1,2,3").is_err() && pax_0(b"1,x").is_err());
        let mut block = b"1\n5\n6\n".to_vec();
        block.resize(BLOCK_BYTES, 0);
        assert_eq!(pax_1(&mut &block[..]).unwrap(), (vec![(5, 6)], 512));
        assert!(pax_1(&mut &[b'1'; BLOCK_BYTES][..]).is_err());
    }
}
