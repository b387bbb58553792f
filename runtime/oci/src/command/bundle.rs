//! A bundle: `config.json` and the root file system.

use std::io::Read;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};
use rustix::mount::OpenTreeFlags;
use serde_json::Value;
use serde_json::value::RawValue;

use super::Result;
use super::args::Args;
use super::report::{Doing, Failure};
use crate::spec::Spec;

/// Longest `config.json`.
const MAX_CONFIG_BYTES: u64 = 16 << 20;

/// A bundle, read.
pub(super) struct Bundle {
    pub path: PathBuf,
    pub rootfs: PathBuf,
    pub spec: Spec,
    /// The configuration to be remembered.
    pub config: Box<RawValue>,
    /// Who has read it.
    pub owner_uid: u32,
}

/// Reads the bundle that `--bundle` and `--config` name.
pub(super) fn load(args: &Args) -> Result<Bundle> {
    let path = args.path("bundle").unwrap_or_else(|| ".".into());
    let path = std::fs::canonicalize(&path).doing(|| format!("open bundle {}", path.display()))?;
    let config = args.path("config").unwrap_or_else(|| path.join("config.json"));
    let bytes = read(&config)?;
    let mut spec: Spec = parse(&bytes, &config.display().to_string())?;
    if spec.oci_version.is_empty() {
        return Err(Failure::new(format!("{}: ociVersion is missing", config.display())));
    }
    let given = spec.root.as_ref().map(|r| r.path.clone()).filter(|p| !p.is_empty());
    let given = given.ok_or_else(|| Failure::new(format!("{}: root.path is missing", config.display())))?;
    // Engines that run elsewhere than in the bundle may name sources relative to it.
    for mount in &mut spec.mounts {
        let bound = mount.kind.as_deref() == Some("bind") || mount.options.iter().any(|o| o == "bind" || o == "rbind");
        if let Some(source) = mount.source.as_mut().filter(|s| bound && !s.starts_with('/')) {
            *source = path.join(&source).to_string_lossy().into_owned();
        }
    }
    let rootfs = path.join(given);
    let text = String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} isn't UTF-8", config.display())))?;
    let config = RawValue::from_string(text).doing(|| "keep the configuration".into())?;
    let owner_uid = rustix::process::getuid().as_raw();
    Ok(Bundle { rootfs, path, spec, config, owner_uid })
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let step = || format!("read {}", path.display());
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).doing(step)?;
    file.take(MAX_CONFIG_BYTES + 1).read_to_end(&mut bytes).doing(step)?;
    if bytes.len() as u64 > MAX_CONFIG_BYTES {
        return Err(Failure::new(format!("{} is longer than {MAX_CONFIG_BYTES} bytes", path.display())));
    }
    Ok(bytes)
}

/// Parses a configuration. Programs written in Go say `null` for what is absent: what the types don't take so is tried
/// again without.
pub(super) fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    let first = match serde_json::from_slice(bytes) {
        Ok(parsed) => return Ok(parsed),
        Err(e) => e,
    };
    let Ok(mut value) = serde_json::from_slice::<Value>(bytes) else {
        return Err(first).doing(|| format!("parse {name}"));
    };
    without_nulls(&mut value);
    serde_json::from_value(value).map_err(|_| first).doing(|| format!("parse {name}"))
}

fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, v| !v.is_null());
            fields.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

impl Bundle {
    /// A detached mount of the root file system with all that is mounted below.
    pub(super) fn mount(&self) -> Result<OwnedFd> {
        let step = || format!("open root file system {}", self.rootfs.display());
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = rustix::fs::openat(CWD, &self.rootfs, flags, Mode::empty()).doing(step)?;
        let flags = OpenTreeFlags::OPEN_TREE_CLONE
            | OpenTreeFlags::OPEN_TREE_CLOEXEC
            | OpenTreeFlags::AT_EMPTY_PATH
            | OpenTreeFlags::AT_RECURSIVE;
        rustix::mount::open_tree(&folder, "", flags).doing(step)
    }
}
