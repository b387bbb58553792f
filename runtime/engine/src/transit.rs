//! Output on its way from a container's pipe to its log, kept where this program's sudden end doesn't lose it.
//!
//! What is read from a pipe is gone from there, so a daemon that is killed before it has written it down would lose it. So
//! output doesn't go through this program's memory alone: the kernel moves it from the pipe to a file in memory
//! (splice(2)), of which PID 1 has a copy, and that file says beforehand where in which log it belongs. Whoever finds it
//! there after a restart writes the log anew from that place, so that nothing is missing and nothing is there twice.
//!
//! Terminals can't be spliced: of one's output, what was read last may be lost.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{MemfdFlags, fstat, ftruncate, memfd_create};
use rustix::io::{pread, pwrite};
use rustix::pipe::{SpliceFlags, splice};

use crate::error::{Doing, Error};
use crate::log::writer::Position;
use crate::output::Stream;
use crate::parent::InitLink;

/// Under which PID 1 keeps the file.
pub const NAME: &str = "stdio-transit";
/// First bytes of the file, and its format.
const MAGIC: u64 = u64::from_le_bytes(*b"transit1");
/// Bytes before the output: magic, time, file, offset, stream, ID.
const HEADER_BYTES: usize = 8 + 8 + 8 + 8 + 8 + ID_BYTES;
/// Bytes of a container's ID.
const ID_BYTES: usize = 64;
/// Most output at once (the usual capacity of a pipe).
pub const MAX_BYTES: usize = 64 * 1024;

/// Where output belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The container.
    pub id: String,
    /// Its stream.
    pub stream: Stream,
    /// When it was read, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
    /// In the log.
    pub at: Position,
}

/// The file.
pub struct Transit(OwnedFd);

impl Transit {
    /// The one that PID 1 keeps, else a new one that it keeps from now on.
    pub fn open(link: &dyn InitLink) -> Result<Self, Error> {
        if link.list_fds()?.iter().any(|name| name == NAME)
            && let Some(kept) = link.fetch_fds(NAME)?.pop()
        {
            return Ok(Self(kept));
        }
        let made = memfd_create(NAME, MemfdFlags::CLOEXEC).doing(|| "making a file in memory")?;
        link.store_fds(NAME, &[made.as_fd()])?;
        Ok(Self(made))
    }

    /// What a predecessor had taken from a pipe and may not have written down.
    pub fn left(&self) -> io::Result<Option<(Place, Vec<u8>)>> {
        let size = usize::try_from(fstat(&self.0)?.st_size).unwrap_or(0);
        if size <= HEADER_BYTES || size > HEADER_BYTES + MAX_BYTES {
            return Ok(None);
        }
        let mut header = [0; HEADER_BYTES];
        fill(self.0.as_fd(), &mut header, 0)?;
        let mut data = vec![0; size - HEADER_BYTES];
        fill(self.0.as_fd(), &mut data, HEADER_BYTES as u64)?;
        Ok(decode(&header).map(|place| (place, data)))
    }

    /// Takes what is in a pipe that doesn't block; `into` gets it. 0: the pipe's end.
    pub fn take(&self, pipe: BorrowedFd<'_>, place: &Place, into: &mut Vec<u8>) -> rustix::io::Result<usize> {
        pwrite(&self.0, &encode(place), 0)?;
        let mut offset = HEADER_BYTES as u64;
        let count = splice(pipe, None, &self.0, Some(&mut offset), MAX_BYTES, SpliceFlags::NONBLOCK)?;
        into.resize(count, 0);
        fill(self.0.as_fd(), into, HEADER_BYTES as u64)?;
        Ok(count)
    }

    /// It is written down.
    pub fn clear(&self) -> rustix::io::Result<()> {
        ftruncate(&self.0, HEADER_BYTES as u64)
    }
}

/// Reads all of `into` at an offset.
fn fill(file: BorrowedFd<'_>, mut into: &mut [u8], mut offset: u64) -> rustix::io::Result<()> {
    while !into.is_empty() {
        match pread(file, &mut *into, offset) {
            Ok(0) => return Err(rustix::io::Errno::IO),
            Ok(count) => {
                into = into.get_mut(count..).unwrap_or_default();
                offset += count as u64;
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn encode(place: &Place) -> [u8; HEADER_BYTES] {
    let stream = match place.stream {
        Stream::Stdout => 1,
        Stream::Stderr => 2,
    };
    let mut header = [0; HEADER_BYTES];
    let (numbers, id) = header.split_at_mut(HEADER_BYTES - ID_BYTES);
    let words = [MAGIC, place.unix_ns, place.at.file, place.at.offset, stream];
    for (into, word) in numbers.chunks_exact_mut(8).zip(words) {
        into.copy_from_slice(&u64::to_le_bytes(word));
    }
    for (into, byte) in id.iter_mut().zip(place.id.bytes()) {
        *into = byte;
    }
    header
}

fn decode(header: &[u8; HEADER_BYTES]) -> Option<Place> {
    let (numbers, id) = header.split_at(HEADER_BYTES - ID_BYTES);
    let (words, _) = numbers.as_chunks::<8>();
    let [magic, unix_ns, file, offset, stream] = words else { return None };
    let stream = match (u64::from_le_bytes(*magic), u64::from_le_bytes(*stream)) {
        (MAGIC, 1) => Stream::Stdout,
        (MAGIC, 2) => Stream::Stderr,
        _ => return None,
    };
    let at = Position { file: u64::from_le_bytes(*file), offset: u64::from_le_bytes(*offset) };
    let id = std::str::from_utf8(id).ok()?.trim_end_matches('\0').to_owned();
    Some(Place { id, stream, unix_ns: u64::from_le_bytes(*unix_ns), at })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::Cancel;
    use crate::log::reader::{Cursor, From, Want};
    use crate::log::writer::{Keep, Log};
    use crate::parent::Local;

    fn place(at: Position) -> Place {
        Place { id: "c".repeat(ID_BYTES), stream: Stream::Stderr, unix_ns: 7, at }
    }

    fn text(log: &Arc<Log>) -> String {
        let mut cursor = Cursor::new(log.clone(), Want::default(), From::Start, Cancel::new()).unwrap();
        let mut bytes = Vec::new();
        while let Some(frame) = cursor.next().unwrap() {
            bytes.extend(frame.data);
        }
        String::from_utf8(bytes).unwrap()
    }

    /// A daemon that is killed `when`, and what its successor makes of the log.
    fn killed(keep: Keep, when: fn(&Log, &Place, &[u8])) -> String {
        let (folder, link) = (tempfile::tempdir().unwrap(), Local::default());
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let log = Log::new(folder.path(), keep);
        log.append(Stream::Stdout, 1, b"before\n");
        rustix::io::write(&ours, b"one\ntwo\n").unwrap();
        let (mut data, place) = (Vec::new(), place(log.end_position()));
        assert_eq!(Transit::open(&link).unwrap().take(theirs.as_fd(), &place, &mut data), Ok(8));
        when(&log, &place, &data);
        drop(log);
        let (found, data) = Transit::open(&link).unwrap().left().unwrap().unwrap();
        assert_eq!(found, place);
        let log = Arc::new(Log::new(folder.path(), keep));
        log.redo(found.at, found.stream, found.unix_ns, &data);
        log.append(Stream::Stdout, 9, b"after\n");
        text(&log)
    }

    #[test]
    fn output_is_there_once_wherever_a_daemon_was_killed() {
        let whole = "before\none\ntwo\nafter\n";
        assert_eq!(killed(Keep::default(), |_, _, _| {}), whole);
        assert_eq!(killed(Keep::default(), |log, place, data| log.append(place.stream, 7, data)), whole);
        assert_eq!(killed(Keep::default(), |log, place, _| log.append(place.stream, 7, b"one\n")), whole);
        let small = Keep { file_bytes: 60, files: 9 };
        assert_eq!(killed(small, |log, place, data| log.append(place.stream, 7, data)), whole);
    }

    #[test]
    fn what_was_written_down_is_not_left_and_a_pipe_that_is_empty_or_at_its_end_leaves_nothing() {
        let link = Local::default();
        let transit = Transit::open(&link).unwrap();
        assert_eq!(transit.left().unwrap(), None);
        let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
        let (mut data, place) = (Vec::new(), place(Position { file: 3, offset: 9 }));
        let mut take = || transit.take(theirs.as_fd(), &place, &mut data);
        assert_eq!(take(), Err(rustix::io::Errno::AGAIN));
        rustix::io::write(&ours, b"x").unwrap();
        assert_eq!(take(), Ok(1));
        transit.clear().unwrap();
        assert_eq!(transit.left().unwrap(), None);
        drop(ours);
        assert_eq!(take(), Ok(0));
        assert_eq!(transit.left().unwrap(), None);
    }

    #[test]
    fn what_is_no_header_is_no_place() {
        let whole = encode(&place(Position { file: 1, offset: 2 }));
        assert_eq!(decode(&whole), Some(place(Position { file: 1, offset: 2 })));
        assert_eq!(decode(&[0; HEADER_BYTES]), None);
        assert_eq!(decode(&[0xFF; HEADER_BYTES]), None);
    }
}
