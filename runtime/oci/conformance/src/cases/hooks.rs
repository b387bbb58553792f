//! `hooks`: order, place, input, failure, time-out.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::container::Container;
use crate::lab::Lab;
use crate::spec::Spec;

const KINDS: [&str; 6] = ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
const SECTION: &str = "config.md#posix-platform-hooks";

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("hooks.order-and-time", SECTION, order),
    Case::new("hooks.several-of-a-kind-in-order", SECTION, several),
    Case::new("hooks.state-on-standard-input", SECTION, input),
    Case::new("hooks.status-they-are-told", "runtime.md#state", status),
    Case::new("hooks.namespaces-they-run-in", SECTION, namespaces),
    Case::new("hooks.arguments-and-environment", SECTION, arguments),
    Case::new("hooks.environment-is-not-the-callers", SECTION, environment),
    Case::new("hooks.path-must-be-absolute", SECTION, path_relative),
    Case::new("hooks.missing-program", SECTION, missing),
    Case::new("hooks.create-container-sees-the-mounts", SECTION, sees_mounts),
    Case::new("hooks.failing-prestart", "runtime.md#lifecycle", fails_prestart),
    Case::new("hooks.failing-create-runtime", "runtime.md#lifecycle", fails_create_runtime),
    Case::new("hooks.failing-create-container", "runtime.md#lifecycle", fails_create_container),
    Case::new("hooks.failing-start-container", "runtime.md#lifecycle", fails_start_container),
    Case::new("hooks.failing-poststart", "runtime.md#lifecycle", fails_poststart),
    Case::new("hooks.failing-poststop", "runtime.md#lifecycle", fails_poststop),
    Case::new("hooks.poststop-after-a-failed-create", "runtime.md#lifecycle", poststop_after_failure),
    Case::new("hooks.time-out", SECTION, time_out),
    Case::new("hooks.time-out-must-be-positive", SECTION, time_out_zero),
    Case::new("hooks.deleted-by-force-too", SECTION, forced),
    Case::new("hooks.no-descriptors-of-the-runtime", "other runtimes", descriptors),
];

/// A hook that notes its name in the file; `more` follows.
fn hook(lab: &Lab, kind: &str, more: &[&str]) -> Value {
    // startContainer's path is one of the container, as is what it writes to.
    let inside = kind == "startContainer";
    let program = if inside { "/bin/probe".to_owned() } else { lab.probe.to_string_lossy().into_owned() };
    let file = if inside { "/work/notes".to_owned() } else { lab.path("notes") };
    let mut args = vec![kind.to_owned(), "hook".to_owned(), file];
    args.extend(more.iter().map(|word| (*word).to_owned()));
    json!({ "path": program, "args": args, "env": [lab.marker(), format!("KIND={kind}")] })
}

/// All six kinds.
fn all(lab: &Lab) -> Spec {
    KINDS.iter().fold(lab.spec(), |spec, kind| spec.set(&format!("/hooks/{kind}"), json!([hook(lab, kind, &[])])))
}

/// What hooks have noted: those of the host, then those of the container.
fn notes(lab: &Lab) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for path in [lab.dir.join("notes"), lab.bundle.inside("work/notes")] {
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            all.push(serde_json::from_str(line)?);
        }
    }
    Ok(all)
}

/// Names of the hooks that have run, in order, without those inside.
fn names(lab: &Lab) -> Result<Vec<String>> {
    let text = fs::read_to_string(lab.dir.join("notes")).unwrap_or_default();
    text.lines()
        .map(|line| Ok(serde_json::from_str::<Value>(line)?["args"][0].as_str().unwrap_or_default().to_owned()))
        .collect()
}

fn note(lab: &Lab, kind: &str) -> Result<Value> {
    notes(lab)?.into_iter().find(|note| note["args"][0] == kind).with_context(|| format!("no {kind} hook has run"))
}

/// A whole life with all hooks.
fn live(lab: &Lab, spec: &Spec) -> Result<()> {
    let (container, _) = lab.hold(spec, json!([]))?;
    container.finish()
}

fn order(lab: &Lab) -> Result<()> {
    let container = lab.create(&all(lab), json!([["read", "/work/notes"], ["hold"]]))?;
    same!(names(lab)?, ["prestart", "createRuntime", "createContainer"], "hooks that ran in `create`");
    container.start()?;
    let answers = container.wait_answers(2)?;
    ensure!(answers.text(0)?.contains("startContainer"), "startContainer didn't run before the program");
    same!(names(lab)?, ["prestart", "createRuntime", "createContainer", "poststart"], "hooks that ran by `start`");
    container.kill("KILL")?;
    container.wait()?;
    container.wait_status("stopped")?;
    same!(names(lab)?.len(), 4, "hooks that ran before `delete`");
    container.delete()?;
    same!(names(lab)?.last().map(String::as_str), Some("poststop"), "the last hook");
    same!(names(lab)?.len(), 5, "hooks that ran in all, outside");
    Ok(())
}

fn several(lab: &Lab) -> Result<()> {
    let entry = |name: &str| {
        let mut hook = hook(lab, "createRuntime", &[]);
        hook["args"][0] = json!(name);
        hook
    };
    live(lab, &lab.spec().set("/hooks/createRuntime", json!([entry("a"), entry("b"), entry("c")])))?;
    same!(names(lab)?, ["a", "b", "c"], "hooks");
    Ok(())
}

fn input(lab: &Lab) -> Result<()> {
    let (container, _) = lab.hold(&all(lab).set("/annotations", json!({ "org.example": "x" })), json!([]))?;
    let pid = container.pid;
    container.finish()?;
    for kind in KINDS {
        let state = note(lab, kind)?["state"].clone();
        same!(state["id"], lab.token, "id that {kind} is told");
        same!(state["bundle"], lab.bundle_path(), "bundle that {kind} is told");
        same!(state["annotations"]["org.example"], "x", "annotation that {kind} is told");
        ensure!(state["ociVersion"].is_string(), "ociVersion that {kind} is told: {state}");
        if matches!(kind, "prestart" | "createRuntime" | "poststart") {
            same!(state["pid"], pid, "pid that {kind} is told");
        }
    }
    Ok(())
}

fn status(lab: &Lab) -> Result<()> {
    live(lab, &all(lab))?;
    let wanted = [
        ("prestart", &["creating", "created"][..]),
        ("createRuntime", &["creating", "created"]),
        ("createContainer", &["creating", "created"]),
        ("startContainer", &["created"]),
        ("poststart", &["running"]),
        ("poststop", &["stopped"]),
    ];
    for (kind, allowed) in wanted {
        let status = note(lab, kind)?["state"]["status"].clone();
        ensure!(allowed.iter().any(|word| status == *word), "status that {kind} is told: {status}, not {allowed:?}");
    }
    Ok(())
}

fn namespaces(lab: &Lab) -> Result<()> {
    let (container, answers) = lab.hold(&all(lab), json!([["see"]]))?;
    let inside = answers.ok(0)?["namespaces"].clone();
    container.finish()?;
    let own = fs::read_link("/proc/self/ns/mnt")?.to_string_lossy().into_owned();
    for kind in ["prestart", "createRuntime", "poststart", "poststop"] {
        same!(note(lab, kind)?["namespaces"]["mnt"], own, "mount namespace of {kind}");
    }
    for kind in ["createContainer", "startContainer"] {
        same!(note(lab, kind)?["namespaces"]["mnt"], inside["mnt"], "mount namespace of {kind}");
    }
    let root = note(lab, "startContainer")?["root"].clone();
    same!(root, json!(["bin", "dev", "etc", "proc", "sys", "tmp", "work"]), "names in / that startContainer sees");
    Ok(())
}

fn arguments(lab: &Lab) -> Result<()> {
    live(lab, &all(lab))?;
    for kind in KINDS {
        let note = note(lab, kind)?;
        same!(note["args"][0], kind, "argument 0 of {kind}");
        same!(note["args"][1], "hook", "argument 1 of {kind}");
        same!(note["env"]["KIND"], kind, "variable of {kind}");
    }
    Ok(())
}

fn environment(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&all(lab))?;
    let mut command = lab.command(&["run", "--bundle", &lab.bundle_path(), &lab.new_id()]);
    let output = lab.run_command(command.env("OF_THE_CALLER", "1"))?;
    same!(output.code, 0, "exit code ({})", output.stderr.trim());
    for kind in KINDS {
        ensure!(note(lab, kind)?["env"]["OF_THE_CALLER"].is_null(), "{kind} sees a variable of the caller");
    }
    Ok(())
}

fn path_relative(lab: &Lab) -> Result<()> {
    let hook = json!([{ "path": "bin/probe", "args": ["probe", "true"] }]);
    lab.refused(&lab.spec().set("/hooks/createRuntime", hook)).map(drop)
}

fn missing(lab: &Lab) -> Result<()> {
    for kind in ["prestart", "createRuntime", "createContainer", "startContainer"] {
        let hook = json!([{ "path": "/no/such/hook" }]);
        let said = lab.refused(&lab.spec().set(&format!("/hooks/{kind}"), hook))?;
        ensure!(!said.is_empty(), "nothing is said of a missing {kind} hook");
    }
    Ok(())
}

fn sees_mounts(lab: &Lab) -> Result<()> {
    // A createContainer hook runs after the mounts are made and before the root is changed: it can still mount things.
    live(lab, &all(lab))?;
    let names = note(lab, "createContainer")?["root"].clone();
    ensure!(names.as_array().is_some_and(|n| n.contains(&json!("usr")) || n.contains(&json!("tmp"))), "{names}");
    Ok(())
}

/// `create` with a failing hook of this kind must fail.
fn fails_create(lab: &Lab, kind: &str) -> Result<()> {
    let spec = lab.spec().set(&format!("/hooks/{kind}"), json!([hook(lab, kind, &["exit", "7"])]));
    lab.bundle.configure(&spec)?;
    let id = lab.new_id();
    lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &id])?;
    same!(names(lab)?, [kind], "hooks that ran");
    lab.call_refused(&["state", &id]).map(drop)
}

fn fails_prestart(lab: &Lab) -> Result<()> {
    fails_create(lab, "prestart")
}

fn fails_create_runtime(lab: &Lab) -> Result<()> {
    fails_create(lab, "createRuntime")
}

fn fails_create_container(lab: &Lab) -> Result<()> {
    fails_create(lab, "createContainer")
}

fn fails_start_container(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/hooks/startContainer", json!([hook(lab, "startContainer", &["exit", "7"])]));
    let container = lab.create(&spec, json!([["create", "/work/ran", ""]]))?;
    let started = container.start();
    container.wait()?;
    ensure!(!lab.bundle.inside("work/ran").exists(), "the program ran although a startContainer hook failed");
    if started.is_ok() {
        bail!("`start` succeeded although a startContainer hook failed");
    }
    lab.call_ok(&["delete", "--force", &container.id]).map(drop)
}

fn fails_poststart(lab: &Lab) -> Result<()> {
    let hooks = json!([hook(lab, "poststart", &["exit", "7"]), hook(lab, "poststart", &[])]);
    let container = lab.create(&lab.spec().set("/hooks/poststart", hooks), json!([["hold"]]))?;
    let _ = container.start();
    same!(names(lab)?.len(), 2, "poststart hooks that ran, the first of which failed");
    container.wait_answers(1)?;
    same!(container.status()?, "running", "status");
    container.finish()
}

fn fails_poststop(lab: &Lab) -> Result<()> {
    let hooks = json!([hook(lab, "poststop", &["exit", "7"]), hook(lab, "poststop", &[])]);
    live(lab, &lab.spec().set("/hooks/poststop", hooks))?;
    same!(names(lab)?.len(), 2, "poststop hooks that ran, the first of which failed");
    lab.call_refused(&["state", &lab.token]).map(drop)
}

fn poststop_after_failure(lab: &Lab) -> Result<()> {
    let spec = lab.spec().set("/hooks/createRuntime", json!([hook(lab, "createRuntime", &["exit", "7"])]));
    lab.bundle.configure(&spec.set("/hooks/poststop", json!([hook(lab, "poststop", &[])])))?;
    lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &lab.new_id()])?;
    same!(names(lab)?, ["createRuntime", "poststop"], "hooks that ran");
    Ok(())
}

fn time_out(lab: &Lab) -> Result<()> {
    let mut slow = hook(lab, "createRuntime", &["hang"]);
    slow["timeout"] = json!(1);
    lab.bundle.configure(&lab.spec().set("/hooks/createRuntime", json!([slow])))?;
    let begun = Instant::now();
    lab.call_refused(&["create", "--bundle", &lab.bundle_path(), &lab.new_id()])?;
    ensure!(begun.elapsed() < Duration::from_secs(15), "`create` took {:?}", begun.elapsed());
    Ok(())
}

fn time_out_zero(lab: &Lab) -> Result<()> {
    for value in [0, -1] {
        let mut entry = hook(lab, "createRuntime", &[]);
        entry["timeout"] = json!(value);
        lab.refused(&lab.spec().set("/hooks/createRuntime", json!([entry])))
            .with_context(|| format!("a time-out of {value}"))?;
    }
    Ok(())
}

fn forced(lab: &Lab) -> Result<()> {
    let (container, _): (Container, _) = lab.hold(&all(lab), json!([]))?;
    lab.call_ok(&["delete", "--force", &container.id])?;
    note(lab, "poststop").map(drop)
}

fn descriptors(lab: &Lab) -> Result<()> {
    live(lab, &all(lab))?;
    for kind in ["createContainer", "startContainer"] {
        // Standard streams, and the listing itself.
        let count = note(lab, kind)?["fds"].as_u64().unwrap_or(0);
        ensure!(count <= 4, "{kind} has {} descriptors beside the standard ones", count - 4);
    }
    Ok(())
}
