//! Requests to a proxy in absolute form (RFC 9112 section 3.2.2). ureq writes the form that servers know; so the head of
//! each request is changed on its way out, by what its `Host` says.

use ureq::Error;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, NextTimeout, Transport};

/// Makes connections to proxies of those that the chain before it has opened.
#[derive(Debug)]
pub struct ToProxy;

impl<In: Transport> Connector<In> for ToProxy {
    type Out = Forwarded<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Forwarded { inner, is_head: true }))
    }
}

/// A connection to a proxy.
#[derive(Debug)]
pub struct Forwarded<T> {
    inner: T,
    /// Whether what is sent next is the head of a request: the first thing is, and whatever follows an answer.
    is_head: bool,
}

impl<T: Transport> Transport for Forwarded<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if !std::mem::take(&mut self.is_head) {
            return self.inner.transmit_output(amount, timeout);
        }
        let output = self.inner.buffers().output().get(..amount).unwrap_or_default();
        let head = absolute_form(output).ok_or(Error::BadUri("a request that can't be put to a proxy".into()))?;
        let mut rest = &head[..];
        while !rest.is_empty() {
            let output = self.inner.buffers().output();
            let (part, left) = rest.split_at(output.len().min(rest.len()));
            output[..part.len()].copy_from_slice(part);
            self.inner.transmit_output(part.len(), timeout)?;
            rest = left;
        }
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.is_head = true;
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// The head of a request for a server (RFC 9112 section 3.2.1), as a proxy wants it.
fn absolute_form(head: &[u8]) -> Option<Vec<u8>> {
    const HOST: &[u8] = b"host:";
    let path = head.iter().position(|byte| *byte == b' ')? + 1;
    let (method, rest) = head.split_at(path);
    let mut headers = rest.split(|byte| *byte == b'\n').skip(1);
    let host = headers.find_map(|line| {
        let (name, value) = line.split_at_checked(HOST.len())?;
        name.eq_ignore_ascii_case(HOST).then(|| value.trim_ascii())
    })?;
    rest.starts_with(b"/").then(|| [method, b"http://", host, rest].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_goes_into_the_request_line() {
        for (head, wanted) in [
            ("GET / HTTP/1.1\r\nHost: a:1\r\n\r\n", Some("GET http://a:1/ HTTP/1.1\r\nHost: a:1\r\n\r\n")),
            (
                "POST /x?y HTTP/1.1\r\nA: b\r\nhost:[::1]:2\r\n\r\nbody",
                Some("POST http://[::1]:2/x?y HTTP/1.1\r\nA: b\r\nhost:[::1]:2\r\n\r\nbody"),
            ),
            ("GET / HTTP/1.1\r\nA: host: b\r\n\r\n", None),
            ("GET * HTTP/1.1\r\nHost: a\r\n\r\n", None),
            ("GET", None),
            ("", None),
        ] {
            let made = absolute_form(head.as_bytes()).map(|made| String::from_utf8(made).unwrap());
            assert_eq!(made.as_deref(), wanted, "{head:?}");
        }
    }
}
