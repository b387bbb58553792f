//! Ways out of a container that others had open.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Answers;
use crate::case::{Case, same};
use crate::lab::Lab;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("security.link-leads-a-mount-out", "CVE-2021-30465", mount_link),
    Case::new("security.link-leads-up", "CVE-2021-30465", mount_link_up),
    Case::new("security.link-leads-a-made-file-out", "CVE-2024-45310", made_file),
    Case::new("security.link-in-a-bound-folder", "CVE-2021-30465", bound_link),
    Case::new("security.proc-is-a-link", "CVE-2023-27561", proc_link),
    Case::new("security.sys-is-a-link", "CVE-2023-27561", sys_link),
    Case::new("security.mount-over-proc", "CVE-2019-16884", over_proc),
    Case::new("security.mount-over-proc-by-a-link", "CVE-2019-16884", over_proc_link),
    Case::new("security.a-folder-in-the-place-of-proc", "CVE-2025-52881", fake_proc),
    Case::new("security.masked-path-is-a-link", "CVE-2025-31133", masked_link),
    Case::new("security.dev-null-is-a-link", "CVE-2025-31133", null_link),
    Case::new("security.dev-null-is-missing", "CVE-2025-31133", null_missing),
    Case::new("security.console-is-a-link", "CVE-2025-52565", console_link),
    Case::new("security.console-is-a-link-to-proc", "CVE-2025-52565", console_link_to_proc),
    Case::new("security.read-only-path-is-a-link", "CVE-2025-52881", readonly_link),
    Case::new("security.cwd-leads-to-the-host", "CVE-2024-21626", cwd_leak),
    Case::new("security.exec-cwd-leads-to-the-host", "CVE-2024-21626", exec_cwd_leak),
    Case::new("security.no-descriptor-of-the-host", "CVE-2024-21626", descriptor_leak),
    Case::new("security.program-is-the-runtime-itself", "CVE-2019-5736", own_program),
    Case::new("security.exec-runs-the-runtime-itself", "CVE-2019-5736", exec_own_program),
    Case::new("security.inheritable-capabilities", "CVE-2022-29162", inheritable),
    Case::new("security.cwd-is-a-link-out", "openat2(2)", cwd_link),
    Case::new("security.device-is-led-out", "openat2(2)", device_link),
    Case::new("security.caller-cannot-be-traced", "CVE-2016-9962", traced),
    Case::new("security.links-in-root-path-stay-inside", "openat2(2)", absolute_link),
];

/// A folder of the host that nothing may reach.
fn outside(lab: &Lab) -> Result<String> {
    let path = lab.path("outside");
    fs::create_dir_all(&path)?;
    Ok(path)
}

fn untouched(path: &str) -> Result<()> {
    let names: Vec<_> = fs::read_dir(path)?.flatten().map(|entry| entry.file_name()).collect();
    ensure!(names.is_empty(), "a folder outside was written to: {names:?}");
    Ok(())
}

/// Runs it, whatever comes of it; then the folder outside must be as it was.
fn harmless(lab: &Lab, spec: &crate::spec::Spec, outside: &str) -> Result<()> {
    lab.run_any(spec)?;
    untouched(outside)?;
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    ensure!(!table.contains(outside), "something was mounted outside");
    Ok(())
}

fn mount_link(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    symlink(&outside, lab.bundle.inside("data"))?;
    harmless(lab, &lab.spec().mount("/data/deep", "tmpfs", "tmpfs", &[]), &outside)?;
    harmless(lab, &lab.spec().mount("/data", "tmpfs", "tmpfs", &[]), &outside)
}

fn mount_link_up(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    let depth = "../".repeat(20);
    symlink(format!("{depth}{}", outside.trim_start_matches('/')), lab.bundle.inside("up"))?;
    harmless(lab, &lab.spec().mount("/up/deep", "tmpfs", "tmpfs", &[]), &outside)
}

fn made_file(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    fs::write(lab.path("file"), "x")?;
    symlink(format!("{outside}/made"), lab.bundle.inside("etc/file"))?;
    harmless(lab, &lab.spec().mount("/etc/file", "bind", &lab.path("file"), &["bind"]), &outside)
}

fn bound_link(lab: &Lab) -> Result<()> {
    // A volume that another container could have filled with links.
    let outside = outside(lab)?;
    fs::create_dir(lab.path("volume"))?;
    symlink(&outside, lab.path("volume/link"))?;
    let spec = lab.spec().mount("/work", "bind", &lab.path("volume"), &["rbind"]);
    harmless(lab, &spec.mount("/work/link/deep", "tmpfs", "tmpfs", &[]), &outside)
}

fn replaced(lab: &Lab, name: &str) -> Result<()> {
    let outside = outside(lab)?;
    fs::remove_dir(lab.bundle.inside(name))?;
    symlink("/tmp", lab.bundle.inside(name))?;
    let output = lab.run_any(&lab.spec())?;
    untouched(&outside)?;
    ensure!(output.code != 0, "/{name} is a link of the image, and the kernel's file system was mounted through it");
    Ok(())
}

fn proc_link(lab: &Lab) -> Result<()> {
    replaced(lab, "proc")
}

fn sys_link(lab: &Lab) -> Result<()> {
    replaced(lab, "sys")
}

fn over_proc(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    for destination in ["/proc/sys", "/proc/self/attr", "/proc/1"] {
        lab.refused(&lab.spec().mount(destination, "bind", &outside, &["bind"]))
            .with_context(|| format!("a mount on {destination}"))?;
    }
    Ok(())
}

fn over_proc_link(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    symlink("/proc/sys", lab.bundle.inside("innocent"))?;
    lab.refused(&lab.spec().mount("/innocent", "bind", &outside, &["bind"])).map(drop)
}

fn fake_proc(lab: &Lab) -> Result<()> {
    // A folder in proc's place must not take what the runtime writes to /proc/sys and /proc/self/attr.
    let folder = outside(lab)?;
    let file = format!("{folder}/sys/net/ipv4/ip_unprivileged_port_start");
    fs::create_dir_all(format!("{folder}/sys/net/ipv4"))?;
    fs::write(&file, "untouched")?;
    let spec = lab.spec().without_mount("/proc").mount("/proc", "bind", &folder, &["bind"]);
    lab.run_any(&spec.set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": "0" })))?;
    same!(fs::read_to_string(&file)?, "untouched", "the host's file");
    Ok(())
}

fn masked_link(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    fs::write(format!("{outside}/file"), "of the host")?;
    symlink(format!("{outside}/file"), lab.bundle.inside("etc/masked"))?;
    let spec = lab.spec().push("/linux/maskedPaths", json!("/etc/masked"));
    lab.run_any(&spec)?;
    same!(fs::read_to_string(format!("{outside}/file"))?, "of the host", "the file outside");
    Ok(())
}

/// With a folder of the image's as `/dev`.
fn own_devices(lab: &Lab) -> Result<crate::spec::Spec> {
    fs::create_dir_all(lab.bundle.inside("devices/pts"))?;
    let mut spec = lab.spec();
    for destination in ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"] {
        spec = spec.without_mount(destination);
    }
    Ok(spec.mount("/dev", "bind", &lab.bundle.inside("devices").to_string_lossy(), &["rbind"]))
}

fn null_link(lab: &Lab) -> Result<()> {
    // What masks files must be the device itself, not what an image puts in its place.
    let spec = own_devices(lab)?;
    symlink("/etc/secret-cover", lab.bundle.inside("devices/null"))?;
    fs::write(lab.bundle.inside("etc/secret-cover"), "cover")?;
    masked(lab, spec)
}

fn null_missing(lab: &Lab) -> Result<()> {
    // Nothing to mask with is no reason not to.
    masked(lab, own_devices(lab)?)
}

/// A masked file shows nothing, or there is no container.
fn masked(lab: &Lab, spec: crate::spec::Spec) -> Result<()> {
    fs::write(lab.bundle.inside("etc/secret"), "secret")?;
    let spec = spec.push("/linux/maskedPaths", json!("/etc/secret"));
    let output = lab.run_any(&crate::lab::with_steps(spec, &json!([["read", "/etc/secret"]])))?;
    if output.code == 0 {
        let text = Answers::parse(&output.stdout)?.text(0).unwrap_or_default().to_owned();
        ensure!(!text.contains("cover") && !text.contains("secret"), "the masked file shows {text:?}");
    }
    Ok(())
}

/// A terminal is bound on `/dev/console`, not where a link there leads.
fn console(lab: &Lab, target: &str) -> Result<()> {
    let options = ["newinstance", "ptmxmode=0666", "mode=0620"];
    let spec = own_devices(lab)?.mount("/dev/pts", "devpts", "devpts", &options);
    fs::write(lab.bundle.inside("etc/target"), "")?;
    symlink(target, lab.bundle.inside("devices/console"))?;
    let spec = crate::lab::with_steps(spec.set("/process/terminal", json!(true)), &json!([["mounts"]]));
    lab.bundle.configure(&spec)?;
    let socket = crate::terminal::ConsoleSocket::new(lab.dir.join("console.sock"))?;
    let id = lab.new_id();
    let words = ["create", "--bundle", &lab.bundle_path(), "--console-socket", &lab.path("console.sock"), &id];
    if lab.call(&words)?.code != 0 {
        return Ok(());
    }
    let state: Value = serde_json::from_str(&lab.call_ok(&["state", &id])?.stdout)?;
    let pid = state["pid"].as_u64().context("the state has no process ID")?;
    lab.expect_end_of(pid as u32);
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo"))?;
    drop(socket);
    lab.call_ok(&["delete", "--force", &id])?;
    ensure!(!table.lines().any(|line| line.split(' ').nth(4) == Some(target)), "the terminal is on {target}: {table}");
    Ok(())
}

fn console_link(lab: &Lab) -> Result<()> {
    console(lab, "/etc/target")
}

fn console_link_to_proc(lab: &Lab) -> Result<()> {
    console(lab, "/proc/sys/kernel/hostname")
}

fn readonly_link(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    symlink(&outside, lab.bundle.inside("etc/fixed"))?;
    lab.run_any(&lab.spec().push("/linux/readonlyPaths", json!("/etc/fixed")))?;
    fs::write(format!("{outside}/still-writable"), "")?;
    fs::remove_file(format!("{outside}/still-writable"))?;
    untouched(&outside)
}

/// Whether any of the runtime's descriptors leads a working folder to the host.
fn cwd_leak(lab: &Lab) -> Result<()> {
    for fd in 3..12 {
        let spec = lab.spec().set("/process/cwd", json!(format!("/proc/self/fd/{fd}")));
        let output =
            lab.run_any(&crate::lab::with_steps(spec, &json!([["list", "../../../../../../../.."], ["list", "."]])))?;
        inside_only(&output.stdout, fd)?;
    }
    Ok(())
}

fn exec_cwd_leak(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec(), json!([]))?;
    for fd in 3..12 {
        let path = format!("/proc/self/fd/{fd}");
        let output = container.exec_any(
            &["--cwd", &path],
            &["/bin/probe", "do", "[[\"list\",\"../../../../../..\"],[\"list\",\".\"]]"],
        )?;
        inside_only(&output.stdout, fd)?;
    }
    container.finish()
}

fn inside_only(printed: &str, fd: u32) -> Result<()> {
    for line in printed.lines() {
        for name in ["usr", "boot", "config.json", "cgroup.procs"] {
            ensure!(!line.contains(&format!("\"{name}\"")), "descriptor {fd} leads to the host: {line}");
        }
    }
    Ok(())
}

fn descriptor_leak(lab: &Lab) -> Result<()> {
    let fds = lab.ask(&lab.spec(), json!(["fds"]))?;
    let names: Vec<&String> = fds.as_object().context("descriptors")?.keys().collect();
    same!(names, ["0", "1", "2"], "descriptors of the container's process");
    Ok(())
}

/// Whether the runtime's program can be opened for writing from inside, by way of a process that is it.
fn own_program(lab: &Lab) -> Result<()> {
    let before = fs::read(&lab.runtime.path)?;
    // What is executed is the runtime itself, if /proc/self/exe still is it when the program is looked up.
    let spec = lab.spec().set("/process/args", json!(["/proc/self/exe", "do", "[]"]));
    lab.run_any(&spec)?;
    let steps = json!([["overwrite", "/proc/self/exe", "x"], ["overwrite", "/proc/1/exe", "x"]]);
    let answers = lab.run(&lab.spec(), steps)?;
    same!(answers.errno(0)?, libc::ETXTBSY, "writing to the program that runs");
    ensure!(fs::read(&lab.runtime.path)? == before, "the runtime's program was changed");
    Ok(())
}

fn exec_own_program(lab: &Lab) -> Result<()> {
    let before = fs::read(&lab.runtime.path)?;
    let spec = lab.spec().capabilities(&["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]);
    let (container, _) = lab.hold(&spec, json!([]))?;
    // The program that is started inside must never be the host's file: a copy, or one that can't be written to.
    container.exec_any(&[], &["/proc/self/exe", "--version"])?;
    let answers = container.exec(&[], json!([["readlink", "/proc/self/exe"], ["readlink", "/proc/1/exe"]]))?;
    for step in 0..2 {
        same!(answers.text(step)?, "/bin/probe", "program of a process inside");
    }
    ensure!(fs::read(&lab.runtime.path)? == before, "the runtime's program was changed");
    container.finish()
}

fn inheritable(lab: &Lab) -> Result<()> {
    let (container, first) = lab.hold(&lab.spec(), json!([["see"]]))?;
    same!(first.ok(0)?["caps"]["inheritable"], 0, "inheritable set of the first process");
    let second = container.exec(&["--cap", "CAP_NET_RAW"], json!([["see"]]))?;
    same!(second.ok(0)?["caps"]["ambient"], 0, "ambient set after `exec --cap`");
    container.finish()
}

fn cwd_link(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    symlink(&outside, lab.bundle.inside("way"))?;
    lab.run_any(&lab.spec().set("/process/cwd", json!("/way/made/here")))?;
    untouched(&outside)
}

fn device_link(lab: &Lab) -> Result<()> {
    let outside = outside(lab)?;
    let mut spec = lab.spec();
    for destination in ["/dev/pts", "/dev/shm", "/dev/mqueue", "/dev"] {
        spec = spec.without_mount(destination);
    }
    symlink(&outside, lab.bundle.inside("dev/way"))?;
    let entry = json!({ "path": "/dev/way/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 });
    lab.run_any(&spec.push("/linux/devices", entry))?;
    untouched(&outside)
}

fn traced(lab: &Lab) -> Result<()> {
    // Whoever enters a container must not be dumpable before it has become the program: its descriptors are the host's.
    let spec = lab.spec().capabilities(&["CAP_SYS_PTRACE"]);
    let (container, _) = lab.hold(&spec, json!([]))?;
    let answers = container.exec(&[], json!([["fds"], ["list", "/proc/1/fd"]]))?;
    let names: Vec<Value> = answers.ok(1)?.as_array().cloned().unwrap_or_default();
    same!(names, [json!("0"), json!("1"), json!("2")], "descriptors of process 1");
    container.finish()
}

fn absolute_link(lab: &Lab) -> Result<()> {
    // An absolute link of the image means the image's path, not the host's.
    let outside = outside(lab)?;
    symlink("/work/inner", lab.bundle.inside("etc/link"))?;
    fs::create_dir(lab.bundle.inside("work/inner"))?;
    let spec = lab.spec().mount("/etc/link/made", "tmpfs", "inner", &[]);
    let mounts = lab.ask(&spec, json!(["mounts"]))?;
    ensure!(mounts.as_array().into_iter().flatten().any(|m| m["point"] == "/work/inner/made"), "{mounts}");
    untouched(&outside)
}
