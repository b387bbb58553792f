//! `logs` and `attach`.

use std::sync::Arc;

use crate::Cancel;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::log::reader::{Cursor, From, Want};
use crate::output::{AttachOptions, Attachment, LogOptions, LogReader, StdinWriter};
use crate::plan::attributes::details;
use crate::plan::logging::logging;

impl Engine {
    /// Whether a container has a terminal, so that its output is one stream without frames.
    pub fn has_terminal(&self, wanted: &str) -> Result<bool, Error> {
        Ok(self.find(wanted)?.config().body.tty == Some(true))
    }

    /// Reads a container's log.
    pub fn logs(&self, wanted: &str, options: &LogOptions) -> Result<LogReader, Error> {
        let container = self.find(wanted)?;
        if !options.stdout && !options.stderr {
            return Err(Error::BadParameter("you must choose at least one stream".into()));
        }
        if logging(&container.config().body).is_ok_and(|logging| logging.driver == "none") {
            return Err(Error::Unsupported("configured logging driver does not support reading".into()));
        }
        let (run, begun) = container.log.run();
        let want = Want {
            stdout: options.stdout,
            stderr: options.stderr,
            since_ns: options.since_unix_ns.unwrap_or(0),
            until_ns: options.until_unix_ns.unwrap_or(u64::MAX),
            timestamps: options.timestamps,
            details: if options.details { details(&container.config()) } else { Vec::new() },
            // One that doesn't run writes nothing, so its followers would wait for nothing.
            follow: (options.follow && begun).then_some(run),
        };
        let from = options.tail.map_or(From::Start, From::Tail);
        cursor(&container, want, from)
    }

    /// Connects to a container's streams. Whoever does so before the start misses nothing.
    pub fn attach(&self, wanted: &str, options: &AttachOptions) -> Result<Attachment, Error> {
        let container = self.find(wanted)?;
        if container.state().paused {
            let message = format!("container {wanted} is paused, unpause the container before attach");
            return Err(Error::Conflict(message));
        }
        let (run, _) = container.log.run();
        let want = Want {
            stdout: options.stdout,
            stderr: options.stderr,
            follow: options.stream.then_some(run),
            ..Want::default()
        };
        let output = cursor(&container, want, if options.logs { From::Start } else { From::End })?;
        let open = container.config().body.open_stdin == Some(true);
        let stdin = (options.stdin && options.stream && open).then(|| StdinWriter::new(container.stdin.clone()));
        self.tell_of(&container, "attach", &[]);
        Ok(Attachment { stdin, output, terminal: container.config().body.tty == Some(true) })
    }
}

fn cursor(container: &Arc<Container>, want: Want, from: From) -> Result<LogReader, Error> {
    let cursor = Cursor::new(container.log.clone(), want, from, Cancel::new());
    cursor.map(LogReader).doing(|| format!("reading the log of container {}", container.id))
}
