//! Where the API is, and how to connect to it.

use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;

use keel_spec::api::ErrorCode;
use keel_spec::paths;

use crate::error::{Failure, Result};
use crate::tls;

/// Longest wait for a connection to come about, for each of a name's addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most addresses of a name that are tried.
const MAX_ADDRESSES: usize = 8;
/// Port where the address names none.
const DEFAULT_PORT: u16 = 2376;

/// Where the API is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// On this host.
    Unix(PathBuf),
    /// On another, over TLS.
    Tcp {
        /// Name or address.
        host: String,
        /// Port.
        port: u16,
        /// Folder with `ca.pem`, `cert.pem` and `key.pem`.
        certificates: Option<PathBuf>,
    },
}

/// A connection, whichever kind it is.
pub trait Stream: Read + Write {}
impl<T: Read + Write> Stream for T {}

impl Target {
    /// Reads `unix:///path` or `tcp://host[:port]`.
    pub fn parse(text: &str, certificates: Option<PathBuf>) -> Result<Self> {
        let refuse = || {
            let message = format!("{text:?} is no address of an API: want tcp://HOST[:PORT] or unix:///PATH");
            Failure::new(ErrorCode::BadRequest, message)
        };
        if let Some(path) = text.strip_prefix("unix://").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        let rest = text.strip_prefix("tcp://").ok_or_else(refuse)?.trim_end_matches('/');
        let (host, port) = match rest.strip_prefix('[') {
            Some(rest) => {
                let (host, port) = rest.split_once(']').ok_or_else(refuse)?;
                (host, port.strip_prefix(':'))
            }
            None => rest.split_once(':').map_or((rest, None), |(host, port)| (host, Some(port))),
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |port| port.parse().map_err(|_| refuse()))?;
        if host.is_empty() || host.contains('/') {
            return Err(refuse());
        }
        Ok(Self::Tcp { host: host.into(), port, certificates })
    }

    /// From the options of the command line, else the environment, else the socket on this host.
    pub fn find(
        host: Option<&str>,
        cert_path: Option<PathBuf>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self> {
        let set = |name: &str| environment(name).filter(|value| !value.is_empty());
        let host = host.map(str::to_owned).or_else(|| set("KEEL_HOST")).or_else(|| set("DOCKER_HOST"));
        let certificates =
            cert_path.or_else(|| set("KEEL_CERT_PATH").or_else(|| set("DOCKER_CERT_PATH")).map(PathBuf::from));
        match host {
            Some(host) => Self::parse(&host, certificates),
            None => Ok(Self::Unix(paths::API_SOCKET.into())),
        }
    }

    /// Connects. Reads fail after `read_timeout`; `None`: they wait for ever.
    pub fn connect(&self, read_timeout: Option<Duration>) -> Result<Box<dyn Stream>> {
        match self {
            Self::Unix(path) => {
                let open = || {
                    let stream = UnixStream::connect(path)?;
                    stream.set_read_timeout(read_timeout)?;
                    Ok(stream)
                };
                let stream = open().map_err(|error: io::Error| {
                    Failure::unavailable(format!(
                        "cannot connect to the API at {}: {error}; on another machine, name the host: \
                         --host tcp://HOST:2376",
                        path.display()
                    ))
                })?;
                Ok(Box::new(stream))
            }
            Self::Tcp { host, port, certificates } => {
                let folder = certificates.as_deref().ok_or_else(|| {
                    let message = format!(
                        "connecting to {host} needs certificates: name the folder with ca.pem, cert.pem and key.pem \
                         with --cert-path or KEEL_CERT_PATH"
                    );
                    Failure::new(ErrorCode::BadRequest, message)
                })?;
                let stream = connect_tcp(host, *port)
                    .and_then(|stream| {
                        stream.set_nodelay(true)?;
                        Ok(stream)
                    })
                    .map_err(|error| {
                        Failure::unavailable(format!(
                            "cannot connect to the API at {host} port {port}: {error}; is the host up, and does its \
                             machine config bring certificates?"
                        ))
                    })?;
                Ok(Box::new(tls::connect(stream, host, folder, read_timeout)?))
            }
        }
    }
}

fn connect_tcp(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (host, port).to_socket_addrs()?.take(MAX_ADDRESSES) {
        match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(host: &str, port: u16) -> Target {
        Target::Tcp { host: host.into(), port, certificates: None }
    }

    #[test]
    fn addresses_are_read() {
        assert_eq!(Target::parse("tcp://keel:1", None), Ok(tcp("keel", 1)));
        assert_eq!(Target::parse("tcp://keel", None), Ok(tcp("keel", 2376)));
        assert_eq!(Target::parse("tcp://[::1]:5", None), Ok(tcp("::1", 5)));
        assert_eq!(Target::parse("unix:///a/b", None), Ok(Target::Unix("/a/b".into())));
        for text in ["keel", "http://keel", "tcp://", "tcp://a:b", "unix://a", "tcp://[::1", "tcp://a/b"] {
            assert!(Target::parse(text, None).is_err(), "{text}");
        }
    }

    #[test]
    fn options_go_before_the_environment() {
        let environment = |name: &str| match name {
            "DOCKER_HOST" => Some("tcp://docker".to_owned()),
            "DOCKER_CERT_PATH" => Some("/certs".to_owned()),
            _ => None,
        };
        let with_certificates =
            |host: &str| Target::Tcp { host: host.into(), port: 2376, certificates: Some("/certs".into()) };
        assert_eq!(Target::find(None, None, environment), Ok(with_certificates("docker")));
        assert_eq!(Target::find(Some("tcp://b"), None, environment), Ok(with_certificates("b")));
        assert_eq!(Target::find(None, None, |_| None), Ok(Target::Unix(paths::API_SOCKET.into())));
    }
}
