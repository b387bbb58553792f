//! `create` and `rename`: a request is checked whole before anything exists.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerCreateBody, ContainerCreateResponse, HostConfig, Mount, MountType, MountVolumeOptions,
};
use keel_durable as durable;
use keel_store::ImageId;

use crate::clock;
use crate::container::Container;
use crate::disk::{Config, State, save};
use crate::engine::{Engine, named};
use crate::error::{Doing, Error};
use crate::health;
use crate::id;
use crate::plan::mounts::{self, Source};
use crate::plan::spec::{self, IDS, Surroundings};
use crate::plan::{merge, networks, ports, refuse, security, users};
use crate::restart::Policy;
use crate::signal;

/// First host ID that containers' user namespaces are given.
const FIRST_BASE: u32 = 1_000_000;
/// Most containers (each has its range of IDs).
const MAX_CONTAINERS: u32 = 32_768;

impl Engine {
    /// Creates a container. The image has to be in the store.
    pub fn create(&self, name: Option<&str>, mut body: ContainerCreateBody) -> Result<ContainerCreateResponse, Error> {
        let name = name.filter(|name| !name.is_empty()).map(id::check_name).transpose()?;
        refuse::check(&body)?;
        let wanted = body.image.clone().filter(|image| !image.is_empty());
        let wanted = wanted.ok_or_else(|| {
            Error::BadParameter("config cannot be empty in order to create a container: no image is named".into())
        })?;
        let image = self.store.image_to_run(&wanted).map_err(from_store)?;
        let mut warnings = Vec::new();
        merge::merge(&mut body, &image.config);
        networks::complete(&mut body)?;
        health::merge(&mut body, image.config.healthcheck.as_ref());
        name_anonymous_volumes(&mut body)?;
        self.lend_mounts(&mut body)?;
        let shared_base = self.shared_base(&body)?;
        let id = id::random()?;
        let config = Config {
            id: id.clone(),
            name: String::new(),
            created_unix_ns: clock::unix_ns(),
            image_id: image.id.to_string(),
            body,
            uid_base: shared_base,
        };
        self.validate(&config)?;
        let shares = security::shared_with_host(&config.body)?;
        let host = config.body.host_config.as_ref();
        if !shares.is_empty() && host.is_none_or(|host| host.userns_mode.as_deref() != Some("host")) {
            warnings.push("sharing a namespace of the host turns the container's own user namespace off".into());
        }
        self.make_volumes(&config)?;
        // A removal decides by the table, with the image records locked: it comes before this and is seen, or after.
        let container = self.store.while_there(&image.id, || self.enter_table(name, config)).map_err(from_store)??;
        self.tell_of(&container, "create", &[]);
        Ok(ContainerCreateResponse { id, warnings })
    }

    /// Makes the whole plan once, so that what is wrong is found now.
    fn validate(&self, config: &Config) -> Result<(), Error> {
        let body = &config.body;
        let policy = Policy::new(body.host_config.as_ref().and_then(|host| host.restart_policy.as_ref()))?;
        let auto_remove = body.host_config.as_ref().is_some_and(|host| host.auto_remove == Some(true));
        if auto_remove && policy != Policy::No {
            return Err(Error::BadParameter("can't create 'AutoRemove' container with restart policy".into()));
        }
        health::Check::new(body)?;
        if let Some(name) = body.stop_signal.as_deref().filter(|name| !name.is_empty()) {
            signal::number(name)?;
        }
        ports::published(body)?;
        self.check_networks(body)?;
        let folder = self.containers_folder().join(&config.id);
        let found = users::find("0", &[], b"", b"")?;
        let hostname = spec::hostname(config, &self.host_name)?;
        let volumes = self.volumes_folder();
        let around = Surroundings { folder: &folder, volumes: &volumes, hostname: &hostname, found: &found };
        spec::spec(config, &around).map(drop)
    }

    /// Gives it a name and a range of IDs that are free, and makes it durable. The table is locked over that, so that
    /// nobody else gets the same.
    fn enter_table(&self, name: Option<&str>, mut config: Config) -> Result<Arc<Container>, Error> {
        let mut table = self.table();
        config.name = match name {
            Some(name) => match named(&table, name) {
                Some(holder) => return Err(name_conflict(name, &holder.id)),
                None => name.into(),
            },
            None => id::random_name(&config.id, |name| named(&table, name).is_none()),
        };
        if config.uid_base.is_none() && security::security(&config.body)?.own_users {
            let used: HashSet<u32> = table.values().filter_map(|container| container.config().uid_base).collect();
            config.uid_base = Some(free_base(&used)?);
        }
        let folder = self.containers_folder().join(&config.id);
        let container = make_folder(&folder, &config)
            .and_then(|()| Container::open(&folder, config.clone(), State::default(), &self.link));
        let container = container.inspect_err(|_| {
            // What can't be removed now is found and removed at the next start: it has no valid state.
            let _ = fs::remove_dir_all(&folder);
        })?;
        table.insert(config.id, container.clone());
        Ok(container)
    }

    /// Gives a container another name.
    pub fn rename(&self, wanted: &str, name: &str) -> Result<(), Error> {
        let container = self.find(wanted)?;
        let name = id::check_name(name)?;
        let _gate = container.enter();
        let table = self.table();
        if let Some(holder) = named(&table, name) {
            if holder.id == container.id {
                return Err(Error::BadParameter("Renaming a container with the same name as its current name".into()));
            }
            return Err(name_conflict(name, &holder.id));
        }
        let before = container.config();
        container.set_config(Config { name: name.into(), ..Config::clone(&before) })?;
        drop(table);
        self.tell_of(&container, "rename", &[("oldName", format!("/{}", before.name))]);
        Ok(())
    }
}

fn make_folder(folder: &std::path::Path, config: &Config) -> Result<(), Error> {
    fs::create_dir(folder).doing(|| format!("making {}", folder.display()))?;
    save(&folder.join("state.json"), &State::default())?;
    save(&folder.join("config.json"), config)?;
    let parent = folder.parent().unwrap_or(folder);
    durable::sync_folder(parent).doing(|| format!("syncing {}", parent.display()))
}

fn name_conflict(name: &str, holder: &str) -> Error {
    Error::Conflict(format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{holder}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    ))
}

/// The lowest range of IDs that nobody has.
fn free_base(used: &HashSet<u32>) -> Result<u32, Error> {
    let range = |index: u32| FIRST_BASE + index * IDS;
    (0..MAX_CONTAINERS)
        .map(range)
        .find(|base| !used.contains(base))
        .ok_or_else(|| Error::Conflict(format!("there are {MAX_CONTAINERS} containers already; remove some")))
}

/// The store's error as ours.
pub(crate) fn from_store(error: keel_store::Error) -> Error {
    match error.kind() {
        keel_store::error::Kind::NotFound => Error::NotFound(error.to_string()),
        keel_store::error::Kind::Conflict => Error::Conflict(error.to_string()),
        keel_store::error::Kind::BadParameter | keel_store::error::Kind::Forbidden => {
            Error::BadParameter(error.to_string())
        }
        keel_store::error::Kind::Internal => Error::internal("using the image store", error),
    }
}

/// The image's ID as the store wants it.
pub(crate) fn image_id(config: &Config) -> Result<ImageId, Error> {
    config.image_id.parse().map_err(|_| Error::NotFound(format!("No such image: {}", config.image_id)))
}

/// Turns volumes without a name into volumes with a random one, labelled as the container's own by its 64 digits.
fn name_anonymous_volumes(body: &mut ContainerCreateBody) -> Result<(), Error> {
    let anonymous: Vec<_> =
        mounts::planned(body)?.into_iter().filter(|mount| mount.source == Source::Anonymous).collect();
    if anonymous.is_empty() {
        return Ok(());
    }
    let host = body.host_config.get_or_insert_with(HostConfig::default);
    let nameless =
        |mount: &Mount| mount.typ == Some(MountType::VOLUME) && mount.source.as_ref().is_none_or(String::is_empty);
    host.binds.iter_mut().for_each(|binds| binds.retain(|bind| bind.contains(':')));
    host.mounts.iter_mut().for_each(|list| list.retain(|mount| !nameless(mount)));
    body.volumes = None;
    for mount in anonymous {
        host.mounts.get_or_insert_default().push(Mount {
            target: Some(mount.target),
            source: Some(id::random()?),
            typ: Some(MountType::VOLUME),
            read_only: Some(mount.read_only),
            volume_options: Some(MountVolumeOptions {
                no_copy: Some(mount.how.no_copy),
                labels: Some(mount.how.labels.into_iter().collect()),
                ..Default::default()
            }),
            ..Default::default()
        });
    }
    Ok(())
}

/// Names of a container's anonymous volumes.
pub(crate) fn anonymous_volumes(container: &Arc<Container>) -> Vec<String> {
    let planned = mounts::planned(&container.config().body).unwrap_or_default();
    let name = |source: Source| match source {
        Source::Volume(name) if id::is_id(&name) => Some(name),
        _ => None,
    };
    planned.into_iter().filter_map(|mount| name(mount.source)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn id_ranges_are_reused_and_never_shared() {
        assert_eq!(free_base(&HashSet::new()).unwrap(), FIRST_BASE);
        assert_eq!(free_base(&[FIRST_BASE, FIRST_BASE + 2 * IDS].into()).unwrap(), FIRST_BASE + IDS);
        assert!(free_base(&(0..MAX_CONTAINERS).map(|n| FIRST_BASE + n * IDS).collect()).is_err());
    }

    #[test]
    fn anonymous_volumes_get_names() {
        let json = r#"{"Volumes":["/a"],"HostConfig":{"Binds":["/b","/x:/c"]}}"#;
        let mut body: ContainerCreateBody = serde_json::from_str(&json.replace(r#"["/a"]"#, r#"{"/a":{}}"#)).unwrap();
        name_anonymous_volumes(&mut body).unwrap();
        let planned = mounts::planned(&body).unwrap();
        assert_eq!(planned.len(), 3);
        assert!(planned.iter().all(|mount| mount.source != Source::Anonymous));
    }
}
