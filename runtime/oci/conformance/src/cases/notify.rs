//! What a service tells of its readiness (sd_notify(3)), passed on to whoever called the runtime.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::case::{Case, same};
use crate::container::Container;
use crate::lab::Lab;
use crate::process::DEADLINE;

const OTHERS: &str = "other runtimes";

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("notify.run-passes-readiness-on", OTHERS, run),
    Case::new("notify.start-waits-for-readiness", OTHERS, start),
    Case::new("notify.start-ends-with-the-container", OTHERS, ended),
    Case::new("notify.nobody-waits", OTHERS, nobody),
    Case::new("notify.with-users-of-their-own", OTHERS, mapped),
];

/// The socket at which a service manager waits.
struct Manager(UnixDatagram);

impl Manager {
    fn new(lab: &Lab) -> Result<Self> {
        let socket = UnixDatagram::bind(lab.path("manager.sock"))?;
        socket.set_read_timeout(Some(DEADLINE))?;
        Ok(Self(socket))
    }

    /// Waits for a message that says so, which must come before the deadline.
    fn ready(&self) -> Result<()> {
        let mut buffer = [0u8; 4096];
        loop {
            let length = self.0.recv(&mut buffer).context("nobody said that the service is ready")?;
            if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1") {
                return Ok(());
            }
        }
    }

    fn silent(&self) -> Result<()> {
        self.0.set_read_timeout(Some(Duration::from_millis(1)))?;
        ensure!(self.0.recv(&mut [0u8; 16]).is_err(), "somebody said something");
        Ok(())
    }
}

/// `run` of a container that says that it is ready.
fn run(lab: &Lab) -> Result<()> {
    let manager = Manager::new(lab)?;
    lab.bundle.configure(&crate::lab::with_steps(lab.spec(), &json!([["notify"]])))?;
    let mut command = lab.command(&["run", "--bundle", &lab.bundle_path(), &lab.new_id()]);
    let output = lab.run_command(command.env("NOTIFY_SOCKET", lab.path("manager.sock")))?;
    same!(output.code, 0, "exit code of `run` ({})", output.stderr.trim());
    crate::bundle::Answers::parse(&output.stdout)?.ok(0)?;
    manager.ready()
}

/// `create` and `start`, each told of the manager; the container says that it is ready, and goes on.
fn started<'a>(lab: &'a Lab<'a>, spec: crate::spec::Spec, steps: serde_json::Value) -> Result<Container<'a>> {
    lab.bundle.configure(&crate::lab::with_steps(spec, &steps))?;
    let socket = lab.path("manager.sock");
    let container = Container::create_with(lab, &lab.new_id(), &[], &[("NOTIFY_SOCKET", &socket)])?;
    let mut command = lab.command(&["start", &container.id]);
    let output = lab.run_command(command.env("NOTIFY_SOCKET", &socket))?;
    same!(output.code, 0, "exit code of `start` ({})", output.stderr.trim());
    Ok(container)
}

fn start(lab: &Lab) -> Result<()> {
    let manager = Manager::new(lab)?;
    let container = started(lab, lab.spec(), json!([["notify"], ["hold"]]))?;
    // It has been said by the time that `start` has returned.
    manager.0.set_nonblocking(true)?;
    manager.ready()?;
    container.finish()
}

fn ended(lab: &Lab) -> Result<()> {
    let manager = Manager::new(lab)?;
    let container = started(lab, lab.spec(), json!([["exit", 3]]))?;
    manager.silent()?;
    same!(container.wait()?, 3, "exit code");
    container.delete()
}

fn nobody(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec())?;
    ensure!(seen["env"].get("NOTIFY_SOCKET").is_none(), "the variable is set, but nobody waits");
    Ok(())
}

fn mapped(lab: &Lab) -> Result<()> {
    let manager = Manager::new(lab)?;
    let spec = super::namespaces::mapped(lab)?.set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let container = started(lab, spec, json!([["notify"], ["hold"]]))?;
    manager.ready()?;
    container.finish()
}
