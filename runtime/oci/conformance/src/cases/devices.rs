//! Device nodes, and which of them may be used.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;
use crate::spec::Spec;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("devices.default-ones", "config-linux.md#default-devices", defaults),
    Case::new("devices.default-ones-work", "config-linux.md#default-devices", defaults_work),
    Case::new("devices.ptmx", "config-linux.md#default-devices", ptmx),
    Case::new("devices.character", "config-linux.md#devices", character),
    Case::new("devices.block", "config-linux.md#devices", block),
    Case::new("devices.pipe", "config-linux.md#devices", pipe),
    Case::new("devices.in-a-folder", "config-linux.md#devices", folder),
    Case::new("devices.mode-and-owner", "config-linux.md#devices", owner),
    Case::new("devices.unknown-type", "config-linux.md#devices", unknown),
    Case::new("devices.umask-of-the-caller-is-no-matter", "config-linux.md#devices", umask),
    Case::new("devices.with-users-of-their-own", "config-linux.md#devices", mapped),
    Case::v2("devices.filter-refuses", "config-linux.md#allowed-device-list", filter_refuses),
    Case::v2("devices.filter-allows-by-number", "config-linux.md#allowed-device-list", filter_allows),
    Case::v2("devices.filter-keeps-the-default-ones", "config-linux.md#allowed-device-list", filter_defaults),
    Case::v2("devices.filter-by-access", "config-linux.md#allowed-device-list", filter_access),
    Case::v2("devices.filter-last-rule-counts", "config-linux.md#allowed-device-list", filter_order),
    Case::v2("devices.filter-with-wildcards", "config-linux.md#allowed-device-list", filter_wildcards),
    Case::v2("devices.filter-holds-for-exec", "config-linux.md#allowed-device-list", filter_exec),
];

fn device(path: &str, kind: &str, major: i64, minor: i64) -> Value {
    json!({ "path": path, "type": kind, "major": major, "minor": minor, "fileMode": 0o666, "uid": 0, "gid": 0 })
}

fn stat(lab: &Lab, spec: &Spec, path: &str) -> Result<Value> {
    lab.ask(spec, json!(["stat", path]))
}

fn defaults(lab: &Lab) -> Result<()> {
    let wanted = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
    let steps: Vec<Value> = wanted.iter().map(|(name, ..)| json!(["stat", format!("/dev/{name}")])).collect();
    let answers = lab.run(&lab.spec(), json!(steps))?;
    for (at, (name, major, minor)) in wanted.iter().enumerate() {
        let seen = answers.ok(at)?;
        same!(seen["type"], "character", "type of /dev/{name}");
        same!(json!([seen["major"], seen["minor"]]), json!([major, minor]), "numbers of /dev/{name}");
        same!(seen["mode"], 0o666, "mode of /dev/{name}");
    }
    Ok(())
}

fn defaults_work(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let answers =
        lab.run(&spec, json!([["write", "/dev/null", "x"], ["read", "/dev/null"], ["write", "/dev/full", "x"]]))?;
    answers.ok(0)?;
    same!(answers.text(1)?, "", "what /dev/null gives");
    same!(answers.errno(2)?, libc::ENOSPC, "writing to /dev/full");
    Ok(())
}

/// Docker's list of devices for `--privileged` names the host's; the container's own is there all the same.
fn ptmx(lab: &Lab) -> Result<()> {
    for spec in [lab.spec(), lab.spec().push("/linux/devices", device("/dev/ptmx", "c", 5, 2))] {
        let steps = json!([["stat", "/dev/ptmx"], ["stat", "/dev/pts/ptmx"], ["write", "/dev/ptmx", ""]]);
        let answers = lab.run(&spec, steps)?;
        for key in ["major", "minor", "device", "inode"] {
            same!(answers.ok(0)?[key], answers.ok(1)?[key], "{key} of /dev/ptmx, as of /dev/pts/ptmx");
        }
        answers.ok(2)?;
    }
    Ok(())
}

fn character(lab: &Lab) -> Result<()> {
    let seen = stat(lab, &lab.spec().push("/linux/devices", device("/dev/extra", "c", 10, 229)), "/dev/extra")?;
    same!(seen["type"], "character", "type");
    same!(json!([seen["major"], seen["minor"]]), json!([10, 229]), "numbers");
    let seen = stat(lab, &lab.spec().push("/linux/devices", device("/dev/extra", "u", 10, 229)), "/dev/extra")?;
    same!(seen["type"], "character", "type of an unbuffered one");
    Ok(())
}

fn block(lab: &Lab) -> Result<()> {
    let seen = stat(lab, &lab.spec().push("/linux/devices", device("/dev/disk", "b", 8, 16)), "/dev/disk")?;
    same!(seen["type"], "block", "type");
    same!(json!([seen["major"], seen["minor"]]), json!([8, 16]), "numbers");
    Ok(())
}

fn pipe(lab: &Lab) -> Result<()> {
    let entry = json!({ "path": "/dev/pipe", "type": "p", "fileMode": 0o640 });
    let seen = stat(lab, &lab.spec().push("/linux/devices", entry), "/dev/pipe")?;
    same!(seen["type"], "pipe", "type");
    same!(seen["mode"], 0o640, "mode");
    Ok(())
}

fn folder(lab: &Lab) -> Result<()> {
    let seen = stat(lab, &lab.spec().push("/linux/devices", device("/dev/net/tun", "c", 10, 200)), "/dev/net/tun")?;
    same!(seen["type"], "character", "type");
    Ok(())
}

fn owner(lab: &Lab) -> Result<()> {
    let entry =
        json!({ "path": "/dev/own", "type": "c", "major": 1, "minor": 3, "fileMode": 0o640, "uid": 5, "gid": 6 });
    let seen = stat(lab, &lab.spec().push("/linux/devices", entry), "/dev/own")?;
    same!(json!([seen["mode"], seen["uid"], seen["gid"]]), json!([0o640, 5, 6]), "mode, owner, group");
    Ok(())
}

fn unknown(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().push("/linux/devices", device("/dev/odd", "x", 1, 3))).map(drop)
}

fn umask(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&crate::lab::with_steps(
        lab.spec().push("/linux/devices", device("/dev/extra", "c", 1, 3)),
        &json!([["stat", "/dev/extra"], ["stat", "/dev/null"]]),
    ))?;
    let mut command = lab.command(&["run", "--bundle", &lab.bundle_path(), &lab.new_id()]);
    crate::sys::umask(&mut command, 0o077);
    let output = lab.run_command(&mut command)?;
    same!(output.code, 0, "exit code ({})", output.stderr.trim());
    let answers = crate::bundle::Answers::parse(&output.stdout)?;
    same!(answers.ok(0)?["mode"], 0o666, "mode of a configured device");
    same!(answers.ok(1)?["mode"], 0o666, "mode of /dev/null");
    Ok(())
}

fn mapped(lab: &Lab) -> Result<()> {
    let spec = super::namespaces::mapped(lab)?.push("/linux/devices", device("/dev/extra", "c", 1, 5));
    let answers = lab.run(&spec, json!([["stat", "/dev/extra"], ["write", "/dev/extra", "x"]]))?;
    same!(json!([answers.ok(0)?["major"], answers.ok(0)?["minor"]]), json!([1, 5]), "numbers");
    answers.ok(1).map(drop)
}

/// Rules after one that denies everything, a node for the kernel's log (1:11), and the right to make nodes.
fn filtered(lab: &Lab, rules: &[Value]) -> Spec {
    let mut all = vec![json!({ "allow": false, "access": "rwm" })];
    all.extend_from_slice(rules);
    let spec = lab.spec().push("/linux/devices", device("/dev/log-of-kernel", "c", 1, 11));
    spec.set("/linux/resources/devices", json!(all)).capabilities(&["CAP_MKNOD", "CAP_SYSLOG", "CAP_SYS_ADMIN"])
}

/// Opens the node; 0, or the error.
fn opening(lab: &Lab, spec: &Spec) -> Result<i32> {
    let answers = lab.run(spec, json!([["write", "/dev/log-of-kernel", ""]]))?;
    Ok(answers.errno(0).unwrap_or(0))
}

fn filter_refuses(lab: &Lab) -> Result<()> {
    let rule = json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm" });
    same!(opening(lab, &filtered(lab, &[rule]))?, libc::EPERM, "opening a device that isn't allowed");
    same!(opening(lab, &filtered(lab, &[]))?, libc::EPERM, "opening a device of which no rule speaks");
    Ok(())
}

fn filter_allows(lab: &Lab) -> Result<()> {
    let rule = json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw" });
    same!(opening(lab, &filtered(lab, &[rule]))?, 0, "opening a device that is allowed");
    Ok(())
}

fn filter_defaults(lab: &Lab) -> Result<()> {
    let steps = json!([
        ["write", "/dev/null", "x"],
        ["read", "/dev/null"],
        ["write", "/dev/zero", "x"],
        ["write", "/dev/ptmx", ""]
    ]);
    let answers = lab.run(&filtered(lab, &[]), steps)?;
    (0..4).try_for_each(|step| answers.ok(step).map(drop))
}

fn filter_access(lab: &Lab) -> Result<()> {
    let rules = [
        json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "rwm" }),
        json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "r" }),
    ];
    same!(opening(lab, &filtered(lab, &rules))?, libc::EPERM, "writing to a device that may be read");
    Ok(())
}

fn filter_order(lab: &Lab) -> Result<()> {
    let rules = [
        json!({ "allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwm" }),
        json!({ "allow": false, "type": "c", "major": 1, "minor": 11, "access": "w" }),
    ];
    same!(opening(lab, &filtered(lab, &rules))?, libc::EPERM, "writing, allowed first and then denied");
    Ok(())
}

fn filter_wildcards(lab: &Lab) -> Result<()> {
    same!(
        opening(lab, &filtered(lab, &[json!({ "allow": true, "type": "c", "major": 1, "access": "rwm" })]))?,
        0,
        "opening, with any minor number of 1 allowed"
    );
    same!(opening(lab, &filtered(lab, &[json!({ "allow": true, "access": "rwm" })]))?, 0, "opening, with all allowed");
    Ok(())
}

fn filter_exec(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&filtered(lab, &[]), json!([]))?;
    let answers = container.exec(&[], json!([["write", "/dev/log-of-kernel", ""], ["write", "/dev/null", "x"]]))?;
    same!(answers.errno(0)?, libc::EPERM, "opening a device that isn't allowed");
    ensure!(answers.ok(1).is_ok(), "/dev/null can't be written to");
    container.finish()
}
