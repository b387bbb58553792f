//! `mounts`: order, kinds, binds, destinations.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::Lab;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("mounts.in-the-listed-order", "config.md#mounts", order),
    Case::new("mounts.tmpfs-with-its-options", "config.md#mounts", tmpfs),
    Case::new("mounts.usual-file-systems", "config-linux.md#default-filesystems", usual),
    Case::new("mounts.bind-a-folder", "config.md#mounts", bind_folder),
    Case::new("mounts.bind-a-file", "config.md#mounts", bind_file),
    Case::new("mounts.bind-without-a-type", "config.md#mounts", bind_untyped),
    Case::new("mounts.bind-relative-to-the-bundle", "config.md#mounts", bind_relative),
    Case::new("mounts.bind-needs-its-source", "config.md#mounts", bind_missing),
    Case::new("mounts.bind-without-submounts", "config.md#mounts", bind_flat),
    Case::new("mounts.rbind-with-submounts", "config.md#mounts", bind_deep),
    Case::new("mounts.bind-read-only", "config.md#linux-mount-options", bind_readonly),
    Case::new("mounts.read-only-is-not-recursive", "config.md#linux-mount-options", readonly_flat),
    Case::new("mounts.rro-is-recursive", "config.md#linux-mount-options", readonly_deep),
    Case::new("mounts.recursive-flags", "config.md#linux-mount-options", recursive_flags),
    Case::new("mounts.propagation", "config.md#linux-mount-options", propagation),
    Case::new("mounts.propagation-rslave-receives", "config.md#linux-mount-options", rslave_receives),
    Case::new("mounts.private-receives-nothing", "config.md#linux-mount-options", private_receives),
    Case::new("mounts.tmpcopyup", "config.md#linux-mount-options", tmpcopyup),
    Case::new("mounts.unknown-type", "config.md#mounts", unknown_type),
    Case::new("mounts.destination-is-made", "config.md#mounts", destination_made),
    Case::new("mounts.relative-destination", "config.md#mounts", destination_relative),
    Case::new("mounts.destination-through-a-link", "config.md#mounts", destination_link),
    Case::new("mounts.file-over-file", "config.md#mounts", file_over_file),
    Case::new("mounts.one-over-another", "config.md#mounts", over),
    Case::new("mounts.idmap-of-its-own", "config.md#posix-platform-mounts", idmap),
    Case::new("mounts.idmap-follows-the-container", "config.md#linux-mount-options", idmap_container),
    Case::new("mounts.ridmap-reaches-submounts", "config.md#linux-mount-options", ridmap),
    Case::new("mounts.leave-the-source-as-it-was", "config.md#mounts", source_unchanged),
    Case::v2("mounts.cgroup-is-version-2", "config-linux.md#default-filesystems", cgroup),
];

/// A folder of the host with a file and a folder in it.
pub(super) fn source(lab: &Lab) -> Result<String> {
    let path = lab.path("source");
    fs::create_dir_all(format!("{path}/sub"))?;
    fs::write(format!("{path}/file"), "of the host")?;
    Ok(path)
}

/// The same, with a tmpfs on `sub` that holds the file `deep`.
fn source_with_submount(lab: &Lab) -> Result<String> {
    let path = source(lab)?;
    let sub = format!("{path}/sub");
    mount("tmpfs", &sub, "tmpfs", MountFlags::empty(), c"")?;
    fs::write(format!("{sub}/deep"), "deep")?;
    Ok(path)
}

/// Takes the submount away again; the case has no other way out.
fn undo_submount(path: &str) {
    let _ = rustix::mount::unmount(format!("{path}/sub"), rustix::mount::UnmountFlags::DETACH);
}

/// The last row of the table for this point.
pub(super) fn row(mounts: &Value, point: &str) -> Result<Value> {
    let found = mounts.as_array().into_iter().flatten().rfind(|mount| mount["point"] == point);
    found.cloned().with_context(|| format!("nothing is mounted on {point}: {mounts}"))
}

pub(super) fn has(row: &Value, flag: &str) -> bool {
    row["options"].as_array().is_some_and(|options| options.contains(&json!(flag)))
}

fn order(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "tmpfs", "first", &[]).mount("/work/in", "tmpfs", "second", &[]);
    let mounts = lab.ask(&spec.mount("/work/in/in", "tmpfs", "third", &[]), json!(["mounts"]))?;
    for (point, name) in [("/work", "first"), ("/work/in", "second"), ("/work/in/in", "third")] {
        same!(row(&mounts, point)?["source"], name, "source of {point}");
    }
    Ok(())
}

fn tmpfs(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "tmpfs", "tmpfs", &["size=64k", "mode=1750", "uid=5", "gid=6"]);
    let answers = lab.run(&spec, json!([["statvfs", "/work"], ["stat", "/work"]]))?;
    same!(answers.ok(0)?["bytes"], 65536, "size");
    same!(answers.ok(1)?["mode"], 0o1750, "mode");
    same!(answers.ok(1)?["uid"], 5, "owner");
    same!(answers.ok(1)?["gid"], 6, "group");
    Ok(())
}

fn usual(lab: &Lab) -> Result<()> {
    let mounts = lab.ask(&lab.spec(), json!(["mounts"]))?;
    let wanted = [
        ("/proc", "proc"),
        ("/sys", "sysfs"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/shm", "tmpfs"),
        ("/dev/mqueue", "mqueue"),
    ];
    for (point, kind) in wanted {
        let found = mounts.as_array().into_iter().flatten().find(|mount| mount["point"] == point);
        let found = found.with_context(|| format!("nothing is mounted on {point}"))?;
        same!(found["type"], kind, "type of {point}");
    }
    Ok(())
}

fn bind_folder(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "bind", &source(lab)?, &["bind"]);
    let answers = lab.run(&spec, json!([["read", "/work/file"], ["create", "/work/new", "x"]]))?;
    same!(answers.text(0)?, "of the host", "content");
    answers.ok(1)?;
    ensure!(lab.dir.join("source/new").exists(), "what is written inside isn't outside");
    Ok(())
}

fn bind_file(lab: &Lab) -> Result<()> {
    let file = format!("{}/file", source(lab)?);
    let spec = lab.spec().mount("/etc/new-file", "bind", &file, &["bind"]);
    same!(lab.ask(&spec, json!(["read", "/etc/new-file"]))?, "of the host", "content");
    Ok(())
}

fn bind_untyped(lab: &Lab) -> Result<()> {
    let entry = json!({ "destination": "/work", "source": source(lab)?, "options": ["rbind"] });
    same!(lab.ask(&lab.spec().push("/mounts", entry), json!(["read", "/work/file"]))?, "of the host", "without type");
    let entry = json!({ "destination": "/work", "type": "none", "source": source(lab)?, "options": ["bind", "ro"] });
    same!(lab.ask(&lab.spec().push("/mounts", entry), json!(["read", "/work/file"]))?, "of the host", "type none");
    Ok(())
}

fn bind_relative(lab: &Lab) -> Result<()> {
    fs::create_dir(lab.bundle.dir.join("beside"))?;
    fs::write(lab.bundle.dir.join("beside/file"), "x")?;
    lab.bundle.configure(&crate::lab::with_steps(
        lab.spec().mount("/work", "bind", "beside", &["bind"]),
        &json!([["read", "/work/file"]]),
    ))?;
    let mut command = lab.command(&["run", "--bundle", &lab.bundle_path(), &lab.new_id()]);
    let output = lab.run_command(command.current_dir("/"))?;
    same!(output.code, 0, "exit code ({})", output.stderr.trim());
    Ok(())
}

fn bind_missing(lab: &Lab) -> Result<()> {
    let said = lab.refused(&lab.spec().mount("/work", "bind", "/no/such/source", &["bind"]))?;
    ensure!(said.contains("/no/such/source"), "the message doesn't name the source: {said}");
    Ok(())
}

fn bind_flat(lab: &Lab) -> Result<()> {
    let path = source_with_submount(lab)?;
    let answers = lab.run(&lab.spec().mount("/work", "bind", &path, &["bind"]), json!([["read", "/work/sub/deep"]]));
    undo_submount(&path);
    same!(answers?.errno(0)?, libc::ENOENT, "a file on a submount");
    Ok(())
}

fn bind_deep(lab: &Lab) -> Result<()> {
    let path = source_with_submount(lab)?;
    let answer = lab.ask(&lab.spec().mount("/work", "bind", &path, &["rbind"]), json!(["read", "/work/sub/deep"]));
    undo_submount(&path);
    same!(answer?, "deep", "a file on a submount");
    Ok(())
}

fn bind_readonly(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "bind", &source(lab)?, &["bind", "ro"]);
    let answers = lab.run(&spec, json!([["write", "/work/file", "x"], ["read", "/work/file"]]))?;
    same!(answers.errno(0)?, libc::EROFS, "writing");
    answers.ok(1).map(drop)
}

fn readonly_flat(lab: &Lab) -> Result<()> {
    let path = source_with_submount(lab)?;
    let spec = lab.spec().mount("/work", "bind", &path, &["rbind", "ro"]);
    let answers = lab.run(&spec, json!([["create", "/work/x", ""], ["create", "/work/sub/x", ""]]));
    undo_submount(&path);
    let answers = answers?;
    same!(answers.errno(0)?, libc::EROFS, "writing to the mount itself");
    answers.ok(1).context("`ro` must not reach submounts; `rro` does").map(drop)
}

fn readonly_deep(lab: &Lab) -> Result<()> {
    let path = source_with_submount(lab)?;
    let spec = lab.spec().mount("/work", "bind", &path, &["rbind", "rro"]);
    let answers = lab.run(&spec, json!([["create", "/work/x", ""], ["create", "/work/sub/x", ""]]));
    undo_submount(&path);
    let answers = answers?;
    same!(answers.errno(0)?, libc::EROFS, "writing to the mount itself");
    same!(answers.errno(1)?, libc::EROFS, "writing to a submount");
    Ok(())
}

fn recursive_flags(lab: &Lab) -> Result<()> {
    let path = source_with_submount(lab)?;
    let options = ["rbind", "rnosuid", "rnodev", "rnoexec", "rnoatime", "rnodiratime"];
    let mounts = lab.ask(&lab.spec().mount("/work", "bind", &path, &options), json!(["mounts"]));
    undo_submount(&path);
    let mounts = mounts?;
    for point in ["/work", "/work/sub"] {
        for flag in ["nosuid", "nodev", "noexec", "noatime", "nodiratime"] {
            ensure!(has(&row(&mounts, point)?, flag), "{flag} is missing on {point}: {}", row(&mounts, point)?);
        }
    }
    Ok(())
}

fn propagation(lab: &Lab) -> Result<()> {
    for (option, tag) in [
        ("shared", Some("shared:")),
        ("rshared", Some("shared:")),
        ("private", None),
        ("unbindable", Some("unbindable")),
    ] {
        let mounts = lab.ask(&lab.spec().mount("/work", "tmpfs", "tmpfs", &[option]), json!(["mounts"]))?;
        let row = row(&mounts, "/work")?;
        let tags: Vec<&str> = row["tags"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        match tag {
            Some(tag) => ensure!(tags.iter().any(|t| t.starts_with(tag)), "option {option}: {tag} is missing: {row}"),
            None => ensure!(tags.is_empty(), "option {option}: {row}"),
        }
    }
    Ok(())
}

/// Whether a mount made outside after the start is seen inside.
fn receives(lab: &Lab, option: &str) -> Result<bool> {
    let path = source(lab)?;
    rustix::mount::mount_bind(&path, &path)?;
    mount_change(&path, MountPropagationFlags::SHARED)?;
    let result = (|| {
        let spec = lab.spec().set("/linux/rootfsPropagation", json!("slave")).mount(
            "/work",
            "bind",
            &path,
            &["rbind", option],
        );
        let (container, _) = lab.hold(&spec, json!([]))?;
        mount("tmpfs", format!("{path}/sub"), "tmpfs", MountFlags::empty(), c"")?;
        fs::write(format!("{path}/sub/late"), "late")?;
        let seen = fs::exists(format!("/proc/{}/root/work/sub/late", container.pid))?;
        undo_submount(&path);
        container.finish()?;
        Ok(seen)
    })();
    undo_submount(&path);
    let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
    result
}

fn rslave_receives(lab: &Lab) -> Result<()> {
    same!(receives(lab, "rslave")?, true, "a later mount of the host is seen");
    Ok(())
}

fn private_receives(lab: &Lab) -> Result<()> {
    same!(receives(lab, "rprivate")?, false, "a later mount of the host is seen");
    Ok(())
}

fn tmpcopyup(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.inside("work/of-the-image"), "text")?;
    fs::create_dir(lab.bundle.inside("work/folder"))?;
    fs::write(lab.bundle.inside("work/folder/deep"), "deep")?;
    let spec = lab.spec().mount("/work", "tmpfs", "tmpfs", &["tmpcopyup"]);
    let answers = lab.run(
        &spec,
        json!([["read", "/work/of-the-image"], ["read", "/work/folder/deep"], ["create", "/work/x", ""]]),
    )?;
    same!(answers.text(0)?, "text", "file of the image");
    same!(answers.text(1)?, "deep", "file in a folder of the image");
    answers.ok(2)?;
    ensure!(!lab.bundle.inside("work/x").exists(), "what is written went into the image");
    Ok(())
}

fn unknown_type(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().mount("/work", "nosuchfs", "none", &[])).map(drop)
}

fn destination_made(lab: &Lab) -> Result<()> {
    let file = format!("{}/file", source(lab)?);
    let spec = lab.spec().mount("/a/b/c", "tmpfs", "tmpfs", &[]).mount("/d/e/file", "bind", &file, &["bind"]);
    let answers = lab.run(&spec, json!([["stat", "/a/b/c"], ["read", "/d/e/file"]]))?;
    same!(answers.ok(0)?["type"], "folder", "type of a made destination");
    same!(answers.text(1)?, "of the host", "content of a file bound to a made destination");
    Ok(())
}

fn destination_relative(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/process/cwd", json!("/tmp")).mount("work/here", "tmpfs", "tmpfs", &[]);
    row(&lab.ask(&spec, json!(["mounts"]))?, "/work/here").map(drop)
}

fn destination_link(lab: &Lab) -> Result<()> {
    symlink("/work/target", lab.bundle.inside("etc/link"))?;
    fs::create_dir(lab.bundle.inside("work/target"))?;
    let mounts = lab.ask(&lab.spec().mount("/etc/link", "tmpfs", "tmpfs", &[]), json!(["mounts"]))?;
    row(&mounts, "/work/target").map(drop)
}

fn file_over_file(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.inside("etc/file"), "of the image")?;
    let file = format!("{}/file", source(lab)?);
    let spec = lab.spec().mount("/etc/file", "bind", &file, &["bind", "ro"]);
    same!(lab.ask(&spec, json!(["read", "/etc/file"]))?, "of the host", "content");
    same!(fs::read_to_string(lab.bundle.inside("etc/file"))?, "of the image", "file of the image");
    Ok(())
}

fn over(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "tmpfs", "lower", &[]).mount("/work", "tmpfs", "upper", &["ro"]);
    let mounts = lab.ask(&spec, json!(["mounts"]))?;
    same!(row(&mounts, "/work")?["source"], "upper", "source of the topmost");
    Ok(())
}

fn idmap(lab: &Lab) -> Result<()> {
    let map = json!([{ "containerID": 0, "hostID": 5000, "size": 1000 }]);
    let entry = json!({ "destination": "/work", "type": "bind", "source": source(lab)?, "options": ["bind"],
        "uidMappings": map, "gidMappings": map });
    let seen = lab.ask(&lab.spec().push("/mounts", entry), json!(["stat", "/work/file"]))?;
    same!(seen["uid"], 5000, "owner inside of root's file");
    Ok(())
}

fn idmap_container(lab: &Lab) -> Result<()> {
    give(lab)?;
    let spec = lab.spec().mapped_users(100_000).mount("/work", "bind", &source(lab)?, &["bind", "idmap"]);
    let answers = lab.run(&spec, json!([["stat", "/work/file"], ["create", "/work/new", ""]]))?;
    same!(answers.ok(0)?["uid"], 0, "owner inside of root's file");
    answers.ok(1)?;
    use std::os::unix::fs::MetadataExt as _;
    same!(fs::metadata(lab.dir.join("source/new"))?.uid(), 0, "owner outside of a file made inside");
    Ok(())
}

fn ridmap(lab: &Lab) -> Result<()> {
    give(lab)?;
    let path = source_with_submount(lab)?;
    let spec = lab.spec().mapped_users(100_000).mount("/work", "bind", &path, &["rbind", "ridmap"]);
    let seen = lab.ask(&spec, json!(["stat", "/work/sub/deep"]));
    undo_submount(&path);
    same!(seen?["uid"], 0, "owner inside of root's file on a submount");
    Ok(())
}

/// Gives the image to the container's root.
fn give(lab: &Lab) -> Result<()> {
    for path in ["", "bin", "proc", "sys", "dev", "tmp", "etc", "work"] {
        std::os::unix::fs::chown(lab.bundle.inside(path), Some(100_000), Some(100_000))?;
    }
    Ok(())
}

fn source_unchanged(lab: &Lab) -> Result<()> {
    let path = source(lab)?;
    rustix::mount::mount_bind(&path, &path)?;
    let result = lab.see(&lab.spec().mount("/work", "bind", &path, &["bind", "ro", "nosuid", "nodev", "noexec"]));
    let written = fs::write(format!("{path}/later"), "x");
    let _ = rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH);
    result?;
    written.context("the source became read-only outside").map(drop)
}

fn cgroup(lab: &Lab) -> Result<()> {
    let spec = lab.spec().new_namespace("cgroup").mount(
        "/sys/fs/cgroup",
        "cgroup",
        "cgroup",
        &["nosuid", "noexec", "nodev", "ro"],
    );
    let answers = lab.run(
        &spec,
        json!([["statvfs", "/sys/fs/cgroup"], ["read", "/sys/fs/cgroup/cgroup.procs"], ["mkdir", "/sys/fs/cgroup/x"]]),
    )?;
    same!(answers.ok(0)?["magic"], 0x6367_7270, "type of file system");
    ensure!(answers.text(1)?.lines().any(|line| line == "1"), "its own process isn't in the mounted cgroup");
    same!(answers.errno(2)?, libc::EROFS, "making a cgroup on a read-only mount");
    Ok(())
}
