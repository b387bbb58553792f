//! A stand-in for PID 1: the parent of containers, which keeps their pipes and exits while the daemon is gone. The
//! daemon is a child of this process, so that what it clones with `CLONE_PARENT` is, too.

use std::collections::HashMap;
use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use keel_spec::control::{Adopted, Event, Exit, MAX_FDS, MAX_MESSAGE_BYTES, Reply, Request, decode, encode};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen, recvmsg, sendmsg, socket_with,
};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

#[derive(Default)]
struct Kept {
    adopted: HashMap<String, Adopted>,
    fds: HashMap<String, Vec<OwnedFd>>,
    listeners: Vec<OwnedFd>,
    spared: Vec<u32>,
}

/// The stand-in.
#[derive(Clone, Default)]
pub struct Parent(Arc<Mutex<Kept>>);

impl Parent {
    /// Listens at `path`, for as long as this process runs.
    pub fn listen(path: &Path) -> Self {
        let parent = Self::default();
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        listen(&socket, 16).unwrap();
        let serving = parent.clone();
        std::thread::spawn(move || {
            while let Ok(client) = accept_with(&socket, SocketFlags::CLOEXEC) {
                let serving = serving.clone();
                std::thread::spawn(move || serving.serve(client));
            }
        });
        let reaping = parent.clone();
        std::thread::spawn(move || reaping.reap_strangers());
        parent
    }

    /// Takes note of a child that somebody else waits for.
    pub fn spare(&self, pid: u32) {
        self.0.lock().unwrap().spared.push(pid);
    }

    /// Kills the last of those, for a test that fails: what it keeps open would keep whoever reads the test's output
    /// waiting.
    pub fn kill_last(&self) {
        let last = self.0.lock().ok().and_then(|kept| kept.spared.last().copied());
        if let Some(pid) = last.and_then(|pid| Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// Waits for children that nobody had adopted when the daemon was killed, as PID 1 does: a container with one of
    /// them inside wouldn't end. Not at once, for the adoption may be under way.
    fn reap_strangers(&self) {
        let mut seen: HashMap<u32, u32> = HashMap::new();
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let zombies = zombies_of(std::process::id());
            seen.retain(|pid, _| zombies.contains(pid));
            for pid in zombies {
                let kept = self.0.lock().unwrap();
                if kept.spared.contains(&pid) || kept.adopted.values().any(|adopted| adopted.pid == pid) {
                    continue;
                }
                let times = seen.entry(pid).or_default();
                *times += 1;
                if *times > 10 {
                    let _ = waitid(WaitId::Pid(Pid::from_raw(pid as i32).unwrap()), WaitIdOptions::EXITED);
                }
            }
        }
    }

    /// Names of what is kept: processes and descriptors.
    pub fn kept(&self) -> Vec<String> {
        let kept = self.0.lock().unwrap();
        kept.adopted.keys().chain(kept.fds.keys()).cloned().collect()
    }

    fn serve(&self, client: OwnedFd) {
        while let Some((request, fds)) = receive(&client) {
            let subscribes = matches!(request, Request::Subscribe);
            if subscribes {
                // Before the answer: what ends from here on is told.
                self.0.lock().unwrap().listeners.push(client.try_clone().unwrap());
            }
            for (reply, fds) in self.answer(request, fds) {
                if !send(&client, &reply, &fds) {
                    return;
                }
            }
        }
    }

    fn answer(&self, request: Request, mut fds: Vec<OwnedFd>) -> Vec<(Reply, Vec<OwnedFd>)> {
        let mut kept = self.0.lock().unwrap();
        let mut replies = Vec::new();
        match request {
            Request::StoreFds { name } => drop(kept.fds.insert(name, fds)),
            Request::DropFds { name } => drop(kept.fds.remove(&name)),
            Request::ListFds => replies.extend(kept.fds.keys().map(|name| (Reply::Stored(name.clone()), vec![]))),
            Request::FetchFds { name } => {
                let Some(found) = kept.fds.get(&name) else {
                    return vec![(Reply::Refused(format!("nothing stored as {name:?}")), vec![])];
                };
                let copies = found.iter().map(|fd| fd.try_clone().unwrap()).collect();
                return vec![(Reply::Fds, copies)];
            }
            Request::Adopt { id, pid } => {
                kept.adopted.insert(id.clone(), Adopted { id: id.clone(), pid, exit: None });
                let (parent, pidfd) = (self.clone(), fds.pop().expect("a pidfd comes along"));
                std::thread::spawn(move || parent.wait(&id, pid, &pidfd));
            }
            Request::Adopted => {
                replies.extend(kept.adopted.values().map(|adopted| (Reply::Adopted(adopted.clone()), vec![])));
            }
            Request::Forget { id } => drop(kept.adopted.remove(&id)),
            Request::Ready | Request::Status(_) | Request::Subscribe => {}
            other => return vec![(Reply::Refused(format!("{other:?} isn't served here")), vec![])],
        }
        replies.push((Reply::Done, vec![]));
        replies
    }

    fn wait(&self, id: &str, pid: u32, pidfd: &OwnedFd) {
        let code = loop {
            match waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
                Ok(Some(status)) => {
                    let signal = status.terminating_signal().map(|signal| signal + 128);
                    break status.exit_status().or(signal).unwrap_or(255);
                }
                Ok(None) | Err(rustix::io::Errno::INTR) => {}
                Err(error) => panic!("waiting for {id}: {error}"),
            }
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let exit = Some(Exit { code, at_unix_ms: now.as_millis() as u64 });
        let mut kept = self.0.lock().unwrap();
        if let Some(adopted) = kept.adopted.get_mut(id).filter(|adopted| adopted.pid == pid) {
            adopted.exit = exit;
            let event = Reply::Event(Event::Exited(adopted.clone()));
            kept.listeners.retain(|listener| send(listener, &event, &[]));
        }
    }
}

/// Children of a process that have ended and weren't waited for.
fn zombies_of(parent: u32) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let is_one = |pid: &u32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
        after.starts_with(&format!("Z {parent} "))
    };
    pids.filter(is_one).collect()
}

fn receive(client: &OwnedFd) -> Option<(Request, Vec<OwnedFd>)> {
    let mut buffer = [0; MAX_MESSAGE_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC;
    let received = recvmsg(client, &mut [IoSliceMut::new(&mut buffer)], &mut control, flags).ok()?;
    let mut fds = Vec::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    let request = decode(buffer.get(..received.bytes).filter(|bytes| !bytes.is_empty())?).ok()?;
    Some((request, fds))
}

fn send(client: &OwnedFd, reply: &Reply, fds: &[OwnedFd]) -> bool {
    let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    }
    sendmsg(client, &[IoSlice::new(&encode(reply).unwrap())], &mut control, SendFlags::NOSIGNAL).is_ok()
}
