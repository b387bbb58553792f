//! Terminals of containers: their size.

use std::os::fd::{AsFd, OwnedFd};

use keel_oci::spec::ConsoleSize;
use rustix::termios::{Winsize, tcsetwinsize};

use crate::engine::Engine;
use crate::error::{Doing, Error};

impl Engine {
    /// Sets the size of a container's terminal; one without a terminal has no size to set.
    pub fn resize(&self, wanted: &str, rows: u16, columns: u16) -> Result<(), Error> {
        let container = self.find(wanted)?;
        if !container.state().is_running() {
            return Err(Error::Conflict(format!("container {} is not running", container.id)));
        }
        let Some(master) = container.live().terminal.clone() else { return Ok(()) };
        resize(&master, rows, columns)?;
        self.tell_of(&container, "resize", &[("height", rows.to_string()), ("width", columns.to_string())]);
        Ok(())
    }
}

/// Sets a terminal's size.
pub fn resize(master: &OwnedFd, rows: u16, columns: u16) -> Result<(), Error> {
    let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(master.as_fd(), size).doing(|| "setting a terminal's size")
}

/// Rows and columns as the OCI configuration has them.
pub fn console_size((rows, columns): (u16, u16)) -> ConsoleSize {
    ConsoleSize { height: rows.into(), width: columns.into() }
}
