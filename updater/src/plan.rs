//! What an install will do, decided whole before anything is written.

use std::collections::BTreeMap;

use keel_spec::api::ErrorCode;
use keel_spec::disk::Slot;
use keel_spec::gpt::{Entry, Table};
use keel_spec::release::{Release, ReleaseFile, UkiName, Version};
use keel_spec::tuf::TargetFile;
use keel_spec::verity::{BLOCK_BYTES, Geometry, RootHash};

use crate::esp::Uki;
use crate::failure::{Failure, Result};

/// Longest hash tree that is handled: it is kept in memory (2 GiB of root).
pub const MAX_TREE_BYTES: u64 = 16 << 20;
/// Bytes of the EFI system partition that stay free: folders grow by clusters.
const ESP_RESERVE_BYTES: u64 = 256 << 10;

/// What a plan is made from.
#[derive(Clone, Copy)]
pub struct Facts<'a> {
    /// The release to install.
    pub release: &'a Release,
    /// Trusted targets.
    pub targets: &'a BTreeMap<String, TargetFile>,
    /// The disk's partition table.
    pub table: &'a Table,
    /// Root hash of the running release.
    pub running_root: &'a RootHash,
    /// Version of the running release.
    pub running: &'a Version,
    /// Whether the running release has to prove itself.
    pub on_trial: bool,
    /// UKIs on the EFI system partition, and its free bytes.
    pub ukis: &'a [Uki],
    /// Free bytes of the EFI system partition.
    pub esp_free_bytes: u64,
    /// How often the release may try to prove itself.
    pub tries: u32,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Plan {
    /// The release is in the other slot already: let the boot loader offer it again.
    Offer {
        /// Name of its UKI.
        from: UkiName,
        /// Name to give it.
        to: UkiName,
    },
    /// Write it.
    Write(Box<Write>),
}

/// A release to write, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// The release.
    pub release: Release,
    /// Its root image.
    pub root: Target,
    /// Its hash tree.
    pub tree: Target,
    /// Its UKI.
    pub uki: Target,
    /// The slot.
    pub slot: Slot,
    /// Where the root goes, in bytes from the disk's start.
    pub root_offset: u64,
    /// Where the tree goes.
    pub tree_offset: u64,
    /// Where the running release's root and tree are, for what both have in common.
    pub running: Option<(u64, u64, u64)>,
    /// UKIs to remove first.
    pub remove: Vec<UkiName>,
    /// Final name of the UKI.
    pub uki_name: UkiName,
}

/// A file of the repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub length: u64,
    /// Its digest.
    pub sha256: String,
}

impl Target {
    /// A trusted target.
    pub fn of(targets: &BTreeMap<String, TargetFile>, name: String) -> Result<Self> {
        let target = targets.get(&name).and_then(|target| Some((target.length, target.sha256()?.to_owned())));
        let Some((length, sha256)) = target else {
            let message = format!("the update repository doesn't list {name} with a sha256: publish the release anew");
            return Err(Failure::new(ErrorCode::NotFound, message));
        };
        Ok(Self { name, length, sha256 })
    }

    /// Its path in the repository (consistent snapshots, section 6.2 of the specification).
    pub fn path(&self) -> String {
        format!("targets/{}.{}", self.sha256, self.name)
    }
}

/// Decides. Every refusal comes before anything is written.
pub fn decide(facts: &Facts) -> Result<Plan> {
    let version = &facts.release.version;
    let conflict = |why: String| Failure::new(ErrorCode::Conflict, format!("install {version}: {why}"));
    if facts.on_trial {
        return Err(conflict(format!(
            "the running {} is still on trial: wait until it has proved itself",
            facts.running
        )));
    }
    let slot = Slot::holding(facts.table, facts.running_root)
        .ok_or_else(|| conflict("no slot of the disk's partition table has the running release's root hash".into()))?
        .other();
    if let Some(offer) = already_there(facts, slot) {
        return Ok(offer);
    }
    let target = |file: ReleaseFile| Target::of(facts.targets, file.target_name(&facts.release.profile, version));
    let (root, tree, uki) = (target(ReleaseFile::Root)?, target(ReleaseFile::Tree)?, target(ReleaseFile::Uki)?);
    check_lengths(facts.release, &root, &tree, &uki)?;
    let root_partition = partition(facts.table, slot.root_label())?;
    let tree_partition = partition(facts.table, slot.verity_label())?;
    fits(version, &root, root_partition)?;
    fits(version, &tree, tree_partition)?;
    let remove: Vec<&Uki> = facts.ukis.iter().filter(|uki| !boots_running(facts, uki)).collect();
    if remove.len() == facts.ukis.len() {
        return Err(conflict(format!(
            "the EFI system partition has no UKI of the running {}, so there would be nothing to fall back to",
            facts.running
        )));
    }
    let free = facts.esp_free_bytes.saturating_add(remove.iter().map(|uki| uki.size_bytes).sum());
    if free < uki.length.saturating_add(ESP_RESERVE_BYTES) {
        let message = format!(
            "install {version}: {} is {} bytes long, the partition esp has room for {}: make the partition larger",
            uki.name,
            uki.length,
            free.saturating_sub(ESP_RESERVE_BYTES)
        );
        return Err(Failure::new(ErrorCode::Space, message));
    }
    let offset = |label| facts.table.by_name(label).map(|entry| (entry.offset_bytes(), entry.size_bytes()));
    let running = offset(slot.other().root_label()).zip(offset(slot.other().verity_label()));
    Ok(Plan::Write(Box::new(Write {
        release: facts.release.clone(),
        root_offset: root_partition.offset_bytes(),
        tree_offset: tree_partition.offset_bytes(),
        running: running.map(|((root, _), (tree, tree_bytes))| (root, tree, tree_bytes)),
        remove: remove.into_iter().map(|uki| uki.name.clone()).collect(),
        uki_name: UkiName::on_trial(version.clone(), facts.tries),
        root,
        tree,
        uki,
        slot,
    })))
}

fn boots_running(facts: &Facts, uki: &Uki) -> bool {
    uki.name.version == *facts.running || uki.root_hash == Some(*facts.running_root)
}

/// The same release, in the other slot, demoted or untried: nothing needs to be written but a name. One that has
/// tries left keeps them.
fn already_there(facts: &Facts, slot: Slot) -> Option<Plan> {
    let release = facts.release;
    if Slot::holding(facts.table, &release.root_hash) != Some(slot) {
        return None;
    }
    let same = |uki: &&Uki| uki.name.version == release.version && uki.root_hash == Some(release.root_hash);
    let uki = facts.ukis.iter().find(same)?;
    if uki.size_bytes != release.uki_bytes {
        return None;
    }
    let to = match uki.name.is_offered() {
        true => uki.name.clone(),
        false => UkiName::on_trial(release.version.clone(), facts.tries),
    };
    Some(Plan::Offer { from: uki.name.clone(), to })
}

fn check_lengths(release: &Release, root: &Target, tree: &Target, uki: &Target) -> Result<()> {
    let geometry = Geometry::new(release.root_blocks).map_err(|error| {
        let message = format!("install {}: its description is unusable: {error}", release.version);
        Failure::new(ErrorCode::Digest, message)
    })?;
    let expected = [
        (root, release.root_blocks.saturating_mul(BLOCK_BYTES as u64)),
        (tree, geometry.file_bytes()),
        (tree, release.tree_bytes),
        (uki, release.uki_bytes),
    ];
    for (target, length) in expected {
        if target.length != length {
            let message = format!(
                "{} is {} bytes long, its description says {length}: publish the release anew",
                target.name, target.length
            );
            return Err(Failure::new(ErrorCode::Digest, message));
        }
    }
    if tree.length > MAX_TREE_BYTES {
        let message = format!("{} is longer than the {MAX_TREE_BYTES} bytes that are handled", tree.name);
        return Err(Failure::new(ErrorCode::Space, message));
    }
    Ok(())
}

fn partition<'a>(table: &'a Table, label: &str) -> Result<&'a Entry> {
    let missing = || Failure::new(ErrorCode::Conflict, format!("the disk has no partition {label}"));
    table.by_name(label).ok_or_else(missing)
}

fn fits(version: &Version, target: &Target, partition: &Entry) -> Result<()> {
    if target.length > partition.size_bytes() {
        let message = format!(
            "install {version}: {} is {} bytes long, the partition {} has {}: it needs a larger disk layout",
            target.name,
            target.length,
            partition.name,
            partition.size_bytes()
        );
        return Err(Failure::new(ErrorCode::Space, message));
    }
    Ok(())
}
