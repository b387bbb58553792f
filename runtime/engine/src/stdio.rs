//! One thread that reads all containers' outputs into their logs. Nothing that a client does can hold it up: it only
//! waits for pipes and only writes to files.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::buffer::spare_capacity;
use rustix::event::{EventfdFlags, epoll, eventfd};
use rustix::fs::{FileType, fstat};
use rustix::io::Errno;

use crate::clock;
use crate::log::writer::Log;
use crate::output::Stream;
use crate::transit::{MAX_BYTES, Place, Transit};

/// Most bytes taken from a pipe after its container ended; a process that got away could write for ever.
const MAX_DRAIN_BYTES: usize = 4 * 1024 * 1024;
/// Longest wait for the thread to take the last output of a container that ended.
const DRAIN_LIMIT: Duration = Duration::from_secs(10);
const WAKE: u64 = 0;

/// The thread's handle; when the last is dropped, the thread ends.
#[derive(Clone)]
pub struct Stdio(Arc<Handle>);

struct Handle {
    shared: Arc<Shared>,
}

struct Shared {
    epoll: OwnedFd,
    wake: OwnedFd,
    commands: Mutex<Vec<Command>>,
}

enum Command {
    Add { id: String, stream: Stream, pipe: OwnedFd, log: Option<Arc<Log>> },
    Drain { id: String, done: Sender<()> },
    Stop,
}

struct Source {
    id: String,
    stream: Stream,
    pipe: OwnedFd,
    /// `None`: nobody wants what it says.
    log: Option<Arc<Log>>,
}

impl Stdio {
    /// Starts the thread.
    pub fn start(transit: Arc<Transit>) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let shared = Arc::new(Shared { epoll, wake, commands: Mutex::new(Vec::new()) });
        let (sources, buffer) = (BTreeMap::new(), Vec::new());
        let thread = Reader { shared: shared.clone(), sources, next: WAKE + 1, buffer, transit };
        std::thread::Builder::new().name("stdio".into()).stack_size(128 * 1024).spawn(move || thread.run())?;
        Ok(Self(Arc::new(Handle { shared })))
    }

    /// Reads `pipe` into `log` from now on.
    pub fn add(&self, id: &str, stream: Stream, pipe: OwnedFd, log: Arc<Log>) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.0.send(Command::Add { id: id.into(), stream, pipe, log: Some(log) });
        Ok(())
    }

    /// Reads `pipe` to its end and drops what comes, so that whoever writes to it isn't held up.
    pub fn discard(&self, id: &str, pipe: OwnedFd) -> io::Result<()> {
        rustix::io::ioctl_fionbio(&pipe, true)?;
        self.0.send(Command::Add { id: id.into(), stream: Stream::Stdout, pipe, log: None });
        Ok(())
    }

    /// Reads what is left in the pipes of a container that has ended, and closes them.
    pub fn drain(&self, id: &str) {
        let (done, wait): (Sender<()>, Receiver<()>) = channel();
        self.0.send(Command::Drain { id: id.into(), done });
        if wait.recv_timeout(DRAIN_LIMIT).is_err() {
            ::log::error!("container {id}: its last output could not be read in time");
        }
    }
}

impl Handle {
    fn send(&self, command: Command) {
        self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner).push(command);
        // It only fails when the counter is full, and then the thread is woken anyway.
        let _ = rustix::io::write(&self.shared.wake, &1_u64.to_ne_bytes());
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}

struct Reader {
    shared: Arc<Shared>,
    /// In the order in which they came, so that of a container that has ended standard output is read first.
    sources: BTreeMap<u64, Source>,
    next: u64,
    buffer: Vec<u8>,
    transit: Arc<Transit>,
}

impl Reader {
    fn run(mut self) {
        let mut events: Vec<epoll::Event> = Vec::with_capacity(64);
        loop {
            events.clear();
            match epoll::wait(&self.shared.epoll, spare_capacity(&mut events), None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => {
                    ::log::error!("waiting for the output of containers: {error}; it is not read any more");
                    return;
                }
            }
            for event in &events {
                let token = event.data.u64();
                if token == WAKE {
                    let _ = rustix::io::read(&self.shared.wake, &mut [0_u8; 8]);
                } else if !self.read_once(token) {
                    self.close(token);
                }
            }
            let commands = std::mem::take(&mut *self.shared.commands.lock().unwrap_or_else(PoisonError::into_inner));
            for command in commands {
                match command {
                    Command::Add { id, stream, pipe, log } => self.add(Source { id, stream, pipe, log }),
                    Command::Drain { id, done } => {
                        self.drain(&id);
                        let _ = done.send(());
                    }
                    Command::Stop => return,
                }
            }
        }
    }

    fn add(&mut self, source: Source) {
        let token = self.next;
        self.next += 1;
        let data = epoll::EventData::new_u64(token);
        if let Err(error) = epoll::add(&self.shared.epoll, &source.pipe, data, epoll::EventFlags::IN) {
            ::log::error!("container {}: its output cannot be watched: {error}", source.id);
            return;
        }
        self.sources.insert(token, source);
    }

    /// Reads once; `false`: the pipe is at its end. One read a turn, so that nobody keeps the others waiting.
    fn read_once(&mut self, token: u64) -> bool {
        let Some(source) = self.sources.get(&token) else { return true };
        matches!(take(source, &self.transit, &mut self.buffer), Taken::Some(_) | Taken::Nothing)
    }

    fn drain(&mut self, id: &str) {
        let tokens: Vec<u64> = self.sources.iter().filter(|(_, s)| s.id == id).map(|(token, _)| *token).collect();
        for token in tokens {
            let Some(source) = self.sources.get(&token) else { continue };
            let mut taken = 0;
            while let Taken::Some(bytes) = take(source, &self.transit, &mut self.buffer) {
                taken += bytes;
                if taken > MAX_DRAIN_BYTES {
                    break;
                }
            }
            self.close(token);
        }
    }

    fn close(&mut self, token: u64) {
        if let Some(source) = self.sources.remove(&token) {
            // PID 1 has a copy of the pipe, so closing ours would not take it out of epoll.
            let _ = epoll::delete(&self.shared.epoll, source.pipe.as_fd());
        }
    }
}

enum Taken {
    Some(usize),
    Nothing,
    End,
}

fn take(source: &Source, transit: &Transit, buffer: &mut Vec<u8>) -> Taken {
    let unix_ns = clock::unix_ns();
    let taken = match &source.log {
        Some(log) if is_pipe(source.pipe.as_fd()) => {
            let place = Place { id: source.id.clone(), stream: source.stream, unix_ns, at: log.end_position() };
            transit.take(source.pipe.as_fd(), &place, buffer)
        }
        _ => {
            buffer.resize(MAX_BYTES, 0);
            rustix::io::read(&source.pipe, buffer.as_mut_slice())
        }
    };
    match taken {
        Ok(0) => Taken::End,
        Ok(bytes) => {
            if let Some(log) = &source.log {
                log.append(source.stream, unix_ns, buffer.get(..bytes).unwrap_or_default());
            }
            if let Err(error) = transit.clear() {
                ::log::error!("container {}: its output may be logged twice: {error}", source.id);
            }
            Taken::Some(bytes)
        }
        Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
        // A terminal that nobody has open any more.
        Err(Errno::IO) => Taken::End,
        Err(error) => {
            ::log::error!("container {}: its output cannot be read: {error}", source.id);
            Taken::End
        }
    }
}

/// Whether it can be spliced.
fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}

#[cfg(test)]
mod tests {
    use rustix::pipe::{PipeFlags, pipe_with};

    use super::*;
    use crate::log::writer::Keep;
    use crate::parent::Local;

    #[test]
    fn of_a_container_that_has_ended_standard_output_is_read_first() {
        let folder = tempfile::tempdir().unwrap();
        let transit = Arc::new(Transit::open(&Local::default()).unwrap());
        let Stdio(handle) = Stdio::start(transit.clone()).unwrap();
        let (sources, shared) = (BTreeMap::new(), handle.shared.clone());
        let mut reader = Reader { shared, sources, next: WAKE + 1, buffer: Vec::new(), transit };
        for number in 0..32 {
            let path = folder.path().join(number.to_string());
            std::fs::create_dir(&path).unwrap();
            let log = Arc::new(Log::new(&path, Keep::default()));
            for (stream, text) in [(Stream::Stdout, "out\n"), (Stream::Stderr, "err\n")] {
                let (theirs, ours) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).unwrap();
                rustix::io::write(&ours, text.as_bytes()).unwrap();
                reader.add(Source { id: number.to_string(), stream, pipe: theirs, log: Some(log.clone()) });
            }
            reader.drain(&number.to_string());
            let written = std::fs::read(path.join("log.0")).unwrap();
            let place = |text: &[u8]| written.windows(text.len()).position(|window| window == text).unwrap();
            assert!(place(b"out\n") < place(b"err\n"));
        }
    }
}
