//! Whatever system call of a creation fails, in the runtime or in its child, nothing is left behind: each is made to fail in
//! turn. Needs root, and strace.

mod common;

use std::collections::BTreeMap;
use std::process::{Command, Stdio};

use common::bench::{Bench, left_over};
use common::{host_users, spec};

/// Calls by which memory comes and goes, of which no program can do without one, and what a program ends by.
const SPARED: [&str; 6] = ["mmap", "munmap", "mremap", "madvise", "brk", "exit_group"];
/// Containers of the two tests.
const RUNTIME: &str = "fails-itself";
const CHILD: &str = "fails-inside";
/// More calls of one kind than a creation makes.
const MOST_CALLS: usize = 500;
/// Calls of the child alone, or of both where the parent's own are before it has anything to clean up with them.
const CHILDS: [&str; 24] = [
    "capset",
    "chdir",
    "close_range",
    "execveat",
    "fchdir",
    "fsconfig",
    "fsmount",
    "fsopen",
    "keyctl",
    "mkdirat",
    "mount",
    "mount_setattr",
    "move_mount",
    "open_tree",
    "openat2",
    "pivot_root",
    "prctl",
    "recvmsg",
    "sendmsg",
    "setgroups",
    "sethostname",
    "setresuid",
    "setsid",
    "umount2",
];

/// Creates, or creates and runs, under strace with these options; what it saw, and whether all went well.
fn traced(bench: &Bench, id: &str, options: &[String]) -> (String, bool) {
    let log = bench.dir.path().join("strace");
    // strace waits for all that it follows: what it follows into must end.
    let inner = bench.command(&[if id == CHILD { "run" } else { "create" }, "--bundle"]);
    let mut command = Command::new("strace");
    command.arg(if id == CHILD { "-qqf" } else { "-qq" }).arg("-o").arg(&log).args(options);
    command.arg(inner.get_program()).args(inner.get_args()).arg(bench.dir.path()).arg(id);
    let null = Stdio::null;
    let status = command.stdin(null()).stdout(null()).stderr(null()).status().expect("this test needs strace");
    (String::from_utf8_lossy(&std::fs::read(&log).unwrap_or_default()).into_owned(), status.success())
}

/// Has the call of this name and number fail, and looks at what is left: nothing, or a container that can be deleted, and
/// then nothing. `None`: there is no such call. Else whether all went well.
fn fail(bench: &Bench, id: &str, name: &str, number: usize) -> Option<bool> {
    let options = ["-e".into(), format!("trace={name}"), "-e".into(), format!("inject={name}:error=EIO:when={number}")];
    let (text, well) = traced(bench, id, &options);
    if well && id == RUNTIME {
        let deleted = bench.command(&["delete", "--force", id]).output().unwrap();
        let said = String::from_utf8_lossy(&deleted.stderr);
        assert!(deleted.status.success(), "delete after {name} {number}: {said}");
    }
    assert_eq!(left_over(bench, id), Vec::<String>::new(), "after {name} {number}, well: {well}");
    text.contains("(INJECTED)").then_some(well)
}

#[test]
fn no_system_call_of_the_runtime_that_fails_leaves_anything() {
    let bench = Bench::new();
    bench.configure(&host_users(spec("true")));
    let (text, well) = traced(&bench, RUNTIME, &[]);
    assert!(well && bench.command(&["delete", "--force", RUNTIME]).status().unwrap().success(), "{text}");
    let mut calls: BTreeMap<&str, usize> = BTreeMap::new();
    for name in text.lines().filter_map(|line| Some(line.split_once('(')?.0)).filter(|name| !SPARED.contains(name)) {
        *calls.entry(name).or_default() += 1;
    }
    let mut failed = 0;
    for (name, count) in &calls {
        // The first is that by which the program is executed.
        let first = if *name == "execve" { 2 } else { 1 };
        failed += (first..=*count).filter(|number| fail(&bench, RUNTIME, name, *number) == Some(false)).count();
    }
    assert!(failed > 50, "{failed} of {calls:?} mattered");
}

#[test]
fn no_system_call_of_the_child_that_fails_leaves_anything() {
    let bench = Bench::new();
    bench.configure(&host_users(spec("true")));
    let mut failed = 0;
    for name in CHILDS {
        let outcomes = (1..MOST_CALLS).map_while(|number| fail(&bench, CHILD, name, number));
        failed += outcomes.filter(|well| !well).count();
    }
    assert!(failed > 50, "{failed} mattered");
}
