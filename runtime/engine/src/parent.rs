//! Who is the parent of the containers' first processes and keeps their exits: PID 1 on a host, this process itself
//! on a workstation and in tests.

use std::collections::HashMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use keel_link::control::{self, Client};
use keel_spec::control::{Adopted, Event, Exit};
use rustix::process::{WaitId, WaitIdOptions, waitid};

use crate::clock;
use crate::error::{Doing, Error};

/// What the engine needs of the parent. All methods may be called from any thread.
pub trait InitLink: Send + Sync {
    /// Who becomes the parent when a container is created.
    fn parent(&self) -> keel_oci::Parent;
    /// Keep the exit of this process under `id`.
    fn adopt(&self, id: &str, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), Error>;
    /// All adopted processes.
    fn adopted(&self) -> Result<Vec<Adopted>, Error>;
    /// Drop what is kept under `id`.
    fn forget(&self, id: &str) -> Result<(), Error>;
    /// Keep these descriptors over a restart of this process.
    fn store_fds(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), Error>;
    /// Names of what is kept.
    fn list_fds(&self) -> Result<Vec<String>, Error>;
    /// The descriptors under `name`.
    fn fetch_fds(&self, name: &str) -> Result<Vec<OwnedFd>, Error>;
    /// Close the descriptors under `name`.
    fn drop_fds(&self, name: &str) -> Result<(), Error>;
    /// Begins to listen; exits before this are found by [`InitLink::adopted`].
    fn subscribe(&self) -> Result<Box<dyn Events>, Error>;
}

/// What happens, as it happens.
pub trait Events: Send {
    /// Waits for the next event. After an error, subscribe again.
    fn next(&mut self) -> Result<Event, Error>;
}

/// PID 1, over its control socket. One connection at a time, opened when it is first needed.
pub struct Pid1 {
    path: PathBuf,
    client: Mutex<Option<Client>>,
}

impl Pid1 {
    /// Connects.
    pub fn connect(path: &Path) -> Result<Self, Error> {
        let client = Client::connect_to(path).doing(|| "connecting to PID 1")?;
        Ok(Self { path: path.into(), client: Mutex::new(Some(client)) })
    }

    fn ask<T>(&self, doing: &str, call: impl FnOnce(&mut Client) -> control::Result<T>) -> Result<T, Error> {
        let mut slot = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let client = match &mut *slot {
            Some(client) => client,
            empty => empty.insert(Client::connect_to(&self.path).doing(|| "connecting to PID 1")?),
        };
        call(client).doing(|| doing)
    }
}

impl InitLink for Pid1 {
    fn parent(&self) -> keel_oci::Parent {
        keel_oci::Parent::CallersParent
    }
    fn adopt(&self, id: &str, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        self.ask("having PID 1 adopt a container", |client| client.adopt(id, pid, pidfd))
    }
    fn adopted(&self) -> Result<Vec<Adopted>, Error> {
        self.ask("asking PID 1 for adopted containers", Client::adopted)
    }
    fn forget(&self, id: &str) -> Result<(), Error> {
        self.ask("having PID 1 forget a container", |client| client.forget(id))
    }
    fn store_fds(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        self.ask("storing descriptors with PID 1", |client| client.store_fds(name, fds))
    }
    fn list_fds(&self) -> Result<Vec<String>, Error> {
        self.ask("listing the descriptors that PID 1 keeps", Client::list_fds)
    }
    fn fetch_fds(&self, name: &str) -> Result<Vec<OwnedFd>, Error> {
        self.ask("fetching descriptors from PID 1", |client| client.fetch_fds(name))
    }
    fn drop_fds(&self, name: &str) -> Result<(), Error> {
        self.ask("dropping descriptors that PID 1 keeps", |client| client.drop_fds(name))
    }
    fn subscribe(&self) -> Result<Box<dyn Events>, Error> {
        let client = Client::connect_to(&self.path).doing(|| "connecting to PID 1")?;
        Ok(Box::new(client.subscribe().doing(|| "subscribing to PID 1's events")?))
    }
}

impl Events for control::Events {
    fn next(&mut self) -> Result<Event, Error> {
        control::Events::next(self).doing(|| "waiting for PID 1's events")
    }
}

/// This process as the parent. Costs a thread for each container, and containers are lost when it ends: for
/// workstations and tests.
#[derive(Default)]
pub struct Local {
    shared: Arc<Mutex<Shared>>,
}

#[derive(Default)]
struct Shared {
    adopted: HashMap<String, Adopted>,
    stored: HashMap<String, Vec<OwnedFd>>,
    listeners: Vec<Sender<Event>>,
}

impl Local {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// Records an exit and tells those who listen.
    fn exited(&mut self, id: &str, pid: u32, code: i32) {
        let exit = Exit { code, at_unix_ms: clock::unix_ms() };
        let ended = Adopted { id: id.into(), pid, exit: Some(exit) };
        if let Some(entry) = self.adopted.get_mut(id).filter(|entry| entry.pid == pid) {
            entry.exit = Some(exit);
            self.listeners.retain(|listener| listener.send(Event::Exited(ended.clone())).is_ok());
        }
    }
}

impl InitLink for Local {
    fn parent(&self) -> keel_oci::Parent {
        keel_oci::Parent::Caller
    }

    fn adopt(&self, id: &str, pid: u32, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        let pidfd = pidfd.try_clone_to_owned().doing(|| "copying a pidfd")?;
        self.lock().adopted.insert(id.into(), Adopted { id: id.into(), pid, exit: None });
        let (shared, id) = (self.shared.clone(), id.to_owned());
        let wait = move || {
            let code = loop {
                match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                    Ok(Some(status)) => {
                        let code = status.exit_status().or_else(|| status.terminating_signal().map(|s| s + 128));
                        break code.unwrap_or(255);
                    }
                    Ok(None) | Err(rustix::io::Errno::INTR) => {}
                    Err(_) => break 255,
                }
            };
            shared.lock().unwrap_or_else(PoisonError::into_inner).exited(&id, pid, code);
        };
        std::thread::Builder::new()
            .name("reap".into())
            .stack_size(128 * 1024)
            .spawn(wait)
            .map(drop)
            .doing(|| "starting a thread that waits for a container")
    }

    fn adopted(&self) -> Result<Vec<Adopted>, Error> {
        Ok(self.lock().adopted.values().cloned().collect())
    }

    fn forget(&self, id: &str) -> Result<(), Error> {
        self.lock().adopted.remove(id);
        Ok(())
    }

    fn store_fds(&self, name: &str, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let fds: Result<Vec<_>, _> = fds.iter().map(|fd| fd.try_clone_to_owned()).collect();
        self.lock().stored.insert(name.into(), fds.doing(|| "copying descriptors")?);
        Ok(())
    }

    fn list_fds(&self) -> Result<Vec<String>, Error> {
        Ok(self.lock().stored.keys().cloned().collect())
    }

    fn fetch_fds(&self, name: &str) -> Result<Vec<OwnedFd>, Error> {
        let shared = self.lock();
        let fds = shared.stored.get(name).ok_or_else(|| Error::internal(name, "no such descriptors"))?;
        fds.iter().map(OwnedFd::try_clone).collect::<Result<_, _>>().doing(|| "copying descriptors")
    }

    fn drop_fds(&self, name: &str) -> Result<(), Error> {
        self.lock().stored.remove(name);
        Ok(())
    }

    fn subscribe(&self) -> Result<Box<dyn Events>, Error> {
        let (sender, receiver) = channel();
        self.lock().listeners.push(sender);
        Ok(Box::new(LocalEvents(receiver)))
    }
}

struct LocalEvents(Receiver<Event>);

impl Events for LocalEvents {
    fn next(&mut self) -> Result<Event, Error> {
        self.0.recv().doing(|| "waiting for a container to end")
    }
}
