//! A stretch of a device, perhaps in several pieces, as one run of bytes: a partition, or a file of a FAT volume.

use std::io;

use crate::disk::Device;

/// Pieces of a device in the order in which their bytes follow each other.
#[derive(Clone)]
pub struct Area<'a> {
    device: &'a dyn Device,
    /// Where the area's bytes from this offset on are on the device: offset in the area, on the device, length.
    pieces: Vec<(u64, u64, u64)>,
    length: u64,
}

impl<'a> Area<'a> {
    /// One piece.
    pub fn new(device: &'a dyn Device, offset: u64, length: u64) -> Self {
        Self::from_pieces(device, [(offset, length)])
    }

    /// Several: offset on the device and length of each.
    pub fn from_pieces(device: &'a dyn Device, given: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let (mut pieces, mut length) = (Vec::<(u64, u64, u64)>::new(), 0);
        for (offset, bytes) in given {
            match pieces.last_mut() {
                // Pieces that touch each other are one.
                Some((_, before, so_far)) if *before + *so_far == offset => *so_far += bytes,
                _ => pieces.push((length, offset, bytes)),
            }
            length += bytes;
        }
        Self { device, pieces, length }
    }

    /// The same area, cut after so many bytes.
    pub fn cut(mut self, length: u64) -> Self {
        self.length = self.length.min(length);
        self
    }

    /// Pieces of this area: offset in it and length of each. What lies beyond its end can't be read or written.
    pub fn part(&self, given: &[(u64, u64)]) -> Self {
        let within = given.iter().flat_map(|(offset, length)| {
            let end = offset.saturating_add(*length);
            self.pieces.iter().filter_map(move |(start, place, bytes)| {
                let (from, to) = ((*offset).max(*start), end.min(start + bytes));
                (from < to).then(|| (place + (from - start), to - from))
            })
        });
        Self::from_pieces(self.device, within.collect::<Vec<_>>())
    }

    /// Where its bytes are on the device: offset and length of each piece, as far as the area goes.
    pub fn pieces(&self) -> Vec<(u64, u64)> {
        let within = self.pieces.iter().filter(|(start, ..)| *start < self.length);
        within.map(|(start, offset, bytes)| (*offset, (*bytes).min(self.length - start))).collect()
    }

    /// Its bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Fills `buffer` from an offset.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        self.each(at, buffer.len(), |offset, length| {
            done += length;
            self.device.read_at(&mut buffer[done - length..done], offset)
        })
    }

    /// Writes all of `bytes` at an offset.
    pub fn write_at(&self, bytes: &[u8], at: u64) -> io::Result<()> {
        let mut done = 0;
        self.each(at, bytes.len(), |offset, length| {
            done += length;
            self.device.write_at(&bytes[done - length..done], offset)
        })
    }

    /// Returns when everything written is on the medium.
    pub fn sync(&self) -> io::Result<()> {
        self.device.sync()
    }

    /// Drops clean cached pages, so that the area is read from the medium next.
    pub fn forget_cache(&self) -> io::Result<()> {
        self.pieces.iter().try_for_each(|(_, offset, length)| self.device.forget_cache(*offset, *length))
    }

    fn each(&self, at: u64, count: usize, mut act: impl FnMut(u64, usize) -> io::Result<()>) -> io::Result<()> {
        let end = at.checked_add(count as u64).filter(|end| *end <= self.length);
        let end = end.ok_or_else(|| io::Error::new(io::ErrorKind::UnexpectedEof, "beyond the end of the area"))?;
        let first = self.pieces.partition_point(|(start, _, length)| start + length <= at);
        for (start, offset, length) in &self.pieces[first..] {
            if *start >= end {
                break;
            }
            let (from, to) = (at.max(*start), end.min(start + length));
            act(offset + (from - start), (to - from) as usize)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::tests::MemoryDevice;

    #[test]
    fn bytes_go_to_their_pieces_and_never_beyond_the_end() {
        let device = MemoryDevice::new(100);
        let area = Area::from_pieces(&device, [(50, 10), (10, 5), (15, 5)]);
        area.write_at(&(0..20).collect::<Vec<u8>>(), 0).unwrap();
        assert_eq!(device.bytes()[50..60], (0..10).collect::<Vec<u8>>());
        assert_eq!(device.bytes()[10..20], (10..20).collect::<Vec<u8>>());
        let mut some = [0; 4];
        area.read_at(&mut some, 8).unwrap();
        assert_eq!(some, [8, 9, 10, 11]);
        assert!(area.write_at(&[0; 2], 19).is_err());
        assert!(area.cut(10).read_at(&mut some, 8).is_err());
    }
}
