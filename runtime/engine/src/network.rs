//! The containers' network, set up when it is first wanted: the kernel modules it takes cost a boot more than the rest
//! of the daemon's start, and a client that asks for anything else needn't wait for them.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use keel_net::Net;

use crate::error::{Doing as _, Error};
use crate::joining::NO_NETWORK;

/// A network that may not be there yet.
pub(crate) struct Network {
    /// Where its state is kept; `None`: this engine has no network.
    folder: Option<PathBuf>,
    opened: Mutex<Option<Arc<Net>>>,
}

impl Network {
    /// Nothing is set up yet.
    pub fn new(folder: Option<PathBuf>) -> Self {
        Self { folder, opened: Mutex::default() }
    }

    /// Whether containers can have one.
    pub fn is_possible(&self) -> bool {
        self.folder.is_some()
    }

    /// The network, set up now if it wasn't. What no container that runs has any more is removed then: none can have
    /// come to it before.
    pub fn get(&self) -> Result<Arc<Net>, Error> {
        self.get_with(&[])
    }

    /// The same after a restart of the daemon, with the containers that run and their
    /// namespaces: their places are kept.
    pub fn get_with(&self, running: &[(String, OwnedFd)]) -> Result<Arc<Net>, Error> {
        let Some(folder) = &self.folder else {
            return Err(Error::BadParameter(NO_NETWORK.into()));
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(net) = &*opened {
            return Ok(Arc::clone(net));
        }
        let net = Net::open(folder).doing(|| "setting up the containers' network")?;
        net.recover(running).doing(|| "recovering the containers' network")?;
        Ok(Arc::clone(opened.insert(Arc::new(net))))
    }

    /// The network, if it is set up.
    pub fn opened(&self) -> Option<Arc<Net>> {
        self.opened.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
