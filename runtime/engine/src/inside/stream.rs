//! What one piece of code writes and another reads, joined by a pipe: archives that are made while they are taken in.

use std::fmt::Display;
use std::io::{self, BufWriter, PipeReader, Read, Write};
use std::sync::{Mutex, PoisonError};

/// Bytes of stack of the thread that writes.
const STACK_BYTES: usize = 512 * 1024;
/// Bytes that go through the pipe at once.
const CHUNK_BYTES: usize = 64 * 1024;

/// Runs `write` on a thread of its own while `read` takes what it writes. Where writing fails, the reader gets that as
/// an error instead of the end, so that half of an archive is never taken for the whole.
pub fn piped<T, E: Display>(
    write: impl FnOnce(&mut dyn Write) -> Result<(), E> + Send,
    read: impl FnOnce(&mut dyn Read) -> T,
) -> io::Result<T> {
    let (reader, writer) = io::pipe()?;
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("archive".into()).stack_size(STACK_BYTES);
        thread.spawn_scoped(scope, || {
            let mut writer = BufWriter::with_capacity(CHUNK_BYTES, writer);
            let written = write(&mut writer).map_err(|error| error.to_string());
            let written = written.and_then(|()| writer.flush().map_err(|error| error.to_string()));
            // Told before the pipe closes: the reader looks when it meets the end.
            *failure.lock().unwrap_or_else(PoisonError::into_inner) = written.err();
            drop(writer.into_parts());
        })?;
        Ok(read(&mut Joined { reader, failure: &failure }))
    })
}

/// The end that is read. Dropped early, the writer's next write fails.
struct Joined<'a> {
    reader: PipeReader,
    failure: &'a Mutex<Option<String>>,
}

impl Read for Joined<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        if count == 0
            && !buffer.is_empty()
            && let Some(message) = self.failure.lock().unwrap_or_else(PoisonError::into_inner).clone()
        {
            return Err(io::Error::other(message));
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_failure_is_no_end() {
        let mut text = String::new();
        let read = piped(|out| out.write_all(b"abc"), |input| input.read_to_string(&mut text)).unwrap();
        assert_eq!((read.unwrap(), text.as_str()), (3, "abc"));
        let half = |out: &mut dyn Write| out.write_all(b"abc").and(Err(io::Error::other("the disk is gone")));
        let read = piped(half, |input| input.read_to_end(&mut Vec::new())).unwrap();
        assert_eq!(read.unwrap_err().to_string(), "the disk is gone");
    }

    #[test]
    fn a_reader_that_leaves_ends_the_writer() {
        let endless = |out: &mut dyn Write| io::copy(&mut io::repeat(0), out).map(drop);
        piped(endless, |input| input.read(&mut [0; 10]).unwrap()).unwrap();
    }
}
