//! Connections: who may connect, how many, and for how long they may dawdle.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;

use crate::context::Context;
use crate::roles::Caller;
use crate::router;

/// Most connections from afar; those beyond wait in the kernel's backlog.
const MAX_TLS_CONNECTIONS: usize = 448;
/// Most connections on the host itself; counted apart, so that none from afar can shut the console out.
const MAX_LOCAL_CONNECTIONS: usize = 64;
/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait for a request's head, idle connections included.
const HEAD_TIMEOUT: Duration = Duration::from_secs(120);
/// Longest head of a request in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Most header lines of a request.
const MAX_HEADERS: usize = 64;
/// Pause after a failed accept: what fails (no descriptors left) doesn't heal at once.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Longest wait for answers under way when the daemon ends.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the daemon ends: listeners stop, connections close after the answer that is under way.
pub type Ending = watch::Receiver<bool>;

/// Tells all connections that the daemon ends, and waits for them, but not for long.
pub async fn drain(ending: watch::Sender<bool>) {
    let _ = ending.send(true);
    let _ = tokio::time::timeout(DRAIN_TIMEOUT, ending.closed()).await;
}

/// Serves the host itself.
pub async fn serve_unix(listener: UnixListener, context: Arc<Context>, mut ending: Ending) {
    let slots = Arc::new(Semaphore::new(MAX_LOCAL_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.changed() => return,
        };
        match accepted {
            Ok((stream, _)) => {
                let (context, ending) = (Arc::clone(&context), ending.clone());
                tokio::spawn(async move {
                    connection(stream, context, Caller::local(), ending).await;
                    drop(slot);
                });
            }
            Err(error) => pause_after(&error).await,
        }
    }
}

/// Serves clients from afar that show a certificate.
pub async fn serve_tls(listener: TcpListener, config: Arc<ServerConfig>, context: Arc<Context>, mut ending: Ending) {
    let acceptor = TlsAcceptor::from(config);
    let slots = Arc::new(Semaphore::new(MAX_TLS_CONNECTIONS));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = ending.changed() => return,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        // Frames of attached containers are small and should not wait for each other.
        let _ = stream.set_nodelay(true);
        let (acceptor, context, ending) = (acceptor.clone(), Arc::clone(&context), ending.clone());
        tokio::spawn(async move {
            match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
                Ok(Ok(stream)) => {
                    // TLS let nobody in without one.
                    let certificate = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
                    let der: &[u8] = certificate.map(|certificate| certificate.as_ref()).unwrap_or_default();
                    let caller = Caller::with_certificate(der, peer, &context.settings.api);
                    connection(stream, context, caller, ending).await;
                }
                Ok(Err(error)) => log::info!("refused a TLS client from {peer}: {error}"),
                Err(_) => log::info!("TLS client from {peer} took too long over its handshake"),
            }
            drop(slot);
        });
    }
}

async fn pause_after(error: &io::Error) {
    log::warn!("cannot accept a connection: {error}");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

async fn connection(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    context: Arc<Context>,
    caller: Caller,
    mut ending: Ending,
) {
    let caller = Arc::new(caller);
    let service = service_fn(move |request| router::answer(Arc::clone(&context), Arc::clone(&caller), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), service)
        .with_upgrades();
    let mut served = std::pin::pin!(served);
    let result = tokio::select! {
        result = served.as_mut() => result,
        _ = ending.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = result {
        // Clients leave in the middle of things all the time: of use only when looking for something.
        log::debug!("connection ended: {error}");
    }
}
