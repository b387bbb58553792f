//! Controllers for a container's folder: those that limits may be asked of, as far as the kernel has them.

use std::path::Path;

use crate::spec::Resources;

/// Those that every container's folder gets.
const USUAL: [&str; 8] = ["cpuset", "cpu", "io", "memory", "pids", "hugetlb", "rdma", "misc"];
/// Deepest folder above a container's own into which controllers are brought.
const MAX_LEVELS: usize = 32;

/// Enables them for the folders below `parent`, and on the way there. One that can't be had is left out: a limit that
/// needs it fails by name when it is written.
pub(super) fn enable(parent: &Path, resources: &Resources) {
    enable_below(parent, &wanted(resources), 0);
}

/// The usual ones, and what `unified` names besides: `dmem` of `dmem.max`.
fn wanted(resources: &Resources) -> Vec<&str> {
    let named = resources.unified.keys().filter_map(|file| file.split_once('.')).map(|(controller, _)| controller);
    let mut wanted: Vec<&str> = USUAL.into_iter().chain(named.filter(|name| !USUAL.contains(name))).collect();
    wanted.dedup();
    wanted
}

fn enable_below(folder: &Path, wanted: &[&str], level: usize) {
    let read = |name: &str| std::fs::read_to_string(folder.join(name));
    let missing = |here: &str| -> Vec<&str> {
        let has = |name: &&&str| here.split_ascii_whitespace().any(|word| word == **name);
        wanted.iter().filter(|name| !has(name)).copied().collect()
    };
    // Above the root of the hierarchy there is no such file.
    let Ok(mut here) = read("cgroup.controllers") else { return };
    let above = missing(&here);
    if let Some(parent) = folder.parent().filter(|_| !above.is_empty() && level < MAX_LEVELS) {
        enable_below(parent, &above, level + 1);
        here = read("cgroup.controllers").unwrap_or(here);
    }
    let Ok(enabled) = read("cgroup.subtree_control") else { return };
    let unavailable = missing(&here);
    let words: Vec<String> =
        missing(&enabled).iter().filter(|name| !unavailable.contains(name)).map(|name| format!("+{name}")).collect();
    let write = |text: &str| std::fs::write(folder.join("cgroup.subtree_control"), text);
    if !words.is_empty() && write(&words.join(" ")).is_err() {
        // The kernel takes all or none: one that is in use elsewhere mustn't keep the others off.
        for word in &words {
            let _ = write(word);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn controllers_are_those_of_the_kernel_that_are_usual_or_named() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("a");
        std::fs::create_dir(&parent).unwrap();
        // The root has it all; nothing has come down yet, and a regular file shows only what was written last.
        for (folder, here) in [(dir.path(), "cpu misc dmem perf"), (&parent, "cpu dmem misc")] {
            std::fs::write(folder.join("cgroup.controllers"), here).unwrap();
            std::fs::write(folder.join("cgroup.subtree_control"), "").unwrap();
        }
        let resources = Resources {
            unified: [("dmem.max".into(), "1".into()), ("cpu.max".into(), "max".into())].into(),
            ..Resources::default()
        };
        let enabled = |folder: &Path| std::fs::read_to_string(folder.join("cgroup.subtree_control")).unwrap();
        enable(&parent, &resources);
        assert_eq!(enabled(&parent), "+cpu +misc +dmem");
        std::fs::write(parent.join("cgroup.subtree_control"), "cpu misc dmem").unwrap();
        enable(&parent, &resources);
        assert_eq!(enabled(&parent), "cpu misc dmem", "what is enabled is left alone");
    }

    #[test]
    fn controllers_are_brought_down_from_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let parent = dir.path().join("a");
        std::fs::create_dir(&parent).unwrap();
        for (folder, here) in [(dir.path(), "memory misc"), (&parent, "memory")] {
            std::fs::write(folder.join("cgroup.controllers"), here).unwrap();
            std::fs::write(folder.join("cgroup.subtree_control"), "memory").unwrap();
        }
        enable(&parent, &Resources::default());
        assert_eq!(std::fs::read_to_string(dir.path().join("cgroup.subtree_control")).unwrap(), "+misc");
    }
}
