//! Volumes are made, shown and removed, in Docker's words; and containers' use of them.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use bollard_stubs::models::{Volume as Shown, VolumeCreateRequest, VolumeScopeEnum, VolumeUsageData};
use keel_volumes::{ANONYMOUS, Owners, Spec, Volume};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};

use crate::archive::open_folder;
use crate::clock;
use crate::disk::Config;
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::events::Subject;
use crate::id;
use crate::inside::changes;
use crate::inside::root::Root;
use crate::networks::{check_dangling, labels_fit};
use crate::plan::mounts::{self, Planned, Source};
use crate::plan::spec::IDS;

type Filters = HashMap<String, Vec<String>>;

/// Paths of the host by the places inside that they are mounted at; what is open has to stay so until that is done.
#[derive(Default)]
pub(crate) struct Sources {
    pub paths: BTreeMap<String, String>,
    open: Vec<OwnedFd>,
}

impl Sources {
    /// Has a container's mounts come from there.
    pub(crate) fn apply(&self, spec: &mut keel_oci::spec::Spec) {
        for mount in &mut spec.mounts {
            if let Some(path) = self.paths.get(&mount.destination) {
                mount.source = Some(path.clone());
            }
        }
    }
}

impl Engine {
    /// Makes a volume, or finds the one of that name.
    pub fn volume_create(&self, asked: VolumeCreateRequest) -> Result<Shown, Error> {
        if asked.cluster_volume_spec.is_some() {
            return Err(Error::BadParameter("cluster volumes are for swarms, which Keel does not serve".into()));
        }
        let name = asked.name.filter(|name| !name.is_empty());
        let mut labels: BTreeMap<_, _> = asked.labels.unwrap_or_default().into_iter().collect();
        if name.is_none() {
            labels.insert(ANONYMOUS.into(), String::new());
        }
        let spec = Spec {
            name: name.map_or_else(id::random, Ok)?,
            driver: asked.driver.unwrap_or_default(),
            options: asked.driver_opts.unwrap_or_default().into_iter().collect(),
            labels,
        };
        self.make_volume(spec).map(|made| self.shown(made))
    }

    /// Makes a volume, or finds the one of that name. Of two who make it at once both may tell of it.
    fn make_volume(&self, spec: Spec) -> Result<Volume, Error> {
        let known = self.volumes.get(&spec.name).is_ok();
        let made = self.volumes.create(spec).map_err(from_volumes)?;
        if !known {
            self.tell_of_volume(&made.name, "create", &[]);
        }
        Ok(made)
    }

    /// Removes a volume.
    fn drop_volume(&self, name: &str) -> Result<(), keel_volumes::Error> {
        self.volumes.remove(name)?;
        self.tell_of_volume(name, "destroy", &[]);
        Ok(())
    }

    /// All that is known of a volume.
    pub fn volume_inspect(&self, name: &str) -> Result<Shown, Error> {
        self.volumes.get(name).map(|volume| self.shown(volume)).map_err(from_volumes)
    }

    /// The volumes that pass all filters.
    pub fn volume_list(&self, filters: &Filters) -> Result<Vec<Shown>, Error> {
        if let Some(unknown) =
            filters.keys().find(|key| !matches!(key.as_str(), "name" | "label" | "label!" | "driver" | "dangling"))
        {
            return Err(Error::BadParameter(format!("invalid filter '{unknown}'")));
        }
        check_dangling(filters)?;
        let any = |key: &str, fits: &dyn Fn(&str) -> bool| {
            filters.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| fits(value)))
        };
        let users = self.volume_users();
        let fits = |volume: &Volume| {
            any("name", &|name| volume.name.contains(name))
                && any("driver", &|driver| driver == "local")
                && any("dangling", &|want| matches!(want, "true" | "1") != users.contains_key(&volume.name))
                && labels_fit(filters, &volume.labels)
        };
        Ok(self.volumes.list().into_iter().filter(fits).map(|volume| self.shown(volume)).collect())
    }

    /// All volumes with what each takes on disk and how many containers have it.
    pub fn volume_usage(&self) -> Vec<Shown> {
        let users = self.volume_users();
        let measured = |volume: Volume| {
            let size = i64::try_from(size_bytes(&self.volumes.mountpoint(&volume.name))).unwrap_or(i64::MAX);
            let ref_count = users.get(&volume.name).map_or(0, |users| i64::try_from(users.len()).unwrap_or(i64::MAX));
            Shown { usage_data: Some(VolumeUsageData { size, ref_count }), ..self.shown(volume) }
        };
        self.volumes.list().into_iter().map(measured).collect()
    }

    /// Removes a volume that no container has, running or not. With `force`, an absent one is fine.
    pub fn volume_remove(&self, name: &str, force: bool) -> Result<(), Error> {
        if let Some(users) = self.volume_users().get(name) {
            return Err(Error::Conflict(format!("remove {name}: volume is in use - [{}]", users.join(", "))));
        }
        match self.drop_volume(name) {
            Err(keel_volumes::Error::NotFound(_)) if force => Ok(()),
            other => other.map_err(from_volumes),
        }
    }

    /// Removes volumes that no container has: those without a name, with the filter `all` others, too. Their names, and
    /// the bytes that they took.
    pub fn volume_prune(&self, filters: &Filters) -> Result<(Vec<String>, u64), Error> {
        if let Some(unknown) = filters.keys().find(|key| !matches!(key.as_str(), "label" | "label!" | "all")) {
            return Err(Error::BadParameter(format!("invalid filter '{unknown}'")));
        }
        let all =
            filters.get("all").is_some_and(|values| values.iter().any(|value| matches!(value.as_str(), "true" | "1")));
        let users = self.volume_users();
        let (mut removed, mut freed) = (Vec::new(), 0);
        for volume in self.volumes.list() {
            let wanted = (all || volume.is_anonymous()) && labels_fit(filters, &volume.labels);
            if !wanted || users.contains_key(&volume.name) {
                continue;
            }
            let bytes = size_bytes(&self.volumes.mountpoint(&volume.name));
            if self.drop_volume(&volume.name).is_ok() {
                freed += bytes;
                removed.push(volume.name);
            }
        }
        self.tell_pruned(Subject::Volume, freed);
        Ok((removed, freed))
    }

    /// The containers that have a volume, by its name.
    fn volume_users(&self) -> HashMap<String, Vec<String>> {
        let mut users: HashMap<String, Vec<String>> = HashMap::new();
        for container in self.all() {
            for mount in mounts::planned(&container.config().body).unwrap_or_default() {
                if let Source::Volume(name) = mount.source {
                    users.entry(name).or_default().push(container.id.clone());
                }
            }
        }
        users
    }

    /// Removes volumes of a container that has gone, unless another has them.
    pub(crate) fn remove_volumes(&self, names: &[String], of: &str) -> Result<(), Error> {
        let users = self.volume_users();
        for name in names {
            let shared = users.get(name).is_some_and(|ids| ids.iter().any(|id| id != of));
            if shared {
                continue;
            }
            match self.drop_volume(name) {
                Ok(()) | Err(keel_volumes::Error::NotFound(_)) => {}
                Err(error) => return Err(from_volumes(error)),
            }
        }
        Ok(())
    }

    /// Makes the volumes that a new container names and that aren't there.
    pub(crate) fn make_volumes(&self, config: &Config) -> Result<(), Error> {
        for mount in mounts::planned(&config.body)? {
            let Source::Volume(name) = mount.source else { continue };
            let mut labels = mount.how.labels;
            if id::is_id(&name) {
                labels.insert(ANONYMOUS.into(), String::new());
            }
            let spec = Spec { name, driver: String::new(), options: mount.how.options, labels };
            self.make_volume(spec)?;
        }
        Ok(())
    }

    /// Makes what is to be mounted and isn't there, and finds where all of it is. With the container's `root`, volumes
    /// that are empty get the image's files.
    pub(crate) fn make_sources(&self, config: &Config, root: Option<BorrowedFd<'_>>) -> Result<Sources, Error> {
        let mut sources = Sources::default();
        let owners = config.uid_base.map(|base| (base, IDS));
        for mount in mounts::planned(&config.body)? {
            let path = match &mount.source {
                Source::Host { path, create } => host_path(path, *create)?,
                Source::Volume(name) => self.volume_path(name, &mount, root, owners, &mut sources)?,
                Source::Anonymous | Source::Tmpfs(_) => continue,
            };
            sources.paths.insert(mount.target, path);
        }
        Ok(sources)
    }

    fn volume_path(
        &self,
        name: &str,
        mount: &Planned,
        root: Option<BorrowedFd<'_>>,
        owners: Owners,
        sources: &mut Sources,
    ) -> Result<String, Error> {
        // One that was removed while its container was stopped is made anew, as Docker does.
        let spec = Spec { name: name.into(), ..Spec::default() };
        self.make_volume(spec)?;
        let path = self.volumes.source(name).map_err(from_volumes)?;
        let Some(subpath) = &mount.how.subpath else {
            if let Some(root) = root.filter(|_| !mount.how.no_copy) {
                self.volumes.fill(name, root, &mount.target, owners).map_err(from_volumes)?;
            }
            return Ok(path.to_string_lossy().into_owned());
        };
        let volume = fs::File::open(&path).doing(|| format!("opening volume {name}"))?;
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        // No link in the volume, which its containers write, leads out of it.
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        match openat2(&volume, subpath, flags, Mode::empty(), resolve) {
            Ok(inside) => {
                let path = format!("/proc/self/fd/{}", inside.as_raw_fd());
                sources.open.push(inside);
                Ok(path)
            }
            Err(error) => Err(Error::BadParameter(format!(
                "cannot access path {subpath} of volume {name}: {}",
                std::io::Error::from(error)
            ))),
        }
    }

    fn shown(&self, volume: Volume) -> Shown {
        Shown {
            driver: "local".into(),
            mountpoint: self.volumes.mountpoint(&volume.name).to_string_lossy().into_owned(),
            created_at: Some(clock::rfc3339_ms(Some(volume.created_unix_ms))),
            status: None,
            labels: volume.labels.into_iter().collect(),
            scope: Some(VolumeScopeEnum::LOCAL),
            cluster_volume: None,
            options: volume.options.into_iter().collect(),
            usage_data: None,
            name: volume.name,
        }
    }
}

/// A folder of the host; `create`: `-v` makes one that isn't there, `--mount` doesn't.
fn host_path(path: &str, create: bool) -> Result<String, Error> {
    if !Path::new(path).exists() {
        if !create {
            return Err(Error::BadParameter(format!(
                "invalid mount config for type \"bind\": bind source path does not exist: {path}"
            )));
        }
        fs::create_dir_all(path).doing(|| format!("making {path} for a mount"))?;
    }
    Ok(path.into())
}

/// What a folder and all below take, bytes; one that can't be read counts nothing.
fn size_bytes(folder: &Path) -> u64 {
    open_folder(folder).and_then(|folder| changes::size_bytes(&Root::new(folder, 0))).unwrap_or(0)
}

/// The volumes' error as ours.
pub(crate) fn from_volumes(error: keel_volumes::Error) -> Error {
    match error {
        keel_volumes::Error::NotFound(_) | keel_volumes::Error::NoDriver { .. } => Error::NotFound(error.to_string()),
        keel_volumes::Error::Conflict(text) => Error::Conflict(text),
        keel_volumes::Error::Invalid(text) => Error::BadParameter(text),
        error => Error::internal("using a volume", error),
    }
}
