//! Binds, volumes and tmpfs.

use std::collections::BTreeMap;
use std::path::Path;

use bollard_stubs::models::{
    ContainerCreateBody, HostConfig, Mount as Asked, MountBindOptionsPropagationEnum, MountType,
};
use keel_oci::spec::Mount;

use super::bad;
use crate::error::Error;
use crate::id;

/// Most mounts of one container.
const MAX_MOUNTS: usize = 256;

/// What lies behind a mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path of the host; made as a folder if absent and `create`.
    Host {
        /// The path.
        path: String,
        /// `-v` makes it, `--mount` doesn't.
        create: bool,
    },
    /// A volume by name.
    Volume(String),
    /// A volume of the container's own, named at its creation and removed with it on `--rm` or `rm -v`.
    Anonymous,
    /// Memory, with mount options.
    Tmpfs(Vec<String>),
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Planned {
    /// What lies behind it.
    pub source: Source,
    /// Where it is inside.
    pub target: String,
    /// Whether it is read-only.
    pub read_only: bool,
    /// How else it is to be mounted.
    pub how: How,
}

/// What few mounts ask for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct How {
    /// Propagation, in mount(8)'s words; `None`: private.
    pub propagation: Option<String>,
    /// What is mounted below the source stays out.
    pub non_recursive: bool,
    /// Read-only, but not what is mounted below.
    pub shallow_read_only: bool,
    /// A volume that is empty stays so, whatever the image has there.
    pub no_copy: bool,
    /// The part of a volume that is mounted.
    pub subpath: Option<String>,
    /// Labels of a volume that is made for it.
    pub labels: BTreeMap<String, String>,
    /// Its driver's options.
    pub options: BTreeMap<String, String>,
}

/// All mounts asked for, those nearer to the root first. Two on one target are refused.
pub fn planned(body: &ContainerCreateBody) -> Result<Vec<Planned>, Error> {
    let default = HostConfig::default();
    let host = body.host_config.as_ref().unwrap_or(&default);
    let mut all = Vec::new();
    for bind in host.binds.iter().flatten() {
        all.push(from_bind(bind)?);
    }
    for mount in host.mounts.iter().flatten() {
        all.push(from_mount(mount)?);
    }
    for (target, options) in host.tmpfs.iter().flatten() {
        all.push(from_tmpfs(target, options)?);
    }
    for target in body.volumes.iter().flatten() {
        let target = check_target(target)?;
        if !all.iter().any(|known: &Planned| known.target == target) {
            all.push(Planned { source: Source::Anonymous, target, read_only: false, how: How::default() });
        }
    }
    all.sort_by(|a, b| (depth(&a.target), &a.target).cmp(&(depth(&b.target), &b.target)));
    if let Some(pair) = all.windows(2).find(|pair| pair[0].target == pair[1].target) {
        return bad(format!("Duplicate mount point: {}", pair[0].target));
    }
    if all.len() > MAX_MOUNTS {
        return bad(format!("more than {MAX_MOUNTS} mounts"));
    }
    Ok(all)
}

fn depth(path: &str) -> usize {
    path.bytes().filter(|byte| *byte == b'/').count()
}

/// `-v source:target[:options]`, or `target` alone.
fn from_bind(bind: &str) -> Result<Planned, Error> {
    let mut parts = bind.splitn(3, ':');
    let (source, target, options) = match (parts.next(), parts.next(), parts.next()) {
        (Some(target), None, None) => ("", target, ""),
        (Some(source), Some(target), options) => (source, target, options.unwrap_or_default()),
        _ => return bad(format!("invalid volume specification: '{bind}'")),
    };
    let (mut read_only, mut how) = (false, How::default());
    for option in options.split(',').filter(|option| !option.is_empty()) {
        match option {
            "ro" => read_only = true,
            "nocopy" => how.no_copy = true,
            "shared" | "rshared" | "slave" | "rslave" if source.starts_with('/') => {
                how.propagation = Some(option.into());
            }
            // `z` and `Z` are for SELinux, which isn't there; private propagation is what is done anyway, and how far a
            // mount may lag behind its source is a matter of Docker's virtual machines.
            "rw" | "z" | "Z" | "rprivate" | "private" | "cached" | "delegated" | "consistent" => {}
            other => return bad(format!("option {other} of '{bind}' isn't supported yet")),
        }
    }
    let source = match source {
        "" => Source::Anonymous,
        path if path.starts_with('/') => Source::Host { path: check_path(path)?, create: true },
        name => Source::Volume(check_volume(name)?),
    };
    Ok(Planned { source, target: check_target(target)?, read_only, how })
}

fn from_mount(mount: &Asked) -> Result<Planned, Error> {
    let target = check_target(mount.target.as_deref().unwrap_or_default())?;
    let source = mount.source.as_deref().unwrap_or_default();
    let mut how = How::default();
    let source = match mount.typ {
        Some(MountType::BIND) => {
            let options = mount.bind_options.clone().unwrap_or_default();
            use MountBindOptionsPropagationEnum as Propagation;
            how.propagation = match options.propagation {
                None | Some(Propagation::EMPTY | Propagation::PRIVATE | Propagation::RPRIVATE) => None,
                Some(other) => Some(other.to_string()),
            };
            how.non_recursive = options.non_recursive == Some(true);
            // Kernels that can't do it recursively are none of ours, so forcing it changes nothing.
            how.shallow_read_only = options.read_only_non_recursive == Some(true);
            if how.shallow_read_only && options.read_only_force_recursive == Some(true) {
                return bad(format!(
                    "mount {target}: ReadOnlyNonRecursive and ReadOnlyForceRecursive exclude each other"
                ));
            }
            Source::Host { path: check_path(source)?, create: options.create_mountpoint == Some(true) }
        }
        Some(MountType::VOLUME) => {
            let options = mount.volume_options.clone().unwrap_or_default();
            let config = options.driver_config.unwrap_or_default();
            if !matches!(config.name.as_deref(), None | Some("" | "local")) {
                return bad(format!("mount {target}: there is no volume driver but local"));
            }
            how.no_copy = options.no_copy == Some(true);
            how.labels = options.labels.unwrap_or_default().into_iter().collect();
            how.options = config.options.unwrap_or_default().into_iter().collect();
            how.subpath = options.subpath.filter(|path| !path.is_empty());
            if how.subpath.as_ref().is_some_and(|path| path.starts_with('/') || path.split('/').any(|p| p == "..")) {
                return bad(format!("mount {target}: a subpath must be relative and stay inside the volume"));
            }
            if source.is_empty() { Source::Anonymous } else { Source::Volume(check_volume(source)?) }
        }
        Some(MountType::TMPFS) => {
            let options = mount.tmpfs_options.clone().unwrap_or_default();
            let mut words = tmpfs_defaults();
            words.extend(options.size_bytes.filter(|size| *size > 0).map(|size| format!("size={size}")));
            words.extend(options.mode.filter(|mode| *mode > 0).map(|mode| format!("mode={mode:o}")));
            let listed = options.options.unwrap_or_default().into_iter().map(|pair| pair.join("="));
            return from_tmpfs(&target, &words.into_iter().chain(listed).collect::<Vec<_>>().join(","))
                .map(|planned| Planned { read_only: planned.read_only || mount.read_only == Some(true), ..planned });
        }
        ref other => {
            return bad(format!("mount type {} isn't supported", other.map_or(String::new(), |t| t.to_string())));
        }
    };
    Ok(Planned { source, target, read_only: mount.read_only == Some(true), how })
}

fn tmpfs_defaults() -> Vec<String> {
    ["nosuid", "nodev", "noexec"].map(String::from).to_vec()
}

/// `--tmpfs target[:options]`.
fn from_tmpfs(target: &str, options: &str) -> Result<Planned, Error> {
    let mut words = tmpfs_defaults();
    let mut read_only = false;
    for option in options.split(',').filter(|option| !option.is_empty()) {
        let key = option.split('=').next().unwrap_or_default();
        match key {
            "ro" => read_only = true,
            "rw" => read_only = false,
            "exec" | "suid" | "dev" => words.retain(|word| *word != format!("no{key}")),
            "noexec" | "nosuid" | "nodev" => {
                if !words.iter().any(|word| word == option) {
                    words.push(option.into());
                }
            }
            "size" | "mode" | "uid" | "gid" | "nr_inodes" | "nr_blocks" | "noatime" | "relatime" | "nodiratime"
            | "strictatime" | "sync" => words.push(option.into()),
            _ => return bad(format!("tmpfs option {option} of {target} isn't supported")),
        }
    }
    Ok(Planned { source: Source::Tmpfs(words), target: check_target(target)?, read_only, how: How::default() })
}

fn check_target(target: &str) -> Result<String, Error> {
    let path = check_path(target)?;
    if path == "/" {
        return bad("invalid mount: destination can't be '/'");
    }
    Ok(path)
}

/// An absolute path without `..`, slashes at its end taken off.
fn check_path(path: &str) -> Result<String, Error> {
    if !path.starts_with('/') {
        return bad(format!("invalid mount path: '{path}' mount path must be absolute"));
    }
    if path.len() > 4095 || path.contains('\0') || path.split('/').any(|part| part == "..") {
        return bad(format!("invalid mount path: '{path}'"));
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Ok(format!("/{}", parts.join("/")))
}

/// A volume's name follows the rule of containers' names.
fn check_volume(name: &str) -> Result<String, Error> {
    id::check_name(name).map(String::from).or_else(|_| {
        bad(format!(
            "\"{name}\" includes invalid characters for a local volume name, only \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are \
             allowed. If you intended to pass a host directory, use absolute path"
        ))
    })
}

/// The folder of a volume's files.
pub fn volume_folder(volumes: &Path, name: &str) -> std::path::PathBuf {
    volumes.join(name).join("_data")
}

/// Adds to a bind mount what few ask for.
pub fn adapt(mount: &mut Mount, how: &How) {
    for word in &mut mount.options {
        match word.as_str() {
            "rprivate" => word.clone_from(how.propagation.as_ref().unwrap_or(&"rprivate".into())),
            "rbind" if how.non_recursive => *word = "bind".into(),
            // Docker's meaning of read-only since its API 1.44.
            "ro" if !how.shallow_read_only && !how.non_recursive => *word = "rro".into(),
            _ => {}
        }
    }
}

/// A bind mount for `keel_oci`. `mapped`: through the container's user mapping, so that its files keep the IDs that
/// they have on the host.
pub fn bind(source: &str, target: &str, read_only: bool, mapped: bool) -> Mount {
    let mut options = vec!["rbind".to_owned(), "rprivate".into()];
    options.push(if read_only { "ro".into() } else { "rw".into() });
    if mapped {
        options.push("idmap".into());
    }
    Mount {
        destination: target.into(),
        kind: Some("bind".into()),
        source: Some(source.into()),
        options,
        ..Mount::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_few_ask_for_reaches_the_mount() {
        let json = r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/x","Target":"/a","ReadOnly":true,
            "BindOptions":{"Propagation":"rslave"}},{"Type":"volume","Source":"data","Target":"/b",
            "VolumeOptions":{"NoCopy":true,"Subpath":"in/side","Labels":{"k":"v"}}}]}}"#;
        let all = planned(&serde_json::from_str(json).unwrap()).unwrap();
        let mut mount = bind("/x", "/a", all[0].read_only, false);
        adapt(&mut mount, &all[0].how);
        assert_eq!(mount.options, ["rbind", "rslave", "rro"]);
        assert!(all[1].how.no_copy && all[1].how.labels["k"] == "v");
        assert_eq!(all[1].how.subpath.as_deref(), Some("in/side"));
        let leading_out = json.replace("in/side", "../side");
        assert!(planned(&serde_json::from_str(&leading_out).unwrap()).is_err());
    }

    #[test]
    fn binds_volumes_and_options_are_told_apart() {
        let host = from_bind("/srv//data/:/data/:ro").unwrap();
        assert_eq!(host.source, Source::Host { path: "/srv/data".into(), create: true });
        assert_eq!((host.target.as_str(), host.read_only), ("/data", true));
        assert_eq!(from_bind("db:/data").unwrap().source, Source::Volume("db".into()));
        assert_eq!(from_bind("/data").unwrap().source, Source::Anonymous);
        for consistency in ["cached", "delegated", "consistent", "ro,cached"] {
            assert!(from_bind(&format!("/srv:/data:{consistency}")).is_ok(), "{consistency}");
        }
        let tmpfs = from_tmpfs("/t", "strictatime,nodiratime,sync,relatime").unwrap().source;
        assert!(matches!(tmpfs, Source::Tmpfs(words) if words.ends_with(&["sync".into(), "relatime".into()])));
    }

    #[test]
    fn paths_that_lead_elsewhere_are_refused() {
        for bind in ["/a:b", "/a:/", "/a:/b/../c", "../a:/b", "a/b:/c", "/a:/b:odd", "v:/b:rshared", ""] {
            assert!(from_bind(bind).is_err(), "{bind}");
        }
    }

    #[test]
    fn mounts_nearer_to_the_root_come_first_and_once() {
        let body: ContainerCreateBody =
            serde_json::from_str(r#"{"HostConfig":{"Binds":["/x:/a/b/c","/y:/a"],"Tmpfs":{"/a/b":"size=1m,exec"}}}"#)
                .unwrap();
        let all = planned(&body).unwrap();
        assert_eq!(all.iter().map(|m| m.target.as_str()).collect::<Vec<_>>(), ["/a", "/a/b", "/a/b/c"]);
        assert_eq!(all[1].source, Source::Tmpfs(vec!["nosuid".into(), "nodev".into(), "size=1m".into()]));
        let twice: ContainerCreateBody =
            serde_json::from_str(r#"{"HostConfig":{"Binds":["/x:/a","/y:/a/"]}}"#).unwrap();
        assert!(planned(&twice).unwrap_err().to_string().contains("Duplicate mount point: /a"));
    }
}
