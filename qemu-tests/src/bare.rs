//! A guest without any disk: Debian's kernel, programs and files in its memory, output and exit status out.
//!
//! For programs that need a kernel of their own (cgroup v2, a kernel that isn't the workstation's). Init is the probe of
//! the conformance suite (`runtime/oci/conformance/src/probe/guest.rs`), which reads `/job.json`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use keel_image::cpio::Archive;

use crate::machine::{Clock, accelerator, path, tail};

/// `no_timer_check`: on a busy workstation an emulated timer ticks too late for the kernel, which then gives up.
const CMDLINE: &str = "console=ttyS0 quiet panic=-1 no_timer_check rdinit=/init";

/// What a guest is to do.
pub struct Job<'a> {
    /// Folder for its files; emptied.
    pub dir: &'a Path,
    /// The kernel.
    pub kernel: &'a Path,
    /// A static program that is the guest's init.
    pub init: &'a Path,
    /// What lies where in the guest: absolute paths there, files here. All are executable.
    pub files: BTreeMap<String, PathBuf>,
    /// Further words for the kernel's command line.
    pub kernel_words: &'a str,
    /// Policies for the kernel's security modules: a file among `files`, and where the kernel takes it.
    pub policies: BTreeMap<String, String>,
    /// Modules to load, in this order.
    pub modules: Vec<PathBuf>,
    /// The program, as an absolute path in the guest, and its arguments.
    pub command: Vec<String>,
    /// MiB of memory.
    pub memory_mib: u32,
    /// How guest time passes.
    pub clock: Clock,
    /// For how long the guest may run, in the workstation's time.
    pub limit: Duration,
}

/// How it ended.
#[derive(Debug)]
pub struct Done {
    /// The program's exit code; 128 and the signal's number, if one ended it.
    pub code: i32,
    /// What it printed, errors included.
    pub output: String,
}

/// Runs a guest to its end. An error tells of the guest, not of the program: what the console showed is in it.
pub fn run(job: &Job) -> Result<Done> {
    let _ = fs::remove_dir_all(job.dir);
    fs::create_dir_all(job.dir).with_context(|| format!("create {}", job.dir.display()))?;
    let initrd = job.dir.join("initrd");
    fs::write(&initrd, archive(job)?).with_context(|| format!("write {}", initrd.display()))?;
    let file = |name: &str| job.dir.join(name);
    let port = |name: &str| -> Result<[String; 4]> {
        Ok([
            "-chardev".into(),
            format!("file,id={name},path={}", path(&file(name))?),
            "-device".into(),
            format!("virtserialport,chardev={name},name={name}"),
        ])
    };
    let mut command = Command::new("qemu-system-x86_64");
    command
        .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-M", "q35"])
        .args(["-m", &job.memory_mib.to_string()])
        .args(accelerator(job.clock, job.kernel))
        .args(["-append", &format!("{CMDLINE} {}", job.kernel_words)])
        .args(["-chardev", &format!("file,id=console,path={}", path(&file("console"))?), "-serial", "chardev:console"])
        .args(["-device", "virtio-serial-pci"])
        .args(port("out")?)
        .args(port("status")?)
        .arg("-kernel")
        .arg(job.kernel)
        .arg("-initrd")
        .arg(&initrd);
    let messages = fs::File::create(file("qemu.log"))?;
    let mut qemu = command
        .stdin(Stdio::null())
        .stdout(messages.try_clone()?)
        .stderr(messages)
        .spawn()
        .context("start qemu-system-x86_64: is the package qemu-system-x86 installed?")?;
    let read = |name: &str| String::from_utf8_lossy(&fs::read(file(name)).unwrap_or_default()).into_owned();
    let begun = Instant::now();
    while qemu.try_wait()?.is_none() {
        if begun.elapsed() > job.limit {
            let _ = qemu.kill();
            let _ = qemu.wait();
            bail!("the guest wasn't done within {:?}:\n{}\n{}", job.limit, tail(&read("out")), tail(&read("console")));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let status = read("status");
    let code = status.trim().parse().with_context(|| {
        format!(
            "the guest gave no exit status:\n{}\n{}{}",
            tail(&read("out")),
            tail(&read("console")),
            read("qemu.log")
        )
    })?;
    Ok(Done { code, output: read("out") })
}

/// Files of modules in the order in which they can be loaded: what one needs comes before it.
pub fn with_needs(folder: &Path, names: &[&str]) -> Result<Vec<PathBuf>> {
    let index = folder.join("modules.dep");
    let text = fs::read_to_string(&index).with_context(|| format!("read {}", index.display()))?;
    let mut files: Vec<PathBuf> = Vec::new();
    for name in names {
        let line = text.lines().find_map(|line| {
            let (file, needs) = line.split_once(':')?;
            (file.rsplit('/').next()?.split('.').next()? == *name).then_some((file, needs))
        });
        let (file, needs) = line.with_context(|| format!("the kernel has no module {name}"))?;
        // The index names what is to be loaded first last (modules.dep(5)).
        for file in needs.split_whitespace().rev().chain([file]).map(|file| folder.join(file)) {
            if !files.contains(&file) {
                files.push(file);
            }
        }
    }
    Ok(files)
}

/// A program and the libraries that it is linked to, as `ldd` finds them, each where it is on the workstation. The
/// program itself goes to `/bin`.
pub fn with_libraries(program: &Path) -> Result<BTreeMap<String, PathBuf>> {
    let name = program.file_name().and_then(|name| name.to_str()).context("a program's path ends in a name")?;
    let mut files = BTreeMap::from([(format!("/bin/{name}"), program.canonicalize()?)]);
    let listed = Command::new("ldd").arg(program).output().context("run ldd")?;
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        // `name => /path (address)`, or `/path (address)`.
        if let Some(found) = line.split_whitespace().find(|word| word.starts_with('/')) {
            files.insert(found.to_owned(), Path::new(found).canonicalize()?);
        }
    }
    Ok(files)
}

fn archive(job: &Job) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    let mut folders = BTreeSet::from(["dev".to_owned(), "modules".to_owned()]);
    for target in job.files.keys() {
        ensure!(target.starts_with('/'), "{target} isn't an absolute path");
        let parents = Path::new(target).ancestors().skip(1).filter_map(|parent| parent.to_str());
        folders.extend(parents.map(|parent| parent.trim_start_matches('/').to_owned()).filter(|p| !p.is_empty()));
    }
    folders.iter().for_each(|folder| archive.folder(folder));
    archive.console();
    let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
    archive.file("init", 0o755, &read(job.init)?);
    let order = serde_json::json!({ "command": job.command, "policies": job.policies });
    archive.file("job.json", 0o644, order.to_string().as_bytes());
    for (target, source) in &job.files {
        archive.file(target.trim_start_matches('/'), 0o755, &read(source)?);
    }
    for (number, module) in job.modules.iter().enumerate() {
        let name = module.file_name().and_then(|name| name.to_str()).context("a module's path ends in a name")?;
        archive.file(&format!("modules/{number:03}-{name}"), 0o644, &read(module)?);
    }
    Ok(archive.finish())
}
