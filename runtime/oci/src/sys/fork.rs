//! The child, from clone3 to the execution of this program in it.
//!
//! Namespaces that exist are joined by a helper process that then makes the child, where they only take effect for
//! children (process IDs), or where a new user namespace would have no right to join them. A time namespace can be joined
//! only by who shares memory with nobody: by the child. Those of a running container are joined later, by the executed
//! program: see [`super::join`].

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use super::check;

/// Descriptor of the socket to the parent, in the executed child.
const SOCKET_FD: RawFd = 3;
/// Descriptor of the program, in the child before it executes it.
const PROGRAM_FD: RawFd = 4;
/// First word of the child's message when it couldn't execute the program.
pub(crate) const RAW_FAILURE: u32 = u32::MAX;
/// Stack of the helper, which only makes system calls.
const HELPER_STACK_BYTES: usize = 64 << 10;

/// include/uapi/linux/sched.h; libc's constant overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child needs to know between clone3 and the execution of the program.
pub(crate) struct Fork {
    /// `CLONE_NEW…` and `CLONE_PARENT`.
    pub flags: u64,
    /// Folder of the cgroup it starts in.
    pub cgroup: Option<OwnedFd>,
    /// Its end of the socket, at least 10, like the following: so that they can be put in their places.
    pub socket: OwnedFd,
    /// Standard input, output, error.
    pub stdio: [OwnedFd; 3],
    /// The program, opened with `O_PATH`.
    pub program: OwnedFd,
    /// Whether it becomes root of its user namespace before it goes on.
    pub mapped: bool,
    /// Joined before it is made: namespace (or a process that is in it) and its kind, `CLONE_NEW…` or 0.
    pub joined: Vec<(OwnedFd, i32)>,
}

/// Makes the child. It waits for one byte on the socket, then executes `program oci-init`.
pub(crate) fn fork(f: &Fork) -> io::Result<(u32, OwnedFd)> {
    let made = if f.joined.iter().all(|joined| is_time(&joined)) { clone(f, f.flags) } else { clone_by_helper(f)? };
    match made {
        // SAFETY: the kernel stored a new descriptor that nobody else owns.
        Ok((pid, pidfd)) => Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) })),
        Err(errno) => Err(io::Error::from_raw_os_error(errno)),
    }
}

fn is_time((_, kind): &&(OwnedFd, i32)) -> bool {
    *kind == libc::CLONE_NEWTIME
}

/// clone3, with the child's part in the child. Only system calls: a helper may run it.
fn clone(f: &Fork, flags: u64) -> Result<(u32, RawFd), i32> {
    let mut pidfd: RawFd = -1;
    let mut flags = flags | libc::CLONE_PIDFD as u64;
    if f.cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // clone3 wants no exit signal with CLONE_PARENT: the child then has the caller's own.
    let exit_signal = if flags & libc::CLONE_PARENT as u64 != 0 { 0 } else { libc::SIGCHLD as u64 };
    let args = libc::clone_args {
        flags,
        pidfd: &raw mut pidfd as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal,
        stack: 0,
        stack_size: 0,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup: f.cgroup.as_ref().map_or(0, |c| c.as_raw_fd() as u64),
    };
    // SAFETY: without CLONE_VM the child runs on a copy of this memory; it calls only `child`, which makes system calls
    // and nothing else until it executes another program or exits, so no lock of another thread can matter to it.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
    match pid {
        // SAFETY: reads this thread's errno.
        -1 => Err(unsafe { *libc::__errno_location() }),
        // SAFETY: this is the child of the clone3 above.
        0 => unsafe { child(f) },
        pid => Ok((pid as u32, pidfd)),
    }
}

/// What the helper works on, in the caller's memory.
struct Helper<'a> {
    fork: &'a Fork,
    made: Result<(u32, RawFd), i32>,
}

/// Clones from a helper that has joined namespaces. It shares memory and descriptors with the calling thread, which
/// waits for it (vfork(2)); the child becomes the caller's, or that of the caller's parent.
fn clone_by_helper(f: &Fork) -> io::Result<Result<(u32, RawFd), i32>> {
    let mut stack = vec![0u128; HELPER_STACK_BYTES / size_of::<u128>()];
    let mut helper = Helper { fork: f, made: Err(libc::ECANCELED) };
    let adopted = f.flags as i32 & libc::CLONE_PARENT;
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_FILES | libc::SIGCHLD | adopted;
    // SAFETY: the stack's end is aligned to 16 bytes and outlives the helper, as does what it works on: this thread
    // goes on only when the helper has exited. It makes system calls alone.
    let pid = unsafe {
        libc::clone(
            join_and_clone,
            stack.as_mut_ptr_range().end.cast(),
            flags,
            (&raw mut helper).cast::<libc::c_void>(),
        )
    };
    check(pid.into())?;
    if adopted == 0 {
        // SAFETY: no status is asked for.
        while unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::__WALL) } < 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
    }
    Ok(helper.made)
}

/// The helper's whole life.
extern "C" fn join_and_clone(helper: *mut libc::c_void) -> libc::c_int {
    // SAFETY: `clone_by_helper` passes a `Helper` that nobody else touches until this process has exited.
    let helper = unsafe { &mut *helper.cast::<Helper<'_>>() };
    for (namespace, kind) in helper.fork.joined.iter().filter(|joined| !is_time(joined)) {
        // SAFETY: plain numbers; affects this process alone.
        if unsafe { libc::setns(namespace.as_raw_fd(), *kind) } != 0 {
            // SAFETY: reads errno, which is the waiting thread's, too.
            helper.made = Err(unsafe { *libc::__errno_location() });
            return 1;
        }
    }
    helper.made = clone(helper.fork, helper.fork.flags | libc::CLONE_PARENT as u64);
    0
}

/// The child between clone3 and execveat.
///
/// # Safety
/// Only in a process that has just been cloned. Only system calls: no allocation, no lock, no drop.
unsafe fn child(f: &Fork) -> ! {
    let mut socket = f.socket.as_raw_fd();
    let mut go = 0u8;
    // SAFETY: plain system calls on descriptors and memory of this process, which no other thread shares.
    unsafe {
        // This is a copy of the host's process: nobody in a namespace that it shares or joins may look into it.
        libc::prctl(libc::PR_SET_DUMPABLE, 0, 0, 0, 0);
        // Before it waits: two that are made at once have copies of each other's sockets, and would never see that
        // their maker has gone; nor would its locks be free.
        let step = if join_time(f) { place_descriptors(f, &mut socket) } else { Err(4) };
        if libc::read(socket, (&raw mut go).cast(), 1) != 1 {
            libc::_exit(1);
        }
        let step = step.and_then(|()| if f.mapped && !super::become_root() { Err(1) } else { Ok(()) });
        let step = match step {
            Err(step) => step,
            Ok(()) => {
                let argv = [c"keel-oci".as_ptr(), c"oci-init".as_ptr(), std::ptr::null()];
                let envp = [std::ptr::null::<libc::c_char>()];
                libc::syscall(
                    libc::SYS_execveat,
                    PROGRAM_FD,
                    c"".as_ptr(),
                    argv.as_ptr(),
                    envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
                3
            }
        };
        let message = [RAW_FAILURE, step, *libc::__errno_location() as u32];
        libc::write(socket, message.as_ptr().cast(), size_of_val(&message));
        libc::_exit(1)
    }
}

/// Joins the time namespace that there is, if any.
///
/// # Safety
/// As for [`child`].
unsafe fn join_time(f: &Fork) -> bool {
    // SAFETY: plain numbers.
    f.joined.iter().filter(is_time).all(|(namespace, kind)| unsafe { libc::setns(namespace.as_raw_fd(), *kind) == 0 })
}

/// Standard streams, socket and program; everything else of the host's is closed.
///
/// # Safety
/// As for [`child`].
unsafe fn place_descriptors(f: &Fork, socket: &mut RawFd) -> Result<(), u32> {
    // SAFETY: plain numbers.
    let ok = unsafe {
        f.stdio.iter().enumerate().all(|(at, fd)| libc::dup2(fd.as_raw_fd(), at as RawFd) >= 0)
            && libc::dup2(*socket, SOCKET_FD) >= 0
            && libc::dup3(f.program.as_raw_fd(), PROGRAM_FD, libc::O_CLOEXEC) >= 0
    };
    if !ok {
        return Err(2);
    }
    *socket = SOCKET_FD;
    // SAFETY: plain numbers.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, PROGRAM_FD + 1, u32::MAX, 0) };
    if closed == 0 { Ok(()) } else { Err(2) }
}

/// The step of a child's raw message.
pub(crate) fn raw_step(number: u32) -> &'static str {
    match number {
        1 => "become root of the user namespace",
        2 => "put descriptors in their places",
        4 => "join the time namespace",
        _ => "execute the runtime's own program inside",
    }
}

/// Closes every descriptor from `first` on, at the next execution of a program.
pub(crate) fn close_on_exec_from(first: u32) -> io::Result<()> {
    // SAFETY: no memory is passed; descriptors stay open in this process.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) })
}

/// Takes the socket that [`fork`] put in its place.
pub(crate) fn take_socket() -> io::Result<OwnedFd> {
    // SAFETY: asks whether the descriptor is open.
    check(unsafe { libc::fcntl(SOCKET_FD, libc::F_SETFD, libc::FD_CLOEXEC) }.into())?;
    // SAFETY: called once, at the start of `init_main`, where nothing else owns descriptor 3.
    Ok(unsafe { OwnedFd::from_raw_fd(SOCKET_FD) })
}

/// A process in a user namespace that does nothing until it is dropped.
pub(crate) struct Carrier(u32, OwnedFd);

impl Carrier {
    /// In a new one.
    pub(crate) fn new() -> io::Result<Self> {
        Self::make(libc::CLONE_NEWUSER, None)
    }

    /// In one that exists, given by itself or by a process (a pidfd) in it.
    pub(crate) fn joined(namespace: BorrowedFd<'_>) -> io::Result<Self> {
        Self::make(0, Some(namespace))
    }

    fn make(flags: i32, joined: Option<BorrowedFd<'_>>) -> io::Result<Self> {
        let (ready, told) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let mut pidfd: RawFd = -1;
        // SAFETY: all fields are numbers, for which zero is valid.
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        args.flags = (libc::CLONE_PIDFD | flags) as u64;
        args.pidfd = &raw mut pidfd as u64;
        args.exit_signal = libc::SIGCHLD as u64;
        let parent = std::process::id();
        // SAFETY: the child runs on a copy of this memory and makes system calls alone.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
        if pid == 0 {
            // SAFETY: plain numbers, and one byte that lives through the call. It dies with its maker, if that isn't
            // there to drop it.
            unsafe {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL, 0, 0, 0);
                // A maker that was killed before that sends nothing any more.
                if libc::getppid().cast_unsigned() != parent {
                    libc::_exit(1);
                }
                if joined.is_some_and(|j| libc::setns(j.as_raw_fd(), libc::CLONE_NEWUSER) != 0) {
                    libc::_exit(1);
                }
                libc::write(told.as_raw_fd(), [1u8].as_ptr().cast(), 1);
                libc::syscall(libc::SYS_close_range, 0, u32::MAX, 0);
                loop {
                    libc::pause();
                }
            }
        }
        check(pid)?;
        // SAFETY: the kernel stored a new descriptor that nobody else owns.
        let carrier = Self(pid as u32, unsafe { OwnedFd::from_raw_fd(pidfd) });
        drop(told);
        let mut byte = [0u8];
        match rustix::io::retry_on_intr(|| rustix::io::read(&ready, &mut byte))? {
            1 => Ok(carrier),
            _ => Err(io::Error::from_raw_os_error(libc::EPERM)),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        let _ = rustix::process::pidfd_send_signal(&self.1, rustix::process::Signal::KILL);
        let _ = rustix::process::waitid(
            rustix::process::WaitId::PidFd(std::os::fd::AsFd::as_fd(&self.1)),
            rustix::process::WaitIdOptions::EXITED,
        );
    }
}
