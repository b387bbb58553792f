//! Reading a container's log, from any place and as far as wanted, while it is being written.

use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::record::{self, HEADER_BYTES, MAX_DATA_BYTES};
use super::writer::{Log, Position};
use crate::cancel::Cancel;
use crate::clock;
use crate::output::{Frame, Stream};

/// Most bytes that are read at once and given out as one frame.
const CHUNK_BYTES: usize = 64 * 1024;
/// Bytes that the first frame of several neighbours grows to.
const FRAME_BYTES: usize = 32 * 1024;

/// Told to a reader that was overtaken by the log's rotation.
const LEFT_OUT: &[u8] = b"[keel: this reader was too slow; older output was left out]\n";

/// What a reader wants.
#[derive(Clone, Debug)]
pub struct Want {
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// Nothing before this, nanoseconds since the Unix epoch.
    pub since_ns: u64,
    /// Nothing after this.
    pub until_ns: u64,
    /// A timestamp before each line.
    pub timestamps: bool,
    /// What stands before each line, behind the timestamp; empty: nothing.
    pub details: Vec<u8>,
    /// The run to follow to its end; `None`: end with what is there.
    pub follow: Option<u64>,
}

impl Default for Want {
    /// All there is, as it is.
    fn default() -> Self {
        let details = Vec::new();
        Self { stdout: true, stderr: true, since_ns: 0, until_ns: u64::MAX, timestamps: false, details, follow: None }
    }
}

/// Where a reader begins.
pub enum From {
    /// With the oldest record.
    Start,
    /// With what is written from now on.
    End,
    /// With the last so many lines.
    Tail(usize),
}

/// Reads records one after the other; see [`Cursor::next`].
pub struct Cursor {
    log: Arc<Log>,
    want: Want,
    bell: Cancel,
    at: Position,
    file: Option<File>,
    chunk: Vec<u8>,
    chunk_at: usize,
    /// Everything there was when reading began; the end for readers that don't follow.
    first_end: Position,
    /// Whether the next record of stdout, of stderr begins a line.
    line_starts: [bool; 2],
    /// Whether to say next that something was left out.
    note: bool,
}

impl Cursor {
    /// A reader of `log`.
    pub fn new(log: Arc<Log>, want: Want, from: From, bell: Cancel) -> io::Result<Self> {
        log.listen(&bell);
        let first_end = log.view(0).end;
        let at = match from {
            From::End => first_end,
            From::Start | From::Tail(_) => Position { file: log.oldest(), offset: 0 },
        };
        let mut cursor = Self {
            log,
            want,
            bell,
            at,
            file: None,
            chunk: Vec::new(),
            chunk_at: 0,
            first_end,
            line_starts: [true; 2],
            note: false,
        };
        if let From::Tail(lines) = from {
            cursor.skip_to_tail(lines)?;
        }
        Ok(cursor)
    }

    /// The bell that ends [`Cursor::next`].
    pub fn bell(&self) -> &Cancel {
        &self.bell
    }

    /// The next output, waiting for it; `None`: the end, or cancelled.
    pub fn next(&mut self) -> io::Result<Option<Frame>> {
        loop {
            let rings = self.bell.rings();
            if self.bell.is_cancelled() {
                return Ok(None);
            }
            let limit = self.limit();
            match self.read(limit.0)? {
                Step::Frame(frame) => return Ok(Some(frame)),
                Step::Over => return Ok(None),
                Step::CaughtUp if limit.1 => return Ok(None),
                Step::CaughtUp => {
                    let deadline = self.until_deadline();
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return Ok(None);
                    }
                    self.bell.wait(rings, deadline);
                }
            }
        }
    }

    /// How far may be read now, and whether the end is there.
    fn limit(&self) -> (Position, bool) {
        match self.want.follow {
            None => (self.first_end, true),
            Some(run) => {
                let view = self.log.view(run);
                (view.run_end.unwrap_or(view.end), view.run_end.is_some())
            }
        }
    }

    fn until_deadline(&self) -> Option<Instant> {
        if self.want.until_ns == u64::MAX {
            return None;
        }
        let until = UNIX_EPOCH + Duration::from_nanos(self.want.until_ns);
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        Instant::now().checked_add(left)
    }

    /// Reads up to a frame's worth of wanted records before `limit`.
    fn read(&mut self, limit: Position) -> io::Result<Step> {
        let mut frame: Option<Frame> = None;
        loop {
            if std::mem::take(&mut self.note) {
                return Ok(Step::Frame(Frame { stream: Stream::Stderr, data: LEFT_OUT.to_vec() }));
            }
            if !self.fill(limit)? {
                return Ok(frame.map_or(Step::CaughtUp, Step::Frame));
            }
            let Some(record) = self.chunk.get(self.chunk_at..).and_then(record::decode) else {
                return Ok(frame.map_or(Step::CaughtUp, Step::Frame));
            };
            if record.unix_ns > self.want.until_ns {
                return Ok(frame.map_or(Step::Over, Step::Frame));
            }
            let side = usize::from(record.stream == Stream::Stderr);
            let wanted = if side == 0 { self.want.stdout } else { self.want.stderr };
            if wanted && record.unix_ns >= self.want.since_ns {
                let frame = match &mut frame {
                    Some(full) if full.stream != record.stream || full.data.len() >= FRAME_BYTES => break,
                    Some(frame) => frame,
                    empty => empty.insert(Frame { stream: record.stream, data: Vec::new() }),
                };
                if self.line_starts[side] {
                    if self.want.timestamps {
                        frame.data.extend_from_slice(clock::rfc3339(record.unix_ns).as_bytes());
                        frame.data.push(b' ');
                    }
                    frame.data.extend_from_slice(&self.want.details);
                }
                frame.data.extend_from_slice(record.data);
            }
            self.line_starts[side] = record.ends_line;
            let size = record.size_bytes();
            self.chunk_at += size;
            self.at.offset += size as u64;
        }
        Ok(frame.map_or(Step::CaughtUp, Step::Frame))
    }

    /// Makes sure that a whole record lies at `chunk_at`; `false`: there is none before `limit`.
    fn fill(&mut self, limit: Position) -> io::Result<bool> {
        // At most two steps to the next file (there are two) and one chunk.
        for _ in 0..4 {
            if self.chunk.get(self.chunk_at..).and_then(record::decode).is_some() {
                return Ok(true);
            }
            if self.at >= limit {
                return Ok(false);
            }
            if self.file.is_none() {
                self.file = self.log.file(self.at.file)?;
            }
            let Some(file) = &self.file else {
                let oldest = self.log.oldest();
                self.left_out(oldest);
                continue;
            };
            let end = if self.at.file == limit.file { limit.offset } else { file.metadata()?.len() };
            if self.at.offset >= end {
                self.next_file(self.at.file + 1);
                continue;
            }
            let want = (end - self.at.offset).min(CHUNK_BYTES as u64) as usize;
            self.chunk.resize(want, 0);
            file.read_exact_at(&mut self.chunk, self.at.offset)?;
            self.chunk_at = 0;
            if record::decode(&self.chunk).is_none() {
                // Can't be read, so go on behind it.
                self.next_file(self.at.file + 1);
            }
        }
        Ok(false)
    }

    fn next_file(&mut self, number: u64) {
        self.at = Position { file: number, offset: 0 };
        self.file = None;
        self.chunk.clear();
        self.chunk_at = 0;
    }

    /// The file at hand was rotated away before it could be read.
    fn left_out(&mut self, oldest: u64) {
        self.next_file(oldest.max(self.at.file + 1));
        self.note = true;
    }

    /// Moves to where the last `lines` lines begin.
    fn skip_to_tail(&mut self, lines: usize) -> io::Result<()> {
        let start = self.at;
        let mut starts: VecDeque<Position> = VecDeque::new();
        let mut begins = [true; 2];
        // Bounded by the two files' size.
        while self.fill(self.first_end)? {
            let Some(record) = self.chunk.get(self.chunk_at..).and_then(record::decode) else { break };
            let side = usize::from(record.stream == Stream::Stderr);
            let wanted = if side == 0 { self.want.stdout } else { self.want.stderr };
            if wanted && std::mem::replace(&mut begins[side], record.ends_line) {
                starts.push_back(self.at);
                if starts.len() > lines {
                    starts.pop_front();
                }
            }
            let size = record.size_bytes();
            self.chunk_at += size;
            self.at.offset += size as u64;
        }
        let at = if lines == 0 { self.first_end } else { starts.front().copied().unwrap_or(start) };
        self.next_file(at.file);
        self.at = at;
        Ok(())
    }
}

enum Step {
    Frame(Frame),
    CaughtUp,
    Over,
}

const _: () = assert!(CHUNK_BYTES > HEADER_BYTES + MAX_DATA_BYTES);
