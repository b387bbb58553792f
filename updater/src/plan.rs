//! What an install will do, decided whole before anything is written.

use std::collections::BTreeMap;

use keel_spec::api::ErrorCode;
use keel_spec::blocks::BlockList;
use keel_spec::disk::{ESP_LABEL, MAX_TREE_BYTES, Slot, root_guid, verity_guid};
use keel_spec::gpt::{Extent, SECTOR_BYTES, Table};
use keel_spec::release::{Release, ReleaseFile, UkiName, Version};
use keel_spec::tuf::TargetFile;
use keel_spec::verity::{Geometry, RootHash};

use crate::esp::Uki;
use crate::extents::{self, Moves, Needs, NoRoom};
use crate::failure::{Failure, Result};

/// Bytes of the EFI system partition that stay free: folders grow by clusters.
const ESP_RESERVE_BYTES: u64 = 256 << 10;
/// Of an EFI system partition that is made, what tables take at the most, one in 32 bytes, and what a few hundred files
/// waste where clusters are larger than before.
const ESP_TABLES_SHARE: u64 = 32;
const ESP_WASTE_BYTES: u64 = 1 << 20;
/// A machine on battery needs that much left.
const MIN_BATTERY_PERCENT: u8 = 20;

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
    /// Whether the other slot was being filled with this release when something stopped it.
    pub resume: bool,
    /// Bytes of the disk.
    pub disk_bytes: u64,
    /// Percent left in the battery that this machine runs on, if it does.
    pub battery_percent: Option<u8>,
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
    /// Digests of its UKI's blocks, if there are any.
    pub uki_blocks: Option<Target>,
    /// The slot.
    pub slot: Slot,
    /// Where the root goes, in bytes from the disk's start.
    pub root_offset: u64,
    /// Where the tree goes.
    pub tree_offset: u64,
    /// Partitions that go to another place.
    pub moves: Moves,
    /// Where roots and their trees are now, offset and bytes of both, for what they have in common with the release: the
    /// running one, then what the slot still has, until it is written over.
    pub roots: Vec<[(u64, u64); 2]>,
    /// Whether the slot was being filled with this release before, so that what is in its place stays there.
    pub resume: bool,
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
    let slot = preflight(facts)?;
    if let Some(offer) = already_there(facts, slot) {
        return Ok(offer);
    }
    let target = |file: ReleaseFile| {
        let target = Target::of(facts.targets, file.target_name(&facts.release.profile, version))?;
        check_length(facts.release, file, &target)?;
        Ok::<_, Failure>(target)
    };
    let (root, tree, uki) = (target(ReleaseFile::Root)?, target(ReleaseFile::Tree)?, target(ReleaseFile::Uki)?);
    let uki_blocks = facts.release.uki_blocks_bytes.map(|_| target(ReleaseFile::UkiBlocks)).transpose()?;
    for label in [slot.root_label(), slot.verity_label()] {
        is_on_the_disk(facts, label)?;
    }
    let remove = ukis_to_remove(facts)?;
    let esp_bytes = esp_to_make(facts, &uki, &remove);
    let needs = Needs { root_bytes: root.length, tree_bytes: tree.length, esp_bytes };
    let moves = moves(facts, slot, &needs)?;
    let [root_place, tree_place] = match moves.slot {
        Some(places) => places.map(|place| place.offset_bytes()),
        None => [slot.root_label(), slot.verity_label()]
            .map(|label| facts.table.by_name(label).map_or(0, |entry| entry.offset_bytes())),
    };
    let place = |label| facts.table.by_name(label).map(|entry| (entry.offset_bytes(), entry.size_bytes()));
    let root_of = |slot: Slot| Some([place(slot.root_label())?, place(slot.verity_label())?]);
    Ok(Plan::Write(Box::new(Write {
        release: facts.release.clone(),
        root_offset: root_place,
        tree_offset: tree_place,
        moves,
        roots: [slot.other(), slot].into_iter().filter_map(root_of).collect(),
        remove: remove.into_iter().map(|uki| uki.name.clone()).collect(),
        uki_name: UkiName::on_trial(version.clone(), facts.tries),
        resume: facts.resume,
        root,
        tree,
        uki,
        uki_blocks,
        slot,
    })))
}

/// Whether anything at all may be installed now; which slot it goes to.
fn preflight(facts: &Facts) -> Result<Slot> {
    let version = &facts.release.version;
    let conflict = |why: String| Failure::new(ErrorCode::Conflict, format!("install {version}: {why}"));
    if facts.on_trial {
        let running = facts.running;
        return Err(conflict(format!("the running {running} is still on trial: wait until it has proved itself")));
    }
    if let Some(percent) = facts.battery_percent.filter(|percent| *percent < MIN_BATTERY_PERCENT) {
        let why = format!("the battery is at {percent} %: connect power, or wait for {MIN_BATTERY_PERCENT} %");
        return Err(conflict(why));
    }
    let slots = Slot::ALL.map(|slot| {
        let carries = |label, guid| facts.table.by_name(label).is_some_and(|entry| entry.unique == guid);
        carries(slot.root_label(), root_guid(facts.running_root))
            || carries(slot.verity_label(), verity_guid(facts.running_root))
    });
    let running = Slot::holding(facts.table, facts.running_root)
        .ok_or_else(|| conflict("no slot of the disk's partition table has the running release's root hash".into()))?;
    // Then nothing tells which of the two is running, and it must not be overwritten.
    if slots == [true, true] {
        return Err(conflict("both slots carry the GUIDs of the running release: give one other ones".into()));
    }
    Ok(running.other())
}

/// All UKIs but those of the running release, of which there has to be one.
fn ukis_to_remove<'a>(facts: &Facts<'a>) -> Result<Vec<&'a Uki>> {
    let remove: Vec<&Uki> = facts.ukis.iter().filter(|uki| !boots_running(facts, uki)).collect();
    if !facts.ukis.iter().any(|uki| uki.root_hash.as_ref() == Some(facts.running_root)) {
        let message = format!(
            "install {}: the EFI system partition has no UKI of the running {}, so there would be nothing to fall back to",
            facts.release.version, facts.running
        );
        return Err(Failure::new(ErrorCode::Conflict, message));
    }
    Ok(remove)
}

/// Bytes of the EFI system partition that has to be made, because the UKI doesn't fit into the one that is there.
fn esp_to_make(facts: &Facts, uki: &Target, remove: &[&Uki]) -> Option<u64> {
    let removed: u64 = remove.iter().map(|uki| uki.size_bytes).sum();
    let wanted = uki.length.saturating_add(ESP_RESERVE_BYTES);
    if facts.esp_free_bytes.saturating_add(removed) >= wanted {
        return None;
    }
    let has = facts.table.by_name(ESP_LABEL).map_or(0, |entry| Extent::of(entry).size_bytes());
    // All that is there is copied first; what goes goes afterwards.
    let kept = has.saturating_sub(facts.esp_free_bytes);
    let bytes = kept.saturating_add(wanted.saturating_sub(removed)).saturating_add(ESP_WASTE_BYTES);
    Some(bytes.saturating_add(bytes / ESP_TABLES_SHARE))
}

/// What has to move for the release to fit, on the disk as large as it is now.
fn moves(facts: &Facts, slot: Slot, needs: &Needs) -> Result<Moves> {
    let mut table = facts.table.clone();
    table.resize_disk(facts.disk_bytes / SECTOR_BYTES as u64).map_err(|error| {
        let message =
            format!("install {}: the disk is smaller than its partition table: {error}", facts.release.version);
        Failure::new(ErrorCode::Conflict, message)
    })?;
    extents::plan(&table, slot, needs).map_err(|NoRoom { needed_bytes, largest_bytes }| {
        let version = &facts.release.version;
        let mut what = Vec::new();
        for (label, bytes) in [(slot.root_label(), needs.root_bytes), (slot.verity_label(), needs.tree_bytes)] {
            let has = facts.table.by_name(label).map_or(0, |entry| Extent::of(entry).size_bytes());
            if has < bytes {
                what.push(format!("the partition {label} has {has} bytes, the release needs {bytes}"));
            }
        }
        if let Some(bytes) = needs.esp_bytes {
            what.push(format!("the partition {ESP_LABEL} has no room for the UKI, one of {bytes} bytes is needed"));
        }
        let message = format!(
            "install {version}: {}; larger ones take {needed_bytes} bytes of free space, the largest free area of the \
             disk has {largest_bytes}: enlarge the disk to {} MiB or more (the state partition can't be made smaller)",
            what.join(", and "),
            extents::large_enough_bytes(&table, needed_bytes).div_ceil(1 << 20)
        );
        Failure::new(ErrorCode::Space, message)
    })
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

fn check_length(release: &Release, file: ReleaseFile, target: &Target) -> Result<()> {
    let geometry = Geometry::new(release.root_blocks).map_err(|error| {
        let message = format!("install {}: its description is unusable: {error}", release.version);
        Failure::new(ErrorCode::Digest, message)
    })?;
    let implied = match file {
        ReleaseFile::Tree => Some(geometry.file_bytes()),
        ReleaseFile::UkiBlocks => Some(BlockList::list_bytes(release.uki_bytes)),
        _ => None,
    };
    for length in release.file_bytes(file).into_iter().chain(implied) {
        if target.length != length {
            let message = format!(
                "{} is {} bytes long, its description says {length}: publish the release anew",
                target.name, target.length
            );
            return Err(Failure::new(ErrorCode::Digest, message));
        }
    }
    if matches!(file, ReleaseFile::Tree | ReleaseFile::UkiBlocks) && target.length > MAX_TREE_BYTES {
        let message = format!("{} is longer than the {MAX_TREE_BYTES} bytes that are handled", target.name);
        return Err(Failure::new(ErrorCode::Space, message));
    }
    Ok(())
}

fn is_on_the_disk(facts: &Facts, label: &str) -> Result<()> {
    let broken = |why: &str| Failure::new(ErrorCode::Conflict, format!("the disk has {why}"));
    let entry = facts.table.by_name(label).ok_or_else(|| broken(&format!("no partition {label}")))?;
    let extent = Extent::of(entry);
    let end = extent.offset_bytes().saturating_add(extent.size_bytes());
    if end > facts.disk_bytes {
        return Err(broken(&format!("only {} bytes, but its partition {label} ends at {end}", facts.disk_bytes)));
    }
    Ok(())
}
