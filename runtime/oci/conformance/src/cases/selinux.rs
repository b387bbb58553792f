//! `process.selinuxLabel` and `linux.mountLabel`, in force.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::lab::{Lab, with_steps};
use crate::policies::{BOX, FILES, FIXED, OTHER_BOX};
use crate::spec::Spec;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::selinux("selinux.process-has-its-label", "config.md#linux-process", label),
    Case::selinux("selinux.what-the-policy-denies-is-denied", "config.md#linux-process", denied),
    Case::selinux("selinux.without-a-label-the-callers-stays", "config.md#linux-process", unlabelled),
    Case::selinux("selinux.for-any-user", "config.md#linux-process", any_user),
    Case::selinux("selinux.with-users-of-their-own", "config.md#linux-process", own_users),
    Case::selinux("selinux.with-a-seccomp-filter", "config.md#linux-process", filtered),
    Case::selinux("selinux.invalid-label", "runtime.md#errors", invalid),
    Case::selinux("selinux.session-keyring-has-the-processs", "runc(8)", keyring),
    Case::selinux("selinux.exec-has-the-containers", "runc(8) exec", exec_same),
    Case::selinux("selinux.exec-with-another", "runc(8) exec", exec_other),
    Case::selinux("selinux.exec-from-a-file-without-one", "runc(8) exec", exec_file_without),
    Case::selinux("selinux.exec-with-an-invalid-one", "runtime.md#errors", exec_invalid),
    Case::selinux("selinux.mount-label-of-tmpfs", "config-linux.md#mount-label", on_tmpfs),
    Case::selinux("selinux.mount-label-of-dev", "config-linux.md#mount-label", on_dev),
    Case::selinux("selinux.mount-label-of-mqueue", "config-linux.md#mount-label", on_mqueue),
    Case::selinux("selinux.mount-label-of-masked-folders", "config-linux.md#mount-label", on_masked),
    Case::selinux("selinux.mount-label-leaves-the-kernels-own", "config-linux.md#mount-label", not_on_proc),
    Case::selinux("selinux.mount-label-leaves-binds", "config-linux.md#mount-label", not_on_binds),
    Case::selinux("selinux.mount-label-with-tmpcopyup", "config-linux.md#mount-label", copied_up),
    Case::selinux("selinux.mount-label-with-users-of-their-own", "config-linux.md#mount-label", on_own_users),
    Case::selinux("selinux.invalid-mount-label", "runtime.md#errors", invalid_mount),
];

const INVALID: &str = "keel_u:keel_r:keel_missing_t:s0";

fn under(lab: &Lab, label: &str) -> Spec {
    lab.spec().set("/process/selinuxLabel", json!(label))
}

fn labelled(lab: &Lab) -> Spec {
    lab.spec().set("/linux/mountLabel", json!(FILES))
}

/// What a process is labelled with, as it sees itself.
fn own() -> Value {
    json!(["read", "/proc/self/attr/current"])
}

fn is(text: &str, expected: &str) -> Result<()> {
    same!(text.trim_end_matches(['\0', '\n']), expected, "the process's label");
    Ok(())
}

/// That these paths have this label.
fn have(lab: &Lab, spec: &Spec, paths: &[&str], label: &str) -> Result<()> {
    let steps = paths.iter().map(|path| json!(["xattr", path, "security.selinux"])).collect();
    let answers = lab.run(spec, Value::Array(steps))?;
    for (step, path) in paths.iter().enumerate() {
        same!(answers.text(step)?, label, "label of {path}");
    }
    Ok(())
}

fn label(lab: &Lab) -> Result<()> {
    for label in [BOX, OTHER_BOX] {
        let answers = lab.run(&under(lab, label), json!([own()]))?;
        is(answers.text(0)?, label)?;
    }
    Ok(())
}

fn denied(lab: &Lab) -> Result<()> {
    // In quotes, as engines write a label, because of its comma.
    let spec = under(lab, BOX).mount("/work", "tmpfs", "work", &[&format!("context=\"{FIXED}\"")]);
    let answers = lab.run(&spec, json!([["create", "/work/x"], ["create", "/tmp/x"]]))?;
    same!(answers.errno(0)?, libc::EACCES, "writing what the policy denies");
    answers.ok(1).context("writing what the policy allows").map(drop)
}

fn unlabelled(lab: &Lab) -> Result<()> {
    let expected = fs::read_to_string("/proc/self/attr/current")?;
    let answers = lab.run(&lab.spec(), json!([own()]))?;
    is(answers.text(0)?, expected.trim_end_matches(['\0', '\n']))
}

fn any_user(lab: &Lab) -> Result<()> {
    let spec = under(lab, BOX).set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    let answers = lab.run(&spec.set("/process/capabilities", json!({})), json!([own()]))?;
    is(answers.text(0)?, BOX)
}

fn own_users(lab: &Lab) -> Result<()> {
    let spec = super::namespaces::mapped(lab)?.set("/process/selinuxLabel", json!(BOX));
    let (container, first) = lab.hold(&spec, json!([own()]))?;
    is(first.text(0)?, BOX)?;
    is(container.exec(&[], json!([own()]))?.text(0)?, BOX)?;
    container.finish()
}

fn filtered(lab: &Lab) -> Result<()> {
    let rules = json!([{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" }]);
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    for no_new_privileges in [true, false] {
        let spec = under(lab, BOX).set("/process/noNewPrivileges", json!(no_new_privileges));
        let answers = lab.run(&spec.set("/linux/seccomp", filter.clone()), json!([own()]));
        let answers = answers.with_context(|| format!("noNewPrivileges {no_new_privileges}"))?;
        is(answers.text(0)?, BOX)?;
    }
    Ok(())
}

/// `create` must refuse and name the label. What is left behind is looked for after every case.
fn refused(lab: &Lab, spec: Spec) -> Result<()> {
    lab.bundle.configure(&with_steps(spec, &json!([])))?;
    let said = lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &lab.new_id()])?;
    ensure!(said.contains(INVALID), "the message doesn't name the label: {said}");
    Ok(())
}

fn invalid(lab: &Lab) -> Result<()> {
    refused(lab, under(lab, INVALID))
}

fn invalid_mount(lab: &Lab) -> Result<()> {
    refused(lab, lab.spec().set("/linux/mountLabel", json!(INVALID)))
}

fn keyring(lab: &Lab) -> Result<()> {
    same!(lab.ask(&under(lab, BOX), json!(["keyring-label"]))?, BOX, "label of the session keyring");
    Ok(())
}

fn exec_same(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, BOX), json!([]))?;
    is(container.exec(&[], json!([own()]))?.text(0)?, BOX)?;
    container.finish()
}

fn exec_other(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, BOX), json!([]))?;
    is(container.exec(&["--process-label", OTHER_BOX], json!([own()]))?.text(0)?, OTHER_BOX)?;
    container.finish()
}

fn exec_file_without(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, BOX), json!([]))?;
    let process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "env": ["PATH=/bin"] });
    is(container.exec_process(process, json!([own()]))?.text(0)?, BOX)?;
    container.finish()
}

fn exec_invalid(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, BOX), json!([]))?;
    let output = container.exec_any(&["--process-label", INVALID], &["/bin/probe", "do", "[]"])?;
    ensure!(output.code != 0 && !output.stderr.contains("probe ran"), "the program ran: {}", output.stderr);
    ensure!(output.stderr.contains(INVALID), "the message doesn't name the label: {}", output.stderr);
    same!(container.status()?, "running", "the container's status after a failed `exec`");
    container.finish()
}

fn on_tmpfs(lab: &Lab) -> Result<()> {
    let spec = labelled(lab).set("/process/selinuxLabel", json!(BOX)).mount("/work", "tmpfs", "work", &["size=64k"]);
    let steps = json!([["create", "/work/x"], ["xattr", "/work/x", "security.selinux"]]);
    same!(lab.run(&spec, steps)?.text(1)?, FILES, "label of a new file");
    have(lab, &spec, &["/work"], FILES)
}

fn on_dev(lab: &Lab) -> Result<()> {
    have(lab, &labelled(lab), &["/dev", "/dev/null", "/dev/shm", "/dev/pts", "/dev/pts/ptmx"], FILES)
}

fn on_mqueue(lab: &Lab) -> Result<()> {
    have(lab, &labelled(lab), &["/dev/mqueue"], FILES)
}

fn on_masked(lab: &Lab) -> Result<()> {
    fs::create_dir(lab.bundle.inside("work/hidden"))?;
    let spec = labelled(lab).push("/linux/maskedPaths", json!("/work/hidden"));
    have(lab, &spec, &["/work/hidden"], FILES)
}

/// Another label than the mounts', as the policy has it for everything that isn't labelled.
fn not_labelled(lab: &Lab, spec: &Spec, path: &str) -> Result<()> {
    have(lab, spec, &[path], "keel_u:object_r:keel_host_t:s0")
}

fn not_on_proc(lab: &Lab) -> Result<()> {
    not_labelled(lab, &labelled(lab), "/proc")?;
    not_labelled(lab, &labelled(lab), "/sys")
}

fn not_on_binds(lab: &Lab) -> Result<()> {
    fs::create_dir(lab.path("volume"))?;
    not_labelled(lab, &labelled(lab).mount("/work", "bind", &lab.path("volume"), &["rbind"]), "/work")
}

fn copied_up(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.inside("work/file"), "x")?;
    let spec = labelled(lab).mount("/work", "tmpfs", "tmpfs", &["tmpcopyup"]);
    have(lab, &spec, &["/work", "/work/file"], FILES)
}

fn on_own_users(lab: &Lab) -> Result<()> {
    let spec = super::namespaces::mapped(lab)?.set("/linux/mountLabel", json!(FILES));
    have(lab, &spec, &["/dev", "/dev/shm", "/dev/mqueue"], FILES)
}
