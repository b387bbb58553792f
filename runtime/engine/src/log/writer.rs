//! Appending to a container's log. Files are `log.<number>`; the newest is written, the one before it is kept.
//! Not synced: output is worth less than the disk's life, and a torn tail is cut off at the next opening.

use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::{self, HEADER_BYTES, MAX_DATA_BYTES};
use crate::cancel::{Bells, Cancel};
use crate::output::Stream;

/// A file is rotated before it grows beyond this.
pub const MAX_FILE_BYTES: u64 = 10 * 1024 * 1024;
/// Ends of runs that are remembered for readers that still follow them.
const MAX_RUN_ENDS: usize = 8;

/// A container's log, shared by the thread that writes it and by its readers.
pub struct Log {
    folder: PathBuf,
    max_file_bytes: u64,
    state: Mutex<State>,
    bells: Bells,
}

/// Where something is in a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// Number of the file.
    pub file: u64,
    /// Offset in it, in bytes.
    pub offset: u64,
}

struct State {
    file: File,
    /// The file before it. Both stay open, so that clients still get the last output of a container that `--rm` has
    /// removed meanwhile.
    previous: Option<(u64, File)>,
    end: Position,
    buffer: Vec<u8>,
    /// Runs that began since the log was opened; the last is going on if `running`.
    runs: u64,
    running: bool,
    run_ends: VecDeque<(u64, Position)>,
    write_failed: bool,
}

/// What a reader needs to know to go on.
pub struct View {
    /// Everything before this is complete.
    pub end: Position,
    /// Where the run that is followed ended, once it did.
    pub run_end: Option<Position>,
}

impl Log {
    /// Opens the log in `folder`, which exists; makes the first file if there is none.
    pub fn open(folder: &Path) -> io::Result<Self> {
        Self::open_with(folder, MAX_FILE_BYTES)
    }

    /// The same with another limit, for tests.
    pub(crate) fn open_with(folder: &Path, max_file_bytes: u64) -> io::Result<Self> {
        let number = numbers(folder)?.into_iter().max().unwrap_or(0);
        let path = folder.join(format!("log.{number}"));
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let length = file.metadata()?.len();
        let whole = whole_bytes(&mut file)?;
        if whole < length {
            ::log::warn!("{}: the last {} bytes are torn; cut off", path.display(), length - whole);
            file.set_len(whole)?;
        }
        let before = number.checked_sub(1);
        let previous = before.and_then(|before| Some((before, File::open(folder.join(format!("log.{before}"))).ok()?)));
        let state = State {
            file,
            previous,
            end: Position { file: number, offset: whole },
            buffer: Vec::new(),
            runs: 0,
            running: false,
            run_ends: VecDeque::new(),
            write_failed: false,
        };
        Ok(Self { folder: folder.into(), max_file_bytes, state: Mutex::new(state), bells: Bells::default() })
    }

    /// Appends what was read at `unix_ns`. A failure (disk full) loses these bytes, is logged once, and stops nobody.
    pub fn append(&self, stream: Stream, unix_ns: u64, data: &[u8]) {
        let mut state = self.lock();
        let result = self.try_append(&mut state, stream, unix_ns, data);
        match result {
            Ok(()) => state.write_failed = false,
            Err(error) => {
                if !state.write_failed {
                    ::log::error!("{}: cannot write the log, output is lost: {error}", self.folder.display());
                }
                state.write_failed = true;
                // Part of a record may be there: it must not stay before the next one.
                let _ = state.file.set_len(state.end.offset);
            }
        }
        drop(state);
        self.bells.ring();
    }

    fn try_append(&self, state: &mut State, stream: Stream, unix_ns: u64, data: &[u8]) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut state.buffer);
        buffer.clear();
        record::encode(&mut buffer, stream, unix_ns, data);
        if state.end.offset > 0 && state.end.offset + buffer.len() as u64 > self.max_file_bytes {
            self.rotate(state)?;
        }
        let result = state.file.write_all(&buffer);
        if result.is_ok() {
            state.end.offset += buffer.len() as u64;
        }
        // Kept for the next call unless it grew unusually.
        if buffer.capacity() <= 256 * 1024 {
            state.buffer = buffer;
        }
        result
    }

    fn rotate(&self, state: &mut State) -> io::Result<()> {
        let next = state.end.file + 1;
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(self.path(next))?;
        state.previous = Some((state.end.file, std::mem::replace(&mut state.file, file)));
        state.end = Position { file: next, offset: 0 };
        for old in numbers(&self.folder)?.into_iter().filter(|number| number + 1 < next) {
            fs::remove_file(self.path(old))?;
        }
        Ok(())
    }

    /// A run of the container begins.
    pub fn begin_run(&self) {
        let mut state = self.lock();
        state.runs += 1;
        state.running = true;
    }

    /// The run is over and all its output is here: its followers end.
    pub fn end_run(&self) {
        let mut state = self.lock();
        if state.running {
            state.running = false;
            let end = (state.runs, state.end);
            state.run_ends.push_back(end);
            if state.run_ends.len() > MAX_RUN_ENDS {
                state.run_ends.pop_front();
            }
        }
        drop(state);
        self.bells.ring();
    }

    /// The run that goes on, if one does, else the next one, and whether it has begun.
    pub fn run(&self) -> (u64, bool) {
        let state = self.lock();
        if state.running { (state.runs, true) } else { (state.runs + 1, false) }
    }

    /// The log will never run again (the container is removed): followers of a run that never began end, too.
    pub fn close(&self) {
        let mut state = self.lock();
        let end = (u64::MAX, state.end);
        state.running = false;
        state.run_ends.push_back(end);
        drop(state);
        self.bells.ring();
    }

    /// What a reader that follows `run` may read.
    pub fn view(&self, run: u64) -> View {
        let state = self.lock();
        let run_end = state.run_ends.iter().find(|(ended, _)| *ended >= run).map(|(_, end)| *end);
        View { end: state.end, run_end }
    }

    /// Wakes `bell` whenever something is added.
    pub fn listen(&self, bell: &Cancel) {
        self.bells.add(bell);
    }

    /// File `number`, to be read at offsets; `None` if it was rotated away.
    pub fn file(&self, number: u64) -> io::Result<Option<File>> {
        let state = self.lock();
        match &state.previous {
            _ if number == state.end.file => state.file.try_clone().map(Some),
            Some((before, file)) if *before == number => file.try_clone().map(Some),
            _ => Ok(None),
        }
    }

    /// Number of the oldest file that is there.
    pub fn oldest(&self) -> u64 {
        let state = self.lock();
        state.previous.as_ref().map_or(state.end.file, |(number, _)| *number)
    }

    /// Path of file `number`.
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("log.{number}"))
    }

    /// Path of the file that is being written.
    pub fn current_path(&self) -> PathBuf {
        let number = self.lock().end.file;
        self.path(number)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Numbers of the log files in `folder`.
fn numbers(folder: &Path) -> io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir(folder)? {
        let name = entry?.file_name();
        numbers.extend(name.to_str().and_then(|name| name.strip_prefix("log.")?.parse::<u64>().ok()));
    }
    Ok(numbers)
}

/// Bytes at the start of `file` that are whole records.
fn whole_bytes(file: &mut File) -> io::Result<u64> {
    file.seek(SeekFrom::Start(0))?;
    let mut reader = io::BufReader::with_capacity(64 * 1024, file);
    let mut record = vec![0; HEADER_BYTES + MAX_DATA_BYTES];
    let mut whole = 0;
    loop {
        let Some(header) = record.get_mut(..HEADER_BYTES) else { return Ok(whole) };
        if !read_all(&mut reader, header)? {
            return Ok(whole);
        }
        let length = u32::from_le_bytes([header[4], header[5], header[6], header[7]]) as usize;
        let Some(data) = record.get_mut(HEADER_BYTES..HEADER_BYTES + length) else { return Ok(whole) };
        if !read_all(&mut reader, data)? {
            return Ok(whole);
        }
        match record::decode(&record) {
            Some(found) => whole += found.size_bytes() as u64,
            None => return Ok(whole),
        }
    }
}

/// Fills `into`; `false` if the file ends before.
fn read_all(reader: &mut impl Read, into: &mut [u8]) -> io::Result<bool> {
    match reader.read_exact(into) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}
