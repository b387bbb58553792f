//! `keel-image bundle`: a release of a repository in one file, for hosts that reach no repository.
//!
//! It holds the repository's own metadata, as they are signed: no key is needed for it, and hosts check it as they check
//! the repository.

use std::fs::File;
use std::io::{Read as _, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow, ensure};
use keel_spec::bundle::{self, INFO_NAME, Info};
use keel_spec::release::{ReleaseFile, Version};
use keel_spec::tuf::{Envelope, Metadata, Role, Snapshot, TargetFile, Targets, Time, Timestamp};
use ring::digest;

use super::files;

/// `keel-image bundle`: puts a published release into one file.
#[derive(Clone, Debug, clap::Args)]
pub struct BundleArguments {
    /// Folder of the repository
    #[arg(long)]
    pub repository: PathBuf,
    /// File to write
    #[arg(long)]
    pub out: PathBuf,
    /// The release's version (default: the newest)
    #[arg(long)]
    pub version: Option<Version>,
    /// The release's profile
    #[arg(long, default_value = "cloud")]
    pub profile: String,
}

/// What a bundle is made of: the small files as they are, targets by their place in the repository.
struct Parts {
    info: Info,
    metadata: Vec<(String, Vec<u8>)>,
    targets: Vec<(String, TargetFile)>,
    expires: Time,
}

/// Carries out `keel-image bundle`, and prints what was made.
pub fn bundle(arguments: &BundleArguments) -> Result<Info> {
    let parts = gather(arguments)?;
    let folder = arguments.out.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let attempt = || -> Result<u64> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        write(&parts, &arguments.repository, &mut file)?;
        let length = file.as_file().metadata()?.len();
        ensure!(length <= bundle::MAX_BYTES, "it would be longer than {} bytes", bundle::MAX_BYTES);
        files::finish(file, &arguments.out)?;
        Ok(length)
    };
    let length = attempt().with_context(|| format!("write the bundle {}", arguments.out.display()))?;
    let info = parts.info;
    println!("{}: keel {} ({}), {length} bytes", arguments.out.display(), info.version, info.profile);
    println!(
        "hosts accept it until its timestamp expires, {}; keel-image publish --timestamp-only signs one for longer",
        parts.expires.for_people()
    );
    Ok(info)
}

fn gather(arguments: &BundleArguments) -> Result<Parts> {
    let repository = &arguments.repository;
    let (timestamp, signed): (_, Timestamp) = read_role(repository, "timestamp.json", Role::Timestamp)?;
    let listed =
        |file: Option<u64>, name: &str| file.ok_or_else(|| anyhow!("{}: no {name} is listed", repository.display()));
    let snapshot = listed(signed.meta.get("snapshot.json").map(|file| file.version), "snapshot.json")?;
    let snapshot = format!("{snapshot}.snapshot.json");
    let (snapshot_bytes, listing): (_, Snapshot) = read_role(repository, &snapshot, Role::Snapshot)?;
    let targets = listed(listing.meta.get("targets.json").map(|file| file.version), "targets.json")?;
    let targets = format!("{targets}.targets.json");
    let (targets_bytes, published): (_, Targets) = read_role(repository, &targets, Role::Targets)?;
    let version = choose(arguments, &published)?;
    let info = Info { version, profile: arguments.profile.clone() };
    let mut metadata = vec![(INFO_NAME.to_owned(), serde_json::to_vec(&info)?)];
    for number in 1.. {
        let name = format!("{number}.root.json");
        let path = repository.join(&name);
        if !path.exists() {
            break;
        }
        metadata.push((name, files::read(&path, Role::Root.max_bytes())?));
    }
    ensure!(metadata.len() > 1, "{}: it has no 1.root.json", repository.display());
    metadata.extend([("timestamp.json".to_owned(), timestamp), (snapshot, snapshot_bytes), (targets, targets_bytes)]);
    let targets = release_files(&info, &published)?;
    ensure!(metadata.len() + targets.len() <= bundle::MAX_FILES, "{}: it has too many roots", repository.display());
    Ok(Parts { info, metadata, targets, expires: signed.expires })
}

fn read_role<T: Metadata>(repository: &Path, name: &str, role: Role) -> Result<(Vec<u8>, T)> {
    let path = repository.join(name);
    let bytes = files::read(&path, role.max_bytes())?;
    let read = Envelope::parse(role, &bytes).and_then(|envelope| envelope.read());
    Ok((bytes, read.map_err(|error| anyhow!("{} {error}", path.display()))?))
}

fn choose(arguments: &BundleArguments, published: &Targets) -> Result<Version> {
    let prefix = format!("keel-{}-", arguments.profile);
    let version = |name: &String| name.strip_prefix(&prefix)?.strip_suffix(".json")?.parse::<Version>().ok();
    let mut versions: Vec<Version> = published.targets.keys().filter_map(version).collect();
    versions.sort();
    let wanted = match &arguments.version {
        Some(wanted) => versions.contains(wanted).then(|| wanted.clone()),
        None => versions.last().cloned(),
    };
    wanted.with_context(|| {
        let known = versions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        format!(
            "{}: there is no such release of profile {}; there are: {known}",
            arguments.repository.display(),
            arguments.profile
        )
    })
}

/// The release's files, by name.
fn release_files(info: &Info, published: &Targets) -> Result<Vec<(String, TargetFile)>> {
    use ReleaseFile::{Description, Root, Tree, Uki, UkiBlocks};
    let mut found = Vec::new();
    for file in [Description, Root, Tree, Uki, UkiBlocks] {
        let name = file.target_name(&info.profile, &info.version);
        match published.targets.get(&name) {
            Some(target) => found.push((name, target.clone())),
            // A release from before there were deltas of UKIs.
            None if file == UkiBlocks => {}
            None => return Err(anyhow!("{name} is not published: publish the release anew")),
        }
    }
    found.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(found)
}

fn write(parts: &Parts, repository: &Path, out: &mut impl Write) -> Result<()> {
    for (name, bytes) in &parts.metadata {
        begin(out, name, bytes.len() as u64)?;
        out.write_all(bytes)?;
        end(out, bytes.len() as u64)?;
    }
    for (name, target) in &parts.targets {
        begin(out, &format!("targets/{name}"), target.length)?;
        copy(repository, name, target, out)?;
        end(out, target.length)?;
    }
    out.write_all(&[0; 2 * bundle::BLOCK_BYTES])?;
    Ok(())
}

fn begin(out: &mut impl Write, name: &str, length: u64) -> Result<()> {
    let header = bundle::header(name, length).map_err(|error| anyhow!("the bundle {error}"))?;
    Ok(out.write_all(&header)?)
}

fn end(out: &mut impl Write, length: u64) -> Result<()> {
    let zeros = [0; bundle::BLOCK_BYTES];
    let count = usize::try_from(bundle::padding(length)).unwrap_or(0);
    Ok(out.write_all(&zeros[..count])?)
}

/// Copies a target, and makes sure that it is the one that was signed: a host would refuse it only after it has it.
fn copy(repository: &Path, name: &str, target: &TargetFile, out: &mut impl Write) -> Result<()> {
    let sha256 = target.hashes.get("sha256").with_context(|| format!("{name} is published without a sha256"))?;
    let path = repository.join("targets").join(format!("{sha256}.{name}"));
    let mut file = File::open(&path).with_context(|| format!("read {}", path.display()))?.take(target.length);
    let (mut hash, mut length) = (digest::Context::new(&digest::SHA256), 0);
    let mut buffer = vec![0; 1 << 16];
    loop {
        let count = file.read(&mut buffer).with_context(|| format!("read {}", path.display()))?;
        if count == 0 {
            break;
        }
        hash.update(&buffer[..count]);
        out.write_all(&buffer[..count])?;
        length += count as u64;
    }
    let right = length == target.length && files::hex(hash.finish().as_ref()) == *sha256;
    ensure!(right, "{} is not what was signed: publish the release anew", path.display());
    Ok(())
}
