//! `linux.namespaces`, user mappings, host name, time offsets.

use std::fs;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;
use crate::process::{self, until};
use crate::spec::Spec;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("namespaces.new-ones", "config-linux.md#namespaces", new_ones),
    Case::new("namespaces.absent-ones-are-the-callers", "config-linux.md#namespaces", absent_ones),
    Case::new("namespaces.join-network", "config-linux.md#namespaces", join_network),
    Case::new("namespaces.join-ipc", "config-linux.md#namespaces", join_ipc),
    Case::new("namespaces.join-uts", "config-linux.md#namespaces", join_uts),
    Case::new("namespaces.join-pid", "config-linux.md#namespaces", join_pid),
    Case::new("namespaces.join-mount", "config-linux.md#namespaces", join_mount),
    Case::new("namespaces.join-user", "config-linux.md#namespaces", join_user),
    Case::new("namespaces.join-cgroup", "config-linux.md#namespaces", join_cgroup),
    Case::new("namespaces.join-time", "config-linux.md#namespaces", join_time),
    Case::new("namespaces.missing-path", "config-linux.md#namespaces", path_missing),
    Case::new("namespaces.path-of-another-type", "config-linux.md#namespaces", path_wrong),
    Case::new("namespaces.path-of-a-plain-file", "config-linux.md#namespaces", path_file),
    Case::new("namespaces.relative-path", "config-linux.md#namespaces", path_relative),
    Case::new("namespaces.given-twice", "config-linux.md#namespaces", twice),
    Case::new("namespaces.unknown-type", "config-linux.md#namespaces", unknown),
    Case::new("namespaces.pid-1-in-a-new-one", "config-linux.md#namespaces", pid_1),
    Case::new("namespaces.cgroup", "config-linux.md#namespaces", cgroup),
    Case::new("namespaces.hostname", "config.md#hostname", hostname),
    Case::new("namespaces.hostname-needs-one-of-its-own", "config.md#hostname", hostname_host),
    Case::new("namespaces.domainname", "config.md#domainname", domainname),
    Case::new("namespaces.time-offsets", "config-linux.md#offset-for-time-namespace", time_offsets),
    Case::new("users.mappings", "config-linux.md#user-namespace-mappings", mappings),
    Case::new("users.several-mappings", "config-linux.md#user-namespace-mappings", several),
    Case::new("users.unmapped-user", "config-linux.md#user-namespace-mappings", unmapped),
    Case::new("users.root-has-no-rights-outside", "config-linux.md#user-namespace-mappings", no_rights),
    Case::new("users.own-the-other-namespaces", "user_namespaces(7)", own_others),
    Case::new("users.message-queues-are-roots", "ipc_namespaces(7)", queues),
    Case::new("users.devices-are-there", "config-linux.md#default-devices", devices),
];

fn own(kind: &str) -> Result<String> {
    Ok(fs::read_link(format!("/proc/self/ns/{kind}"))?.to_string_lossy().into_owned())
}

fn new_ones(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().new_namespace("cgroup"))?;
    for kind in ["pid", "net", "ipc", "uts", "mnt", "cgroup"] {
        let inside = seen["namespaces"][kind].as_str().with_context(|| format!("no {kind} namespace is seen"))?;
        ensure!(inside != own(kind)?, "the {kind} namespace is the caller's");
    }
    Ok(())
}

fn absent_ones(lab: &Lab) -> Result<()> {
    let mut spec = lab.spec().set("/hostname", Value::Null);
    for kind in ["pid", "network", "ipc", "uts", "cgroup"] {
        spec = spec.without_namespace(kind);
    }
    let seen = lab.see(&spec.without_mount("/sys").without_mount("/dev/mqueue"))?;
    for kind in ["pid", "net", "ipc", "uts", "cgroup", "user"] {
        same!(seen["namespaces"][kind], own(kind)?, "{kind} namespace");
    }
    Ok(())
}

/// A process in namespaces of its own, ended when dropped.
struct Holder(Child);

impl Holder {
    /// `flags` as of `unshare(1)`.
    fn new(lab: &Lab, flags: &[&str]) -> Result<Self> {
        let mut command = Command::new("/proc/self/exe");
        command.arg("--hold-namespaces").args(flags).env("KEEL_CASE", &lab.token);
        let child = process::spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?;
        let holder = Holder(child);
        // The first flag's namespace is there last.
        let kind = flags.first().copied().unwrap_or("net");
        until("a namespace", || {
            let link = fs::read_link(holder.path(kind)).ok();
            Ok(link.filter(|link| own(kind).is_ok_and(|own| link.to_string_lossy() != own)).map(drop))
        })?;
        Ok(holder)
    }

    fn path(&self, kind: &str) -> String {
        // Who makes one isn't in it, only those who come after (time_namespaces(7)).
        let file = if kind == "time" { "time_for_children" } else { kind };
        format!("/proc/{}/ns/{file}", self.0.id())
    }

    fn identity(&self, kind: &str) -> Result<String> {
        Ok(fs::read_link(self.path(kind))?.to_string_lossy().into_owned())
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn join(lab: &Lab, kind: &str, word: &str, spec: Spec) -> Result<()> {
    let holder = Holder::new(lab, &[kind])?;
    let seen = lab.see(&spec.join_namespace(word, &holder.path(kind)))?;
    same!(seen["namespaces"][kind], holder.identity(kind)?, "{kind} namespace");
    Ok(())
}

fn join_network(lab: &Lab) -> Result<()> {
    join(lab, "net", "network", lab.spec())
}

fn join_time(lab: &Lab) -> Result<()> {
    join(lab, "time", "time", lab.spec())
}

fn join_ipc(lab: &Lab) -> Result<()> {
    join(lab, "ipc", "ipc", lab.spec())
}

fn join_uts(lab: &Lab) -> Result<()> {
    join(lab, "uts", "uts", lab.spec().set("/hostname", json!("joined")))
}

fn join_cgroup(lab: &Lab) -> Result<()> {
    join(lab, "cgroup", "cgroup", lab.spec())
}

fn join_pid(lab: &Lab) -> Result<()> {
    let (first, _) = lab.hold(&lab.spec(), json!([]))?;
    let path = format!("/proc/{}/ns/pid", first.pid);
    let seen =
        lab.see(&lab.spec().join_namespace("pid", &path).set("/linux/cgroupsPath", json!(lab.cgroups_path() + "-b")))?;
    same!(seen["namespaces"]["pid"], fs::read_link(&path)?.to_string_lossy().into_owned(), "PID namespace");
    ensure!(seen["pid"] != 1, "it is process 1 in another's namespace");
    first.finish()
}

fn join_mount(lab: &Lab) -> Result<()> {
    let holder = Holder::new(lab, &["mnt"])?;
    let seen = lab.see(&lab.spec().join_namespace("mount", &holder.path("mnt")))?;
    same!(seen["namespaces"]["mnt"], holder.identity("mnt")?, "mount namespace");
    Ok(())
}

fn join_user(lab: &Lab) -> Result<()> {
    let (first, _) = lab.hold(&mapped(lab)?, json!([]))?;
    let path = format!("/proc/{}/ns/user", first.pid);
    let spec = mapped(lab)?.join_namespace("user", &path).set("/linux/uidMappings", Value::Null);
    let spec = spec.set("/linux/gidMappings", Value::Null).set("/linux/cgroupsPath", json!(lab.cgroups_path() + "-b"));
    let seen = lab.see(&spec)?;
    same!(seen["namespaces"]["user"], fs::read_link(&path)?.to_string_lossy().into_owned(), "user namespace");
    first.finish()
}

fn path_missing(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().join_namespace("network", "/no/such/namespace")).map(drop)
}

fn path_wrong(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().join_namespace("network", "/proc/self/ns/ipc")).map(drop)
}

fn path_file(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().join_namespace("network", "/proc/self/status")).map(drop)
}

fn path_relative(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().join_namespace("network", "proc/self/ns/net")).map(drop)
}

fn twice(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().push("/linux/namespaces", json!({ "type": "network" }))).map(drop)
}

fn unknown(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().push("/linux/namespaces", json!({ "type": "gravity" }))).map(drop)
}

fn pid_1(lab: &Lab) -> Result<()> {
    same!(lab.see(&lab.spec())?["pid"], 1, "process ID inside");
    ensure!(lab.see(&lab.spec().without_namespace("pid"))?["pid"] != 1, "it is process 1 of the caller's namespace");
    Ok(())
}

fn cgroup(lab: &Lab) -> Result<()> {
    let seen = lab.see(&lab.spec().new_namespace("cgroup"))?;
    for line in seen["cgroup"].as_str().unwrap_or_default().lines() {
        // The namespace's root is the container's own cgroup, in every hierarchy that it was put into.
        let path = line.splitn(3, ':').nth(2).unwrap_or_default();
        if !path.starts_with("/..") {
            same!(path, "/", "cgroup, seen inside ({line})");
        }
    }
    Ok(())
}

fn hostname(lab: &Lab) -> Result<()> {
    same!(lab.see(&lab.spec().set("/hostname", json!("box.example")))?["hostname"], "box.example", "host name");
    Ok(())
}

fn hostname_host(lab: &Lab) -> Result<()> {
    let before = rustix::system::uname().nodename().to_owned();
    lab.refused(&lab.spec().set("/hostname", json!(before.to_string_lossy())).without_namespace("uts"))?;
    same!(rustix::system::uname().nodename(), before.as_c_str(), "the host's name");
    Ok(())
}

fn domainname(lab: &Lab) -> Result<()> {
    same!(lab.see(&lab.spec().set("/domainname", json!("example")))?["domainname"], "example", "NIS domain name");
    Ok(())
}

fn time_offsets(lab: &Lab) -> Result<()> {
    let offsets =
        json!({ "monotonic": { "secs": 10_000, "nanosecs": 0 }, "boottime": { "secs": 20_000, "nanosecs": 0 } });
    let spec = lab.spec().new_namespace("time").set("/linux/timeOffsets", offsets);
    let answers = lab.run(&spec, json!([["clocks"], ["see"]]))?;
    let inside = answers.ok(0)?;
    let outside = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic).tv_sec;
    let ahead = inside["monotonic"].as_i64().unwrap_or(0) - outside;
    ensure!((9_900..=10_000).contains(&ahead), "the monotonic clock is {ahead} s ahead");
    let outside = rustix::time::clock_gettime(rustix::time::ClockId::Boottime).tv_sec;
    let ahead = inside["boottime"].as_i64().unwrap_or(0) - outside;
    ensure!((19_900..=20_000).contains(&ahead), "the clock since boot is {ahead} s ahead");
    ensure!(answers.ok(1)?["namespaces"]["time"] != own("time")?, "the time namespace is the caller's");
    Ok(())
}

/// A container with users of its own, whose image belongs to its root.
pub(super) fn mapped(lab: &Lab) -> Result<Spec> {
    for path in ["", "bin", "proc", "sys", "dev", "tmp", "etc", "work"] {
        std::os::unix::fs::chown(lab.bundle.inside(path), Some(100_000), Some(100_000))?;
    }
    Ok(lab.spec().mapped_users(100_000))
}

fn mappings(lab: &Lab) -> Result<()> {
    let answers = lab.run(&mapped(lab)?, json!([["see"], ["stat", "/work"], ["create", "/work/x", ""]]))?;
    let words = |key: &str| -> Result<Vec<String>> {
        Ok(answers.ok(0)?[key].as_str().unwrap_or_default().split_whitespace().map(str::to_owned).collect())
    };
    same!(words("uidMap")?, ["0", "100000", "65536"], "uid_map");
    same!(words("gidMap")?, ["0", "100000", "65536"], "gid_map");
    same!(answers.ok(1)?["uid"], 0, "owner of a folder of 100000's");
    answers.ok(2)?;
    use std::os::unix::fs::MetadataExt as _;
    same!(fs::metadata(lab.bundle.inside("work/x"))?.uid(), 100_000, "owner, outside, of what root inside made");
    Ok(())
}

fn several(lab: &Lab) -> Result<()> {
    let map = json!([{ "containerID": 0, "hostID": 100_000, "size": 10 }, { "containerID": 10, "hostID": 200_000, "size": 5 }]);
    let spec = mapped(lab)?.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    let seen = lab.see(&spec.set("/process/user", json!({ "uid": 12, "gid": 3 })))?;
    same!(seen["uid"], "12 12 12 12", "user IDs");
    same!(seen["uidMap"].as_str().map_or(0, |text| text.lines().count()), 2, "lines of uid_map");
    Ok(())
}

fn unmapped(lab: &Lab) -> Result<()> {
    lab.refused(&mapped(lab)?.set("/process/user", json!({ "uid": 70_000, "gid": 0 }))).map(drop)
}

fn queues(lab: &Lab) -> Result<()> {
    // Whose they are is decided when the namespace is made: by the container's root, or by nobody inside.
    let answers = lab.run(&mapped(lab)?, json!([["stat", "/dev/mqueue"], ["chmod", "/dev/mqueue", 0o700]]))?;
    same!(answers.ok(0)?["uid"], 0, "owner of /dev/mqueue");
    answers.ok(1).context("closing it to others").map(drop)
}

fn no_rights(lab: &Lab) -> Result<()> {
    let file = lab.path("of-the-host");
    fs::write(&file, "x")?;
    let spec = mapped(lab)?.mount("/work/file", "bind", &file, &["bind"]);
    let answers = lab.run(&spec, json!([["write", "/work/file", "y"], ["stat", "/work/file"]]))?;
    same!(answers.errno(0)?, libc::EACCES, "root inside writes to a file of the host's root");
    same!(answers.ok(1)?["uid"], 65534, "owner, as seen inside");
    Ok(())
}

fn own_others(lab: &Lab) -> Result<()> {
    let spec = mapped(lab)?.capabilities(&["CAP_SYS_ADMIN"]);
    let answers = lab.run(&spec, json!([["sethostname", "changed"], ["see"], ["mount", "tmpfs", "/work", "tmpfs"]]))?;
    answers.ok(0).context("root inside may not set its own host name")?;
    same!(answers.ok(1)?["hostname"], "changed", "host name");
    answers.ok(2).context("root inside may not mount in its own namespace").map(drop)
}

fn devices(lab: &Lab) -> Result<()> {
    let answers =
        lab.run(&mapped(lab)?, json!([["stat", "/dev/null"], ["write", "/dev/null", "x"], ["read", "/dev/null"]]))?;
    let seen = answers.ok(0)?;
    same!(seen["type"], "character", "type of /dev/null");
    same!(json!([seen["major"], seen["minor"]]), json!([1, 3]), "numbers of /dev/null");
    answers.ok(1)?;
    answers.ok(2).map(drop)
}

/// `--hold-namespaces KIND…`: makes such namespaces and waits to be killed.
pub(crate) fn hold(kinds: &[String]) -> Result<()> {
    use rustix::thread::UnshareFlags as Flag;
    for kind in kinds {
        let flag = match kind.as_str() {
            "net" => Flag::NEWNET,
            "ipc" => Flag::NEWIPC,
            "uts" => Flag::NEWUTS,
            "mnt" => Flag::NEWNS,
            "cgroup" => Flag::NEWCGROUP,
            "time" => Flag::NEWTIME,
            other => bail!("no namespace is called {other}"),
        };
        crate::sys::call(libc::SYS_unshare, [u64::from(flag.bits()), 0, 0, 0, 0, 0])?;
    }
    std::thread::sleep(std::time::Duration::from_secs(120));
    Ok(())
}
