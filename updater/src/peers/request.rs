//! Requests as bytes (RFC 9112), as much as serving files takes. No I/O.

/// Longest head of a request: a request line, and a `Range` of 64 ranges of a large file.
pub const MAX_HEAD_BYTES: usize = 8 << 10;
/// Most fields of a head.
const MAX_FIELDS: usize = 64;
/// Longest path.
const MAX_PATH_BYTES: usize = 512;

/// What is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Without its first slash, as it came.
    pub path: String,
    /// Whether only the head of the answer is wanted.
    pub head_only: bool,
    /// Value of `Range`.
    pub range: Option<String>,
    /// Value of `If-Range`.
    pub if_range: Option<String>,
    /// Whether the connection stays open.
    pub keep: bool,
}

/// Why a request isn't answered as asked: a status and its phrase. The connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused(pub u16, pub &'static str);

const BAD: Refused = Refused(400, "Bad Request");
const TOO_LARGE: Refused = Refused(431, "Request Header Fields Too Large");

/// Takes the first request off what came on a connection: it, and how many bytes it is long. `None`: more has to come.
pub fn parse(bytes: &[u8]) -> Result<Option<(Request, usize)>, Refused> {
    // An empty line before a request is passed over (RFC 9112, section 2.2), but only one.
    let skipped = if bytes.starts_with(b"\r\n") { 2 } else { 0 };
    let rest = &bytes[skipped..];
    let window = &rest[..rest.len().min(MAX_HEAD_BYTES)];
    let Some(end) = window.windows(4).position(|four| four == b"\r\n\r\n") else {
        return if rest.len() >= MAX_HEAD_BYTES { Err(TOO_LARGE) } else { Ok(None) };
    };
    // Line feeds alone, and characters that only confuse whoever reads along, have no place in a head.
    let text = std::str::from_utf8(&rest[..end]).map_err(|_| BAD)?;
    let mut lines = text.split("\r\n");
    let line = lines.next().unwrap_or_default();
    if text.split("\r\n").any(|line| line.bytes().any(|byte| byte < b' ' && byte != b'\t' || byte == 0x7f)) {
        return Err(BAD);
    }
    let mut request = request_line(line)?;
    fields(&mut request, lines)?;
    Ok(Some((request, skipped + end + 4)))
}

fn request_line(line: &str) -> Result<Request, Refused> {
    let words: Vec<&str> = line.split(' ').collect();
    let [method, target, version] = words[..] else { return Err(BAD) };
    let keep = match version {
        "HTTP/1.1" => true,
        "HTTP/1.0" => false,
        _ if version.starts_with("HTTP/") => return Err(Refused(505, "HTTP Version Not Supported")),
        _ => return Err(BAD),
    };
    let head_only = match method {
        "GET" => false,
        "HEAD" => true,
        _ if method.bytes().all(|byte| byte.is_ascii_uppercase()) => return Err(Refused(501, "Not Implemented")),
        _ => return Err(BAD),
    };
    // The absolute form has to be understood (RFC 9112, section 3.2.2).
    let path = match target.strip_prefix("http://") {
        Some(rest) => rest.split_once('/').ok_or(BAD)?.1,
        None => target.strip_prefix('/').ok_or(BAD)?,
    };
    if path.len() > MAX_PATH_BYTES {
        return Err(Refused(414, "URI Too Long"));
    }
    if !path.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BAD);
    }
    Ok(Request { path: path.into(), head_only, range: None, if_range: None, keep })
}

fn fields<'a>(request: &mut Request, lines: impl Iterator<Item = &'a str>) -> Result<(), Refused> {
    let (mut hosts, needs_host) = (0, request.keep);
    for (number, line) in lines.enumerate() {
        if number == MAX_FIELDS {
            return Err(TOO_LARGE);
        }
        let (name, value) = line.split_once(':').ok_or(BAD)?;
        let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(BAD);
        }
        let value = value.trim_matches([' ', '\t']);
        match name.to_ascii_lowercase().as_str() {
            "host" => hosts += 1,
            // A body would have to be read over.
            "content-length" if value != "0" => return Err(BAD),
            "transfer-encoding" => return Err(BAD),
            "connection" => request.keep &= !value.split(',').any(|it| it.trim().eq_ignore_ascii_case("close")),
            "range" if request.range.replace(value.into()).is_some() => return Err(BAD),
            "if-range" if request.if_range.replace(value.into()).is_some() => return Err(BAD),
            _ => {}
        }
    }
    // RFC 9112, section 3.2.
    if hosts > 1 || needs_host && hosts == 0 { Err(BAD) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "GET /targets/x HTTP/1.1\r\nHost: a\r\nrange:  bytes=0-1,5-9 \r\n\r\n";

    fn refused(text: &str) -> u16 {
        parse(text.as_bytes()).unwrap_err().0
    }

    #[test]
    fn requests_are_taken_off_one_after_the_other_and_never_before_they_are_whole() {
        for end in 0..WHOLE.len() {
            assert_eq!(parse(&WHOLE.as_bytes()[..end]), Ok(None), "{end}");
        }
        let next = "HEAD http://h:1/y HTTP/1.1\r\nHost: h:1\r\nConnection: x, Close\r\n\r\n";
        let two = format!("\r\n{WHOLE}{next}rest");
        let (first, length) = parse(two.as_bytes()).unwrap().unwrap();
        assert_eq!((first.path.as_str(), first.head_only, first.keep), ("targets/x", false, true));
        assert_eq!(first.range.as_deref(), Some("bytes=0-1,5-9"));
        let (second, end) = parse(&two.as_bytes()[length..]).unwrap().unwrap();
        assert_eq!((second.path.as_str(), second.head_only, second.keep), ("y", true, false));
        assert_eq!(&two[length + end..], "rest");
        assert!(!parse(b"GET / HTTP/1.0\r\n\r\n").unwrap().unwrap().0.keep);
    }

    #[test]
    fn what_is_not_a_plain_request_is_refused() {
        let line = |line: &str| refused(&format!("{line}\r\nHost: a\r\n\r\n"));
        for (text, status) in [
            ("GET /a", 400),
            ("GET  /a HTTP/1.1", 400),
            ("GET a HTTP/1.1", 400),
            ("GET http://a HTTP/1.1", 400),
            ("GET /\u{fc} HTTP/1.1", 400),
            ("get /a HTTP/1.1", 400),
            ("POST /a HTTP/1.1", 501),
            ("GET /a HTTP/2.0", 505),
            ("GET /a FTP/1.1", 400),
        ] {
            assert_eq!(line(text), status, "{text}");
        }
        assert_eq!(line(&format!("GET /{} HTTP/1.1", "a".repeat(513))), 414);
        let fields = |fields: &str| refused(&format!("GET /a HTTP/1.1\r\n{fields}\r\n\r\n"));
        for wrong in [
            "A: b",
            "Host: a\r\nHost: b",
            "Host: a\r\nno colon",
            "Host: a\r\n folded: b",
            "Host : a",
            "Host: a\nX: b",
            "Host: a\r\nX: \0",
            "Host: a\r\nContent-Length: 1",
            "Host: a\r\nTransfer-Encoding: chunked",
            "Host: a\r\nRange: bytes=0-1\r\nRange: bytes=2-3",
        ] {
            assert_eq!(fields(wrong), 400, "{wrong:?}");
        }
        assert_eq!(fields(&"A: b\r\n".repeat(65)), 431);
        assert_eq!(refused(&"a".repeat(MAX_HEAD_BYTES)), 431);
        assert_eq!(parse(&[b'a'; MAX_HEAD_BYTES - 1]), Ok(None));
        assert_eq!(parse(b"\xff\r\n\r\n").unwrap_err().0, 400);
    }
}
