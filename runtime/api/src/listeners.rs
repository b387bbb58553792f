//! The API's listening sockets. PID 1 keeps them, so that they outlive the daemon.
//!
//! While the daemon is away nobody is refused: clients wait in the kernel's backlog, and a container that has the
//! socket bound into it goes on reaching the API, for which a new socket under the same name would be another one.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use keel_link::control::{self, Client};
use keel_link::logger::chain;
use keel_spec::control::LISTENER_PREFIX;
use rustix::net::sockopt::socket_acceptconn;
use tokio::net::{TcpListener, TcpSocket, UnixListener};

/// Connections that the kernel keeps waiting.
const BACKLOG: u32 = 128;

/// Whoever keeps descriptors while the daemon is away.
pub struct Keeper {
    control: Option<PathBuf>,
}

impl Keeper {
    /// PID 1, or what stands in for it at this control socket; `None`: nobody does.
    pub fn at(control: Option<&Path>) -> Self {
        Self { control: control.map(Path::to_owned) }
    }

    /// Listens on a unix socket that only its owner may use. What else is under that name is replaced.
    pub fn unix(&self, path: &Path) -> io::Result<UnixListener> {
        let name = format!("{LISTENER_PREFIX}unix {}", path.display());
        if let Some(kept) = self.kept(&name).filter(|kept| is_at(kept, path)) {
            let listener = std::os::unix::net::UnixListener::from(kept);
            listener.set_nonblocking(true)?;
            return UnixListener::from_std(listener);
        }
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        // Nobody can connect between the two calls but who may enter the folder; `/run/keel` is root's alone.
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
        self.keep(&name, &listener);
        Ok(listener)
    }

    /// Listens for TLS. An address that was listened on before and isn't wanted any more is given up.
    pub fn tcp(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let kind = format!("{LISTENER_PREFIX}tcp ");
        let name = format!("{kind}{address}");
        self.forget(&|other| other.starts_with(&kind) && other != name);
        if let Some(kept) = self.kept(&name) {
            let listener = std::net::TcpListener::from(kept);
            listener.set_nonblocking(true)?;
            return TcpListener::from_std(listener);
        }
        let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // The address can be taken again at once after a restart of the machine's services.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG)?;
        self.keep(&name, &listener);
        Ok(listener)
    }

    /// The socket that is kept under a name, if there is one.
    fn kept(&self, name: &str) -> Option<OwnedFd> {
        self.ask("fetching the API's listening socket from PID 1", |client| {
            Ok(if client.list_fds()?.iter().any(|it| it == name) { client.fetch_fds(name)?.pop() } else { None })
        })?
    }

    fn keep(&self, name: &str, socket: &impl AsFd) {
        self.ask("leaving the API's listening socket with PID 1", |client| client.store_fds(name, &[socket.as_fd()]));
    }

    fn forget(&self, stale: &dyn Fn(&str) -> bool) {
        self.ask("giving up a listening socket", |client| {
            let names = client.list_fds()?;
            names.iter().filter(|name| stale(name)).try_for_each(|name| client.drop_fds(name))
        });
    }

    /// What the keeper says; nothing if there is none. A failure costs the socket's long life, not the socket.
    fn ask<T>(&self, doing: &str, request: impl FnOnce(&mut Client) -> control::Result<T>) -> Option<T> {
        let answer = Client::connect_to(self.control.as_deref()?).and_then(|mut client| request(&mut client));
        answer.map_err(|error| log::error!("{doing}: {}", chain(&error))).ok()
    }
}

/// Whether clients find this socket under that path: it listens, was bound to it, and a socket is still there.
fn is_at(socket: &OwnedFd, path: &Path) -> bool {
    let there = std::fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let Ok(copy) = socket.try_clone() else { return false };
    let bound = std::os::unix::net::UnixListener::from(copy).local_addr();
    there && bound.is_ok_and(|name| name.as_pathname() == Some(path)) && socket_acceptconn(socket).unwrap_or(false)
}
