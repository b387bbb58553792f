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

/// How much of a log is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// A file is rotated before it grows beyond this, bytes.
    pub file_bytes: u64,
    /// Files, the one that is written included; at least 1.
    pub files: u64,
}

impl Default for Keep {
    fn default() -> Self {
        Self { file_bytes: 10 * 1024 * 1024, files: 2 }
    }
}

/// Ends of runs that are remembered for readers that still follow them.
const MAX_RUN_ENDS: usize = 8;

/// A container's log, shared by the thread that writes it and by its readers.
pub struct Log {
    folder: PathBuf,
    keep: Keep,
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

#[derive(Default)]
struct State {
    /// `None`: not looked at yet. A host may have thousands of containers that don't run, whose logs nobody reads.
    files: Option<Files>,
    buffer: Vec<u8>,
    /// Runs that began since the log was opened; the last is going on if `running`.
    runs: u64,
    running: bool,
    run_ends: VecDeque<(u64, Position)>,
    write_failed: bool,
}

/// The files of a log that is in use.
struct Files {
    file: File,
    /// The file before it. Both stay open, so that clients still get the last output of a container that `--rm` has
    /// removed meanwhile.
    previous: Option<(u64, File)>,
    end: Position,
}

/// What a reader needs to know to go on.
pub struct View {
    /// Everything before this is complete.
    pub end: Position,
    /// Where the run that is followed ended, once it did.
    pub run_end: Option<Position>,
}

impl Log {
    /// The log in `folder`, which exists. Nothing is read or made before it is used.
    pub fn new(folder: &Path, keep: Keep) -> Self {
        Self { folder: folder.into(), keep, state: Mutex::default(), bells: Bells::default() }
    }

    /// Opens the files, makes the first if there is none, and cuts a torn tail off.
    fn open(&self) -> io::Result<Files> {
        let number = numbers(&self.folder)?.into_iter().max().unwrap_or(0);
        let path = self.path(number);
        let mut file = OpenOptions::new().read(true).append(true).create(true).open(&path)?;
        let length = file.metadata()?.len();
        let whole = whole_bytes(&mut file)?;
        if whole < length {
            ::log::warn!("{}: the last {} bytes are torn; cut off", path.display(), length - whole);
            file.set_len(whole)?;
        }
        let before = number.checked_sub(1);
        let previous = before.and_then(|before| Some((before, File::open(self.path(before)).ok()?)));
        Ok(Files { file, previous, end: Position { file: number, offset: whole } })
    }

    /// The files, opened if they weren't.
    fn files<'a>(&self, state: &'a mut State) -> io::Result<&'a mut Files> {
        match &mut state.files {
            Some(files) => Ok(files),
            none => Ok(none.insert(self.open()?)),
        }
    }

    /// The same where there is nobody to tell of a failure; it is logged once.
    fn try_files<'a>(&self, state: &'a mut State) -> Option<&'a mut Files> {
        if state.files.is_none() {
            match self.open() {
                Ok(files) => state.files = Some(files),
                Err(error) if !state.write_failed => {
                    ::log::error!("{}: cannot open the log: {error}", self.folder.display());
                    state.write_failed = true;
                }
                Err(_) => {}
            }
        }
        state.files.as_mut()
    }

    /// Appends what was read at `unix_ns`. A failure (disk full) loses these bytes, is logged once, and stops nobody.
    pub fn append(&self, stream: Stream, unix_ns: u64, data: &[u8]) {
        let mut state = self.lock();
        // A record is never split over files, so none may be larger than a file.
        let most = usize::try_from(self.keep.file_bytes / 2).unwrap_or(usize::MAX).max(1);
        let result = data.chunks(most).try_for_each(|part| self.try_append(&mut state, stream, unix_ns, part));
        match result {
            Ok(()) => state.write_failed = false,
            Err(error) => {
                if !state.write_failed {
                    ::log::error!("{}: cannot write the log, output is lost: {error}", self.folder.display());
                }
                state.write_failed = true;
                // Part of a record may be there: it must not stay before the next one.
                if let Some(files) = &state.files {
                    let _ = files.file.set_len(files.end.offset);
                }
            }
        }
        drop(state);
        self.bells.ring();
    }

    /// Appends what a predecessor was about to append at `at` when it was killed. Whatever it had written from there on is
    /// part of that, and goes.
    pub fn redo(&self, at: Position, stream: Stream, unix_ns: u64, data: &[u8]) {
        if let Err(error) = self.cut(at) {
            ::log::error!("{}: cannot go back in the log, output may be there twice: {error}", self.folder.display());
        }
        self.append(stream, unix_ns, data);
    }

    fn cut(&self, at: Position) -> io::Result<()> {
        let mut state = self.lock();
        for newer in numbers(&self.folder)?.into_iter().filter(|number| *number > at.file) {
            OpenOptions::new().write(true).open(self.path(newer))?.set_len(0)?;
        }
        // Looked at anew.
        state.files = None;
        let files = self.files(&mut state)?;
        if files.end.file == at.file && files.end.offset > at.offset {
            files.file.set_len(at.offset)?;
            files.end = at;
        } else if let Some((number, previous)) = &files.previous
            && *number == at.file
            && previous.metadata()?.len() > at.offset
        {
            OpenOptions::new().write(true).open(self.path(at.file))?.set_len(at.offset)?;
        }
        Ok(())
    }

    fn try_append(&self, state: &mut State, stream: Stream, unix_ns: u64, data: &[u8]) -> io::Result<()> {
        let mut buffer = std::mem::take(&mut state.buffer);
        buffer.clear();
        record::encode(&mut buffer, stream, unix_ns, data);
        let files = self.files(state)?;
        if files.end.offset > 0 && files.end.offset + buffer.len() as u64 > self.keep.file_bytes {
            self.rotate(files)?;
        }
        let result = files.file.write_all(&buffer);
        if result.is_ok() {
            files.end.offset += buffer.len() as u64;
        }
        // Kept for the next call unless it grew unusually.
        if buffer.capacity() <= 256 * 1024 {
            state.buffer = buffer;
        }
        result
    }

    fn rotate(&self, files: &mut Files) -> io::Result<()> {
        let next = files.end.file + 1;
        let file = OpenOptions::new().read(true).append(true).create_new(true).open(self.path(next))?;
        files.previous = Some((files.end.file, std::mem::replace(&mut files.file, file)));
        files.end = Position { file: next, offset: 0 };
        for old in numbers(&self.folder)?.into_iter().filter(|number| number + self.keep.files <= next) {
            fs::remove_file(self.path(old))?;
        }
        Ok(())
    }

    /// A run of the container begins.
    pub fn begin_run(&self) {
        let mut state = self.lock();
        state.runs += 1;
        state.running = true;
        // Now, so that nothing lies between what is read from a pipe and what is written: it would be lost with a
        // daemon that is killed there.
        let _ = self.try_files(&mut state);
    }

    /// The run is over and all its output is here: its followers end.
    pub fn end_run(&self) {
        let mut state = self.lock();
        if state.running {
            state.running = false;
            let end = (state.runs, self.end(&mut state));
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
        // Its folder may be gone: what isn't open can't be read any more.
        let end = (u64::MAX, state.files.as_ref().map_or(Position { file: 0, offset: 0 }, |files| files.end));
        state.running = false;
        state.run_ends.push_back(end);
        drop(state);
        self.bells.ring();
    }

    /// What a reader that follows `run` may read.
    pub fn view(&self, run: u64) -> View {
        let mut state = self.lock();
        let end = self.end(&mut state);
        let run_end = state.run_ends.iter().find(|(ended, _)| *ended >= run).map(|(_, end)| *end);
        View { end, run_end }
    }

    /// Where the next record goes, unless it is the first of a new file.
    pub fn end_position(&self) -> Position {
        self.end(&mut self.lock())
    }

    /// Wakes `bell` whenever something is added.
    pub fn listen(&self, bell: &Cancel) {
        self.bells.add(bell);
    }

    /// File `number`, to be read at offsets; `None` if it was rotated away.
    pub fn file(&self, number: u64) -> io::Result<Option<File>> {
        let mut state = self.lock();
        let files = self.files(&mut state)?;
        match &files.previous {
            _ if number == files.end.file => files.file.try_clone().map(Some),
            Some((before, file)) if *before == number => file.try_clone().map(Some),
            // Older ones aren't held open: a container that is removed takes them along.
            _ => match File::open(self.path(number)) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                other => other.map(Some),
            },
        }
    }

    /// Number of the oldest file that is there.
    pub fn oldest(&self) -> u64 {
        let mut state = self.lock();
        let open = self
            .try_files(&mut state)
            .map_or(0, |files| files.previous.as_ref().map_or(files.end.file, |(number, _)| *number));
        numbers(&self.folder).ok().and_then(|all| all.into_iter().min()).map_or(open, |least| least.min(open))
    }

    /// Path of file `number`.
    pub fn path(&self, number: u64) -> PathBuf {
        self.folder.join(format!("log.{number}"))
    }

    /// Path of the file that is being written.
    pub fn current_path(&self) -> PathBuf {
        let number = self.end(&mut self.lock()).file;
        self.path(number)
    }

    /// Where the next record goes. A log that can't be opened has nothing to read.
    fn end(&self, state: &mut State) -> Position {
        self.try_files(state).map_or(Position { file: 0, offset: 0 }, |files| files.end)
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
