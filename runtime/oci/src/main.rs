//! The OCI runtime command line. So far: `keel-oci run --bundle DIR ID`.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use keel_oci::{Create, Parent, spec::Spec};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use rustix::process::{WaitId, WaitIdOptions};

/// Longest `config.json`.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|a| a == "oci-init") {
        keel_oci::init_main();
    }
    match parse().and_then(|(bundle, id)| run(&bundle, &id)) {
        Ok(code) => ExitCode::from(code),
        Err(e) => {
            let mut chain = e.to_string();
            let mut source = e.source();
            while let Some(inner) = source {
                chain = format!("{chain}: {inner}");
                source = inner.source();
            }
            eprintln!("keel-oci: {chain}");
            ExitCode::from(match e.downcast_ref::<keel_oci::Error>() {
                Some(e) if e.is_program_missing() => 127,
                Some(e) if e.is_program_refused() => 126,
                _ => 1,
            })
        }
    }
}

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

fn parse() -> Result<(PathBuf, String)> {
    use lexopt::prelude::*;
    let (mut bundle, mut id, mut verb) = (PathBuf::from("."), None, None);
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("bundle") | Short('b') => bundle = parser.value()?.into(),
            Value(word) if verb.is_none() => verb = Some(word.string()?),
            Value(word) if id.is_none() => id = Some(word.string()?),
            other => return Err(other.unexpected().into()),
        }
    }
    match (verb.as_deref(), id) {
        (Some("run"), Some(id)) => Ok((bundle, id)),
        _ => Err("usage: keel-oci run --bundle DIR ID".into()),
    }
}

fn run(bundle: &Path, id: &str) -> Result<u8> {
    let config = bundle.join("config.json");
    if std::fs::metadata(&config).map_err(|e| format!("read {}: {e}", config.display()))?.len() > MAX_CONFIG_BYTES {
        return Err(format!("{} is longer than {MAX_CONFIG_BYTES} bytes", config.display()).into());
    }
    let spec: Spec = serde_json::from_slice(&std::fs::read(&config)?)?;
    let root = bundle.join(spec.root.as_ref().map_or("rootfs", |r| &r.path));
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC | OpenTreeFlags::AT_RECURSIVE;
    let rootfs = rustix::mount::open_tree(CWD, &root, flags).map_err(|e| format!("open {}: {e}", root.display()))?;
    let copy = |fd: &dyn AsFd| -> Result<OwnedFd> { Ok(fd.as_fd().try_clone_to_owned()?) };
    let created = keel_oci::create(Create {
        id,
        spec: &spec,
        rootfs: rootfs.as_fd(),
        stdin: copy(&std::io::stdin())?,
        stdout: copy(&std::io::stdout())?,
        stderr: copy(&std::io::stderr())?,
        cgroup: None,
        parent: Parent::Caller,
        init: None,
    })?;
    let pidfd = created.pidfd().try_clone_to_owned()?;
    created.start()?;
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
    let status = status.ok_or("the container's end wasn't reported")?;
    let signal = status.terminating_signal().map(|s| 128 + s);
    Ok(status.exit_status().or(signal).unwrap_or(1) as u8)
}
