//! What engines ask of a runtime's command line beyond the specification.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::case::{Case, same};
use crate::container::Container;
use crate::lab::Lab;
use crate::process::until;

const OTHERS: &str = "other runtimes";

/// These cases.
pub(super) const CASES: &[Case] = &[
    Case::new("command.bundle-is-the-working-folder-by-default", OTHERS, bundle_default),
    Case::new("command.relative-bundle", "runtime.md#state", bundle_relative),
    Case::new("command.options-after-the-verb-in-both-forms", OTHERS, option_forms),
    Case::new("command.pid-file", OTHERS, pid_file),
    Case::new("command.run-detached", OTHERS, run_detached),
    Case::new("command.run-deletes-at-the-end", OTHERS, run_deletes),
    Case::new("command.run-ends-by-the-programs-signal", OTHERS, run_signal),
    Case::new("command.run-keeps-where-asked", OTHERS, run_keeps),
    Case::new("command.config-of-another-name", OTHERS, config_elsewhere),
    Case::new("command.unknown-cgroup-manager", OTHERS, cgroup_manager),
    Case::new("command.systemd-cgroup-is-refused", OTHERS, systemd_cgroup),
    Case::new("command.unknown-verb", OTHERS, unknown_verb),
    Case::new("command.unknown-option", OTHERS, unknown_option),
    Case::new("command.version", OTHERS, version),
    Case::new("command.help", OTHERS, help),
    Case::new("command.spec-writes-a-config", OTHERS, spec),
    Case::new("command.spec-spares-an-existing-config", OTHERS, spec_twice),
    Case::new("command.log-file-holds-the-error", OTHERS, log_file),
    Case::new("command.log-in-json", OTHERS, log_json),
    Case::new("command.list", OTHERS, list),
    Case::new("command.list-ids-only", OTHERS, list_quiet),
    Case::new("command.list-in-json", OTHERS, list_json),
    Case::new("command.preserve-fds", OTHERS, preserve_fds),
    Case::new("command.no-other-descriptors", OTHERS, no_other_descriptors),
    Case::new("command.socket-activation", OTHERS, listen_fds),
    Case::new("command.state-folders-are-apart", OTHERS, roots_apart),
    Case::new("command.no-pivot", OTHERS, no_pivot),
    Case::new("command.no-new-keyring", OTHERS, no_new_keyring),
    Case::new("command.preserved-state-root-is-made", OTHERS, root_made),
];

fn bundle_default(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    let id = lab.new_id();
    lab.call_ok(&["run", &id]).map(drop)
}

fn bundle_relative(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    let id = lab.new_id();
    let mut command = lab.command(&["create", "--bundle", "bundle", &id]);
    let output = lab.run_command(command.current_dir(&lab.dir))?;
    same!(output.code, 0, "exit code of `create` ({})", output.stderr.trim());
    let state: Value = serde_json::from_str(&lab.call_ok(&["state", &id])?.stdout)?;
    same!(state["bundle"], lab.bundle_path(), "bundle, which must be absolute");
    lab.call_ok(&["delete", "--force", &id]).map(drop)
}

fn option_forms(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    let equals = format!("--bundle={}", lab.bundle_path());
    lab.call_ok(&["run", &equals, &lab.new_id()])?;
    lab.call_ok(&["run", "-b", &lab.bundle_path(), &lab.new_id()]).map(drop)
}

fn pid_file(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    let text = fs::read_to_string(lab.path(&format!("{}.pid", container.id)))?;
    same!(text, container.state()?["pid"].to_string(), "content of the file");
    container.finish()
}

fn run_detached(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&crate::lab::with_steps(lab.spec(), &json!([["hold"]])))?;
    let id = lab.new_id();
    let pid_file = lab.path("detached.pid");
    lab.call_ok(&["run", "--detach", "--pid-file", &pid_file, "--bundle", &lab.bundle_path(), &id])?;
    lab.expect_end_of(fs::read_to_string(&pid_file)?.trim().parse()?);
    let state: Value = serde_json::from_str(&lab.call_ok(&["state", &id])?.stdout)?;
    same!(state["status"], "running", "status");
    lab.call_ok(&["delete", "--force", &id]).map(drop)
}

fn run_deletes(lab: &Lab) -> Result<()> {
    lab.run(&lab.spec(), json!([]))?;
    lab.call_refused(&["state", &lab.token]).map(drop)
}

fn run_signal(lab: &Lab) -> Result<()> {
    // 62: SYS_kill; process 0 is the caller's group.
    let spec = lab.spec().without_namespace("pid");
    let output = lab.run_any(&crate::lab::with_steps(spec, &json!([["call", 62, 0, 9]])))?;
    same!(output.code, 128 + 9, "exit code of `run`");
    Ok(())
}

fn run_keeps(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    let id = lab.new_id();
    lab.call_ok(&["run", "--keep", "--bundle", &lab.bundle_path(), &id])?;
    let state: Value = serde_json::from_str(&lab.call_ok(&["state", &id])?.stdout)?;
    same!(state["status"], "stopped", "status");
    lab.call_ok(&["delete", &id]).map(drop)
}

fn config_elsewhere(lab: &Lab) -> Result<()> {
    fs::write(lab.path("other.json"), crate::lab::with_steps(lab.spec(), &json!([["exit", 7]])).text())?;
    let output =
        lab.call(&["run", "--config", &lab.path("other.json"), "--bundle", &lab.bundle_path(), &lab.new_id()])?;
    same!(output.code, 7, "exit code of `run` ({})", output.stderr.trim());
    Ok(())
}

fn cgroup_manager(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    let options = ["--cgroup-manager=no-such-manager", "run", "--bundle"];
    let said = lab.call_refused(&[&options[..], &[&lab.bundle_path(), &lab.new_id()]].concat())?;
    ensure!(said.contains("cgroup-manager") || said.contains("cgroup manager"), "the message doesn't name it: {said}");
    Ok(())
}

fn systemd_cgroup(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    let said = lab.call_refused(&["--systemd-cgroup", "run", "--bundle", &lab.bundle_path(), &lab.new_id()])?;
    ensure!(said.contains("systemd"), "the message doesn't say why: {said}");
    Ok(())
}

fn unknown_verb(lab: &Lab) -> Result<()> {
    lab.call_refused(&["no-such-verb"]).map(drop)
}

fn unknown_option(lab: &Lab) -> Result<()> {
    lab.call_refused(&["state", "--no-such-option", "x"]).map(drop)
}

fn version(lab: &Lab) -> Result<()> {
    let text = lab.call_ok(&["--version"])?.stdout;
    let lower = text.to_lowercase();
    ensure!(lower.contains(&format!("{} version", lab.runtime.name)), "no line `NAME version N`: {text}");
    ensure!(text.lines().any(|line| line.starts_with("spec: 1.")), "no line `spec: 1.x.y`: {text}");
    Ok(())
}

fn help(lab: &Lab) -> Result<()> {
    let text = lab.call_ok(&["--help"])?.stdout;
    for verb in ["create", "start", "state", "kill", "delete", "exec", "list", "ps", "pause", "resume", "update", "run"]
    {
        ensure!(text.contains(verb), "--help doesn't name {verb}");
    }
    Ok(())
}

fn spec(lab: &Lab) -> Result<()> {
    let mut command = lab.command(&["spec"]);
    let output = lab.run_command(&mut command)?;
    same!(output.code, 0, "exit code of `spec` ({})", output.stderr.trim());
    let text = fs::read_to_string(lab.bundle.dir.join("config.json")).context("`spec` wrote no config.json")?;
    let config: Value = serde_json::from_str(&text)?;
    ensure!(config["ociVersion"].as_str().is_some_and(|v| v.starts_with("1.")), "ociVersion: {}", config["ociVersion"]);
    ensure!(config["process"]["args"].is_array(), "no process.args");
    same!(config["root"]["path"], "rootfs", "root.path");
    ensure!(config["linux"]["namespaces"].as_array().is_some_and(|n| n.len() >= 5), "few namespaces");
    Ok(())
}

fn spec_twice(lab: &Lab) -> Result<()> {
    fs::write(lab.bundle.dir.join("config.json"), "{}")?;
    lab.call_refused(&["spec"])?;
    same!(fs::read_to_string(lab.bundle.dir.join("config.json"))?, "{}", "the existing config.json");
    Ok(())
}

/// A bundle that can't be created, and what the log then holds.
fn failing_log(lab: &Lab, options: &[&str]) -> Result<String> {
    lab.bundle.configure(&lab.spec().mount("/work", "bind", "/no/such/source", &["bind"]))?;
    let (log, bundle, id) = (lab.path("runtime.log"), lab.bundle_path(), lab.new_id());
    let mut words = vec!["--log", &log];
    words.extend(options);
    words.extend(["create", "--bundle", &bundle, &id]);
    lab.call_refused(&words)?;
    Ok(fs::read_to_string(&log)?)
}

fn log_file(lab: &Lab) -> Result<()> {
    let text = failing_log(lab, &[])?;
    ensure!(text.contains("/no/such/source"), "the log doesn't name what was wrong: {text}");
    Ok(())
}

fn log_json(lab: &Lab) -> Result<()> {
    let text = failing_log(lab, &["--log-format", "json"])?;
    let last = text.lines().last().context("the log is empty")?;
    let entry: Value = serde_json::from_str(last).with_context(|| format!("the log's line isn't JSON: {last}"))?;
    same!(entry["level"], "error", "level");
    ensure!(entry["msg"].as_str().is_some_and(|m| m.contains("/no/such/source")), "msg: {entry}");
    ensure!(entry["time"].is_string(), "no time: {entry}");
    Ok(())
}

fn list(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    let text = lab.call_ok(&["list"])?.stdout;
    let line = text.lines().find(|line| line.starts_with(&container.id)).context("the container isn't listed")?;
    let words: Vec<&str> = line.split_whitespace().collect();
    same!(words[1], container.pid.to_string(), "second column");
    same!(words[2], "created", "third column");
    same!(words[3], lab.bundle_path(), "fourth column");
    container.finish()?;
    ensure!(!lab.call_ok(&["list"])?.stdout.contains(&lab.token), "a deleted container is listed");
    Ok(())
}

fn list_quiet(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    same!(lab.call_ok(&["list", "-q"])?.stdout.trim(), container.id, "IDs");
    container.finish()
}

fn list_json(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    let text = lab.call_ok(&["list", "--format", "json"])?.stdout;
    let all: Value = serde_json::from_str(&text).with_context(|| format!("`list --format json` isn't JSON: {text}"))?;
    let one = &all[0];
    same!(one["id"], container.id, "id");
    same!(one["status"], "created", "status");
    same!(one["pid"], container.pid, "pid");
    same!(one["bundle"], lab.bundle_path(), "bundle");
    container.finish()?;
    let text = lab.call_ok(&["list", "--format", "json"])?.stdout;
    let none: Value = serde_json::from_str(&text)?;
    ensure!(none.is_null() || none == json!([]), "without containers: {text}");
    Ok(())
}

/// `run` with two files as descriptors 3 and 4.
fn with_descriptors(
    lab: &Lab,
    options: &[&str],
    variables: &[(&str, &str)],
    steps: Value,
) -> Result<crate::bundle::Answers> {
    fs::write(lab.path("three"), "third")?;
    fs::write(lab.path("four"), "fourth")?;
    lab.bundle.configure(&crate::lab::with_steps(lab.spec(), &steps))?;
    let mut words = vec!["run"];
    let (bundle, id) = (lab.bundle_path(), lab.new_id());
    words.extend(options);
    words.extend(["--bundle", &bundle, &id]);
    let mut command = lab.command(&words);
    if !variables.is_empty() {
        // Of the process that will be the runtime: LISTEN_PID must be its own (sd_listen_fds(3)).
        command = crate::cli::activated(command);
    }
    let files = [fs::File::open(lab.path("three"))?, fs::File::open(lab.path("four"))?];
    for (name, value) in variables {
        command.env(name, value);
    }
    crate::sys::pass(&mut command, files);
    let output = lab.run_command(&mut command)?;
    same!(output.code, 0, "exit code of `run` ({})", output.stderr.trim());
    crate::bundle::Answers::parse(&output.stdout)
}

fn preserve_fds(lab: &Lab) -> Result<()> {
    let answers = with_descriptors(lab, &["--preserve-fds", "2"], &[], json!([["descriptor", 3], ["descriptor", 4]]))?;
    same!(answers.text(0)?, "third", "what descriptor 3 holds");
    same!(answers.text(1)?, "fourth", "what descriptor 4 holds");
    Ok(())
}

fn no_other_descriptors(lab: &Lab) -> Result<()> {
    let answers = with_descriptors(lab, &[], &[], json!([["fds"]]))?;
    let names: Vec<&String> = answers.ok(0)?.as_object().context("descriptors")?.keys().collect();
    same!(names, ["0", "1", "2"], "descriptors");
    Ok(())
}

fn listen_fds(lab: &Lab) -> Result<()> {
    let answers = with_descriptors(lab, &[], &[("LISTEN_FDS", "1")], json!([["descriptor", 3], ["see"]]))?;
    same!(answers.text(0)?, "third", "what descriptor 3 holds");
    let seen = &answers.ok(1)?["env"];
    same!(seen["LISTEN_FDS"], "1", "LISTEN_FDS");
    same!(seen["LISTEN_PID"], "1", "LISTEN_PID");
    Ok(())
}

fn roots_apart(lab: &Lab) -> Result<()> {
    let container = lab.create(&lab.spec(), json!([]))?;
    let other = lab.path("other-state");
    let mut command = std::process::Command::new(&lab.runtime.path);
    let output = lab.run_command(command.args(["--root", &other, "state", &container.id]))?;
    ensure!(output.code != 0, "a container is known in another state folder");
    container.finish()
}

fn no_pivot(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&crate::lab::with_steps(lab.spec(), &json!([["list", "/"]])))?;
    let id = lab.new_id();
    let output = lab.call_ok(&["run", "--no-pivot", "--bundle", &lab.bundle_path(), &id])?;
    let names = json!(["bin", "dev", "etc", "proc", "sys", "tmp", "work"]);
    same!(*crate::bundle::Answers::parse(&output.stdout)?.ok(0)?, names, "names in /");
    Ok(())
}

fn no_new_keyring(lab: &Lab) -> Result<()> {
    lab.bundle.configure(&lab.spec())?;
    lab.call_ok(&["run", "--no-new-keyring", "--bundle", &lab.bundle_path(), &lab.new_id()]).map(drop)
}

fn root_made(lab: &Lab) -> Result<()> {
    ensure!(!lab.dir.join("state").exists(), "the case starts without a state folder");
    let container = Container::create(lab, &lab.new_id(), &[]).err();
    ensure!(container.is_some(), "there is no config.json yet");
    let container = lab.create(&lab.spec(), json!([]))?;
    until("the state folder", || Ok(lab.dir.join("state").exists().then_some(())))?;
    container.finish()
}
