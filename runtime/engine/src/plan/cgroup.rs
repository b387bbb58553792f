//! `--cgroup-parent`: the group in which a container's own cgroup is made.

use std::path::PathBuf;

use bollard_stubs::models::HostConfig;

use super::bad;
use crate::error::Error;
use crate::id;

/// Most groups in each other.
pub const MAX_DEPTH: usize = 8;
/// Longest path, bytes.
const MAX_BYTES: usize = 512;
/// Longest name of a folder, bytes (`NAME_MAX`).
const MAX_NAME_BYTES: usize = 255;
/// What begins the names of the kernel's own files in a group, with a dot behind (cgroup-v2.rst, "Conventions").
const KERNELS: [&str; 13] = [
    "cgroup",
    "cpu",
    "cpuset",
    "debug",
    "dmem",
    "hugetlb",
    "io",
    "irq",
    "memory",
    "misc",
    "perf_event",
    "pids",
    "rdma",
];

/// The group, relative to that of all containers; empty: that one itself. Names have no meaning: `a-b.slice` is one
/// group, not one in another as with systemd. `Err`: it leads out of there, or can't be made.
pub fn parent(host: Option<&HostConfig>) -> Result<PathBuf, Error> {
    let asked = host.and_then(|host| host.cgroup_parent.as_deref()).unwrap_or_default();
    let path = asked.strip_prefix('/').unwrap_or(asked);
    if path.is_empty() {
        return Ok(PathBuf::new());
    }
    let wrong = |why: String| bad(format!("invalid value for --cgroup-parent: {asked:.60}: {why}"));
    if path.len() > MAX_BYTES || path.split('/').count() > MAX_DEPTH {
        return wrong(format!("want {MAX_DEPTH} names in {MAX_BYTES} bytes at most"));
    }
    for name in path.split('/') {
        let known = |c: char| c.is_ascii_alphanumeric() || "-_.:@+".contains(c);
        if name.is_empty() || name.len() > MAX_NAME_BYTES || name.starts_with('.') || !name.chars().all(known) {
            return wrong("want names of letters, digits and -_.:@+, without a dot at their beginning".into());
        }
        if id::is_id(name) {
            return wrong(format!("{name:.12}… is as long as a container's ID: groups of containers have such names"));
        }
        if name.split_once('.').is_some_and(|(first, _)| KERNELS.contains(&first)) {
            return wrong(format!("{name:.60} may be one of the kernel's own files: choose another name"));
        }
    }
    Ok(path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Result<PathBuf, Error> {
        parent(Some(&HostConfig { cgroup_parent: Some(text.into()), ..HostConfig::default() }))
    }

    #[test]
    fn a_parent_is_below_the_group_of_all_containers() {
        assert_eq!(parent(None).unwrap(), PathBuf::new());
        let longest = ["a"; MAX_DEPTH].join("/");
        for (text, expected) in [
            ("", ""),
            ("/", ""),
            ("team", "team"),
            ("/team/web_1", "team/web_1"),
            ("a-b.slice", "a-b.slice"),
            ("/kubepods/pod:1@x+y", "kubepods/pod:1@x+y"),
            ("memory", "memory"),
            ("memory-max.slice", "memory-max.slice"),
            (&longest, &longest),
        ] {
            assert_eq!(of(text).unwrap(), PathBuf::from(expected), "{text}");
        }
    }

    #[test]
    fn what_leads_out_of_there_or_stands_for_something_else_is_refused() {
        let (deep, long) = (["a"; MAX_DEPTH + 1].join("/"), "a".repeat(MAX_NAME_BYTES + 1));
        let many = ["a".repeat(200), "b".repeat(200), "c".repeat(200)].join("/");
        let (id, of_id) = ("0123456789abcdef".repeat(4), format!("/team/{}", "a".repeat(64)));
        for text in [
            "..",
            "../x",
            "/..",
            "a/..",
            "a/../b",
            "a/./b",
            ".",
            "a//b",
            "//",
            "//a",
            "a/",
            "/a/",
            ".hidden",
            "a b",
            "a\nb",
            "a\0",
            "é",
            "a\\x2d",
            "cgroup.procs",
            "team/memory.max",
            "cpu.x",
            &deep,
            &long,
            &many,
            &id,
            &of_id,
        ] {
            let error = of(text).unwrap_err();
            assert!(
                matches!(&error, Error::BadParameter(why) if why.starts_with("invalid value for --cgroup-parent: "))
            );
            assert!(error.to_string().len() < 250, "{error}");
        }
    }
}
