//! The default system call filter, and the compiler of filters: from the configuration's rules to the kernel's
//! classic BPF (Documentation/userspace-api/seccomp_filter.rst).
//!
//! A filter is a list of comparisons with the call's number. That it is linear costs little: the kernel works out at
//! load time which calls are allowed whatever their arguments, and doesn't run the filter for those (since 5.11).

use std::collections::BTreeMap;

use crate::Error;
use crate::spec::{Action, Arg, Op, Seccomp, SyscallRule};
use crate::syscalls;

/// One instruction: code, jump if true, jump if false, operand.
pub(crate) type Insn = (u16, u8, u8, u32);

/// Actions that are understood.
pub(crate) const ACTIONS: [&str; 9] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
/// Comparisons that are understood.
pub(crate) const OPERATORS: [&str; 7] =
    ["SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE", "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"];
/// Architectures that filters are made for.
pub(crate) const ARCHITECTURES: [&str; 1] = ["SCMP_ARCH_X86_64"];
/// Flags and their bits (seccomp(2)).
const FLAGS: [(&str, u64); 4] = [
    ("SECCOMP_FILTER_FLAG_TSYNC", 1),
    ("SECCOMP_FILTER_FLAG_LOG", 1 << 1),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", 1 << 2),
    ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", 1 << 5),
];

/// Flags that are understood.
pub(crate) fn flags() -> [&'static str; 4] {
    FLAGS.map(|(name, _)| name)
}

/// Most instructions in a filter (`BPF_MAXINSNS`).
const MAX_INSNS: usize = 4096;
/// `AUDIT_ARCH_X86_64`.
const ARCH_X86_64: u32 = 0xC000_003E;
/// Calls of the x32 interface have this bit.
const X32_BIT: u32 = 0x4000_0000;
/// Every flag of clone(2) that makes a namespace.
const CLONE_NEW_MASK: u64 = 0x7E02_0000;

const LD: u16 = 0x20;
const AND: u16 = 0x54;
const JA: u16 = 0x05;
const JEQ: u16 = 0x15;
const JGT: u16 = 0x25;
const JGE: u16 = 0x35;
const RET: u16 = 0x06;

/// Calls that every container may make.
#[rustfmt::skip]
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm arch_prctl bind brk cachestat capget capset chdir chmod chown clock_adjtime
    clock_getres clock_gettime clock_nanosleep close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd
    eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate fanotify_mark fchdir fchmod
    fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat
    fstatfs fsync ftruncate futex futex_requeue futex_wait futex_waitv futex_wake futimesat get_robust_list
    get_thread_area getcpu getcwd getdents getdents64 getegid geteuid getgid getgroups getitimer getpeername getpgid
    getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit getrusage getsid getsockname getsockopt
    gettid gettimeofday getuid getxattr getxattrat inotify_add_watch inotify_init inotify_init1 inotify_rm_watch
    io_cancel io_destroy io_getevents io_pgetevents io_setup io_submit ioctl ioprio_get ioprio_set kill
    landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lgetxattr link linkat listen listmount
    listxattr listxattrat llistxattr lremovexattr lseek lsetxattr lstat madvise map_shadow_stack membarrier
    memfd_create memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap modify_ldt mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink mremap mseal msgctl msgget msgrcv msgsnd
    msync munlock munlockall munmap name_to_handle_at nanosleep newfstatat open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll prctl pread64 preadv preadv2 prlimit64
    process_mrelease process_vm_readv process_vm_writev pselect6 ptrace pwrite64 pwritev pwritev2 read readahead
    readlink readlinkat readv recvfrom recvmmsg recvmsg remap_file_pages removexattr removexattrat rename renameat
    renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval sched_setaffinity sched_setattr
    sched_setparam sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop sendfile sendmmsg
    sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid setfsuid setgid setgroups setitimer setpgid
    setpriority setregid setresgid setresuid setreuid setrlimit setsid setsockopt setuid setxattr setxattrat shmat
    shmctl shmdt shmget shutdown sigaltstack signalfd signalfd4 socketpair splice stat statfs statmount statx symlink
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun
    timer_gettime timer_settime timerfd_create timerfd_gettime timerfd_settime times tkill truncate umask uname unlink
    unlinkat uretprobe utime utimensat utimes vfork vmsplice wait4 waitid write writev
";

/// Calls that a container may make which holds a capability.
const ALLOWED_BY_CAPABILITY: &[(&str, &str)] = &[
    ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "CAP_SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount2 unshare",
    ),
    ("CAP_SYS_BOOT", "reboot"),
    ("CAP_SYS_CHROOT", "chroot"),
    ("CAP_SYS_MODULE", "delete_module init_module finit_module"),
    ("CAP_SYS_PACCT", "acct"),
    ("CAP_SYS_PTRACE", "kcmp pidfd_getfd process_madvise process_vm_readv process_vm_writev ptrace"),
    ("CAP_SYS_RAWIO", "iopl ioperm"),
    ("CAP_SYS_TIME", "settimeofday clock_settime"),
    ("CAP_SYS_TTY_CONFIG", "vhangup"),
    ("CAP_SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("CAP_SYSLOG", "syslog"),
    ("CAP_BPF", "bpf"),
    ("CAP_PERFMON", "perf_event_open"),
];

/// The filter of an ordinary container that holds these capabilities (`CAP_…`): allows what Docker's published
/// default profile allows, and refuses everything else with `EPERM`.
pub fn default_profile(capabilities: &[String]) -> Seccomp {
    let has = |cap: &str| capabilities.iter().any(|c| c == cap);
    let names = |list: &str| list.split_ascii_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let allow =
        |list: &str, args: Vec<Arg>| SyscallRule { names: names(list), action: Action::Allow, errno_ret: None, args };
    let arg = |op, value, value_two| Arg { index: 0, value, value_two, op };
    let mut rules = vec![
        allow(ALLOWED, vec![]),
        // Neither AF_ALG nor AF_VSOCK: the one has a long history of kernel bugs, the other knows no namespaces.
        allow("socket", vec![arg(Op::Lt, libc::AF_ALG as u64, 0)]),
        allow("socket", vec![arg(Op::Eq, libc::AF_ALG as u64 + 1, 0)]),
        allow("socket", vec![arg(Op::Gt, libc::AF_VSOCK as u64, 0)]),
    ];
    for persona in [0, 0x8, 0x2_0000, 0x2_0008, 0xFFFF_FFFF] {
        rules.push(allow("personality", vec![arg(Op::Eq, persona, 0)]));
    }
    for (cap, list) in ALLOWED_BY_CAPABILITY {
        if has(cap) {
            rules.push(allow(list, vec![]));
        }
    }
    if !has("CAP_SYS_ADMIN") {
        rules.push(allow("clone", vec![arg(Op::MaskedEq, CLONE_NEW_MASK, 0)]));
        // A filter can't look into clone3's structure; with ENOSYS, C libraries fall back to clone.
        rules.push(SyscallRule {
            names: names("clone3"),
            action: Action::Errno,
            errno_ret: Some(libc::ENOSYS as u32),
            args: vec![],
        });
    }
    Seccomp {
        default_action: Action::Errno,
        default_errno_ret: None,
        architectures: vec![],
        syscalls: rules,
        ..Seccomp::default()
    }
}

/// Compiles a filter.
pub(crate) fn compile(profile: &Seccomp) -> Result<Vec<Insn>, Error> {
    let refused = |reason: String| Error::Config { field: "linux.seccomp".into(), reason };
    if !profile.architectures.is_empty() && !profile.architectures.iter().any(|a| a == "SCMP_ARCH_X86_64") {
        return Err(refused("architectures lack SCMP_ARCH_X86_64".into()));
    }
    let mut calls: BTreeMap<u32, Vec<&SyscallRule>> = BTreeMap::new();
    for rule in &profile.syscalls {
        if let Some(arg) = rule.args.iter().find(|a| a.index > 5) {
            return Err(refused(format!("argument {} of {:?} doesn't exist", arg.index, rule.names)));
        }
        for number in rule.names.iter().filter_map(|n| syscalls::number(n)) {
            calls.entry(number).or_default().push(rule);
        }
    }
    let default = value_of(profile.default_action, profile.default_errno_ret);
    let mut program = vec![
        (LD, 0, 0, 4),
        (JEQ, 1, 0, ARCH_X86_64),
        (RET, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        (LD, 0, 0, 0),
        (JGE, 0, 1, X32_BIT),
        (RET, 0, 0, libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
    ];
    for (number, rules) in calls {
        let mut block = Vec::new();
        let mut decided = false;
        for rule in rules {
            entry(&mut block, rule);
            if rule.args.is_empty() {
                decided = true;
                break;
            }
        }
        if !decided {
            block.push((RET, 0, 0, default));
        }
        match u8::try_from(block.len()) {
            Ok(len) => program.push((JEQ, 0, len, number)),
            Err(_) => program.extend([(JEQ, 1, 0, number), (JA, 0, 0, block.len() as u32)]),
        }
        program.extend(block);
    }
    program.push((RET, 0, 0, default));
    if program.len() > MAX_INSNS {
        return Err(refused(format!("{} instructions are more than the kernel takes ({MAX_INSNS})", program.len())));
    }
    Ok(program)
}

/// The bits of a profile's flags. Checks, too, what concerns the agent that is notified: there must be one, and the
/// message that tells it of the filter is sent under the filter.
pub(crate) fn check(profile: &Seccomp) -> Result<u64, Error> {
    let refused = |reason: String| Error::Config { field: "linux.seccomp".into(), reason };
    let bit = |name: &String| FLAGS.iter().find(|(known, _)| known == name).map(|(_, bit)| *bit);
    let flags = profile.flags.iter().try_fold(0, |bits, name| {
        bit(name).map(|b| bits | b).ok_or_else(|| refused(format!("flag {name:?} isn't known")))
    })?;
    if profile.default_action == Action::Notify {
        return Err(refused("SCMP_ACT_NOTIFY can't be the default action".into()));
    }
    let notifying = || profile.syscalls.iter().filter(|r| r.action == Action::Notify);
    if notifying().next().is_some() && profile.listener_path.as_ref().is_none_or(String::is_empty) {
        return Err(refused("SCMP_ACT_NOTIFY needs a listenerPath".into()));
    }
    if notifying().any(|r| r.names.iter().any(|n| n == "sendmsg")) {
        return Err(refused("SCMP_ACT_NOTIFY can't be for sendmsg, which the runtime makes itself".into()));
    }
    // With one thread there is nobody to synchronise with, and it excludes a listener.
    Ok(flags & !1)
}

/// Whether an agent is notified.
pub(crate) fn notifies(profile: &Seccomp) -> bool {
    profile.syscalls.iter().any(|r| r.action == Action::Notify)
}

/// What the filter returns for an action.
fn value_of(action: Action, errno: Option<u32>) -> u32 {
    match action {
        Action::Allow => libc::SECCOMP_RET_ALLOW,
        Action::Errno => libc::SECCOMP_RET_ERRNO | (errno.unwrap_or(libc::EPERM as u32) & 0xFFFF),
        Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
        Action::Trap => libc::SECCOMP_RET_TRAP,
        Action::Log => libc::SECCOMP_RET_LOG,
        Action::Trace => libc::SECCOMP_RET_TRACE | (errno.unwrap_or(libc::EPERM as u32) & 0xFFFF),
        Action::Notify => libc::SECCOMP_RET_USER_NOTIF,
    }
}

/// Where a comparison jumps to.
#[derive(Clone, Copy)]
enum To {
    /// The instruction after it.
    Next,
    /// Past this condition, which holds.
    Holds,
    /// Past the rule, which doesn't match.
    Fails,
}

/// Emits one rule: its conditions, then its result. At most 6 × 6 + 1 instructions, so jumps fit their byte.
fn entry(block: &mut Vec<Insn>, rule: &SyscallRule) {
    let conditions: Vec<Vec<(u16, To, To, u32)>> = rule.args.iter().take(6).map(condition).collect();
    let mut left: usize = conditions.iter().map(Vec::len).sum::<usize>() + 1;
    for condition in conditions {
        let len = condition.len();
        for (i, (code, jt, jf, k)) in condition.into_iter().enumerate() {
            left -= 1;
            let offset = |to| match to {
                To::Next => 0,
                To::Holds => (len - i - 1) as u8,
                To::Fails => left as u8,
            };
            block.push((code, offset(jt), offset(jf), k));
        }
    }
    block.push((RET, 0, 0, value_of(rule.action, rule.errno_ret)));
}

/// One comparison of a 64-bit argument, as two of 32 bits.
fn condition(arg: &Arg) -> Vec<(u16, To, To, u32)> {
    use To::{Fails, Holds, Next};
    let (low, high) = (16 + 8 * arg.index, 20 + 8 * arg.index);
    let split = |v: u64| (v as u32, (v >> 32) as u32);
    let (value_low, value_high) = split(arg.value);
    let load = |at| (LD, Next, Next, at);
    match arg.op {
        Op::Eq => vec![load(high), (JEQ, Next, Fails, value_high), load(low), (JEQ, Next, Fails, value_low)],
        Op::Ne => vec![load(high), (JEQ, Next, Holds, value_high), load(low), (JEQ, Fails, Next, value_low)],
        Op::MaskedEq => {
            let (two_low, two_high) = split(arg.value_two & arg.value);
            vec![
                load(high),
                (AND, Next, Next, value_high),
                (JEQ, Next, Fails, two_high),
                load(low),
                (AND, Next, Next, value_low),
                (JEQ, Next, Fails, two_low),
            ]
        }
        Op::Ge | Op::Gt => {
            let last = if arg.op == Op::Ge { JGE } else { JGT };
            let head = [load(high), (JGT, Holds, Next, value_high), (JEQ, Next, Fails, value_high)];
            head.into_iter().chain([load(low), (last, Next, Fails, value_low)]).collect()
        }
        Op::Lt | Op::Le => {
            let last = if arg.op == Op::Lt { JGE } else { JGT };
            let head = [load(high), (JGT, Fails, Next, value_high), (JEQ, Next, Holds, value_high)];
            head.into_iter().chain([load(low), (last, Fails, Next, value_low)]).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a filter as the kernel would.
    fn run(program: &[Insn], call: &str, args: [u64; 6]) -> u32 {
        let mut data = [0u8; 64];
        data[0..4].copy_from_slice(&syscalls::number(call).unwrap().to_le_bytes());
        data[4..8].copy_from_slice(&ARCH_X86_64.to_le_bytes());
        for (i, a) in args.iter().enumerate() {
            data[16 + 8 * i..24 + 8 * i].copy_from_slice(&a.to_le_bytes());
        }
        let (mut a, mut at) = (0u32, 0usize);
        loop {
            let (code, jt, jf, k) = program[at];
            at += 1;
            let holds = match code {
                LD => {
                    a = u32::from_le_bytes(data[k as usize..k as usize + 4].try_into().unwrap());
                    continue;
                }
                AND => {
                    a &= k;
                    continue;
                }
                JA => {
                    at += k as usize;
                    continue;
                }
                RET => return k,
                JEQ => a == k,
                JGT => a > k,
                JGE => a >= k,
                other => panic!("code {other}"),
            };
            at += usize::from(if holds { jt } else { jf });
        }
    }

    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;

    #[test]
    fn the_default_profile_refuses_what_it_should() {
        let program = compile(&default_profile(&[])).unwrap();
        let allow = libc::SECCOMP_RET_ALLOW;
        assert_eq!(run(&program, "read", [0; 6]), allow);
        for call in ["mount", "keyctl", "bpf", "unshare", "init_module", "reboot", "setns", "open_by_handle_at"] {
            assert_eq!(run(&program, call, [0; 6]), EPERM, "{call}");
        }
        assert_eq!(run(&program, "clone3", [0; 6]), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        assert_eq!(run(&program, "clone", [libc::CLONE_NEWUSER as u64, 0, 0, 0, 0, 0]), EPERM);
        assert_eq!(run(&program, "clone", [libc::SIGCHLD as u64, 0, 0, 0, 0, 0]), allow);
        for (family, result) in [(1, allow), (38, EPERM), (39, allow), (40, EPERM), (41, allow), (1 << 33, allow)] {
            assert_eq!(run(&program, "socket", [family, 0, 0, 0, 0, 0]), result, "{family}");
        }
        assert_eq!(run(&program, "personality", [0xFFFF_FFFF, 0, 0, 0, 0, 0]), allow);
        assert_eq!(run(&program, "personality", [0x40_0000, 0, 0, 0, 0, 0]), EPERM);
    }

    #[test]
    fn capabilities_open_their_calls_and_no_others() {
        let program = compile(&default_profile(&["CAP_SYS_ADMIN".into()])).unwrap();
        assert_eq!(run(&program, "mount", [0; 6]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(run(&program, "clone3", [0; 6]), libc::SECCOMP_RET_ALLOW);
        assert_eq!(run(&program, "reboot", [0; 6]), EPERM);
    }

    #[test]
    fn comparisons_are_of_64_bits() {
        let big = 5 | (7 << 32);
        let cases = [
            (Op::Eq, [false, true, false, false]),
            (Op::Ne, [true, false, true, true]),
            (Op::Lt, [true, false, false, true]),
            (Op::Le, [true, true, false, true]),
            (Op::Ge, [false, true, true, false]),
            (Op::Gt, [false, false, true, false]),
        ];
        for (op, expected) in cases {
            let rule = SyscallRule {
                names: vec!["read".into()],
                action: Action::Allow,
                errno_ret: None,
                args: vec![Arg { index: 2, value: big, value_two: 0, op }],
            };
            let program = compile(&Seccomp { syscalls: vec![rule], ..Seccomp::default() }).unwrap();
            for (value, expected) in [big - 1, big, big + 1, 9].into_iter().zip(expected) {
                let got = run(&program, "read", [0, 0, value, 0, 0, 0]) == libc::SECCOMP_RET_ALLOW;
                assert_eq!(got, expected, "{op:?} {value:#x}");
            }
        }
    }
}
