//! What a container shares with others beside networks: process IDs and IPC with its shared memory, the mounts of
//! `--volumes-from`; and what of this host's own it is lent, the program of `--init`.

use std::path::PathBuf;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerCreateBody, HostConfig, Mount, MountBindOptions, MountBindOptionsPropagationEnum, MountType,
    MountVolumeOptions,
};
use keel_oci::spec::{NamespaceKind, Spec};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use crate::container::Container;
use crate::disk::Config;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::plan::mounts::{self, Source};
use crate::plan::spec::shm_bytes;
use crate::plan::{bad, security};
use crate::reaper;

/// Folder of a container with the shared memory that it shares.
const SHM: &str = "shm";

impl Engine {
    /// The range of IDs that a new container has with those whose namespaces it shares; `None`: one of its own.
    pub(crate) fn shared_base(&self, body: &ContainerCreateBody) -> Result<Option<u32>, Error> {
        let Some(name) = security::shares_users_of(body)? else { return Ok(None) };
        let other = self.find(name)?;
        match other.config().uid_base {
            Some(base) => Ok(Some(base)),
            None => bad(format!(
                "container {name} has no user namespace of its own: to share its processes or IPC, use --userns=host"
            )),
        }
    }

    /// Has a container join the namespaces of others that it asks for.
    pub(crate) fn share_namespaces(&self, config: &Config, spec: &mut Spec) -> Result<(), Error> {
        let host = config.body.host_config.as_ref();
        let modes = [
            (NamespaceKind::Pid, "pid", host.and_then(|host| host.pid_mode.as_deref())),
            (NamespaceKind::Ipc, "ipc", host.and_then(|host| host.ipc_mode.as_deref())),
        ];
        for (kind, file, mode) in modes {
            let Some(name) = mode.and_then(|mode| mode.strip_prefix("container:")) else { continue };
            let other = self.find(name)?;
            let pid = running(&other, file)?;
            let own_users = spec.linux.namespaces.iter().any(|namespace| namespace.kind == NamespaceKind::User);
            if own_users && other.config().uid_base != config.uid_base {
                return Err(Error::Conflict(format!(
                    "container {name} was made anew since: make this one anew, too, to share its {file} namespace"
                )));
            }
            for namespace in &mut spec.linux.namespaces {
                if namespace.kind == kind {
                    namespace.path = Some(format!("/proc/{pid}/ns/{file}"));
                } else if namespace.kind == NamespaceKind::User {
                    // The kernel lets only a namespace's owner mount what belongs to it.
                    namespace.path = Some(format!("/proc/{pid}/ns/user"));
                }
            }
            if kind == NamespaceKind::Ipc {
                self.share_memory(&other, spec)?;
            }
        }
        match host.and_then(|host| host.ipc_mode.as_deref()) {
            Some("shareable") => {
                self.make_shared_memory(config)?;
                bind_memory(spec, self.containers_folder().join(&config.id).join(SHM));
            }
            // POSIX shared memory is files there, and no part of the namespace (shm_overview(7)).
            Some("host") => bind_memory(spec, "/dev/shm".into()),
            _ => {}
        }
        Ok(())
    }

    fn share_memory(&self, other: &Arc<Container>, spec: &mut Spec) -> Result<(), Error> {
        let config = other.config();
        if config.body.host_config.as_ref().and_then(|host| host.ipc_mode.as_deref()) != Some("shareable") {
            let name = &config.name;
            return bad(format!(
                "cannot join IPC of container {name}: non-shareable IPC (hint: use IpcMode:shareable)"
            ));
        }
        bind_memory(spec, other.folder.join(SHM));
        Ok(())
    }

    /// Mounts a container's shared memory on the host, where others find it.
    fn make_shared_memory(&self, config: &Config) -> Result<(), Error> {
        let path = self.containers_folder().join(&config.id).join(SHM);
        std::fs::create_dir_all(&path).doing(|| format!("making {}", path.display()))?;
        let _ = unmount(&path, UnmountFlags::DETACH);
        let (size, owner) = (shm_bytes(config)?, config.uid_base.unwrap_or(0));
        let options = format!("size={size},mode=1777,uid={owner},gid={owner}");
        let options = std::ffi::CString::new(options).doing(|| "wording mount options")?;
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
        mount("shm", &path, "tmpfs", flags, Some(options.as_c_str())).doing(|| format!("mounting {}", path.display()))
    }

    /// Takes a container's shared memory away, if it has some of that kind.
    pub(crate) fn clear_shared_memory(&self, container: &Container) {
        let path = container.folder.join(SHM);
        if path.exists() {
            let _ = unmount(&path, UnmountFlags::DETACH);
            let _ = std::fs::remove_dir(&path);
        }
    }

    /// Puts this host's own small first process before a container's, if that is asked for.
    pub(crate) fn add_init(&self, config: &Config, spec: &mut Spec) -> Result<(), Error> {
        if config.body.host_config.as_ref().is_none_or(|host| host.init != Some(true)) {
            return Ok(());
        }
        let program = match &self.options.oci_init {
            Some(program) => program.clone(),
            None => std::env::current_exe().doing(|| "finding this program, for --init")?,
        };
        spec.mounts.push(mounts::bind(&program.to_string_lossy(), reaper::PATH, true, false));
        spec.process.args.splice(0..0, [reaper::PATH.to_owned(), "--".to_owned()]);
        Ok(())
    }

    /// Adds the mounts of other containers that a new one asks for; its own go first.
    pub(crate) fn lend_mounts(&self, body: &mut ContainerCreateBody) -> Result<(), Error> {
        let asked = body.host_config.as_ref().and_then(|host| host.volumes_from.clone()).unwrap_or_default();
        for text in &asked {
            let (name, mode) = text.split_once(':').unwrap_or((text, "rw"));
            let read_only = match mode {
                "rw" | "z" | "Z" => false,
                "ro" => true,
                other => return bad(format!("invalid mode: {other:.40}: want ro or rw in --volumes-from {text:.80}")),
            };
            let other = self.find(name)?;
            let lent = mounts::planned(&other.config().body)?;
            let taken: Vec<String> = mounts::planned(body)?.into_iter().map(|mount| mount.target).collect();
            let host = body.host_config.get_or_insert_with(HostConfig::default);
            for mount in lent.into_iter().filter(|mount| !taken.contains(&mount.target)) {
                host.mounts.get_or_insert_default().extend(lend(mount, read_only));
            }
        }
        Ok(())
    }
}

/// The same mount for another container; memory isn't lent.
fn lend(planned: mounts::Planned, read_only: bool) -> Option<Mount> {
    let how = planned.how;
    let mut mount =
        Mount { target: Some(planned.target), read_only: Some(read_only || planned.read_only), ..Mount::default() };
    match planned.source {
        Source::Host { path, create } => {
            mount.typ = Some(MountType::BIND);
            mount.source = Some(path);
            mount.bind_options = Some(MountBindOptions {
                propagation: how.propagation.and_then(|word| word.parse::<MountBindOptionsPropagationEnum>().ok()),
                non_recursive: Some(how.non_recursive),
                read_only_non_recursive: Some(how.shallow_read_only),
                create_mountpoint: Some(create),
                ..MountBindOptions::default()
            });
        }
        Source::Volume(name) => {
            mount.typ = Some(MountType::VOLUME);
            mount.source = Some(name);
            mount.volume_options = Some(MountVolumeOptions {
                no_copy: Some(how.no_copy),
                subpath: how.subpath,
                ..MountVolumeOptions::default()
            });
        }
        Source::Anonymous | Source::Tmpfs(_) => return None,
    }
    Some(mount)
}

fn running(other: &Arc<Container>, what: &str) -> Result<u32, Error> {
    let state = other.state();
    state.pid.filter(|_| state.is_running()).ok_or_else(|| {
        Error::Conflict(format!("cannot join {} of a non running container: {}", what.to_uppercase(), other.id))
    })
}

fn bind_memory(spec: &mut Spec, source: PathBuf) {
    let target = "/dev/shm";
    if let Some(at) = spec.mounts.iter().position(|mount| mount.destination == target) {
        spec.mounts[at] = mounts::bind(&source.to_string_lossy(), target, false, false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lent_mounts_keep_how_they_are_and_may_become_read_only() {
        let json = r#"{"HostConfig":{"Mounts":[{"Type":"bind","Source":"/x","Target":"/a",
            "BindOptions":{"Propagation":"rslave"}},{"Type":"volume","Source":"data","Target":"/b","ReadOnly":true,
            "VolumeOptions":{"Subpath":"in"}},{"Type":"tmpfs","Target":"/c"}]}}"#;
        let planned = mounts::planned(&serde_json::from_str(json).unwrap()).unwrap();
        let lent: Vec<Mount> = planned.into_iter().filter_map(|mount| lend(mount, false)).collect();
        assert_eq!(lent.len(), 2, "memory isn't lent");
        let again = ContainerCreateBody {
            host_config: Some(HostConfig { mounts: Some(lent), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let again = mounts::planned(&again).unwrap();
        assert_eq!((again[0].how.propagation.as_deref(), again[0].read_only), (Some("rslave"), false));
        assert_eq!((again[1].how.subpath.as_deref(), again[1].read_only), (Some("in"), true));
        let first = lend(again[0].clone(), true).unwrap();
        assert_eq!(first.read_only, Some(true));
    }
}
