//! Options of `mounts`: flags, what a bind mount can't have, remounts.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::mounts::{has, row, source};
use crate::case::{Case, same};
use crate::lab::Lab;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("mounts.flags", "config.md#linux-mount-options", flags),
    Case::new("mounts.flags-undone", "config.md#linux-mount-options", flags_undone),
    Case::new("mounts.flags-of-a-bind", "config.md#linux-mount-options", bind_flags),
    Case::new("mounts.access-times", "config.md#linux-mount-options", access_times),
    Case::new("mounts.nosymfollow", "config.md#linux-mount-options", nosymfollow),
    Case::new("mounts.defaults", "config.md#linux-mount-options", defaults),
    Case::new("mounts.unknown-option", "config.md#linux-mount-options", unknown_option),
    Case::new("mounts.bind-has-no-data", "runtime.md#create", bind_data),
    Case::new("mounts.bind-with-flags-of-file-systems", "config.md#linux-mount-options", bind_flags_of_file_systems),
    Case::new("mounts.remount", "config.md#linux-mount-options", remount),
    Case::new("mounts.remount-of-a-bind", "config.md#linux-mount-options", remount_bind),
];

fn flags(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "tmpfs", "tmpfs", &["ro", "nosuid", "nodev", "noexec", "sync", "dirsync"]);
    let mounts = lab.ask(&spec, json!(["mounts"]))?;
    let row = row(&mounts, "/work")?;
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(has(&row, flag), "{flag} is missing: {row}");
    }
    for flag in ["sync", "dirsync"] {
        ensure!(row["super"].as_array().is_some_and(|s| s.contains(&json!(flag))), "{flag} is missing: {row}");
    }
    Ok(())
}

fn flags_undone(lab: &Lab) -> Result<()> {
    let options = ["ro", "nosuid", "nodev", "noexec", "rw", "suid", "dev", "exec"];
    let mounts = lab.ask(&lab.spec().mount("/work", "tmpfs", "tmpfs", &options), json!(["mounts"]))?;
    let row = row(&mounts, "/work")?;
    for flag in ["ro", "nosuid", "nodev", "noexec"] {
        ensure!(!has(&row, flag), "{flag} is there, though undone by a later option: {row}");
    }
    Ok(())
}

fn bind_flags(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "bind", &source(lab)?, &["bind", "nosuid", "nodev", "noexec", "noatime"]);
    let mounts = lab.ask(&spec, json!(["mounts"]))?;
    let row = row(&mounts, "/work")?;
    for flag in ["nosuid", "nodev", "noexec", "noatime", "rw"] {
        ensure!(has(&row, flag), "{flag} is missing: {row}");
    }
    Ok(())
}

fn access_times(lab: &Lab) -> Result<()> {
    let wanted = [
        ("noatime", Some("noatime")),
        ("relatime", Some("relatime")),
        ("strictatime", None),
        ("nodiratime", Some("nodiratime")),
    ];
    for (option, flag) in wanted {
        let mounts = lab.ask(&lab.spec().mount("/work", "tmpfs", "tmpfs", &[option]), json!(["mounts"]))?;
        let row = row(&mounts, "/work")?;
        match flag {
            Some(flag) => ensure!(has(&row, flag), "option {option}: {flag} is missing: {row}"),
            None => ensure!(!has(&row, "relatime") && !has(&row, "noatime"), "option {option}: {row}"),
        }
    }
    Ok(())
}

fn nosymfollow(lab: &Lab) -> Result<()> {
    let path = source(lab)?;
    symlink("file", format!("{path}/link"))?;
    let spec = lab.spec().mount("/work", "bind", &path, &["bind", "nosymfollow"]);
    same!(lab.run(&spec, json!([["read", "/work/link"]]))?.errno(0)?, libc::ELOOP, "following a link");
    Ok(())
}

fn defaults(lab: &Lab) -> Result<()> {
    lab.ask(&lab.spec().mount("/work", "tmpfs", "tmpfs", &["defaults"]), json!(["create", "/work/x", ""])).map(drop)
}

fn unknown_option(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().mount("/work", "tmpfs", "tmpfs", &["no-such-option"])).map(drop)
}

/// The kernel would pass over it, so whoever asks for it would believe in what isn't.
fn bind_data(lab: &Lab) -> Result<()> {
    lab.refused(&lab.spec().mount("/work", "bind", &source(lab)?, &["bind", "size=64k"])).map(drop)
}

fn bind_flags_of_file_systems(lab: &Lab) -> Result<()> {
    let options = ["rbind", "sync", "async", "dirsync", "nosuid"];
    let mounts = lab.ask(&lab.spec().mount("/work", "bind", &source(lab)?, &options), json!(["mounts"]))?;
    ensure!(has(&row(&mounts, "/work")?, "nosuid"), "the mount's own flag is missing");
    Ok(())
}

fn remount(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "tmpfs", "tmpfs", &["size=64k", "nosuid"]);
    let spec = spec.mount("/work", "tmpfs", "tmpfs", &["remount", "size=128k", "nosuid", "nodev", "shared"]);
    let answers = lab.run(&spec, json!([["statvfs", "/work"], ["mounts"], ["create", "/work/x", ""]]))?;
    same!(answers.ok(0)?["bytes"], 131_072, "size");
    let row = row(answers.ok(1)?, "/work")?;
    ensure!(has(&row, "nodev") && has(&row, "nosuid"), "flags: {row}");
    ensure!(row["tags"].to_string().contains("shared:"), "propagation: {row}");
    answers.ok(2).context("writing").map(drop)
}

fn remount_bind(lab: &Lab) -> Result<()> {
    let spec = lab.spec().mount("/work", "bind", &source(lab)?, &["bind"]);
    let spec = spec.mount("/work", "bind", "/work", &["remount", "bind", "ro", "nosuid"]);
    let answers = lab.run(&spec, json!([["create", "/work/x", ""], ["mounts"]]))?;
    same!(answers.errno(0)?, libc::EROFS, "writing");
    ensure!(has(&row(answers.ok(1)?, "/work")?, "nosuid"), "nosuid is missing");
    fs::write(lab.dir.join("source/outside"), "x").context("the source became read-only outside")
}
