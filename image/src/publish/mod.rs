//! The update repository: keys, metadata, signing (The Update Framework 1.0.33, consistent snapshots).
//!
//! - [`bundle`](mod@bundle): a release in one file
//! - [`files`]: durable files of a repository
//! - [`keys`]: role keys, and the root that names them
//! - [`metadata`]: reading what is published, signing what is to be
//! - [`rollout`]: who gets a release and when
//! - [`root`]: the next root: which keys count from now on
//! - [`signer`]: who signs: a key in a file, or a program that asks a hardware security module
//!
//! A repository is a folder that any static file server can offer: `N.root.json`, `N.snapshot.json`,
//! `N.targets.json`, `timestamp.json` and `targets/<sha256>.<name>`.

pub mod bundle;
mod files;
pub mod keys;
pub mod metadata;
pub mod rollout;
pub mod root;
pub mod signer;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use keel_spec::release::{Release, ReleaseFile};
use keel_spec::tuf::{Role, TargetFile, Targets};

use keys::Keys;
use metadata::{Expiry, Published};

/// Largest release description.
const MAX_DESCRIPTION_BYTES: u64 = 64 << 10;

/// `keel-image tuf-keys`: makes the keys that sign updates, and the first root metadata, where they are absent.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct KeysArguments {
    /// Folder of the workstation's keys
    #[arg(long, default_value = "build/keys")]
    pub keys: PathBuf,
    /// How many keys a role gets, with the first root: ROLE=N
    #[arg(long, value_parser = role_number)]
    pub count: Vec<(Role, u64)>,
    /// How many of a role's keys have to sign, with the first root: ROLE=N
    #[arg(long, value_parser = role_number)]
    pub threshold: Vec<(Role, u64)>,
}

/// `keel-image tuf-root`: signs the next root metadata, for the keys that are in the folder.
#[derive(Clone, Debug, clap::Args)]
pub struct RootArguments {
    /// Folder of the workstation's keys
    #[arg(long, default_value = "build/keys")]
    pub keys: PathBuf,
    /// Repository to publish it in; all that is published there is signed afresh
    #[arg(long)]
    pub repository: Option<PathBuf>,
    /// Replace the keys of a role by new ones; the old ones go to retired/
    #[arg(long, value_parser = role_name)]
    pub replace: Vec<Role>,
    /// How many of a role's keys have to sign from now on: ROLE=N
    #[arg(long, value_parser = role_number)]
    pub threshold: Vec<(Role, u64)>,
    /// Days for which the root is valid
    #[arg(long, default_value_t = root::ROOT_VALID_DAYS, allow_negative_numbers = true)]
    pub root_expires_days: i64,
    /// Days for which the list of releases is valid
    #[arg(long, default_value_t = 365, allow_negative_numbers = true)]
    pub expires_days: i64,
    /// Days for which hosts believe that this is the newest publication
    #[arg(long, default_value_t = 30, allow_negative_numbers = true)]
    pub timestamp_expires_days: i64,
}

fn role_name(text: &str) -> Result<Role, String> {
    Role::ALL.into_iter().find(|role| role.name() == text).ok_or("want root, timestamp, snapshot or targets".into())
}

fn role_number(text: &str) -> Result<(Role, u64), String> {
    let (role, number) = text.split_once('=').ok_or("want ROLE=N")?;
    match number.parse() {
        Ok(number @ 1..=16) => Ok((role_name(role)?, number)),
        _ => Err("want a number from 1 to 16".into()),
    }
}

/// `keel-image publish`: adds a release to an update repository and signs its metadata afresh.
#[derive(Clone, Debug, clap::Args)]
pub struct PublishArguments {
    /// Folder with the release: keel-PROFILE-VERSION.{json,root,verity,efi}
    #[arg(long, required_unless_present = "timestamp_only", conflicts_with = "timestamp_only")]
    pub release: Option<PathBuf>,
    /// Folder of the repository, made if absent
    #[arg(long)]
    pub repository: PathBuf,
    /// Folder of the workstation's keys
    #[arg(long, default_value = "build/keys")]
    pub keys: PathBuf,
    /// Only sign the timestamp afresh; run this regularly, more often than --timestamp-expires-days
    #[arg(long)]
    pub timestamp_only: bool,
    /// Days for which the list of releases is valid
    #[arg(long, default_value_t = 365, allow_negative_numbers = true)]
    pub expires_days: i64,
    /// Days for which hosts believe that this is the newest publication: whoever can hold files back from hosts can
    /// hide a newer release from them for that long
    #[arg(long, default_value_t = 30, allow_negative_numbers = true)]
    pub timestamp_expires_days: i64,
    /// Who gets the release and when
    #[command(flatten)]
    pub rollout: rollout::Change,
}

/// What a publication consists of.
#[derive(Debug)]
pub struct Summary {
    /// The releases added.
    pub releases: Vec<Release>,
    /// Versions of targets, snapshot and timestamp.
    pub versions: (u64, u64, u64),
}

/// Carries out `keel-image tuf-keys`.
pub fn tuf_keys(arguments: &KeysArguments) -> Result<()> {
    let of = |pairs: &[(Role, u64)]| pairs.iter().copied().collect();
    let made = keys::ensure(&arguments.keys, &of(&arguments.count), &of(&arguments.threshold))?;
    match made.is_empty() {
        true => println!("{}: all update keys and root.json are there already", arguments.keys.display()),
        false => println!("{}: made {}", arguments.keys.display(), made.join(", ")),
    }
    Ok(())
}

/// Carries out `keel-image tuf-root`; the new root's version.
pub fn tuf_root(arguments: &RootArguments) -> Result<u64> {
    for role in &arguments.replace {
        println!("{role}: made {}", keys::replace(&arguments.keys, *role)?.join(", "));
    }
    let threshold = arguments.threshold.iter().copied().collect();
    let change = root::Change { threshold, expires_days: arguments.root_expires_days };
    let version = Keys::load(&arguments.keys)?.put_new_root(&change)?;
    println!("{}: signed root {version}", arguments.keys.display());
    if let Some(repository) = &arguments.repository {
        let keys = Keys::load(&arguments.keys)?;
        let now = files::now_unix_s()?;
        let expiry = Expiry::from_days(now, arguments.expires_days, arguments.timestamp_expires_days);
        let before = Published::read(repository, &keys)?;
        keys.put_roots(repository)?;
        if before.targets.is_some() {
            list(repository, &keys, before, BTreeMap::new(), expiry)?;
        }
        println!("{}: published root {version}", repository.display());
    }
    Ok(version)
}

/// Carries out `keel-image publish`, and prints what was published.
pub fn publish(arguments: &PublishArguments) -> Result<Summary> {
    let now = files::now_unix_s()?;
    let expiry = Expiry::from_days(now, arguments.expires_days, arguments.timestamp_expires_days);
    let keys = Keys::load(&arguments.keys)?;
    let repository = &arguments.repository;
    std::fs::create_dir_all(repository.join("targets"))
        .with_context(|| format!("make the repository {}", repository.display()))?;
    keys.put_roots(repository)?;
    let before = Published::read(repository, &keys)?;
    let summary = match &arguments.release {
        None => refresh(repository, &keys, &before, expiry)?,
        Some(folder) => add(repository, &keys, before, folder, &arguments.rollout, expiry)?,
    };
    for release in &summary.releases {
        println!("published keel {} ({}) in {}", release.version, release.profile, repository.display());
    }
    let (targets, snapshot, timestamp) = summary.versions;
    println!(
        "targets {targets} and snapshot {snapshot} expire {}; timestamp {timestamp} expires {}",
        expiry.targets.for_people(),
        expiry.timestamp.for_people()
    );
    Ok(summary)
}

fn refresh(repository: &Path, keys: &Keys, before: &Published, expiry: Expiry) -> Result<Summary> {
    let Some(snapshot) = &before.snapshot else {
        bail!("{}: nothing is published there yet, so there is no timestamp to refresh", repository.display());
    };
    let timestamp = before.next_timestamp();
    metadata::write_timestamp(repository, keys, timestamp, &snapshot.1, snapshot.0, expiry)?;
    Ok(Summary { releases: Vec::new(), versions: (before.targets_version(), snapshot.0, timestamp) })
}

/// Files first, then the lists that name them, the timestamp last: a reader at any moment sees a whole publication.
fn add(
    repository: &Path,
    keys: &Keys,
    before: Published,
    folder: &Path,
    rollout: &rollout::Change,
    expiry: Expiry,
) -> Result<Summary> {
    let found = find_releases(folder)?;
    let mut added = BTreeMap::new();
    for release in &found {
        for file in release.files() {
            let name = file.target_name(&release.profile, &release.version);
            let mut target = put_target(repository, &folder.join(&name), &name)?;
            check_length(release, file, &name, target.length)?;
            if file == ReleaseFile::Description {
                // What was said of it when it was published before still holds.
                target.custom = before.custom(&name);
                rollout.put(&name, &mut target)?;
            }
            added.insert(name, target);
        }
    }
    let versions = list(repository, keys, before, added, expiry)?;
    Ok(Summary { releases: found, versions })
}

/// Signs and writes all lists afresh, with further targets; versions of targets, snapshot and timestamp.
fn list(
    repository: &Path,
    keys: &Keys,
    before: Published,
    added: BTreeMap<String, TargetFile>,
    expiry: Expiry,
) -> Result<(u64, u64, u64)> {
    let (targets, snapshot, timestamp) =
        (before.targets_version() + 1, before.snapshot_version() + 1, before.next_timestamp());
    let mut listed = before.targets.map(|(_, listed)| listed.targets).unwrap_or_default();
    listed.extend(added);
    let body = Targets {
        kind: Role::Targets,
        spec_version: keel_spec::tuf::SPEC_VERSION.into(),
        version: targets,
        expires: expiry.targets,
        targets: listed,
        delegations: None,
    };
    let bytes = keys.sign(Role::Targets, &body)?;
    files::write(&repository.join(format!("{targets}.targets.json")), &bytes)?;
    let bytes = metadata::write_snapshot(repository, keys, snapshot, targets, &bytes, expiry)?;
    metadata::write_timestamp(repository, keys, timestamp, &bytes, snapshot, expiry)?;
    Ok((targets, snapshot, timestamp))
}

/// The releases whose descriptions are in a folder.
fn find_releases(folder: &Path) -> Result<Vec<Release>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("look for a release in {}", folder.display()))? {
        let path = entry.with_context(|| format!("look for a release in {}", folder.display()))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if !name.starts_with("keel-") || !name.ends_with(".json") {
            continue;
        }
        let bytes = files::read(&path, MAX_DESCRIPTION_BYTES)?;
        let release: Release =
            serde_json::from_slice(&bytes).with_context(|| format!("read the description {}", path.display()))?;
        let expected = ReleaseFile::Description.target_name(&release.profile, &release.version);
        ensure!(name == expected, "{}: it describes {expected}", path.display());
        found.push(release);
    }
    ensure!(
        !found.is_empty(),
        "{}: no keel-PROFILE-VERSION.json there; build one with keel-image release",
        folder.display()
    );
    found.sort_by(|a, b| a.version.cmp(&b.version));
    Ok(found)
}

fn put_target(repository: &Path, from: &Path, name: &str) -> Result<TargetFile> {
    let (sha256, length) =
        files::copy_by_digest(from, &repository.join("targets"), name).with_context(|| format!("publish {name}"))?;
    Ok(TargetFile { length, hashes: BTreeMap::from([("sha256".to_owned(), sha256)]), custom: None })
}

fn check_length(release: &Release, file: ReleaseFile, name: &str, length: u64) -> Result<()> {
    let Some(expected) = release.file_bytes(file) else { return Ok(()) };
    ensure!(
        length == expected,
        "{name} is {length} bytes long, its description says {expected}: build the release anew"
    );
    Ok(())
}

#[cfg(test)]
mod tests;
