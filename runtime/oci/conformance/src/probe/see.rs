//! All that a process sees of itself. What can't be found out is `null`.

use std::fs;
use std::io;

use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};

const NAMESPACES: [&str; 8] = ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"];

/// The resources of `setrlimit(2)`, by the names of the specification.
const RESOURCES: [(&str, Resource); 15] = [
    ("RLIMIT_AS", Resource::As),
    ("RLIMIT_CORE", Resource::Core),
    ("RLIMIT_CPU", Resource::Cpu),
    ("RLIMIT_DATA", Resource::Data),
    ("RLIMIT_FSIZE", Resource::Fsize),
    ("RLIMIT_LOCKS", Resource::Locks),
    ("RLIMIT_MEMLOCK", Resource::Memlock),
    ("RLIMIT_MSGQUEUE", Resource::Msgqueue),
    ("RLIMIT_NICE", Resource::Nice),
    ("RLIMIT_NOFILE", Resource::Nofile),
    ("RLIMIT_NPROC", Resource::Nproc),
    ("RLIMIT_RTPRIO", Resource::Rtprio),
    ("RLIMIT_RTTIME", Resource::Rttime),
    ("RLIMIT_SIGPENDING", Resource::Sigpending),
    ("RLIMIT_STACK", Resource::Stack),
];

/// One object.
pub(super) fn everything() -> io::Result<Value> {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let uname = rustix::system::uname();
    let call = |number: i64, a: u64, b: u64| crate::sys::call(number, [a, b, 0, 0, 0, 0]).ok();
    let umask = rustix::process::umask(rustix::fs::Mode::empty());
    let _ = rustix::process::umask(umask);
    let variables: Map<String, Value> = std::env::vars_os()
        .map(|(name, value)| (name.to_string_lossy().into_owned(), json!(value.to_string_lossy())))
        .collect();
    let groups = rustix::process::getgroups()?;
    Ok(json!({
        "pid": std::process::id(),
        "ppid": std::os::unix::process::parent_id(),
        "sid": call(libc::SYS_getsid, 0, 0),
        "pgid": call(libc::SYS_getpgid, 0, 0),
        "uid": field(&status, "Uid"),
        "gid": field(&status, "Gid"),
        "euid": rustix::process::geteuid().as_raw(),
        "groups": groups.iter().map(|group| group.as_raw()).collect::<Vec<_>>(),
        "umask": umask.bits(),
        "cwd": std::env::current_dir().ok().map(|path| path.to_string_lossy().into_owned()),
        "args": std::env::args().collect::<Vec<_>>(),
        "env": variables,
        "caps": {
            "inheritable": mask(&status, "CapInh"), "permitted": mask(&status, "CapPrm"),
            "effective": mask(&status, "CapEff"), "bounding": mask(&status, "CapBnd"), "ambient": mask(&status, "CapAmb"),
        },
        "noNewPrivileges": rustix::thread::no_new_privs()?,
        "seccomp": field(&status, "Seccomp"),
        "ignored": field(&status, "SigIgn"),
        "blocked": field(&status, "SigBlk"),
        "oomScoreAdj": fs::read_to_string("/proc/self/oom_score_adj").ok().and_then(|t| t.trim().parse::<i64>().ok()),
        "rlimits": rlimits(),
        "hostname": uname.nodename().to_string_lossy(),
        "domainname": uname.domainname().to_string_lossy(),
        "machine": uname.machine().to_string_lossy(),
        "namespaces": namespaces(),
        "personality": call(libc::SYS_personality, 0xffff_ffff, 0),
        "scheduler": crate::sys::scheduler().ok().map(|s| json!({
            "policy": s[0], "flags": s[1], "nice": s[2] as i64, "priority": s[3], "runtime": s[4], "deadline": s[5],
            "period": s[6],
        })),
        // IOPRIO_WHO_PROCESS
        "ioPriority": call(libc::SYS_ioprio_get, 1, 0),
        "cgroup": fs::read_to_string("/proc/self/cgroup").ok(),
        "affinity": field(&status, "Cpus_allowed_list"),
        "uidMap": fs::read_to_string("/proc/self/uid_map").ok(),
        "gidMap": fs::read_to_string("/proc/self/gid_map").ok(),
        "attr": fs::read_to_string("/proc/self/attr/current").ok(),
    }))
}

fn field(status: &str, name: &str) -> Option<String> {
    let line = status.lines().find(|line| line.split(':').next() == Some(name))?;
    Some(line.split_once(':')?.1.split_whitespace().collect::<Vec<_>>().join(" "))
}

fn mask(status: &str, name: &str) -> Option<u64> {
    u64::from_str_radix(&field(status, name)?, 16).ok()
}

fn rlimits() -> Value {
    let entries = RESOURCES.map(|(name, resource)| {
        let limit = getrlimit(resource);
        (name.to_owned(), json!([limit.current, limit.maximum]))
    });
    Value::Object(entries.into_iter().collect())
}

/// Identities of the namespaces.
pub(super) fn namespaces() -> Value {
    let links = NAMESPACES.map(|name| {
        let link = fs::read_link(format!("/proc/self/ns/{name}")).ok();
        (name.to_owned(), json!(link.map(|link| link.to_string_lossy().into_owned())))
    });
    Value::Object(links.into_iter().collect())
}
