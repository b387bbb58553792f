//! Further processes in a running container, pausing, listing processes.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Answers;
use crate::case::{Case, same};
use crate::lab::Lab;
use crate::process::until;
use crate::terminal::ConsoleSocket;

const OTHERS: &str = "other runtimes";

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("exec.joins-all-namespaces", OTHERS, namespaces),
    Case::new("exec.exit-code", OTHERS, exit_code),
    Case::new("exec.missing-program", OTHERS, missing),
    Case::new("exec.looks-up-in-path", OTHERS, path),
    Case::new("exec.takes-the-containers-process-as-default", OTHERS, defaults),
    Case::new("exec.cwd", OTHERS, cwd),
    Case::new("exec.env", OTHERS, env),
    Case::new("exec.user", OTHERS, user),
    Case::new("exec.capabilities", OTHERS, capabilities),
    Case::new("exec.capability-added", OTHERS, cap),
    Case::new("exec.process-from-a-file", OTHERS, process_file),
    Case::new("exec.process-file-without-capabilities", OTHERS, process_file_bare),
    Case::new("exec.no-new-privileges", OTHERS, no_new_privs),
    Case::new("exec.under-the-seccomp-filter", OTHERS, seccomp),
    Case::new("exec.detached-with-pid-file", OTHERS, detached),
    Case::new("exec.terminal", OTHERS, terminal),
    Case::new("exec.standard-input", OTHERS, input),
    Case::new("exec.in-a-created-container", OTHERS, in_created),
    Case::new("exec.in-a-stopped-container", OTHERS, in_stopped),
    Case::new("exec.in-an-unknown-container", OTHERS, in_unknown),
    Case::new("exec.with-users-of-its-own", OTHERS, mapped),
    Case::new("exec.ends-with-the-container", OTHERS, ends),
    Case::new("exec.rlimits-and-oom-score", OTHERS, limits),
    Case::new("exec.cpu-affinity", "config.md#linux-process", affinity),
    Case::new("exec.no-descriptors-of-the-caller", OTHERS, descriptors),
    Case::new("exec.preserve-fds", OTHERS, preserve_fds),
    Case::v2("exec.in-the-containers-cgroup", OTHERS, cgroup),
    Case::v2("exec.in-a-sub-cgroup", OTHERS, sub_cgroup),
    Case::v2("exec.in-a-paused-container", OTHERS, paused),
    Case::v2("ps.table", OTHERS, ps_table),
    Case::v2("ps.json", OTHERS, ps_json),
    Case::new("ps.options", OTHERS, ps_options),
    Case::v2("pause.freezes-and-thaws", OTHERS, pause),
    Case::v2("pause.of-a-created-container-and-delete", OTHERS, pause_delete),
    Case::v2("pause.twice", OTHERS, pause_twice),
    Case::v2("kill.all", OTHERS, kill_all),
    Case::v2("kill.all-with-a-signal-that-is-caught", OTHERS, kill_all_term),
];

fn namespaces(lab: &Lab) -> Result<()> {
    let (container, first) = lab.hold(&lab.spec().new_namespace("cgroup"), json!([["see"]]))?;
    let second = container.exec(&[], json!([["see"]]))?;
    same!(second.ok(0)?["namespaces"], first.ok(0)?["namespaces"], "namespaces");
    ensure!(second.ok(0)?["pid"] != 1, "it is process 1");
    container.finish()
}

fn exit_code(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    for code in [0, 5, 255] {
        let output = container.exec_any(&[], &["/bin/probe", "do", &format!("[[\"exit\",{code}]]")])?;
        same!(output.code, code, "exit code of `exec`");
    }
    container.finish()
}

fn missing(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let output = container.exec_any(&[], &["/no/such-program"])?;
    ensure!(output.code != 0, "`exec` of a missing program succeeded");
    ensure!(output.stderr.contains("such-program"), "the message doesn't name the program: {}", output.stderr);
    ensure!(container.alive(), "the container ended");
    container.finish()
}

fn path(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    same!(container.exec_any(&[], &["probe", "true"])?.code, 0, "exit code of `exec probe`");
    container.finish()
}

fn defaults(lab: &Lab) -> Result<()> {
    let spec = lab
        .spec()
        .set("/process/cwd", json!("/work"))
        .set("/process/env", json!(["PATH=/bin", "OF=config", lab.marker()]));
    let spec = spec.set("/process/user", json!({ "uid": 7, "gid": 8, "additionalGids": [9] }));
    let (container, _) = lab.hold(&spec, json!([]))?;
    let answers = container.exec(&[], json!([["see"]]))?;
    let seen = answers.ok(0)?;
    same!(seen["cwd"], "/work", "working folder");
    same!(seen["env"]["OF"], "config", "variable");
    same!(seen["uid"], "7 7 7 7", "user IDs");
    same!(seen["gid"], "8 8 8 8", "group IDs");
    same!(seen["noNewPrivileges"], true, "no_new_privs");
    container.finish()
}

fn cwd(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    same!(container.exec(&["--cwd", "/work"], json!([["see"]]))?.ok(0)?["cwd"], "/work", "working folder");
    container.finish()
}

fn env(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let answers = container.exec(&["--env", "ONE=1", "--env", "TWO=2 3"], json!([["see"]]))?;
    same!(answers.ok(0)?["env"]["ONE"], "1", "first variable");
    same!(answers.ok(0)?["env"]["TWO"], "2 3", "second variable");
    same!(answers.ok(0)?["env"]["PATH"], "/bin", "variable of the container's process");
    container.finish()
}

fn user(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let answers = container.exec(&["--user", "1000:1001"], json!([["see"]]))?;
    same!(answers.ok(0)?["uid"], "1000 1000 1000 1000", "user IDs");
    same!(answers.ok(0)?["gid"], "1001 1001 1001 1001", "group IDs");
    same!(answers.ok(0)?["caps"]["effective"], 0, "effective capabilities of a user");
    container.finish()
}

fn capabilities(lab: &Lab) -> Result<()> {
    let (container, first) = lab.hold(&lab.spec(), json!([["see"]]))?;
    let second = container.exec(&[], json!([["see"]]))?;
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        same!(second.ok(0)?["caps"][set], first.ok(0)?["caps"][set], "{set} set");
    }
    container.finish()
}

fn cap(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let answers = container.exec(&["--cap", "CAP_NET_RAW"], json!([["see"]]))?;
    let bounding = answers.ok(0)?["caps"]["bounding"].as_u64().unwrap_or(0);
    ensure!(bounding >> 13 & 1 == 1, "CAP_NET_RAW isn't there: {bounding:#x}");
    container.finish()
}

fn process_file(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let process = json!({ "cwd": "/work", "env": ["A=b", lab.marker()], "user": { "uid": 3, "gid": 4, "umask": 0o77 },
        "capabilities": { "bounding": ["CAP_CHOWN"] }, "noNewPrivileges": false });
    let answers = container.exec_process(process, json!([["see"]]))?;
    let seen = answers.ok(0)?;
    same!(seen["cwd"], "/work", "working folder");
    same!(seen["env"]["A"], "b", "variable");
    same!(seen["uid"], "3 3 3 3", "user IDs");
    same!(seen["umask"], 0o77, "umask");
    same!(seen["caps"]["bounding"], 1, "bounding set");
    same!(seen["noNewPrivileges"], false, "no_new_privs");
    container.finish()
}

fn process_file_bare(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let process = json!({ "cwd": "/", "env": [lab.marker()], "user": { "uid": 0, "gid": 0 }, "capabilities": {} });
    let answers = container.exec_process(process, json!([["see"]]))?;
    // Inheritable capabilities were once given by default (CVE-2022-29162).
    same!(answers.ok(0)?["caps"]["inheritable"], 0, "inheritable set");
    container.finish()
}

fn no_new_privs(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec().set("/process/noNewPrivileges", json!(false)), json!([]))?;
    same!(container.exec(&[], json!([["see"]]))?.ok(0)?["noNewPrivileges"], false, "without the option");
    let answers = container.exec(&["--no-new-privs"], json!([["see"]]))?;
    same!(answers.ok(0)?["noNewPrivileges"], true, "with the option");
    container.finish()
}

fn seccomp(lab: &Lab) -> Result<()> {
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{ "names": ["sethostname"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77 }] });
    let (container, _) = lab.hold(&lab.spec().set("/linux/seccomp", filter), json!([]))?;
    same!(container.exec(&[], json!([["sethostname", "x"]]))?.errno(0)?, 77, "error of the filtered call");
    container.finish()
}

fn detached(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let file = lab.path("exec.pid");
    let output = container.exec_any(&["--detach", "--pid-file", &file], &["/bin/probe", "hold"])?;
    same!(output.code, 0, "exit code of a detached `exec` ({})", output.stderr.trim());
    let pid: u32 = fs::read_to_string(&file)?.trim().parse()?;
    let inside = fs::read_link(format!("/proc/{pid}/ns/pid")).context("the process isn't there")?;
    same!(inside, fs::read_link(format!("/proc/{}/ns/pid", container.pid))?, "PID namespace");
    container.finish()
}

fn terminal(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let socket = ConsoleSocket::new(lab.dir.join("console"))?;
    let path = socket.path.to_string_lossy().into_owned();
    let options = ["--tty", "--detach", "--console-socket", &path];
    let output = container.exec_any(&options, &["/bin/probe", "do", "[[\"terminal\"],[\"hold\"]]"])?;
    same!(output.code, 0, "exit code of `exec --tty --detach` ({})", output.stderr.trim());
    let answers = socket.terminal()?.answers(2)?;
    same!(answers.ok(0)?["stdio"], json!([true, true, true]), "standard streams are terminals");
    same!(answers.ok(0)?["controls"], true, "/dev/tty can be opened");
    container.finish()
}

fn input(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    fs::write(lab.path("input"), "typed")?;
    let mut command = lab.command(&["exec", &container.id, "/bin/probe", "do", "[[\"stdin\"]]"]);
    let output = lab.run_command(command.stdin(fs::File::open(lab.path("input"))?))?;
    same!(Answers::parse(&output.stdout)?.text(0)?, "typed", "standard input");
    container.finish()
}

fn in_created(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([["see"]]))?;
    // runc and crun both allow it; the container must stay as it was.
    container.exec_any(&[], &["/bin/probe", "true"])?;
    same!(container.status()?, "created", "status");
    container.finish()
}

fn in_stopped(lab: &Lab) -> Result<()> {
    let container = lab.start(&lab.spec(), json!([]))?;
    container.wait()?;
    ensure!(container.exec_any(&[], &["/bin/probe", "true"])?.code != 0, "`exec` in a stopped container succeeded");
    container.delete()
}

fn in_unknown(lab: &Lab) -> Result<()> {
    lab.call_refused(&["exec", "no-such-container", "/bin/probe", "true"]).map(drop)
}

fn mapped(lab: &Lab) -> Result<()> {
    let (container, first) = lab.hold(&super::namespaces::mapped(lab)?, json!([["see"]]))?;
    let second = container.exec(&[], json!([["see"]]))?;
    same!(second.ok(0)?["namespaces"], first.ok(0)?["namespaces"], "namespaces");
    same!(second.ok(0)?["uid"], "0 0 0 0", "user IDs");
    same!(second.ok(0)?["uidMap"], first.ok(0)?["uidMap"], "uid_map");
    container.finish()
}

fn ends(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let file = lab.path("exec.pid");
    container.exec_any(&["--detach", "--pid-file", &file], &["/bin/probe", "hold"])?;
    let pid: u32 = fs::read_to_string(&file)?.trim().parse()?;
    container.kill("KILL")?;
    container.wait()?;
    until("the end of the other process", || {
        Ok(crate::container::process_state(pid).is_none_or(|state| state == 'Z').then_some(()))
    })?;
    container.delete()
}

fn limits(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/process/oomScoreAdj", json!(321));
    let (container, first) = lab.hold(&spec, json!([["see"]]))?;
    let second = container.exec(&[], json!([["see"]]))?;
    same!(second.ok(0)?["rlimits"]["RLIMIT_NOFILE"], first.ok(0)?["rlimits"]["RLIMIT_NOFILE"], "RLIMIT_NOFILE");
    same!(second.ok(0)?["oomScoreAdj"], 321, "oom_score_adj");
    container.finish()
}

/// On a machine with one processor it can only be seen that lists are read.
fn affinity(lab: &Lab) -> Result<()> {
    let (container, first) = lab.hold(&lab.spec(), json!([["see"]]))?;
    let all = first.ok(0)?["affinity"].as_str().context("processors")?.to_owned();
    let (low, high) = (all.split([',', '-']).next().unwrap_or("0"), all.rsplit([',', '-']).next().unwrap_or("0"));
    let seen = |affinity: Value| -> Result<Value> {
        let process = json!({ "cwd": "/", "env": [lab.marker()], "execCPUAffinity": affinity });
        Ok(container.exec_process(process, json!([["see"]]))?.ok(0)?["affinity"].clone())
    };
    ensure!(seen(json!({ "final": "1-" })).is_err(), "a list that is none was taken");
    ensure!(seen(json!({ "initial": "one" })).is_err(), "a list that is none was taken");
    same!(seen(json!({ "initial": low, "final": high }))?, high, "processors with both lists");
    same!(seen(json!({ "final": format!("{low}-{low}") }))?, low, "processors with the final list");
    same!(seen(json!({ "initial": high, "final": "" }))?, high, "processors with the initial list, which stay");
    same!(seen(json!({}))?, all, "processors without lists");
    container.finish()
}

fn descriptors(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let answers = container.exec(&[], json!([["fds"]]))?;
    let names: Vec<&String> = answers.ok(0)?.as_object().context("descriptors")?.keys().collect();
    same!(names, ["0", "1", "2"], "descriptors");
    container.finish()
}

fn preserve_fds(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    fs::write(lab.path("three"), "third")?;
    let steps = json!([["fds"], ["descriptor", 3]]).to_string();
    let mut command = lab.command(&["exec", "--preserve-fds", "1", &container.id, "/bin/probe", "do", &steps]);
    crate::sys::pass(&mut command, [fs::File::open(lab.path("three"))?]);
    let output = lab.run_command(&mut command)?;
    same!(output.code, 0, "exit code of `exec` ({})", output.stderr.trim());
    let answers = Answers::parse(&output.stdout)?;
    same!(answers.text(1)?, "third", "what descriptor 3 holds");
    let names: Vec<&String> = answers.ok(0)?.as_object().context("descriptors")?.keys().collect();
    same!(names, ["0", "1", "2", "3"], "descriptors");
    container.finish()
}

fn cgroup(lab: &Lab) -> Result<()> {
    let (container, first) = lab.hold(&lab.spec(), json!([["see"]]))?;
    let second = container.exec(&[], json!([["see"]]))?;
    same!(second.ok(0)?["cgroup"], first.ok(0)?["cgroup"], "cgroup");
    container.finish()
}

fn sub_cgroup(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    fs::create_dir(format!("/sys/fs/cgroup{}/part", lab.cgroups_path()))?;
    let answers = container.exec(&["--cgroup", "part"], json!([["see"]]))?;
    let seen = answers.ok(0)?["cgroup"].as_str().unwrap_or_default().trim().to_owned();
    ensure!(seen.ends_with("/part"), "cgroup: {seen}");
    container.finish()
}

fn paused(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    lab.call_ok(&["pause", &container.id])?;
    let output = container.exec_any(&[], &["/bin/probe", "true"])?;
    ensure!(output.code != 0, "`exec` in a paused container succeeded");
    lab.call_ok(&["resume", &container.id])?;
    container.finish()
}

fn ps_table(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([["spawn", 1]]))?;
    let text = lab.call_ok(&["ps", &container.id])?.stdout;
    ensure!(text.lines().next().is_some_and(|head| head.contains("PID")), "no heading with PID: {text}");
    ensure!(text.lines().any(|line| line.split_whitespace().any(|w| w == container.pid.to_string())), "{text}");
    same!(text.lines().count(), 3, "lines");
    container.finish()
}

fn ps_json(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([["spawn", 2]]))?;
    let text = lab.call_ok(&["ps", "--format", "json", &container.id])?.stdout;
    let pids: Value = serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))?;
    let pids: Vec<u64> = pids.as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
    ensure!(pids.contains(&u64::from(container.pid)), "{} isn't in {pids:?}", container.pid);
    same!(pids.len(), 3, "processes");
    container.finish()
}

/// Not in bare guests, which have no ps(1).
fn ps_options(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    let text = lab.call_ok(&["ps", &container.id, "-eo", "ppid,pid,comm"])?.stdout;
    let rows: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    same!(rows[0], ["PPID", "PID", "COMMAND"], "headings");
    same!(rows.len(), 2, "lines");
    same!(rows[1][1..], [container.pid.to_string().as_str(), "probe"], "process");
    container.finish()
}

fn pause(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    lab.call_ok(&["pause", &container.id])?;
    same!(container.status()?, "paused", "status");
    let events = fs::read_to_string(format!("/sys/fs/cgroup{}/cgroup.events", lab.cgroups_path()))?;
    ensure!(events.contains("frozen 1"), "cgroup.events: {events}");
    lab.call_ok(&["resume", &container.id])?;
    same!(container.status()?, "running", "status after `resume`");
    container.finish()
}

fn pause_delete(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    lab.call_ok(&["pause", &container.id])?;
    lab.call_ok(&["delete", "--force", &container.id])?;
    lab.call_refused(&["state", &container.id]).map(drop)
}

fn pause_twice(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    lab.call_refused(&["resume", &container.id])?;
    lab.call_ok(&["pause", &container.id])?;
    lab.call_ok(&["resume", &container.id])?;
    same!(container.status()?, "running", "status");
    container.finish()
}

/// Without a process ID namespace, so that nobody goes because the first one does.
fn kill_all_by(lab: &Lab, signal: &str) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec().without_namespace("pid"), json!([["spawn", 3]]))?;
    lab.call_ok(&["kill", "--all", &container.id, signal])?;
    container.wait()?;
    until("an empty cgroup", || {
        let procs = fs::read_to_string(format!("/sys/fs/cgroup{}/cgroup.procs", lab.cgroups_path()));
        Ok(procs.is_ok_and(|text| text.lines().count() == 0).then_some(()))
    })?;
    container.delete()
}

fn kill_all(lab: &Lab) -> Result<()> {
    kill_all_by(lab, "KILL")
}

fn kill_all_term(lab: &Lab) -> Result<()> {
    kill_all_by(lab, "TERM")
}
