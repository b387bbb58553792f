//! What a case works with: a runtime, a folder of its own, bundles, calls.

use std::cell::{Cell, RefCell};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::bundle::{Answers, Bundle};
use crate::container::Container;
use crate::process::{self, Output};
use crate::spec::Spec;

/// A runtime under test.
#[derive(Clone, Debug)]
pub(crate) struct Runtime {
    /// Name of its program.
    pub name: String,
    /// The program.
    pub path: PathBuf,
}

impl Runtime {
    /// Takes a path, or a name that is looked up in `PATH`.
    pub(crate) fn find(given: &Path) -> Result<Self> {
        let name = given.file_name().and_then(|n| n.to_str()).context("a runtime's path ends in a name")?.to_owned();
        let mut places = vec![given.to_owned()];
        if given.components().count() == 1 {
            let path = std::env::var_os("PATH").unwrap_or_default();
            places = std::env::split_paths(&path).map(|dir| dir.join(given)).collect();
            places.extend(["/usr/bin", "/usr/sbin"].map(|dir| Path::new(dir).join(given)));
        }
        let found = places.iter().find_map(|place| place.canonicalize().ok().filter(|p| p.is_file()));
        let path = found.with_context(|| format!("there is no runtime {}: install it", given.display()))?;
        Ok(Self { name, path })
    }
}

/// One case's place.
pub(crate) struct Lab<'a> {
    /// The runtime under test.
    pub runtime: &'a Runtime,
    /// A folder of its own, on which nothing is left mounted.
    pub dir: PathBuf,
    /// The probe, on the host.
    pub probe: &'a Path,
    /// A word that nothing else has: cgroup, container IDs and the environment hold it.
    pub token: String,
    /// The bundle that most cases need.
    pub bundle: Bundle,
    calls: Cell<u32>,
    /// IDs that were given to the runtime.
    pub(crate) ids: RefCell<Vec<String>>,
    /// First processes of containers, which become this program's children when the runtime ends.
    pub(crate) pids: RefCell<Vec<u32>>,
}

impl<'a> Lab<'a> {
    /// Makes the folder with a bundle in it.
    pub(crate) fn new(runtime: &'a Runtime, dir: PathBuf, probe: &'a Path, token: String) -> Result<Self> {
        let bundle = Bundle::new(dir.join("bundle"), probe)?;
        Ok(Self {
            runtime,
            dir,
            probe,
            token,
            bundle,
            calls: Cell::new(0),
            ids: RefCell::default(),
            pids: RefCell::default(),
        })
    }

    /// An ordinary configuration.
    pub(crate) fn spec(&self) -> Spec {
        Spec::ordinary(&self.cgroups_path(), &self.marker())
    }

    /// The containers' cgroup, below the hierarchy's root.
    pub(crate) fn cgroups_path(&self) -> String {
        format!("/keel-conformance/{}", self.token)
    }

    /// The variable by which leftover processes are found.
    pub(crate) fn marker(&self) -> String {
        format!("KEEL_CASE={}", self.token)
    }

    /// A new ID. The first is the token.
    pub(crate) fn new_id(&self) -> String {
        let count = self.ids.borrow().len();
        let id = if count == 0 { self.token.clone() } else { format!("{}-{count}", self.token) };
        self.ids.borrow_mut().push(id.clone());
        id
    }

    /// Takes note of a container's first process, whose end the case or the sweeping after it waits for.
    pub(crate) fn expect_end_of(&self, pid: u32) {
        process::will_wait_for(pid);
        self.pids.borrow_mut().push(pid);
    }

    /// A file of the case's folder, as text.
    pub(crate) fn path(&self, name: &str) -> String {
        self.dir.join(name).to_string_lossy().into_owned()
    }

    /// A command of the runtime with its own state folder, no input, and the marker.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime.path);
        command.arg("--root").arg(self.dir.join("state"));
        // crun runs on no mixture of both versions, keel-oci on version 2 alone; runc has no such option.
        if !cgroup_v2() && self.runtime.name != "runc" {
            command.arg("--cgroup-manager=disabled");
        }
        command.args(arguments);
        command.env("KEEL_CASE", &self.token).current_dir(&self.bundle.dir).stdin(process::no_input());
        command
    }

    /// Runs a command to its end.
    pub(crate) fn run_command(&self, command: &mut Command) -> Result<Output> {
        process::run(command, &self.next_log())
    }

    /// Calls the runtime; any exit code is fine.
    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Output> {
        self.run_command(&mut self.command(arguments))
    }

    /// Calls the runtime, which must succeed.
    pub(crate) fn call_ok(&self, arguments: &[&str]) -> Result<Output> {
        let output = self.call(arguments)?;
        if output.code != 0 {
            bail!("`{}` failed ({}): {}", arguments.join(" "), output.code, output.stderr.trim());
        }
        Ok(output)
    }

    /// Calls the runtime, which must refuse; returns what it says.
    pub(crate) fn call_refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.call(arguments)?;
        if output.code == 0 {
            bail!("`{}` succeeded, but must be refused", arguments.join(" "));
        }
        Ok(output.stderr + &output.stdout)
    }

    /// Creates, runs and deletes a container in which the probe takes these steps. Its end must be good.
    pub(crate) fn run(&self, spec: &Spec, steps: Value) -> Result<Answers> {
        let output = self.run_any(&with_steps(spec.clone(), &steps))?;
        if output.code != 0 {
            bail!("`run` failed ({}): {}{}", output.code, output.stderr.trim(), output.stdout);
        }
        Answers::parse(&output.stdout)
    }

    /// `run` of a configuration as it is.
    pub(crate) fn run_any(&self, spec: &Spec) -> Result<Output> {
        self.bundle.configure(spec)?;
        self.call(&["run", "--bundle", &self.bundle_path(), &self.new_id()])
    }

    /// One step in a container; its result.
    pub(crate) fn ask(&self, spec: &Spec, step: Value) -> Result<Value> {
        Ok(self.run(spec, Value::Array(vec![step]))?.ok(0)?.clone())
    }

    /// All that a process of such a container sees.
    pub(crate) fn see(&self, spec: &Spec) -> Result<Value> {
        self.ask(spec, serde_json::json!(["see"]))
    }

    /// A configuration that must be refused, at `create` or `start`; returns what the runtime says.
    pub(crate) fn refused(&self, spec: &Spec) -> Result<String> {
        let output = self.run_any(spec)?;
        if output.code == 0 {
            bail!("the container ran, but its configuration must be refused");
        }
        // A program's own failure would look the same: the probe says on standard error that it ran.
        if output.stderr.contains("probe ran") || !output.stdout.is_empty() {
            bail!("the container's program ran, but the configuration must be refused: {}", output.stdout);
        }
        Ok(output.stderr)
    }

    /// Creates a container in which the probe will take these steps.
    pub(crate) fn create(&self, spec: &Spec, steps: Value) -> Result<Container<'_>> {
        self.create_as_is(&with_steps(spec.clone(), &steps))
    }

    /// Creates a container.
    pub(crate) fn create_as_is(&self, spec: &Spec) -> Result<Container<'_>> {
        self.bundle.configure(spec)?;
        Container::create(self, &self.new_id(), &[])
    }

    /// Creates and starts one.
    pub(crate) fn start(&self, spec: &Spec, steps: Value) -> Result<Container<'_>> {
        let container = self.create(spec, steps)?;
        container.start()?;
        Ok(container)
    }

    /// A container whose probe took the steps, which are answered, and now waits for a signal.
    pub(crate) fn hold(&self, spec: &Spec, steps: Value) -> Result<(Container<'_>, Answers)> {
        let mut all = steps.as_array().cloned().unwrap_or_default();
        let count = all.len();
        all.push(serde_json::json!(["hold"]));
        let container = self.start(spec, Value::Array(all))?;
        let answers = container.wait_answers(count + 1)?;
        Ok((container, answers))
    }

    /// The bundle's path, as text.
    pub(crate) fn bundle_path(&self) -> String {
        self.bundle.dir.to_string_lossy().into_owned()
    }

    /// Where the next call's output goes, without ending.
    pub(crate) fn next_log(&self) -> PathBuf {
        self.calls.set(self.calls.get() + 1);
        self.dir.join(format!("call-{}", self.calls.get()))
    }
}

/// The configuration with the probe taking these steps.
pub(crate) fn with_steps(spec: Spec, steps: &Value) -> Spec {
    spec.set("/process/args", serde_json::json!(["/bin/probe", "do", steps.to_string()]))
}

/// Whether this machine has all its controllers in cgroup v2.
pub(crate) fn cgroup_v2() -> bool {
    Path::new("/sys/fs/cgroup/cgroup.controllers").exists()
}
