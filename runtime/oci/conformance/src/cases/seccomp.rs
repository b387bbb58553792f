//! `linux.seccomp`.

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::unix::net::UnixListener;

use anyhow::{Context, Result, ensure};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;
use crate::process::{DEADLINE, readable};
use crate::spec::Spec;

const SECTION: &str = "config-linux.md#seccomp";
/// A call that takes plain numbers and does no harm.
const GETPRIORITY: i64 = libc::SYS_getpriority;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("seccomp.is-on", SECTION, is_on),
    Case::new("seccomp.errno-is-eperm-by-default", SECTION, errno_default),
    Case::new("seccomp.errno-of-its-own", SECTION, errno_own),
    Case::new("seccomp.default-errno-of-its-own", SECTION, default_errno),
    Case::new("seccomp.default-action-and-exceptions", SECTION, exceptions),
    Case::new("seccomp.kill-process", SECTION, kill_process),
    Case::new("seccomp.kill-thread", SECTION, kill_thread),
    Case::new("seccomp.trap", SECTION, trap),
    Case::new("seccomp.trace-without-a-tracer", SECTION, trace),
    Case::new("seccomp.log-lets-pass", SECTION, log),
    Case::new("seccomp.unknown-names-are-passed-over", SECTION, unknown_name),
    Case::new("seccomp.unknown-action", SECTION, unknown_action),
    Case::new("seccomp.unknown-operator", SECTION, unknown_operator),
    Case::new("seccomp.argument-equal", SECTION, equal),
    Case::new("seccomp.argument-not-equal", SECTION, not_equal),
    Case::new("seccomp.arguments-in-order", SECTION, ordering),
    Case::new("seccomp.argument-masked", SECTION, masked),
    Case::new("seccomp.arguments-of-64-bits", SECTION, wide),
    Case::new("seccomp.all-arguments-must-match", SECTION, conjunction),
    Case::new("seccomp.several-entries-for-a-call", SECTION, disjunction),
    Case::new("seccomp.many-calls", SECTION, many),
    Case::new("seccomp.other-architectures-are-stopped", SECTION, architecture),
    Case::new("seccomp.named-architectures-pass", SECTION, architectures),
    Case::new("seccomp.rules-for-32-bit-calls", SECTION, rules_32),
    Case::new("seccomp.rules-for-calls-that-stand-for-others", SECTION, multiplexed),
    Case::new("seccomp.flag-log", SECTION, flag_log),
    Case::new("seccomp.flag-spec-allow", SECTION, flag_spec_allow),
    Case::new("seccomp.unknown-flag", SECTION, flag_unknown),
    Case::new("seccomp.works-without-no-new-privileges", SECTION, without_nnp),
    Case::new("seccomp.notify-reaches-the-listener", SECTION, notify),
    Case::new("seccomp.notify-needs-a-listener", SECTION, notify_alone),
];

/// A filter that allows all but what follows.
fn allowing(lab: &Lab, rules: Value) -> Spec {
    lab.spec().set("/linux/seccomp", json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules }))
}

/// What `getpriority(a, b)` gives under such a filter: 0, or the error.
fn results(lab: &Lab, spec: &Spec, arguments: &[(u64, u64)]) -> Result<Vec<i32>> {
    let steps: Vec<Value> = arguments.iter().map(|(a, b)| json!(["call", GETPRIORITY, a, b])).collect();
    let answers = lab.run(spec, json!(steps))?;
    Ok((0..arguments.len()).map(|step| answers.errno(step).unwrap_or(0)).collect())
}

fn rule(arguments: Value) -> Value {
    json!([{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": arguments }])
}

fn argument(index: u32, value: u64, op: &str) -> Value {
    json!({ "index": index, "value": value, "op": op })
}

fn is_on(lab: &Lab) -> Result<()> {
    same!(lab.see(&allowing(lab, json!([])))?["seccomp"], "2", "mode");
    same!(lab.see(&lab.spec())?["seccomp"], "0", "mode without `seccomp`");
    Ok(())
}

fn errno_default(lab: &Lab) -> Result<()> {
    let spec = allowing(lab, json!([{ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO" }]));
    same!(results(lab, &spec, &[(0, 0)])?, [libc::EPERM], "error");
    Ok(())
}

fn errno_own(lab: &Lab) -> Result<()> {
    same!(results(lab, &allowing(lab, rule(json!([]))), &[(0, 0)])?, [77], "error");
    Ok(())
}

/// A filter that refuses all but what the probe needs.
fn refusing(lab: &Lab, more: Value) -> Spec {
    let names: Vec<&str> = "access arch_prctl alarm brk capget capset chdir clock_gettime clock_nanosleep clone clone3 close \
        close_range dup dup2 dup3 epoll_create1 execve execveat exit exit_group faccessat fchdir fcntl fgetxattr flock \
        fstat fstatfs futex getcwd getdents64 getegid geteuid getgid getgroups getpid getppid getrandom getrlimit gettid \
        getuid ioctl lseek madvise mmap mount mprotect mremap munmap nanosleep newfstatat open openat openat2 pipe2 poll \
        ppoll prctl pread64 prlimit64 read readlink readlinkat recvmsg rseq rt_sigaction rt_sigprocmask rt_sigreturn \
        sched_getaffinity sched_yield sendmsg sendto set_robust_list set_tid_address setgid setgroups setresgid \
        setresuid setsid setuid sigaltstack socketpair stat statfs statx tgkill umask uname wait4 waitid write writev \
        setgroups epoll_ctl epoll_wait epoll_pwait eventfd2 getsockopt keyctl lstat pselect6 recvfrom seccomp"
        .split_whitespace()
        .collect();
    let seccomp = json!({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86_64"],
        "syscalls": [{ "names": names, "action": "SCMP_ACT_ALLOW" }] });
    let spec = lab.spec().set("/linux/seccomp", seccomp);
    more.as_object()
        .into_iter()
        .flatten()
        .fold(spec, |spec, (name, value)| spec.set(&format!("/linux/seccomp/{name}"), value.clone()))
}

fn default_errno(lab: &Lab) -> Result<()> {
    same!(results(lab, &refusing(lab, json!({ "defaultErrnoRet": 78 })), &[(0, 0)])?, [78], "error");
    Ok(())
}

fn exceptions(lab: &Lab) -> Result<()> {
    same!(results(lab, &refusing(lab, json!({})), &[(0, 0)])?, [libc::EPERM], "error of a call that isn't listed");
    Ok(())
}

fn signal(lab: &Lab, action: &str) -> Result<i32> {
    // Without a PID namespace: a signal's default action holds for a first process only from outside.
    let spec = allowing(lab, json!([{ "names": ["getpriority"], "action": action }])).without_namespace("pid");
    let output = lab.run_any(&crate::lab::with_steps(spec, &json!([["call", GETPRIORITY, 0, 0]])))?;
    Ok(output.code)
}

fn kill_process(lab: &Lab) -> Result<()> {
    same!(signal(lab, "SCMP_ACT_KILL_PROCESS")?, 128 + libc::SIGSYS, "exit code with SCMP_ACT_KILL_PROCESS");
    same!(signal(lab, "SCMP_ACT_KILL")?, 128 + libc::SIGSYS, "exit code with SCMP_ACT_KILL");
    Ok(())
}

fn kill_thread(lab: &Lab) -> Result<()> {
    // The only one the probe has.
    same!(signal(lab, "SCMP_ACT_KILL_THREAD")?, 128 + libc::SIGSYS, "exit code");
    Ok(())
}

fn trace(lab: &Lab) -> Result<()> {
    let spec = allowing(lab, json!([{ "names": ["getpriority"], "action": "SCMP_ACT_TRACE", "errnoRet": 5 }]));
    same!(results(lab, &spec, &[(0, 0)])?, [libc::ENOSYS], "error");
    Ok(())
}

fn trap(lab: &Lab) -> Result<()> {
    same!(signal(lab, "SCMP_ACT_TRAP")?, 128 + libc::SIGSYS, "exit code");
    Ok(())
}

fn log(lab: &Lab) -> Result<()> {
    same!(signal(lab, "SCMP_ACT_LOG")?, 0, "exit code");
    Ok(())
}

fn unknown_name(lab: &Lab) -> Result<()> {
    let rules = json!([{ "names": ["call_of_tomorrow", "getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }]);
    same!(results(lab, &allowing(lab, rules), &[(0, 0)])?, [77], "error of the known call");
    Ok(())
}

fn unknown_action(lab: &Lab) -> Result<()> {
    lab.refused(&allowing(lab, json!([{ "names": ["getpriority"], "action": "SCMP_ACT_NOSUCH" }]))).map(drop)
}

fn unknown_operator(lab: &Lab) -> Result<()> {
    lab.refused(&allowing(lab, rule(json!([argument(0, 1, "SCMP_CMP_NOSUCH")])))).map(drop)
}

fn equal(lab: &Lab) -> Result<()> {
    let spec = allowing(lab, rule(json!([argument(0, 1, "SCMP_CMP_EQ")])));
    same!(results(lab, &spec, &[(0, 0), (1, 0), (2, 0)])?, [0, 77, 0], "errors for 0, 1, 2");
    Ok(())
}

fn not_equal(lab: &Lab) -> Result<()> {
    let spec = allowing(lab, rule(json!([argument(0, 1, "SCMP_CMP_NE")])));
    same!(results(lab, &spec, &[(0, 0), (1, 0), (2, 0)])?, [77, 0, 77], "errors for 0, 1, 2");
    Ok(())
}

fn ordering(lab: &Lab) -> Result<()> {
    let wanted = [
        ("SCMP_CMP_LT", [77, 0, 0]),
        ("SCMP_CMP_LE", [77, 77, 0]),
        ("SCMP_CMP_GE", [0, 77, 77]),
        ("SCMP_CMP_GT", [0, 0, 77]),
    ];
    for (op, errors) in wanted {
        let spec = allowing(lab, rule(json!([argument(0, 1, op)])));
        same!(results(lab, &spec, &[(0, 0), (1, 0), (2, 0)])?, errors, "errors for 0, 1, 2 with {op} 1");
    }
    Ok(())
}

fn masked(lab: &Lab) -> Result<()> {
    let entry = json!({ "index": 0, "value": 2, "valueTwo": 2, "op": "SCMP_CMP_MASKED_EQ" });
    same!(results(lab, &allowing(lab, rule(json!([entry]))), &[(0, 0), (2, 0)])?, [0, 77], "errors for 0, 2");
    Ok(())
}

fn wide(lab: &Lab) -> Result<()> {
    // The second argument is an `int` for the kernel; the filter sees all 64 bits.
    let spec = allowing(lab, rule(json!([argument(1, 1 << 32, "SCMP_CMP_GE")])));
    same!(
        results(lab, &spec, &[(0, 0), (0, 1 << 32), (0, 0x1_0000_0000 - 1)])?[..2],
        [0, 77],
        "errors below and at 2^32"
    );
    Ok(())
}

fn conjunction(lab: &Lab) -> Result<()> {
    let spec = allowing(lab, rule(json!([argument(0, 1, "SCMP_CMP_EQ"), argument(1, 0, "SCMP_CMP_EQ")])));
    let errors = results(lab, &spec, &[(1, 0), (0, 0), (2, 0)])?;
    same!(errors, [77, 0, 0], "errors for (1, 0), (0, 0), (2, 0)");
    Ok(())
}

fn disjunction(lab: &Lab) -> Result<()> {
    let one = rule(json!([argument(0, 1, "SCMP_CMP_EQ")]))[0].clone();
    let mut two = rule(json!([argument(0, 2, "SCMP_CMP_EQ")]))[0].clone();
    two["errnoRet"] = json!(78);
    same!(
        results(lab, &allowing(lab, json!([one, two])), &[(0, 0), (1, 0), (2, 0)])?,
        [0, 77, 78],
        "errors for 0, 1, 2"
    );
    Ok(())
}

fn many(lab: &Lab) -> Result<()> {
    // As long as Docker's own profile: jumps of more than 255 instructions.
    let rules: Vec<Value> = (0..300u64)
        .map(|n| {
            json!({ "names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77,
            "args": [argument(0, 1000 + n, "SCMP_CMP_EQ"), argument(1, 5, "SCMP_CMP_NE")] })
        })
        .collect();
    let errors = results(lab, &allowing(lab, json!(rules)), &[(0, 0), (1000, 0), (1299, 0), (1300, 0)])?;
    same!(errors, [0, 77, 77, libc::EINVAL], "errors for 0, 1000, 1299, 1300");
    Ok(())
}

fn architecture(lab: &Lab) -> Result<()> {
    // getpid by the 32-bit table. The call must not pass a filter that knows of 64-bit calls alone.
    let spec = refusing(lab, json!({})).without_namespace("pid");
    let output = lab.run_any(&crate::lab::with_steps(spec, &json!([["call32", 20]])))?;
    let passed = output.stdout.contains("{\"ok\":") && !output.stdout.contains("{\"ok\":-");
    ensure!(!passed, "a 32-bit call passed the filter: {}", output.stdout);
    Ok(())
}

/// What engines name for a machine like this one.
fn with_32_bits(spec: Spec) -> Spec {
    spec.set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]))
}

/// What 32-bit calls give, as the kernel has it: a result, or an error below 0.
fn results_32(lab: &Lab, spec: Spec, calls: Value) -> Result<Vec<i64>> {
    let answers = lab.run(&with_32_bits(spec), calls.clone())?;
    (0..calls.as_array().map_or(0, Vec::len)).map(|step| answers.ok(step)?.as_i64().context("a number")).collect()
}

fn architectures(lab: &Lab) -> Result<()> {
    let (allowed, steps) = (refusing(lab, json!({})), json!([["call32", 20], ["call32", 40]]));
    same!(results_32(lab, allowed, steps)?, [1, -i64::from(libc::EPERM)], "getpid and rmdir by the 32-bit table");
    Ok(())
}

fn rules_32(lab: &Lab) -> Result<()> {
    // getpid is 20 there and writev here: the rule is for the name.
    let rules = json!([{ "names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }]);
    same!(results_32(lab, allowing(lab, rules), json!([["call32", 20]]))?, [-77], "error of getpid");
    Ok(())
}

fn multiplexed(lab: &Lab) -> Result<()> {
    // socketcall(SYS_SOCKET, nothing) and, not ruled out, socketcall(SYS_BIND, nothing).
    let rules = json!([{ "names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }]);
    let steps = json!([["call32", 102, 1], ["call32", 102, 2]]);
    same!(results_32(lab, allowing(lab, rules), steps)?, [-77, -i64::from(libc::EFAULT)], "errors of socketcall");
    Ok(())
}

fn flag_log(lab: &Lab) -> Result<()> {
    lab.see(&allowing(lab, json!([])).set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_LOG"]))).map(drop)
}

fn flag_spec_allow(lab: &Lab) -> Result<()> {
    let flags = json!(["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_TSYNC"]);
    lab.see(&allowing(lab, json!([])).set("/linux/seccomp/flags", flags)).map(drop)
}

fn flag_unknown(lab: &Lab) -> Result<()> {
    lab.refused(&allowing(lab, json!([])).set("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_NOSUCH"]))).map(drop)
}

fn without_nnp(lab: &Lab) -> Result<()> {
    let seen = lab.see(&allowing(lab, json!([])).set("/process/noNewPrivileges", json!(false)))?;
    same!(seen["noNewPrivileges"], false, "no_new_privs");
    same!(seen["seccomp"], "2", "mode");
    Ok(())
}

fn notify(lab: &Lab) -> Result<()> {
    let path = lab.dir.join("listener");
    let listener = UnixListener::bind(&path)?;
    let rules = json!([{ "names": ["getpriority"], "action": "SCMP_ACT_NOTIFY" }]);
    let spec = allowing(lab, rules).set("/linux/seccomp/listenerPath", json!(path));
    let spec = spec.set("/linux/seccomp/listenerMetadata", json!("of the caller"));
    let container = lab.create(&spec, json!([["hold"]]))?;
    container.start()?;
    ensure!(readable(&listener, DEADLINE)?, "nothing connected to the listener");
    let (stream, _) = listener.accept()?;
    ensure!(readable(&stream, DEADLINE)?, "nothing was sent to the listener");
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0u8; 65536];
    let length = recvmsg(&stream, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
    let mut descriptors = 0;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(list) = message {
            descriptors += list.count();
        }
    }
    let told: Value = serde_json::from_slice(&bytes[..length]).context("what the listener is told isn't JSON")?;
    same!(told["state"]["id"], container.id, "state.id");
    same!(told["state"]["pid"], container.pid, "state.pid");
    same!(told["metadata"], "of the caller", "metadata");
    let names: Vec<&str> = told["fds"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    ensure!(names.contains(&"seccompFd"), "fds: {names:?}");
    same!(descriptors, names.len(), "descriptors");
    container.finish()
}

fn notify_alone(lab: &Lab) -> Result<()> {
    lab.refused(&allowing(lab, json!([{ "names": ["getpriority"], "action": "SCMP_ACT_NOTIFY" }]))).map(drop)
}
