//! The folder that a runtime is given, and the probe's steps in it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::spec::Spec;

/// Folders of a bundle's root file system.
const FOLDERS: [&str; 8] = ["", "bin", "proc", "sys", "dev", "tmp", "etc", "work"];

/// A bundle in a folder of its own.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// The folder.
    pub dir: PathBuf,
}

impl Bundle {
    /// Makes it, with the probe as `/bin/probe`.
    pub(crate) fn new(dir: PathBuf, probe: &Path) -> Result<Self> {
        for folder in FOLDERS {
            let path = dir.join("rootfs").join(folder);
            fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
            fs::set_permissions(&path, Permissions::from_mode(0o755))?;
        }
        fs::set_permissions(&dir, Permissions::from_mode(0o755))?;
        let inside = dir.join("rootfs/bin/probe");
        fs::hard_link(probe, &inside).with_context(|| format!("link {} to {}", probe.display(), inside.display()))?;
        Ok(Self { dir })
    }

    /// Writes `config.json`.
    pub(crate) fn configure(&self, spec: &Spec) -> Result<()> {
        let path = self.dir.join("config.json");
        fs::write(&path, spec.text()).with_context(|| format!("write {}", path.display()))
    }

    /// A path of the root file system, seen from outside.
    pub(crate) fn inside(&self, path: &str) -> PathBuf {
        self.dir.join("rootfs").join(path.trim_start_matches('/'))
    }
}

/// What the probe answered, a value for each step.
#[derive(Debug)]
pub(crate) struct Answers(Vec<Value>);

impl Answers {
    /// Reads the lines that the probe prints.
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let lines = text.lines().filter(|line| !line.trim().is_empty());
        let parsed = lines
            .map(|line| serde_json::from_str(line).with_context(|| format!("the probe's answer isn't JSON: {line:?}")));
        Ok(Self(parsed.collect::<Result<_>>()?))
    }

    /// How many steps were answered.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The result of a step that must have succeeded.
    pub(crate) fn ok(&self, step: usize) -> Result<&Value> {
        let answer = self.0.get(step).with_context(|| format!("the probe gave no answer to step {step}"))?;
        match answer.get("ok") {
            Some(value) => Ok(value),
            None => bail!("step {step} failed inside the container: {answer}"),
        }
    }

    /// The same, if it is a text.
    pub(crate) fn text(&self, step: usize) -> Result<&str> {
        self.ok(step)?.as_str().with_context(|| format!("step {step} didn't answer with a text"))
    }

    /// The error number of a step that must have failed.
    pub(crate) fn errno(&self, step: usize) -> Result<i32> {
        let answer = self.0.get(step).with_context(|| format!("the probe gave no answer to step {step}"))?;
        match answer.get("errno").and_then(Value::as_i64) {
            Some(errno) => Ok(errno as i32),
            None => bail!("step {step} succeeded inside the container, but must fail: {answer}"),
        }
    }
}
