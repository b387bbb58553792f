//! The root file system, masked and read-only paths, kernel parameters.

use std::fs;

use anyhow::{Result, ensure};
use rustix::mount::{MountPropagationFlags, mount_bind, mount_change};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("root.is-writable", "config.md#root", writable),
    Case::new("root.is-read-only", "config.md#root", readonly),
    Case::new("root.read-only-spares-mounts", "config.md#root", readonly_mounts),
    Case::new("root.read-only-spares-the-host", "config.md#root", readonly_host),
    Case::new("root.absolute-path", "config.md#root", absolute),
    Case::new("root.relative-path", "config.md#root", relative),
    Case::new("root.is-needed", "config.md#root", missing),
    Case::new("root.must-exist", "config.md#root", absent),
    Case::new("root.must-be-a-folder", "config.md#root", file),
    Case::new("root.shows-nothing-of-the-host", "config-linux.md#rootfs-mount-propagation", no_host),
    Case::new("root.propagation-private", "config-linux.md#rootfs-mount-propagation", private),
    Case::new("root.propagation-slave", "config-linux.md#rootfs-mount-propagation", slave),
    Case::new("root.propagation-shared", "config-linux.md#rootfs-mount-propagation", shared),
    Case::new("root.propagation-unbindable", "config-linux.md#rootfs-mount-propagation", unbindable),
    Case::new("root.propagation-of-an-unknown-kind", "config-linux.md#rootfs-mount-propagation", propagation_unknown),
    Case::new("root.proc-self-fd-links", "runtime-linux.md#dev-symbolic-links", fd_links),
    Case::new("paths.masked-file", "config-linux.md#masked-paths", masked_file),
    Case::new("paths.masked-folder", "config-linux.md#masked-paths", masked_folder),
    Case::new("paths.masked-and-missing", "config-linux.md#masked-paths", masked_missing),
    Case::new("paths.masked-cannot-be-uncovered", "config-linux.md#masked-paths", masked_uncovered),
    Case::new("paths.read-only-file", "config-linux.md#readonly-paths", readonly_file),
    Case::new("paths.read-only-folder", "config-linux.md#readonly-paths", readonly_folder),
    Case::new("paths.read-only-and-missing", "config-linux.md#readonly-paths", readonly_missing),
    Case::new("paths.read-only-keeps-flags", "config-linux.md#readonly-paths", readonly_flags),
    Case::new("sysctl.is-set", "config-linux.md#sysctl", sysctl),
    Case::new("sysctl.dots-and-slashes", "sysctl(8)", sysctl_slashes),
    Case::new("sysctl.unknown", "config-linux.md#sysctl", sysctl_unknown),
    Case::new("sysctl.of-the-host", "other runtimes", sysctl_host),
    Case::new("sysctl.of-a-namespace-that-is-the-hosts", "other runtimes", sysctl_shared),
];

fn writable(lab: &Lab) -> Result<()> {
    lab.ask(&lab.spec(), json!(["create", "/work/x", "text"]))?;
    same!(fs::read_to_string(lab.bundle.inside("work/x"))?, "text", "the file, seen from outside");
    Ok(())
}

fn readonly(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/root/readonly", json!(true));
    let answers = lab.run(
        &spec,
        json!([["create", "/work/x", ""], ["mkdir", "/y"], ["statvfs", "/"], ["read", "/proc/self/comm"]]),
    )?;
    same!(answers.errno(0)?, libc::EROFS, "making a file");
    same!(answers.errno(1)?, libc::EROFS, "making a folder");
    same!(answers.ok(2)?["readonly"], true, "flag of the root");
    Ok(())
}

fn readonly_mounts(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/root/readonly", json!(true)).mount("/tmp", "tmpfs", "tmpfs", &["mode=1777"]);
    let answers = lab.run(&spec, json!([["create", "/tmp/x", ""], ["create", "/dev/shm/x", ""]]))?;
    answers.ok(0)?;
    answers.ok(1).map(drop)
}

fn readonly_host(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&lab.spec().set("/root/readonly", json!(true)), json!([]))?;
    fs::write(lab.bundle.inside("work/from-outside"), "x")?;
    container.finish()
}

fn absolute(lab: &Lab) -> Result<()> {
    let root = lab.bundle.dir.join("rootfs");
    lab.see(&lab.spec().set("/root/path", json!(root))).map(drop)
}

fn relative(lab: &Lab) -> Result<()> {
    fs::create_dir(lab.bundle.dir.join("sub"))?;
    fs::rename(lab.bundle.dir.join("rootfs"), lab.bundle.dir.join("sub/root"))?;
    lab.see(&lab.spec().set("/root/path", json!("sub/root"))).map(drop)
}

fn missing(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/root", Value::Null)).map(drop)
}

fn absent(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/root/path", json!("nowhere"))).map(drop)
}

fn file(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/root/path", json!("rootfs/bin/probe"))).map(drop)
}

fn no_host(lab: &Lab) -> Result<()> {
    let answers = lab.run(&lab.spec(), json!([["mounts"], ["list", "/"]]))?;
    let dir = lab.dir.to_string_lossy();
    for mount in answers.ok(0)?.as_array().into_iter().flatten() {
        let point = mount["point"].as_str().unwrap_or_default();
        ensure!(!point.contains(&*dir), "a mount of the host is seen inside: {mount}");
    }
    let points = answers.ok(0)?.as_array().into_iter().flatten().filter(|mount| mount["point"] == "/").count();
    same!(points, 1, "mounts on /");
    let names = json!(["bin", "dev", "etc", "proc", "sys", "tmp", "work"]);
    same!(*answers.ok(1)?, names, "names in /");
    Ok(())
}

/// Tags of the root in the container's table.
fn tags(lab: &Lab, propagation: &str) -> Result<Vec<String>> {
    // Something must be shared with the host's table for a slave to be one.
    let root = lab.bundle.dir.join("rootfs");
    mount_bind(&root, &root)?;
    mount_change(&root, MountPropagationFlags::SHARED)?;
    let mounts = lab.ask(&lab.spec().set("/linux/rootfsPropagation", json!(propagation)), json!(["mounts"]));
    rustix::mount::unmount(&root, rustix::mount::UnmountFlags::DETACH)?;
    let mounts = mounts?;
    let row = mounts.as_array().into_iter().flatten().find(|mount| mount["point"] == "/").cloned().unwrap_or_default();
    Ok(row["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect())
}

fn private(lab: &Lab) -> Result<()> {
    same!(tags(lab, "private")?, Vec::<String>::new(), "tags of the root");
    Ok(())
}

fn slave(lab: &Lab) -> Result<()> {
    let tags = tags(lab, "slave")?;
    ensure!(tags.iter().all(|tag| !tag.starts_with("shared")), "tags of the root: {tags:?}");
    Ok(())
}

fn shared(lab: &Lab) -> Result<()> {
    let tags = tags(lab, "shared")?;
    ensure!(tags.iter().any(|tag| tag.starts_with("shared:")), "tags of the root: {tags:?}");
    Ok(())
}

fn unbindable(lab: &Lab) -> Result<()> {
    let tags = tags(lab, "unbindable")?;
    ensure!(tags.iter().any(|tag| tag == "unbindable"), "tags of the root: {tags:?}");
    Ok(())
}

fn propagation_unknown(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/linux/rootfsPropagation", json!("sideways"))).map(drop)
}

fn fd_links(lab: &Lab) -> Result<()> {
    let links = [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    let steps: Vec<Value> = links.iter().map(|(name, _)| json!(["readlink", format!("/dev/{name}")])).collect();
    let answers = lab.run(&lab.spec(), json!(steps))?;
    for (at, (name, target)) in links.iter().enumerate() {
        same!(answers.text(at)?, *target, "target of /dev/{name}");
    }
    Ok(())
}

fn masked_file(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.inside("work/secret"), "secret")?;
    let spec = lab.spec().push("/linux/maskedPaths", json!("/work/secret"));
    let answers = lab.run(&spec, json!([["read", "/work/secret"]]))?;
    ensure!(answers.errno(0).is_ok() || answers.text(0)?.is_empty(), "a masked file was read");
    Ok(())
}

fn masked_folder(lab: &Lab) -> Result<()> {
    fs::create_dir(lab.bundle.inside("work/secrets"))?;
    fs::write(lab.bundle.inside("work/secrets/one"), "secret")?;
    let spec = lab.spec().push("/linux/maskedPaths", json!("/work/secrets"));
    let answers = lab.run(
        &spec,
        json!([["list", "/work/secrets"], ["read", "/work/secrets/one"], ["create", "/work/secrets/x", ""]]),
    )?;
    same!(*answers.ok(0)?, json!([]), "names in a masked folder");
    answers.errno(1)?;
    same!(answers.errno(2)?, libc::EROFS, "making a file in a masked folder");
    Ok(())
}

fn masked_missing(lab: &Lab) -> Result<()> {
    lab.see(&lab.spec().push("/linux/maskedPaths", json!("/no/such/path"))).map(drop)
}

fn masked_uncovered(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.inside("work/secret"), "secret")?;
    let spec = lab.spec().push("/linux/maskedPaths", json!("/work/secret"));
    same!(lab.run(&spec, json!([["umount", "/work/secret"]]))?.errno(0)?, libc::EPERM, "unmounting the mask");
    Ok(())
}

fn readonly_file(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.inside("work/fixed"), "text")?;
    let spec = lab.spec().push("/linux/readonlyPaths", json!("/work/fixed"));
    let answers = lab.run(&spec, json!([["write", "/work/fixed", "x"], ["read", "/work/fixed"]]))?;
    same!(answers.errno(0)?, libc::EROFS, "writing");
    same!(answers.text(1)?, "text", "content");
    Ok(())
}

fn readonly_folder(lab: &Lab) -> Result<()> {
    fs::create_dir(lab.bundle.inside("work/fixed"))?;
    let spec = lab.spec().push("/linux/readonlyPaths", json!("/work/fixed"));
    let answers = lab.run(
        &spec,
        json!([
            ["create", "/work/fixed/x", ""],
            ["create", "/work/y", ""],
            ["write", "/proc/sys/kernel/hostname", "x"]
        ]),
    )?;
    same!(answers.errno(0)?, libc::EROFS, "making a file in it");
    answers.ok(1)?;
    same!(answers.errno(2)?, libc::EROFS, "writing below /proc/sys");
    Ok(())
}

fn readonly_missing(lab: &Lab) -> Result<()> {
    lab.see(&lab.spec().push("/linux/readonlyPaths", json!("/no/such/path"))).map(drop)
}

fn readonly_flags(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/tmp", "tmpfs", "tmpfs", &["nosuid", "nodev", "noexec"]);
    let spec = spec.push("/linux/readonlyPaths", json!("/tmp"));
    let mounts = lab.ask(&spec, json!(["mounts"]))?;
    let row =
        mounts.as_array().into_iter().flatten().rfind(|mount| mount["point"] == "/tmp").cloned().unwrap_or_default();
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(row["options"].as_array().is_some_and(|o| o.contains(&json!(flag))), "{flag} is missing: {row}");
    }
    Ok(())
}

fn sysctl(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set(
        "/linux/sysctl",
        json!({ "net.ipv4.ip_unprivileged_port_start": "0", "kernel.msgmax": "9000", "fs.mqueue.msg_max": "21" }),
    );
    let files = ["net/ipv4/ip_unprivileged_port_start", "kernel/msgmax", "fs/mqueue/msg_max"];
    let steps = json!(files.map(|file| json!(["read", format!("/proc/sys/{file}")])));
    let answers = lab.run(&spec, steps)?;
    same!(answers.text(0)?.trim(), "0", "net.ipv4.ip_unprivileged_port_start");
    same!(answers.text(1)?.trim(), "9000", "kernel.msgmax");
    same!(answers.text(2)?.trim(), "21", "fs.mqueue.msg_max");
    Ok(())
}

fn sysctl_slashes(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/linux/sysctl", json!({ "net/ipv4/ip_unprivileged_port_start": "7" }));
    same!(lab.ask(&spec, json!(["read", "/proc/sys/net/ipv4/ip_unprivileged_port_start"]))?, "7\n", "value");
    Ok(())
}

fn sysctl_unknown(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().set("/linux/sysctl", json!({ "net.ipv4.no_such_parameter": "1" }))).map(drop)
}

fn sysctl_host(lab: &Lab) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/kernel/panic_on_oops")?;
    lab.refused(&lab.spec().set("/linux/sysctl", json!({ "kernel.panic_on_oops": before.trim() }))).map(drop)
}

fn sysctl_shared(lab: &Lab) -> Result<()> {
    let before = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")?;
    let spec = lab.spec().set("/linux/sysctl", json!({ "net.ipv4.ip_unprivileged_port_start": before.trim() }));
    lab.refused(&spec.without_namespace("network")).map(drop)
}
