//! The chain that makes a connection: TCP, then TLS for https. Both mark their errors with the step, so that a
//! message can say more than "I/O error".

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use rustls::{ClientConnection, StreamOwned};
use rustls_pki_types::ServerName;
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, TcpConnector, Transport, TransportAdapter,
};
use ureq::{Error as UreqError, Timeout};

use crate::error::Error;
use crate::resolve;
use crate::steady::{LeastRate, Steady};
use crate::tls::Trust;

/// A failure marked with its step, as it travels through ureq.
#[derive(Debug, thiserror::Error)]
pub enum Step {
    #[error("resolve")]
    Resolve(#[source] resolve::Error),
    #[error("connect")]
    Connect(#[source] io::Error),
    #[error("tls: {0}")]
    Tls(String),
    #[error("setup: {0}")]
    Setup(String),
    #[error("too slow")]
    Slow(LeastRate),
}

impl From<Step> for UreqError {
    fn from(step: Step) -> Self {
        UreqError::Other(Box::new(step))
    }
}

/// Opens the TCP connection.
#[derive(Debug)]
pub struct Dial {
    tcp: TcpConnector,
    least: Option<LeastRate>,
}

impl Dial {
    /// Connections on which at least so much comes.
    pub fn new(least: Option<LeastRate>) -> Self {
        Self { tcp: TcpConnector::default(), least }
    }
}

impl<In: Transport> Connector<In> for Dial {
    type Out = Steady<<TcpConnector as Connector<In>>::Out>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, UreqError> {
        let connected = self.tcp.connect(details, chained).map_err(|error| match error {
            UreqError::Io(error) => Step::Connect(error).into(),
            other => other,
        })?;
        Ok(connected.map(|transport| Steady::new(transport, self.least)))
    }
}

/// Puts TLS onto the connection of an https request.
#[derive(Clone, Debug)]
pub struct SecureDial {
    trust: Arc<Trust>,
}

impl SecureDial {
    pub fn new(trust: Trust) -> Self {
        Self { trust: Arc::new(trust) }
    }
}

impl<In: Transport> Connector<In> for SecureDial {
    type Out = Either<In, SecureTransport>;

    fn connect(&self, details: &ConnectionDetails, chained: Option<In>) -> Result<Option<Self::Out>, UreqError> {
        let Some(transport) = chained else { return Ok(None) };
        if !details.needs_tls() {
            return Ok(Some(Either::A(transport)));
        }
        let config = self.trust.config().map_err(Step::Setup)?;
        let host = details.uri.host().unwrap_or_default();
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| Step::Tls(format!("{host:?} can't be the name on a certificate")))?;
        let mut session = ClientConnection::new(config, name).map_err(|error| Step::Tls(error.to_string()))?;
        let mut socket = TransportAdapter::new(transport.boxed(), details.current_time.clone());
        socket.set_timeout(details.timeout);
        session.complete_io(&mut socket).map_err(|error| match UreqError::from(error) {
            UreqError::Io(error) => Step::Tls(error.to_string()).into(),
            other => other,
        })?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(Some(Either::B(SecureTransport { buffers, stream: StreamOwned::new(session, socket) })))
    }
}

/// A TLS session as ureq wants to use it.
pub struct SecureTransport {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl Transport for SecureTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), UreqError> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output)?;
        Ok(())
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, UreqError> {
        self.stream.sock.set_timeout(timeout);
        let amount = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

impl fmt::Debug for SecureTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SecureTransport").finish_non_exhaustive()
    }
}

/// Turns ureq's error into ours, which names the address and the step.
pub fn explain(url: &str, error: UreqError, connect_timeout: Duration, idle_timeout: Duration) -> Error {
    let url = url.to_owned();
    match error {
        UreqError::Other(inner) => match inner.downcast::<Step>().map(|step| *step) {
            Ok(Step::Resolve(source)) => Error::Resolve { url, source },
            Ok(Step::Connect(source)) => Error::Connect { url, source },
            Ok(Step::Tls(reason)) => Error::Tls { url, reason },
            Ok(Step::Setup(reason)) => Error::Setup { url, reason },
            Ok(Step::Slow(least)) => Error::Slow { url, least_bytes: least.bytes, within: least.within },
            Err(other) => Error::Protocol { url, reason: other.to_string() },
        },
        UreqError::Timeout(phase) => {
            let (step, limit) = match phase {
                Timeout::Resolve => ("resolving the host name", connect_timeout),
                Timeout::Connect => ("connecting", connect_timeout),
                Timeout::RecvResponse => ("waiting for the head of the response", idle_timeout.saturating_mul(2)),
                Timeout::PerRead => ("waiting for the next bytes", idle_timeout),
                Timeout::PerWrite => ("sending the next bytes", idle_timeout),
                _ => ("the request", idle_timeout),
            };
            Error::Timeout { url, step, limit }
        }
        UreqError::Io(source) => match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Error::Tls { url, reason: tls.to_string() },
            None => Error::Io { url, source },
        },
        UreqError::Http(error) => Error::Protocol { url, reason: format!("the request can't be written ({error})") },
        UreqError::Protocol(error) => Error::Protocol { url, reason: format!("the server broke HTTP ({error})") },
        other => Error::Protocol { url, reason: other.to_string() },
    }
}
