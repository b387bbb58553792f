//! Capabilities, no_new_privs, terminal.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Answers;
use crate::case::{Case, same};
use crate::container::Container;
use crate::lab::{Lab, with_steps};
use crate::spec::Spec;
use crate::terminal::ConsoleSocket;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("capabilities.the-five-sets", "config.md#linux-process", five_sets),
    Case::new("capabilities.none-if-absent", "config.md#linux-process", none),
    Case::new("capabilities.ambient-reach-a-user", "config.md#linux-process", ambient),
    Case::new("capabilities.all-of-them", "config.md#linux-process", all),
    Case::new("capabilities.an-unknown-one-is-no-error", "config.md#linux-process", unknown),
    Case::new("capabilities.bounding-set-binds-setuid-programs", "capabilities(7)", bounding),
    Case::new("privileges.no-new-ones", "config.md#linux-process", no_new),
    Case::new("privileges.new-ones-where-allowed", "config.md#linux-process", new_allowed),
    Case::new("terminal.is-handed-over", "config.md#process; other runtimes", terminal),
    Case::new("terminal.has-the-given-size", "config.md#process", terminal_size),
    Case::new("terminal.size-is-ignored-without-one", "config.md#process", terminal_size_unused),
    Case::new("terminal.belongs-to-the-user", "other runtimes", terminal_user),
    Case::new("terminal.needs-a-console-socket", "other runtimes", terminal_socket),
    Case::new("terminal.console-socket-without-terminal", "other runtimes", socket_without_terminal),
    Case::new("terminal.console-device", "config-linux.md#default-devices", console_device),
    Case::new("terminal.hang-up-reaches-the-program", "other runtimes", hang_up),
];

fn caps(lab: &Lab, spec: &Spec) -> Result<Value> {
    Ok(lab.see(spec)?["caps"].clone())
}

fn five_sets(lab: &Lab) -> Result<()> {
    let sets = json!({
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW", "CAP_MKNOD"],
        "permitted": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "effective": ["CAP_CHOWN", "CAP_KILL"],
        "inheritable": ["CAP_CHOWN", "CAP_KILL"],
        "ambient": ["CAP_CHOWN"]
    });
    let seen = caps(lab, &lab.spec().set("/process/capabilities", sets))?;
    let (chown, kill, raw, mknod) = (1u64, 1 << 5, 1 << 13, 1 << 27);
    same!(seen["bounding"], chown | kill | raw | mknod, "bounding set");
    same!(seen["inheritable"], chown | kill, "inheritable set");
    // With no_new_privs, root's program gains nothing when it is executed (capabilities(7)).
    same!(seen["permitted"], chown | kill | raw, "permitted set");
    Ok(())
}

fn none(lab: &Lab) -> Result<()> {
    let seen = caps(lab, &lab.spec().set("/process/capabilities", json!({})))?;
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        same!(seen[set], 0, "{set} set");
    }
    Ok(())
}

fn ambient(lab: &Lab) -> Result<()> {
    let names = json!(["CAP_NET_BIND_SERVICE"]);
    let sets =
        json!({ "bounding": names, "permitted": names, "effective": names, "inheritable": names, "ambient": names });
    let spec = lab.spec().set("/process/capabilities", sets).set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let seen = caps(lab, &spec)?;
    for set in ["bounding", "permitted", "effective", "inheritable", "ambient"] {
        same!(seen[set], 1 << 10, "{set} set of an ordinary user");
    }
    Ok(())
}

fn all(lab: &Lab) -> Result<()> {
    // Nobody can give what the suite itself lacks.
    let status = fs::read_to_string("/proc/self/status")?;
    let own = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).map_or("", str::trim);
    let expected = u64::from_str_radix(own, 16)? & ((1 << NAMES.len()) - 1);
    let names: Vec<String> =
        (0..NAMES.len()).filter(|n| expected >> n & 1 == 1).map(|n| format!("CAP_{}", NAMES[n])).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let seen = caps(lab, &lab.spec().capabilities(&names))?;
    for set in ["bounding", "permitted", "effective"] {
        same!(seen[set], expected, "{set} set");
    }
    Ok(())
}

fn unknown(lab: &Lab) -> Result<()> {
    let seen = caps(lab, &lab.spec().capabilities(&["CAP_KILL", "CAP_OF_TOMORROW"]))?;
    same!(seen["bounding"], 1 << 5, "bounding set");
    Ok(())
}

fn bounding(lab: &Lab) -> Result<()> {
    let spec = suid(lab)?.capabilities(&["CAP_KILL"]).set("/process/noNewPrivileges", json!(false));
    let seen = through_suid(lab, &spec)?;
    same!(seen["euid"], 0, "effective user of a setuid program");
    same!(seen["caps"]["permitted"], 1 << 5, "permitted set of a setuid program");
    Ok(())
}

fn no_new(lab: &Lab) -> Result<()> {
    let spec = suid(lab)?.set("/process/noNewPrivileges", json!(true));
    same!(lab.see(&spec)?["noNewPrivileges"], true, "no_new_privs");
    same!(through_suid(lab, &spec)?["euid"], 1000, "effective user of a setuid program");
    Ok(())
}

fn new_allowed(lab: &Lab) -> Result<()> {
    let spec = suid(lab)?.set("/process/noNewPrivileges", json!(false));
    same!(lab.see(&spec)?["noNewPrivileges"], false, "no_new_privs");
    same!(through_suid(lab, &spec)?["euid"], 0, "effective user of a setuid program");
    Ok(())
}

/// A configuration for user 1000, and a setuid program in the root.
fn suid(lab: &Lab) -> Result<Spec> {
    let path = lab.bundle.inside("bin/suid");
    if !path.exists() {
        fs::copy(lab.probe, &path)?;
        fs::set_permissions(&path, Permissions::from_mode(0o4755))?;
    }
    Ok(lab.spec().set("/process/user", json!({ "uid": 1000, "gid": 1000 })))
}

fn through_suid(lab: &Lab, spec: &Spec) -> Result<Value> {
    let result = lab.ask(spec, json!(["execute", "/bin/suid", "do", "[[\"see\"]]"]))?;
    Ok(Answers::parse(result["stdout"].as_str().unwrap_or_default())?.ok(0)?.clone())
}

/// What a container with a terminal answers.
fn with_terminal(lab: &Lab, spec: Spec, steps: Value) -> Result<Answers> {
    let socket = ConsoleSocket::new(lab.dir.join("console"))?;
    let count = steps.as_array().map_or(0, Vec::len);
    lab.bundle.configure(&with_steps(spec.set("/process/terminal", json!(true)), &steps))?;
    let path = socket.path.to_string_lossy().into_owned();
    let container = Container::create(lab, &lab.new_id(), &["--console-socket", &path])?;
    let mut terminal = socket.terminal()?;
    container.start()?;
    let answers = terminal.answers(count)?;
    container.wait()?;
    container.wait_status("stopped")?;
    container.delete()?;
    Ok(answers)
}

fn terminal(lab: &Lab) -> Result<()> {
    let answers = with_terminal(lab, lab.spec(), json!([["terminal"]]))?;
    let seen = answers.ok(0)?;
    same!(seen["stdio"], json!([true, true, true]), "standard streams are terminals");
    same!(seen["controls"], true, "/dev/tty can be opened");
    ensure!(seen["name"].as_str().is_some_and(|n| n.starts_with("/dev/")), "name inside: {}", seen["name"]);
    Ok(())
}

fn terminal_size(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/process/consoleSize", json!({ "height": 40, "width": 100 }));
    let answers = with_terminal(lab, spec, json!([["terminal"]]))?;
    same!(answers.ok(0)?["rows"], 40, "rows");
    same!(answers.ok(0)?["columns"], 100, "columns");
    Ok(())
}

fn terminal_size_unused(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/process/consoleSize", json!({ "height": 40, "width": 100 }));
    same!(lab.ask(&spec, json!(["terminal"]))?["stdio"], json!([false, false, false]), "terminals");
    Ok(())
}

fn terminal_user(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let answers = with_terminal(lab, spec, json!([["stat", "/proc/self/fd/0"]]))?;
    same!(answers.ok(0)?["uid"], 1000, "owner of the terminal");
    Ok(())
}

fn terminal_socket(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec().set("/process/terminal", json!(true)))?;
    lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &lab.new_id()]).map(drop)
}

fn socket_without_terminal(lab: &Lab) -> Result<()> {
    let socket = ConsoleSocket::new(lab.dir.join("console"))?;
    lab.bundle.configure(&lab.spec())?;
    let path = socket.path.to_string_lossy().into_owned();
    lab.call_refused(&["create", "--bundle", &lab.bundle_path(), "--console-socket", &path, &lab.new_id()]).map(drop)
}

fn console_device(lab: &Lab) -> Result<()> {
    let answers = with_terminal(lab, lab.spec(), json!([["stat", "/dev/console"], ["stat", "/proc/self/fd/0"]]))?;
    same!(answers.ok(0)?["type"], "character", "type of /dev/console");
    for key in ["major", "minor"] {
        same!(answers.ok(0)?[key], answers.ok(1)?[key], "{key} number of /dev/console, as the terminal's");
    }
    Ok(())
}

fn hang_up(lab: &Lab) -> Result<()> {
    let socket = ConsoleSocket::new(lab.dir.join("console"))?;
    let spec = lab.spec().without_namespace("pid").set("/process/terminal", json!(true));
    lab.bundle.configure(&with_steps(spec, &json!([["hold"]])))?;
    let path = socket.path.to_string_lossy().into_owned();
    let container = Container::create(lab, &lab.new_id(), &["--console-socket", &path])?;
    let mut terminal = socket.terminal()?;
    container.start()?;
    terminal.answers(1)?;
    rustix::termios::tcgetwinsize(terminal.file())?;
    // Ctrl-C reaches the foreground process group.
    terminal.send("\u{3}")?;
    same!(container.wait()?, 128 + 2, "exit code after Ctrl-C");
    container.wait_status("stopped")?;
    container.delete()
}

/// In the order of their numbers, from 0.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];
