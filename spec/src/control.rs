//! Messages of PID 1's control socket, [`crate::paths::CONTROL_SOCKET`].
//!
//! The socket is `SOCK_SEQPACKET`: one message a packet, in postcard's wire format, at most
//! [`MAX_MESSAGE_BYTES`] long, with at most [`MAX_FDS`] file descriptors beside it (`SCM_RIGHTS`).
//! A client sends one [`Request`] and reads [`Reply`] packets up to and including the first that
//! [`Reply::is_last`]. After [`Request::Subscribe`] the connection carries [`Reply::Event`]s and no more requests.
//! PID 1 answers only peers that it started itself as services (`SO_PEERCRED`).

use serde::{Deserialize, Serialize};

/// Longest message in bytes; longer ones are refused unread.
pub const MAX_MESSAGE_BYTES: usize = 4096;
/// Most file descriptors that one message may carry.
pub const MAX_FDS: usize = 8;
/// Longest name of a stored descriptor set or adopted process, in bytes.
pub const MAX_NAME_BYTES: usize = 128;
/// How the names of sets begin that are a service's listening sockets, and so no container's.
pub const LISTENER_PREFIX: &str = "listen ";

/// What a host program asks of PID 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Request {
    /// The sender has finished starting: PID 1 counts it as up. Answer: [`Reply::Done`].
    Ready,
    /// One line on what the sender is doing, shown beside it in `keelctl services`; cut at 256 bytes.
    Status(String),
    /// State of each supervised service. Answer: [`Reply::Service`] each, then [`Reply::Done`].
    Services,
    /// State of the machine as PID 1 knows it. Answer: [`Reply::System`].
    System,
    /// A service's log. Answer: [`Reply::Fds`] with one or two readable descriptors, older part first.
    Log {
        /// Name of the service; `init` for PID 1's own messages.
        service: String,
    },
    /// Stop everything in order, then do `how`. Answered before it begins.
    Shutdown {
        /// What to do at the end.
        how: Shutdown,
        /// Why, for the console and the log.
        reason: String,
    },
    /// The running release is good: its trial is over, PID 1 drops its own deadline.
    TrialPassed,
    /// Moves the trial's deadline to this many milliseconds after boot; no effect outside a trial.
    TrialDeadline {
        /// Milliseconds since boot (`CLOCK_BOOTTIME`).
        deadline_ms: u64,
    },
    /// Keep the descriptors sent along under `name` until they are dropped, whatever becomes of the sender.
    /// A second set under the same name replaces the first.
    StoreFds {
        /// Name within the sending service.
        name: String,
    },
    /// Names of all descriptor sets that the sending service stored. Answer: [`Reply::Stored`] each, then `Done`.
    ListFds,
    /// Copies of the descriptors under `name`. Answer: [`Reply::Fds`].
    FetchFds {
        /// Name within the sending service.
        name: String,
    },
    /// Close the descriptors under `name`.
    DropFds {
        /// Name within the sending service.
        name: String,
    },
    /// Take note of a process that PID 1 became the parent of (`CLONE_PARENT`), under `id`: its exit is kept until
    /// it is forgotten. Carries one pidfd. A process that is already gone is looked up among the recent exits.
    Adopt {
        /// The container's ID.
        id: String,
        /// Its process ID in the host's namespace.
        pid: u32,
    },
    /// All adopted processes. Answer: [`Reply::Adopted`] each, then [`Reply::Done`].
    Adopted,
    /// Drop an adopted process from the table; it is not signalled.
    Forget {
        /// The container's ID.
        id: String,
    },
    /// From now on send [`Reply::Event`]s on this connection.
    Subscribe,
    /// The last lines of all logs, by time. Answer: [`Reply::Fds`] with one readable descriptor.
    LastLines,
}

/// What PID 1 answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// The request was carried out, or a list has ended.
    Done,
    /// The request was refused: what was asked, why not.
    Refused(String),
    /// One service of a list.
    Service(Service),
    /// The machine's state.
    System(System),
    /// Descriptors travel beside this message.
    Fds,
    /// Name of one stored descriptor set.
    Stored(String),
    /// One adopted process of a list.
    Adopted(Adopted),
    /// Something happened; only after [`Request::Subscribe`].
    Event(Event),
}

impl Reply {
    /// Whether this packet ends the answer to a request.
    pub fn is_last(&self) -> bool {
        !matches!(self, Reply::Service(_) | Reply::Stored(_) | Reply::Adopted(_) | Reply::Event(_))
    }
}

/// What a subscriber is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Event {
    /// An adopted process ended.
    Exited(Adopted),
    /// The machine is about to stop: the runtime stops its containers, then exits.
    ShuttingDown(Shutdown),
}

/// How a shutdown ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shutdown {
    /// Restart through the firmware.
    Reboot,
    /// Power off.
    Poweroff,
    /// Start the kernel that the updater has loaded (kexec), without the firmware; through it if there is none.
    Kexec,
}

impl Shutdown {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Poweroff => "poweroff",
            Self::Kexec => "kexec",
        }
    }
}

/// One supervised service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name, as in `keelctl services`.
    pub name: String,
    /// Where it is in its life.
    pub state: ServiceState,
    /// A release is good only while every required service is up.
    pub required: bool,
    /// Process ID while it runs.
    pub pid: Option<u32>,
    /// How often it was started again since boot.
    pub restarts: u32,
    /// What it last said of itself, or how it last ended.
    pub status: String,
    /// Milliseconds since boot at which `state` was entered.
    pub since_ms: u64,
}

/// Where a service is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ServiceState {
    /// Waits for a service that it needs.
    Waiting,
    /// Runs, but has not said that it is ready.
    Starting,
    /// Runs and is ready, or did its one job.
    Up,
    /// Ended; is started again after a pause.
    Backoff,
    /// Was told to end.
    Stopping,
    /// Ended and stays so.
    Stopped,
}

/// The machine as PID 1 knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct System {
    /// Kernel's random boot ID.
    pub boot_id: String,
    /// Whether the boot loader still counts this release's tries.
    pub on_trial: bool,
    /// Whether this boot followed a reset by the hardware watchdog (`WDIOF_CARDRESET`).
    pub watchdog_reset: bool,
    /// Whether the clock was behind the release's build time at boot, and was set to that: the time isn't known then.
    pub clock_behind: bool,
    /// Milliseconds after boot by which a release on trial must have passed.
    pub trial_deadline_ms: u64,
    /// Boot stages, in order.
    pub stages: Vec<Stage>,
    /// The shutdown that is under way.
    pub shutting_down: Option<Shutdown>,
}

/// A stage of the boot that is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stage {
    /// What was done.
    pub name: String,
    /// Milliseconds since kernel start at which it was done.
    pub at_ms: u64,
    /// Milliseconds of those for which processors were idle or waited for a disk, summed over processors: where a boot
    /// waits rather than works.
    pub idle_ms: u64,
}

/// A process that PID 1 is the parent of on behalf of the runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Adopted {
    /// The container's ID.
    pub id: String,
    /// Its process ID in the host's namespace.
    pub pid: u32,
    /// How it ended; `None` while it runs.
    pub exit: Option<Exit>,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Exit {
    /// Exit code, or 128 + the signal's number.
    pub code: i32,
    /// Milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
}

/// Why bytes are not a message.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// Longer than [`MAX_MESSAGE_BYTES`].
    #[error("control message of {0} bytes is longer than {MAX_MESSAGE_BYTES}")]
    TooLong(usize),
    /// Not what postcard can read, or bytes are left over.
    #[error("control message is malformed")]
    Malformed(#[from] postcard::Error),
}

/// Writes a message.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, CodecError> {
    let bytes = postcard::to_stdvec(message)?;
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLong(bytes.len()));
    }
    Ok(bytes)
}

/// Reads a message.
pub fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, CodecError> {
    if bytes.len() > MAX_MESSAGE_BYTES {
        return Err(CodecError::TooLong(bytes.len()));
    }
    match postcard::take_from_bytes(bytes)? {
        (message, []) => Ok(message),
        _ => Err(CodecError::Malformed(postcard::Error::DeserializeBadEncoding)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_wire() {
        let request = Request::Adopt { id: "c0ffee".into(), pid: 7 };
        assert_eq!(decode::<Request>(&encode(&request).unwrap()).unwrap(), request);
    }

    #[test]
    fn bytes_after_a_message_are_refused() {
        let mut bytes = encode(&Request::Ready).unwrap();
        bytes.push(0);
        assert!(decode::<Request>(&bytes).is_err());
    }

    #[test]
    fn a_message_over_the_limit_is_refused() {
        let request = Request::Status("x".repeat(MAX_MESSAGE_BYTES));
        assert!(matches!(encode(&request), Err(CodecError::TooLong(_))));
    }
}
