//! `process.apparmorProfile`, in force: what the profile denies is denied.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::bundle::Answers;
use crate::case::{Case, same};
use crate::lab::{Lab, with_steps};
use crate::policies::{OTHER_PROFILE, PROFILE};
use crate::spec::Spec;

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::apparmor("apparmor.profile-is-in-force", "config.md#linux-process", in_force),
    Case::apparmor("apparmor.what-it-denies-is-denied", "config.md#linux-process", denied),
    Case::apparmor("apparmor.without-one-nothing-is-denied", "config.md#linux-process", unconfined),
    Case::apparmor("apparmor.for-any-user", "config.md#linux-process", any_user),
    Case::apparmor("apparmor.with-users-of-their-own", "config.md#linux-process", own_users),
    Case::apparmor("apparmor.without-no-new-privileges", "config.md#linux-process", new_privileges),
    Case::apparmor("apparmor.with-a-seccomp-filter", "config.md#linux-process", filtered),
    Case::apparmor("apparmor.unknown-profile", "runtime.md#errors", unknown),
    Case::apparmor("apparmor.exec-has-the-containers", "runc(8) exec", exec_same),
    Case::apparmor("apparmor.exec-with-another", "runc(8) exec", exec_other),
    Case::apparmor("apparmor.exec-from-a-file", "runc(8) exec", exec_file),
    Case::apparmor("apparmor.exec-from-a-file-without-one", "runc(8) exec", exec_file_without),
    Case::apparmor("apparmor.exec-with-an-unknown-one", "runtime.md#errors", exec_unknown),
];

const UNKNOWN: &str = "keel-conformance-missing";

fn under(lab: &Lab, profile: &str) -> Spec {
    lab.spec().set("/process/apparmorProfile", json!(profile))
}

/// The probe's steps: what it is confined by, and which of two files it may write.
fn steps() -> Value {
    json!([["read", "/proc/self/attr/apparmor/current"], ["create", "/work/denied"], ["create", "/work/other"]])
}

/// That this profile, and no other, is what confines.
fn confined_by(profile: &str, answers: &Answers) -> Result<()> {
    same!(answers.text(0)?.trim(), format!("{profile} (enforce)"), "what confines the process");
    let (denied, other) = if profile == PROFILE { (1, 2) } else { (2, 1) };
    same!(answers.errno(denied)?, libc::EACCES, "writing what the profile denies");
    answers.ok(other).context("writing what the profile allows").map(drop)
}

fn in_force(lab: &Lab) -> Result<()> {
    let text = lab.ask(&under(lab, PROFILE), json!(["read", "/proc/self/attr/apparmor/current"]))?;
    same!(text, "keel-conformance (enforce)\n", "what confines the process");
    Ok(())
}

fn denied(lab: &Lab) -> Result<()> {
    for profile in [PROFILE, OTHER_PROFILE] {
        confined_by(profile, &lab.run(&under(lab, profile), steps())?)?;
    }
    Ok(())
}

fn unconfined(lab: &Lab) -> Result<()> {
    let answers = lab.run(&lab.spec(), steps())?;
    same!(answers.text(0)?.trim(), "unconfined", "what confines the process");
    answers.ok(1)?;
    answers.ok(2).map(drop)
}

fn any_user(lab: &Lab) -> Result<()> {
    let spec = under(lab, PROFILE).set("/process/user", json!({ "uid": 1000, "gid": 1000 }));
    fs::set_permissions(lab.bundle.inside("work"), Permissions::from_mode(0o777))?;
    confined_by(PROFILE, &lab.run(&spec.set("/process/capabilities", json!({})), steps())?)
}

fn own_users(lab: &Lab) -> Result<()> {
    let spec = super::namespaces::mapped(lab)?.set("/process/apparmorProfile", json!(PROFILE));
    let (container, _) = lab.hold(&spec, json!([]))?;
    confined_by(PROFILE, &container.exec(&[], steps())?)?;
    container.finish()?;
    confined_by(PROFILE, &lab.run(&spec, steps())?)
}

fn new_privileges(lab: &Lab) -> Result<()> {
    let spec = under(lab, PROFILE).set("/process/noNewPrivileges", json!(false));
    confined_by(PROFILE, &lab.run(&spec, steps())?)
}

fn filtered(lab: &Lab) -> Result<()> {
    let rules = json!([{ "names": ["getppid"], "action": "SCMP_ACT_ERRNO" }]);
    let filter = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
    confined_by(PROFILE, &lab.run(&under(lab, PROFILE).set("/linux/seccomp", filter), steps())?)
}

fn unknown(lab: &Lab) -> Result<()> {
    // At `create`, where whoever asked can still be told; what is left behind is looked for after every case.
    lab.bundle.configure(&with_steps(under(lab, UNKNOWN), &json!([])))?;
    let said = lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &lab.new_id()])?;
    ensure!(said.contains(UNKNOWN), "the message doesn't name the profile: {said}");
    Ok(())
}

fn exec_same(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, PROFILE), json!([]))?;
    confined_by(PROFILE, &container.exec(&[], steps())?)?;
    container.finish()
}

fn exec_other(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, PROFILE), json!([]))?;
    confined_by(OTHER_PROFILE, &container.exec(&["--apparmor", OTHER_PROFILE], steps())?)?;
    container.finish()
}

fn process() -> Value {
    json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/", "env": ["PATH=/bin"] })
}

fn exec_file(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, PROFILE), json!([]))?;
    let mut process = process();
    process["apparmorProfile"] = json!(OTHER_PROFILE);
    confined_by(OTHER_PROFILE, &container.exec_process(process, steps())?)?;
    container.finish()
}

fn exec_file_without(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, PROFILE), json!([]))?;
    confined_by(PROFILE, &container.exec_process(process(), steps())?)?;
    container.finish()
}

fn exec_unknown(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&under(lab, PROFILE), json!([]))?;
    let output = container.exec_any(&["--apparmor", UNKNOWN], &["/bin/probe", "do", "[]"])?;
    ensure!(output.code != 0 && !output.stderr.contains("probe ran"), "the program ran: {}", output.stderr);
    ensure!(output.stderr.contains(UNKNOWN), "the message doesn't name the profile: {}", output.stderr);
    same!(container.status()?, "running", "the container's status after a failed `exec`");
    container.finish()
}
