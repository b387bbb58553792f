//! All of it as one OCI configuration.

use std::path::{Path, PathBuf};

use bollard_stubs::models::HostConfig;
use keel_oci::spec::{IdMapping, Linux, Mount, NamespaceKind, Root, Seccomp, Spec};
use keel_oci::{defaults, seccomp};

use super::mounts::{self, Planned, Source};
use super::users::Found;
use super::{bad, process, resources, security, sysctls};
use crate::disk::Config;
use crate::error::Error;

/// How many IDs a container's user namespace has.
pub const IDS: u32 = 65_536;
/// Default size of `/dev/shm`, bytes.
const SHM_BYTES: i64 = 64 * 1024 * 1024;

/// What is known at the start alone.
pub struct Surroundings<'a> {
    /// Folder that has `hosts`, `hostname` and `resolv.conf`.
    pub folder: &'a Path,
    /// Folder of the volumes.
    pub volumes: &'a Path,
    /// Host name inside.
    pub hostname: &'a str,
    /// The user to run as.
    pub found: &'a Found,
}

/// The container's host name: what was asked for, or the beginning of its ID.
pub fn hostname(config: &Config, host: &str) -> Result<String, Error> {
    let shares_host = security::shared_with_host(&config.body)?.contains(&NamespaceKind::Network);
    let name = match config.body.hostname.as_deref().filter(|name| !name.is_empty()) {
        Some(name) => name,
        None if shares_host => host,
        None => config.id.get(..12).unwrap_or(&config.id),
    };
    let fine = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    if name.len() > 63 || !name.bytes().all(fine) {
        return bad(format!("invalid hostname: {name:.80}"));
    }
    Ok(name.into())
}

/// The OCI configuration of a container.
pub fn spec(config: &Config, around: &Surroundings<'_>) -> Result<Spec, Error> {
    let body = &config.body;
    let default = HostConfig::default();
    let host = body.host_config.as_ref().unwrap_or(&default);
    let security = security::security(body)?;
    let mapped = config.uid_base.is_some();
    let mut spec = Spec {
        oci_version: "1.2.0".into(),
        root: Some(Root { path: "rootfs".into(), readonly: host.readonly_rootfs == Some(true) }),
        mounts: all_mounts(config, around, security.privileged)?,
        process: process::process(body, around.hostname, around.found, &security)?,
        ..Default::default()
    };
    if security.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::Uts) {
        spec.hostname = Some(around.hostname.into());
        spec.domainname = body.domainname.clone().filter(|name| !name.is_empty());
    }
    spec.annotations.extend(host.annotations.clone().unwrap_or_default());
    let own = |list: &Option<Vec<String>>, usual: &[&str]| match list {
        Some(list) => list.clone(),
        None if security.privileged => Vec::new(),
        None => usual.iter().map(|path| (*path).into()).collect(),
    };
    let mapping = config.uid_base.map(|base| IdMapping { container_id: 0, host_id: base, size: IDS });
    debug_assert!(!mapped || security.own_users);
    spec.linux = Linux {
        masked_paths: own(&host.masked_paths, &defaults::MASKED_PATHS),
        readonly_paths: own(&host.readonly_paths, &defaults::READONLY_PATHS),
        seccomp: filter(&security)?,
        namespaces: security.namespaces,
        uid_mappings: mapping.into_iter().collect(),
        gid_mappings: mapping.into_iter().collect(),
        resources: Some(resources::resources(host)?),
        sysctl: sysctls::asked(host)?,
        ..Default::default()
    };
    Ok(spec)
}

/// The system call filter: the client's, or the default one.
fn filter(security: &security::Security) -> Result<Option<Seccomp>, Error> {
    if !security.filtered {
        return Ok(None);
    }
    let capabilities = &security.capabilities;
    let Some(profile) = &security.profile else { return Ok(Some(seccomp::default_profile(capabilities))) };
    super::seccomp::read(profile, &super::seccomp::Around { capabilities, kernel: super::seccomp::kernel() }).map(Some)
}

/// Size of a container's shared memory.
pub fn shm_bytes(config: &Config) -> Result<i64, Error> {
    let host = config.body.host_config.as_ref();
    match host.and_then(|host| host.shm_size).filter(|size| *size != 0).unwrap_or(SHM_BYTES) {
        size if size < 0 => bad("SHM size can not be less than 0"),
        size => Ok(size),
    }
}

/// Usual mounts, the three files of `/etc`, then what was asked for; a target that was asked for replaces a usual one.
fn all_mounts(config: &Config, around: &Surroundings<'_>, privileged: bool) -> Result<Vec<Mount>, Error> {
    let planned = mounts::planned(&config.body)?;
    let shm = shm_bytes(config)?;
    let mut all = defaults::mounts();
    if config.body.host_config.as_ref().is_some_and(|host| host.ipc_mode.as_deref() == Some("none")) {
        all.retain(|mount| mount.destination != "/dev/shm");
    }
    for mount in &mut all {
        if mount.destination == "/dev/shm" {
            mount.options.retain(|option| !option.starts_with("size="));
            mount.options.push(format!("size={shm}"));
        }
        if privileged && mount.destination.starts_with("/sys") {
            mount.options.retain(|option| option != "ro");
        }
    }
    for file in ["resolv.conf", "hostname", "hosts"] {
        let source = around.folder.join(file);
        // Owned by the container's root on the host already, so it needs no mapping.
        all.push(mounts::bind(&source.to_string_lossy(), &format!("/etc/{file}"), false, false));
    }
    all.retain(|usual| !planned.iter().any(|asked| asked.target == usual.destination));
    for mount in &planned {
        all.push(one_mount(config, around, mount));
    }
    Ok(all)
}

fn one_mount(config: &Config, around: &Surroundings<'_>, mount: &Planned) -> Mount {
    let mapped = config.uid_base.is_some();
    let bind = |source: PathBuf| {
        let mut made = mounts::bind(&source.to_string_lossy(), &mount.target, mount.read_only, mapped);
        mounts::adapt(&mut made, &mount.how);
        made
    };
    match &mount.source {
        Source::Host { path, .. } => bind(path.into()),
        Source::Volume(name) => bind(mounts::volume_folder(around.volumes, name)),
        // Named when the container was created; `create` replaces these before anything is stored.
        Source::Anonymous => bind(mounts::volume_folder(around.volumes, &config.id)),
        Source::Tmpfs(options) => {
            let mut options = options.clone();
            options.push(if mount.read_only { "ro".into() } else { "rw".into() });
            Mount {
                destination: mount.target.clone(),
                kind: Some("tmpfs".into()),
                source: Some("tmpfs".into()),
                options,
                ..Mount::default()
            }
        }
    }
}
