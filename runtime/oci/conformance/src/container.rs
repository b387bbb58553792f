//! A container's life, verb by verb.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions};
use serde_json::{Value, json};

use crate::bundle::Answers;
use crate::lab::Lab;
use crate::process::{self, DEADLINE, Output};

/// A container that was created.
pub(crate) struct Container<'a> {
    lab: &'a Lab<'a>,
    /// Its ID.
    pub id: String,
    /// Its first process, in the host's numbers.
    pub pid: u32,
    output: PathBuf,
}

impl<'a> Container<'a> {
    /// `create` with further options, in the lab's bundle.
    pub(crate) fn create(lab: &'a Lab, id: &str, options: &[&str]) -> Result<Self> {
        Self::create_with(lab, id, options, &[])
    }

    /// The same with these variables.
    pub(crate) fn create_with(lab: &'a Lab, id: &str, options: &[&str], vars: &[(&str, &str)]) -> Result<Self> {
        let log = lab.next_log();
        let pid_file = lab.path(&format!("{id}.pid"));
        let mut command = lab.command(&["create", "--bundle", &lab.bundle_path(), "--pid-file", &pid_file]);
        command.envs(vars.iter().copied());
        let output = process::run(command.args(options).arg(id), &log)?;
        if output.code != 0 {
            bail!("`create` failed ({}): {}", output.code, output.stderr.trim());
        }
        let text = fs::read_to_string(&pid_file).context("read the file that --pid-file names")?;
        let pid = text.trim().parse().with_context(|| format!("process ID in --pid-file: {text:?}"))?;
        lab.expect_end_of(pid);
        Ok(Self { lab, id: id.to_owned(), pid, output: log.with_extension("out") })
    }

    /// `start`.
    pub(crate) fn start(&self) -> Result<()> {
        self.lab.call_ok(&["start", &self.id]).map(drop)
    }

    /// `state`, parsed.
    pub(crate) fn state(&self) -> Result<Value> {
        let output = self.lab.call_ok(&["state", &self.id])?;
        serde_json::from_str(&output.stdout).with_context(|| format!("state isn't JSON: {}", output.stdout))
    }

    /// `status` of the state.
    pub(crate) fn status(&self) -> Result<String> {
        Ok(self.state()?["status"].as_str().context("the state has no status")?.to_owned())
    }

    /// Waits until `state` says so.
    pub(crate) fn wait_status(&self, wanted: &str) -> Result<()> {
        process::until(&format!("status {wanted}"), || Ok((self.status()? == wanted).then_some(())))
    }

    /// `kill`.
    pub(crate) fn kill(&self, signal: &str) -> Result<()> {
        self.lab.call_ok(&["kill", &self.id, signal]).map(drop)
    }

    /// `delete`.
    pub(crate) fn delete(&self) -> Result<()> {
        self.lab.call_ok(&["delete", &self.id]).map(drop)
    }

    /// Ends it by SIGKILL, waits, deletes it.
    pub(crate) fn finish(self) -> Result<()> {
        self.kill("KILL")?;
        self.wait()?;
        self.wait_status("stopped")?;
        self.delete()
    }

    /// Waits for the first process's end and takes its exit code (128 and the signal's number, if one ended it). It is
    /// this program's child since the runtime ended.
    pub(crate) fn wait(&self) -> Result<i32> {
        let pid = Pid::from_raw(self.pid as i32).context("process ID 0")?;
        let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty()).context("the container's process is gone")?;
        if !process::ends(&pidfd, DEADLINE)? {
            bail!("the container's process hasn't ended within {DEADLINE:?}");
        }
        let status = rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED)
            .context("the container's process isn't a child of the one that called the runtime")?;
        let status = status.context("no status")?;
        Ok(status.exit_status().or(status.terminating_signal().map(|s| 128 + s)).unwrap_or(-1))
    }

    /// Whether its first process is there and no zombie.
    pub(crate) fn alive(&self) -> bool {
        process_state(self.pid).is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    /// What its program has printed.
    pub(crate) fn printed(&self) -> Result<String> {
        Ok(fs::read_to_string(&self.output)?)
    }

    /// Waits until the probe has answered this many steps.
    pub(crate) fn wait_answers(&self, count: usize) -> Result<Answers> {
        process::until(&format!("{count} answers of the probe"), || {
            let text = self.printed()?;
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            let answers = Answers::parse(whole)?;
            if answers.len() < count && !self.alive() {
                let errors = fs::read_to_string(self.output.with_extension("err")).unwrap_or_default();
                bail!("the container ended after {} of {count} steps: {text}{errors}", answers.len());
            }
            Ok((answers.len() >= count).then_some(answers))
        })
    }

    /// Waits for its end, which must be good, and reads the answers; then deletes it.
    pub(crate) fn answers(self) -> Result<Answers> {
        let code = self.wait()?;
        let text = self.printed()?;
        if code != 0 {
            let errors = fs::read_to_string(self.output.with_extension("err")).unwrap_or_default();
            bail!("the container's program ended with {code}: {text}{errors}");
        }
        self.wait_status("stopped")?;
        self.delete()?;
        Answers::parse(&text)
    }

    /// `exec` of the probe with these steps and options before the ID.
    pub(crate) fn exec(&self, options: &[&str], steps: Value) -> Result<Answers> {
        let output = self.exec_any(options, &["/bin/probe", "do", &steps.to_string()])?;
        if output.code != 0 {
            bail!("`exec` failed ({}): {}{}", output.code, output.stderr.trim(), output.stdout);
        }
        Answers::parse(&output.stdout)
    }

    /// `exec` of anything.
    pub(crate) fn exec_any(&self, options: &[&str], words: &[&str]) -> Result<Output> {
        let mut all = vec!["exec"];
        all.extend(options);
        all.push(&self.id);
        all.extend(words);
        self.lab.call(&all)
    }

    /// `exec --process` of a process like the container's own, changed by `change`.
    pub(crate) fn exec_process(&self, process: Value, steps: Value) -> Result<Answers> {
        let mut process = process;
        process["args"] = json!(["/bin/probe", "do", steps.to_string()]);
        let file = self.lab.path("process.json");
        fs::write(&file, process.to_string())?;
        let output = self.lab.call_ok(&["exec", "--process", &file, &self.id])?;
        Answers::parse(&output.stdout)
    }
}

/// The letter in `/proc/PID/stat`.
pub(crate) fn process_state(pid: u32) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}
