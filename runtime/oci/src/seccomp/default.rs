//! The filter of an ordinary container.

use crate::spec::{Action, Arg, Op, Seccomp, SyscallRule};

/// Every flag of clone(2) that makes a namespace.
const CLONE_NEW_MASK: u64 = 0x7E02_0000;

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

#[cfg(test)]
mod tests {
    use super::super::filter::tests::run;
    use super::*;
    use crate::seccomp::compile;

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
}
