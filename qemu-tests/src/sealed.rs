//! The store's tests that need fs-verity, in a bare guest with a disk of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::bare::{self, Done, Job};
use crate::machine::Clock;

/// For how long the tests may run in a guest, which is emulated.
const LIMIT: Duration = Duration::from_secs(300);
/// MiB of the guest's memory; everything lies in it.
const MEMORY_MIB: u32 = 1024;
/// Bytes of the disk.
const DISK_BYTES: u64 = 48 << 20;
/// What the guest's kernel needs beside what is built in.
const MODULES: [&str; 3] = ["loop", "erofs", "overlay"];

/// Runs them. `init` is the probe of the OCI runtime's suite, which serves as a guest's init.
pub fn run(init: &Path) -> Result<Done> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the crate has a parent folder")?;
    let folder = source.join("build/tests/sealed");
    fs::create_dir_all(&folder)?;
    let test = test_program(source)?;
    let disk = folder.with_extension("ext4");
    make_disk(&disk)?;
    let mut files = bare::with_libraries(&test)?;
    files.insert("/disk.ext4".into(), disk);
    let name = test.file_name().and_then(|name| name.to_str()).context("a program's path ends in a name")?;
    let inputs = keel_image::inputs::locate(&source.join("build/inputs")).context("run `make inputs` first")?;
    bare::run(&Job {
        dir: &folder,
        kernel: &inputs.kernel,
        init,
        files,
        kernel_words: "",
        policies: BTreeMap::new(),
        modules: bare::with_needs(&inputs.modules, &MODULES)?,
        command: vec![format!("/bin/{name}"), "--ignored".into(), "--test-threads=1".into(), "--nocapture".into()],
        memory_mib: MEMORY_MIB,
        clock: Clock::Real,
        limit: LIMIT,
    })
}

/// Builds the tests and returns where their program is, as cargo tells it.
fn test_program(source: &Path) -> Result<PathBuf> {
    let mut command = Command::new("cargo");
    command.args(["test", "-q", "-p", "keel-store", "--test", "sealed", "--no-run", "--message-format", "json"]);
    let output = command.current_dir(source).output().context("run cargo")?;
    ensure!(output.status.success(), "build the store's tests: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let program = messages.filter(|message| message["target"]["name"] == "sealed");
    let program = program.filter_map(|message| message["executable"].as_str().map(PathBuf::from)).next_back();
    program.context("cargo named no program of the tests")
}

/// An empty file system as the state partition has it.
fn make_disk(path: &Path) -> Result<()> {
    let _ = fs::remove_file(path);
    fs::File::create(path)?.set_len(DISK_BYTES)?;
    let mut command = Command::new("/usr/sbin/mkfs.ext4");
    command.args(["-q", "-b", "4096", "-O", "verity,metadata_csum,64bit,extent"]).arg(path);
    let output = command.output().context("run mkfs.ext4: is the package e2fsprogs installed?")?;
    ensure!(output.status.success(), "mkfs.ext4: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
