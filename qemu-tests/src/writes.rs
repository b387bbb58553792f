//! What reached a machine's disk, write by write, and the states in which a power cut may leave it.
//!
//! QEMU's driver `blklogwrites` records it in the format of the kernel's dm-log-writes
//! (`Documentation/admin-guide/device-mapper/log-writes.rst`): a head, then for each request an entry of one sector, and
//! behind it what was written. Between two flushes a medium may keep any of it: whole writes, sectors of them, nothing.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use keel_spec::gpt::SECTOR_BYTES;
use rustix::fs::{FallocateFlags, fallocate};

const SECTOR: u64 = SECTOR_BYTES as u64;
const BLOCK: u64 = 4096;
/// `WRITE_LOG_MAGIC`, first in the head.
const MAGIC: u64 = 0x006a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
/// Most requests of a recording.
const MAX_OPS: usize = 1 << 20;
/// Longest write: what the kernel sends at once is far less.
const MAX_WRITE_BYTES: u64 = 1 << 30;

/// One request to the disk; offsets and lengths in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Op {
    /// Bytes were written.
    Write {
        /// Where on the disk.
        offset: u64,
        /// How many.
        length: u64,
        /// Where in the recording they are.
        at: u64,
        /// They were on the medium when the request was done (force unit access).
        forced: bool,
    },
    /// What is there is of no interest any more.
    Discard {
        /// Where on the disk.
        offset: u64,
        /// How many bytes.
        length: u64,
    },
    /// All that was written before is on the medium.
    Flush,
}

impl Op {
    /// Where it changes the disk: offset and length in bytes.
    pub fn place(&self) -> Option<(u64, u64)> {
        match self {
            Self::Write { offset, length, .. } | Self::Discard { offset, length } => Some((*offset, *length)),
            Self::Flush => None,
        }
    }
}

/// All requests to a disk while it was recorded.
pub struct Recording {
    path: PathBuf,
    file: File,
    /// In order.
    pub ops: Vec<Op>,
    /// From this offset on a write is torn between blocks of 4 KiB, before it at each sector.
    pub blocks_from: u64,
}

/// What a power cut leaves of the requests since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Everything.
    All,
    /// Everything, but of the last write only so many sectors.
    Torn(u64),
    /// Some of the writes, chosen by this seed.
    Writes(u64),
    /// Some of the sectors, chosen by this seed.
    Sectors(u64),
}

/// A state of the disk: the requests before a point, less what is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Requests that were made.
    pub upto: usize,
    /// What is left of those since the last flush.
    pub kept: Kept,
}

/// Numbers that look random and repeat for a seed (xorshift64*).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        // Small seeds differ in few bits, and zero would stay zero.
        let mut random = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        for _ in 0..4 {
            random.next();
        }
        random
    }

    /// The next number.
    #[allow(clippy::should_implement_trait)] // It never ends.
    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

impl Recording {
    /// Reads what has been recorded so far. QEMU may still be at it.
    pub fn read(path: &Path) -> Result<Self> {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let ops = parse(&file).with_context(|| format!("read the recording {}", path.display()))?;
        Ok(Self { path: path.into(), file, ops, blocks_from: u64::MAX })
    }

    /// The index behind the last flush before `upto`: from there on a power cut may lose writes.
    pub fn synced(&self, upto: usize) -> usize {
        self.ops[..upto].iter().rposition(|op| *op == Op::Flush).map_or(0, |flush| flush + 1)
    }

    /// A state between two points, any with the same likelihood, then what is lost.
    pub fn choose(&self, from: usize, to: usize, random: &mut Random) -> State {
        let upto = from + random.below((to - from + 1) as u64) as usize;
        let last = self.ops[self.synced(upto)..upto].last();
        let kept = match (random.below(4), last) {
            (0, _) | (_, None) => Kept::All,
            (1, Some(Op::Write { length, forced: false, .. })) => Kept::Torn(random.below(length / SECTOR)),
            (1 | 2, _) => Kept::Writes(random.next()),
            _ => Kept::Sectors(random.next()),
        };
        State { upto, kept }
    }

    /// Brings a disk from what it was before the recording to a state.
    pub fn apply(&self, state: &State, disk: &File) -> Result<()> {
        let synced = self.synced(state.upto);
        self.ops[..synced].iter().try_for_each(|op| self.put(op, disk))?;
        self.apply_unsynced(state, disk)
    }

    /// The same for a disk that has all that was flushed already.
    pub fn apply_unsynced(&self, state: &State, disk: &File) -> Result<()> {
        let mut random = Random::new(match state.kept {
            Kept::Writes(seed) | Kept::Sectors(seed) => seed,
            Kept::All | Kept::Torn(_) => 0,
        });
        for (index, op) in self.ops[..state.upto].iter().enumerate().skip(self.synced(state.upto)) {
            match (state.kept, op) {
                (Kept::Torn(sectors), Op::Write { .. }) if index + 1 == state.upto => {
                    let unit = self.unit(op) / SECTOR;
                    self.put_part(op, sectors / unit * unit, disk)?;
                }
                (Kept::Writes(_), Op::Write { forced: false, .. }) if random.below(2) == 0 => {}
                (Kept::Sectors(_), Op::Write { offset, length, at, forced: false }) => {
                    let bytes = self.bytes(*at, *length)?;
                    let unit = self.unit(op);
                    for (number, bytes) in (0..).zip(bytes.chunks(unit as usize)) {
                        if random.below(2) == 0 {
                            write_at(disk, bytes, offset + number * unit)?;
                        }
                    }
                }
                _ => self.put(op, disk)?,
            }
        }
        Ok(())
    }

    fn unit(&self, op: &Op) -> u64 {
        let coarse = op.place().is_some_and(|(offset, _)| offset >= self.blocks_from);
        if coarse { BLOCK } else { SECTOR }
    }

    /// Does to a disk what a request did. What was discarded reads as zeroes, as QEMU has it.
    pub fn put(&self, op: &Op, disk: &File) -> Result<()> {
        match op {
            Op::Write { offset, length, at, .. } => write_at(disk, &self.bytes(*at, *length)?, *offset),
            Op::Discard { offset, length } => {
                let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(disk, hole, *offset, *length).context("punch a hole into the disk")
            }
            Op::Flush => Ok(()),
        }
    }

    /// Does the first sectors of a write to a disk.
    pub fn put_part(&self, op: &Op, sectors: u64, disk: &File) -> Result<()> {
        match op {
            Op::Write { offset, at, .. } => write_at(disk, &self.bytes(*at, sectors * SECTOR)?, *offset),
            Op::Discard { .. } | Op::Flush => Ok(()),
        }
    }

    fn bytes(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        let mut bytes = vec![0; length as usize];
        self.file.read_exact_at(&mut bytes, at).with_context(|| format!("read {}", self.path.display()))?;
        Ok(bytes)
    }
}

fn write_at(disk: &File, bytes: &[u8], offset: u64) -> Result<()> {
    disk.write_all_at(bytes, offset).with_context(|| format!("write the disk at {offset}"))
}

fn parse(file: &File) -> Result<Vec<Op>> {
    let end = file.metadata()?.len();
    let mut head = [0; 28];
    file.read_exact_at(&mut head, 0).context("its head")?;
    let number = |bytes: &[u8], at: usize| -> Result<u64> { Ok(u64::from_le_bytes(bytes[at..at + 8].try_into()?)) };
    ensure!(number(&head, 0)? == MAGIC && number(&head, 8)? == 1, "it isn't one of dm-log-writes, version 1");
    ensure!(head[24..] == (SECTOR as u32).to_le_bytes(), "its sectors don't have {SECTOR} bytes");
    let (mut ops, mut at) = (Vec::new(), SECTOR);
    // The number of entries in the head is brought up to date now and then; what counts is what is there.
    while at + SECTOR <= end {
        let mut entry = [0; 32];
        file.read_exact_at(&mut entry, at)?;
        let (sector, sectors, flags) = (number(&entry, 0)?, number(&entry, 8)?, number(&entry, 16)?);
        if (sectors, flags) == (0, 0) {
            break;
        }
        at += SECTOR;
        let (Some(offset), Some(length)) = (sector.checked_mul(SECTOR), sectors.checked_mul(SECTOR)) else {
            bail!("entry {} reaches beyond any disk", ops.len());
        };
        match (flags & DISCARD != 0, length) {
            (true, _) => ops.push(Op::Discard { offset, length }),
            (false, 0) => {}
            (false, _) => {
                ensure!(length <= MAX_WRITE_BYTES, "entry {} writes {length} bytes", ops.len());
                if at + length > end {
                    break; // Being written at this moment.
                }
                ops.push(Op::Write { offset, length, at, forced: flags & FUA != 0 });
                at += length;
            }
        }
        if flags & FLUSH != 0 {
            ops.push(Op::Flush);
        }
        ensure!(ops.len() <= MAX_OPS, "it has more than {MAX_OPS} requests");
    }
    Ok(ops)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A recording of these writes: sector, content of each of its sectors; nothing: a flush.
    fn recording(folder: &Path, ops: &[Option<(u64, &[u8])>]) -> Recording {
        let mut log = vec![0; SECTOR_BYTES];
        log[..8].copy_from_slice(&MAGIC.to_le_bytes());
        log[8] = 1;
        log[24..28].copy_from_slice(&512u32.to_le_bytes());
        for op in ops {
            let mut entry = vec![0; SECTOR_BYTES];
            match op {
                None => entry[16] = FLUSH as u8,
                Some((sector, fill)) => {
                    entry[..8].copy_from_slice(&sector.to_le_bytes());
                    entry[8] = fill.len() as u8;
                    entry.extend(fill.iter().flat_map(|byte| [*byte; SECTOR_BYTES]));
                }
            }
            log.extend(entry);
        }
        let path = folder.join("log");
        std::fs::write(&path, log).unwrap();
        Recording::read(&path).unwrap()
    }

    fn disk_after(recording: &Recording, state: State) -> Vec<u8> {
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(4 * SECTOR).unwrap();
        recording.apply(&state, &disk).unwrap();
        let mut bytes = vec![0; 4 * SECTOR_BYTES];
        disk.read_exact_at(&mut bytes, 0).unwrap();
        bytes.chunks(SECTOR_BYTES).map(|sector| sector[0]).collect()
    }

    #[test]
    fn states_hold_what_was_flushed_and_may_lack_the_rest() {
        let folder = tempfile::tempdir().unwrap();
        let recording = recording(
            folder.path(),
            &[Some((0, &[1, 1])), None, Some((1, &[2, 2])), Some((3, &[3])), None, Some((0, &[4, 4, 4, 4]))],
        );
        assert_eq!(recording.ops.len(), 6);
        assert_eq!((recording.synced(1), recording.synced(2), recording.synced(4)), (0, 2, 2));
        let after = |upto, kept| disk_after(&recording, State { upto, kept });
        assert_eq!(after(0, Kept::All), [0, 0, 0, 0]);
        assert_eq!(after(4, Kept::All), [1, 2, 2, 3]);
        assert_eq!(after(3, Kept::Torn(1)), [1, 2, 0, 0]);
        assert_eq!(after(6, Kept::Torn(3)), [4, 4, 4, 3]);
        let coarse = Recording { blocks_from: 0, ..Recording::read(&folder.path().join("log")).unwrap() };
        assert_eq!(disk_after(&coarse, State { upto: 6, kept: Kept::Torn(3) }), [1, 2, 2, 3]);
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..40 {
            let (writes, sectors) = (after(4, Kept::Writes(seed)), after(4, Kept::Sectors(seed)));
            assert!(writes[0] == 1 && sectors[0] == 1, "what was flushed is lost: {writes:?} {sectors:?}");
            assert!(matches!(writes[1..3], [1, 0] | [2, 2]), "a write was torn: {writes:?}");
            seen.insert(writes);
            seen.insert(sectors);
        }
        assert_eq!(seen.len(), 8);
    }

    #[test]
    fn a_seed_chooses_the_same_states_again_and_all_points_come_up() {
        let folder = tempfile::tempdir().unwrap();
        let recording = recording(folder.path(), &[Some((0, &[1, 1])), None, Some((1, &[2, 2])), Some((3, &[3]))]);
        let states = |seed| {
            let mut random = Random::new(seed);
            (0..200).map(|_| recording.choose(0, 4, &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(states(7), states(7));
        assert_ne!(states(7), states(8));
        assert!((0..=4).all(|upto| states(7).iter().any(|state| state.upto == upto)));
    }

    #[test]
    fn other_files_and_recordings_that_end_in_a_write_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let whole = recording(folder.path(), &[Some((0, &[1, 1])), Some((1, &[2, 2]))]);
        let path = folder.path().join("log");
        let bytes = std::fs::read(&path).unwrap();
        std::fs::write(&path, &bytes[..bytes.len() - 1]).unwrap();
        assert_eq!(Recording::read(&path).unwrap().ops, whole.ops[..1]);
        std::fs::write(&path, [7; 2048]).unwrap();
        assert!(Recording::read(&path).is_err());
    }
}
