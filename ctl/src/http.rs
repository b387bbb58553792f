//! As much HTTP/1.1 (RFC 9112) as is needed to speak with one server that we know: one request a connection.

use std::io::{self, BufRead, BufReader, Read};

use crate::target::Stream;

/// Longest head of an answer.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Longest line that announces a chunk.
const MAX_CHUNK_LINE_BYTES: u64 = 256;

/// The head of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Status code.
    pub status: u16,
    /// How the body ends.
    framing: Framing,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
}

/// The body of an answer; reading it ends with the body.
pub struct Body {
    stream: BufReader<Box<dyn Stream>>,
    framing: Framing,
    /// Bytes left of a body of known length, or of the current chunk.
    left: u64,
    /// Whether a chunk was read already.
    started: bool,
    ended: bool,
}

/// Writes a request's head.
pub fn render_request(method: &str, path: &str, content_length: usize) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: keel\r\nUser-Agent: keelctl/{}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {content_length}\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    )
}

/// Sends a request and reads the head of its answer.
pub fn exchange(mut stream: Box<dyn Stream>, method: &str, path: &str, body: &[u8]) -> io::Result<(Head, Body)> {
    stream.write_all(render_request(method, path, body.len()).as_bytes())?;
    stream.write_all(body)?;
    stream.flush()?;
    answer(BufReader::with_capacity(16 << 10, stream))
}

/// Sends a `POST` whose body comes from elsewhere, if the server wants it (RFC 9110, section 10.1.1), and reads the head
/// of its answer. `sent` is told how many bytes have gone.
pub fn upload(
    mut stream: Box<dyn Stream>,
    path: &str,
    length: u64,
    from: &mut dyn Read,
    sent: &mut dyn FnMut(u64),
) -> io::Result<(Head, Body)> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: keel\r\nUser-Agent: keelctl/{}\r\nConnection: close\r\n\
         Content-Type: application/x-tar\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n",
        env!("CARGO_PKG_VERSION")
    );
    stream.write_all(head.as_bytes())?;
    stream.flush()?;
    let mut stream = BufReader::with_capacity(16 << 10, stream);
    let head = read_head(&mut stream)?;
    if head.status != 100 {
        return Ok(begin(head, stream));
    }
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    while done < length {
        let most = usize::try_from(length - done).unwrap_or(usize::MAX).min(buffer.len());
        let count = from.read(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file became shorter while it was sent"));
        }
        if let Err(error) = stream.get_mut().write_all(buffer.get(..count).unwrap_or_default()) {
            // A server that has seen enough says why before it hangs up.
            return answer(stream).map_err(|_| error);
        }
        done += count as u64;
        sent(done);
    }
    stream.get_mut().flush()?;
    answer(stream)
}

fn answer(mut stream: BufReader<Box<dyn Stream>>) -> io::Result<(Head, Body)> {
    let head = read_head(&mut stream)?;
    Ok(begin(head, stream))
}

fn begin(head: Head, stream: BufReader<Box<dyn Stream>>) -> (Head, Body) {
    let left = if let Framing::Length(length) = head.framing { length } else { 0 };
    let ended = matches!(head.framing, Framing::Length(0));
    let body = Body { stream, framing: head.framing, left, started: false, ended };
    (head, body)
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Head> {
    let mut bytes = Vec::new();
    let mut limited = stream.take(MAX_HEAD_BYTES as u64);
    loop {
        let before = bytes.len();
        limited.read_until(b'\n', &mut bytes)?;
        let line = bytes.get(before..).unwrap_or_default();
        if !line.ends_with(b"\n") {
            return Err(bad("the answer's head is cut off or too long"));
        }
        if line == b"\r\n" || line == b"\n" {
            return parse_head(&bytes).ok_or_else(|| bad("the answer's head is no HTTP/1.1"));
        }
    }
}

/// Reads a head; pure, and safe on any bytes.
pub fn parse_head(bytes: &[u8]) -> Option<Head> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut lines = text.split("\r\n");
    let mut words = lines.next()?.splitn(3, ' ');
    if !words.next()?.starts_with("HTTP/1.") {
        return None;
    }
    let status: u16 = words.next()?.parse().ok().filter(|status| (100..600).contains(status))?;
    let mut framing = Framing::UntilClose;
    for line in lines.filter(|line| !line.is_empty()) {
        let (name, value) = line.split_once(':')?;
        let value = value.trim();
        if name.eq_ignore_ascii_case("transfer-encoding") && value.eq_ignore_ascii_case("chunked") {
            framing = Framing::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && framing != Framing::Chunked {
            framing = Framing::Length(value.parse().ok()?);
        }
    }
    if matches!(status, 204 | 304 | 100..=199) {
        framing = Framing::Length(0);
    }
    Some(Head { status, framing })
}

fn bad(message: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

impl Body {
    /// Goes to the next chunk; sets `ended` after the last.
    fn next_chunk(&mut self, first: bool) -> io::Result<()> {
        if !first && !self.line()?.is_empty() {
            return Err(bad("a chunk is longer than it said"));
        }
        let line = self.line()?;
        let size = line.split(';').next().unwrap_or_default().trim();
        self.left = u64::from_str_radix(size, 16).map_err(|_| bad("a chunk doesn't say its length"))?;
        self.ended = self.left == 0;
        Ok(())
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        (&mut self.stream).take(MAX_CHUNK_LINE_BYTES).read_line(&mut line)?;
        match line.strip_suffix('\n') {
            Some(text) => Ok(text.trim_end_matches('\r').to_owned()),
            None => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

impl Read for Body {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.ended || buffer.is_empty() {
            return Ok(0);
        }
        if self.framing == Framing::UntilClose {
            return self.stream.read(buffer);
        }
        if self.left == 0 {
            // `left` is 0 here only before the first chunk or after one: a known length ends at 0.
            let first = !std::mem::replace(&mut self.started, true);
            self.next_chunk(first)?;
            if self.ended {
                return Ok(0);
            }
        }
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        let count = self.stream.read(buffer.get_mut(..most).unwrap_or_default())?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.left -= count as u64;
        self.ended = self.left == 0 && matches!(self.framing, Framing::Length(_));
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A stream whose other end has said all already.
    struct Canned(io::Cursor<Vec<u8>>);
    impl Read for Canned {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0.read(buffer)
        }
    }
    impl io::Write for Canned {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn answer(text: &str) -> io::Result<(u16, String)> {
        let stream = Box::new(Canned(io::Cursor::new(text.as_bytes().to_vec())));
        let (head, mut body) = exchange(stream, "GET", "/", b"")?;
        let mut text = String::new();
        body.read_to_string(&mut text)?;
        Ok((head.status, text))
    }

    #[test]
    fn all_three_framings_are_read() {
        let ok = |text: &str| answer(text).unwrap();
        assert_eq!(ok("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhixx"), (200, "hi".into()));
        assert_eq!(ok("HTTP/1.1 200 OK\r\n\r\nhi"), (200, "hi".into()));
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n";
        assert_eq!(ok(chunked), (200, "abcde".into()));
        assert_eq!(ok("HTTP/1.1 204 No Content\r\n\r\n"), (204, String::new()));
    }

    #[test]
    fn a_body_is_sent_only_to_a_server_that_wants_it() {
        let go = |text: &str| {
            let stream = Box::new(Canned(io::Cursor::new(text.as_bytes().to_vec())));
            let mut told = Vec::new();
            let (head, _) = upload(stream, "/x", 3, &mut &b"abc"[..], &mut |sent| told.push(sent)).unwrap();
            (head.status, told)
        };
        assert_eq!(go("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n"), (200, vec![3]));
        assert_eq!(go("HTTP/1.1 409 Conflict\r\nContent-Length: 0\r\n\r\n"), (409, vec![]));
        let shorter = Box::new(Canned(io::Cursor::new(b"HTTP/1.1 100 Continue\r\n\r\n".to_vec())));
        assert!(upload(shorter, "/x", 9, &mut &b"abc"[..], &mut |_| ()).is_err());
    }

    #[test]
    fn a_body_that_is_cut_off_is_an_error() {
        assert!(answer("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nhi").is_err());
        assert!(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n").is_err());
        assert!(answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n").is_err());
        assert!(answer("HTTP/1.1 200 OK\r\n").is_err());
    }

    #[test]
    fn strange_heads_are_refused() {
        for head in ["", "SSH-2.0\r\n\r\n", "HTTP/1.1 xx\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"] {
            assert_eq!(parse_head(head.as_bytes()), None, "{head:?}");
        }
    }
}
