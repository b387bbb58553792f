//! Carries out an install, in the order that makes power cuts harmless.
//!
//! 1. Where the UKI wouldn't fit, a larger EFI system partition is made beside the old one, whole, before the partition
//!    table names it instead. The UKI of the release in the other slot goes, then that slot's GUIDs: from here on the boot
//!    loader offers the running release alone, and nothing half-written can be found. A slot that is too small moves with
//!    the same write of the table.
//! 2. The hash tree comes first and is checked up to the root hash; then each block of the root is checked against it
//!    on its way to the slot. What is on the disk already is copied from there instead of fetched.
//! 3. The tree is written; everything is read back from the medium and checked again.
//! 4. The slot gets its GUIDs, in both copies of the partition table.
//! 5. The UKI is written under a name that the boot loader doesn't look at, read back, and renamed: that is the commit.
//!
//! Power may fail between any two writes: the running release always boots, and the new one is whole or isn't offered.

use std::io::{self, Read as _};

use keel_spec::api::ErrorCode;
use keel_spec::blocks::{BlockList, Digests};
use keel_spec::disk::{root_guid, verity_guid};
use keel_spec::verity::{BLOCK_BYTES, Tree};

use crate::area::Area;
use crate::blocks::{self, CHUNK_BLOCKS, Image};
use crate::delta::{self, Known};
use crate::disk::{self, Device};
use crate::esp::{self, Esp, PART_SUFFIX, Reader};
use crate::failure::{Failure, Result};
use crate::mirrors::Mirrors;
use crate::plan::{Plan, Target, Write};
use crate::transfer;

const BLOCK: u64 = BLOCK_BYTES as u64;

/// Told how far an install is: stage, bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// Where an install reads from and writes to.
pub struct Installer<'a, 'b> {
    /// The repository and its mirrors.
    pub mirrors: &'b Mirrors<'b>,
    /// The disk, on which the running slot can't be written.
    pub disk: &'b dyn Device,
    /// The UKIs.
    pub esp: &'b mut Esp<'a>,
}

impl<'a> Installer<'a, '_> {
    /// Carries out a plan.
    pub fn run(&mut self, plan: &Plan, progress: Progress) -> Result<()> {
        match plan {
            Plan::Offer { from, to } => {
                progress("commit", 0, 0);
                self.rename(&from.to_string(), &to.to_string())
            }
            Plan::Write(write) => self.write(write, progress),
        }
    }

    /// Writes a release whole, without offering it: what is left to do needs nothing from the network but the small
    /// files that everything is checked against.
    pub fn write_ahead(&mut self, plan: &Write, progress: Progress) -> Result<()> {
        self.fill_slot(plan, progress, |_| Ok(()))
    }

    fn write(&mut self, plan: &Write, progress: Progress) -> Result<()> {
        let hash = &plan.release.root_hash;
        let guids = [root_guid(hash), verity_guid(hash)];
        self.fill_slot(plan, progress, |disk| disk::set_slot(disk, plan.slot, guids, None))?;
        progress("commit", 0, 0);
        self.rename(&part_name(plan), &plan.uki_name.to_string())
    }

    /// Everything but the UKI's final name; `name_slot` once the slot is whole.
    fn fill_slot(
        &mut self,
        plan: &Write,
        progress: Progress,
        name_slot: impl FnOnce(&dyn disk::Device) -> Result<()>,
    ) -> Result<()> {
        let tree = self.fetch_tree(plan, progress)?;
        let list = plan.uki_blocks.as_ref().map(|target| self.fetch_blocks(plan, target)).transpose()?;
        self.move_esp(plan, progress)?;
        self.clear(plan)?;
        let root = Image {
            target: &plan.root,
            digests: &tree,
            area: Area::new(self.disk, plan.root_offset, plan.root.length),
            place: plan.slot.root_label(),
        };
        self.write_root(plan, &root, progress)?;
        self.write_tree(plan, &tree)?;
        self.read_back(plan, &tree, &root, progress)?;
        name_slot(self.disk)?;
        match list {
            Some(list) => self.write_uki_blocks(plan, &list, &root, progress)?,
            None => self.write_uki_whole(plan, progress)?,
        }
        self.read_back_uki(plan)
    }

    fn rename(&mut self, from: &str, to: &str) -> Result<()> {
        let renamed = self.esp.rename(from, to);
        renamed.map_err(Failure::io(format!("rename {from} to {to} on the EFI system partition")))
    }

    fn fetch_tree(&self, plan: &Write, progress: Progress) -> Result<Tree> {
        progress("tree", 0, plan.tree.length);
        let bytes = transfer::small(self.mirrors, &plan.tree)?;
        progress("tree", plan.tree.length, plan.tree.length);
        let tree = Tree::check(bytes, plan.release.root_blocks, &plan.release.root_hash, &blocks::sha256);
        tree.map_err(|error| unusable(&plan.tree, &format!("isn't the tree of its root hash: {error}")))
    }

    fn fetch_blocks(&self, plan: &Write, target: &Target) -> Result<BlockList> {
        let list = BlockList::parse(transfer::small(self.mirrors, target)?);
        let list = list.map_err(|error| unusable(target, &format!("can't be read: {error}")))?;
        if list.length() != plan.uki.length {
            return Err(unusable(target, "is of a UKI of another length"));
        }
        Ok(list)
    }

    /// A larger EFI system partition takes the place of the one that is there.
    fn move_esp(&mut self, plan: &Write, progress: Progress) -> Result<()> {
        let Some(place) = &plan.moves.esp else { return Ok(()) };
        progress("esp", 0, place.size_bytes());
        let doing = format!("make an EFI system partition of {} MiB", place.size_bytes() >> 20);
        let new = match self.esp.copy_to(place) {
            Err(error) if plan.moves.esp_can_stay => {
                log::warn!("{doing}, out of the way of the state partition: {error}; it stays where it is");
                return Ok(());
            }
            new => new.map_err(Failure::io(doing))?,
        };
        disk::set_esp(self.disk, place)?;
        *self.esp = new;
        progress("esp", place.size_bytes(), place.size_bytes());
        Ok(())
    }

    /// The other release stops being offered before its slot is touched, and left-overs go; but for what an install of
    /// this release left.
    fn clear(&mut self, plan: &Write) -> Result<()> {
        let names = self.esp.names().map_err(Failure::io("list the UKIs on the EFI system partition"))?;
        let ours = part_name(plan);
        let left_over = |name: &&String| {
            name.starts_with("keel_") && name.ends_with(PART_SUFFIX) && !(plan.resume && **name == ours)
        };
        let left_over: Vec<String> = names.iter().filter(left_over).cloned().collect();
        for name in plan.remove.iter().map(ToString::to_string).chain(left_over) {
            self.esp.remove(&name).map_err(Failure::io(format!("remove {name} from the EFI system partition")))?;
        }
        let erased = [plan.slot.erased_root_guid(), plan.slot.erased_verity_guid()];
        disk::set_slot(self.disk, plan.slot, erased, plan.moves.slot.as_ref())
    }

    fn write_root(&self, plan: &Write, root: &Image, progress: Progress) -> Result<()> {
        self.fill(root, Known::of_roots(self.disk, &plan.roots), plan.resume, "root", progress)
    }

    /// Copies what is there, fetches the rest.
    fn fill(&self, image: &Image, known: Known, resume: bool, stage: &'static str, progress: Progress) -> Result<()> {
        let total = image.digests.length();
        progress(stage, 0, total);
        let missing = delta::fill(image, &known, resume, &mut |_| ())?;
        // Its memory isn't needed while the rest comes.
        drop(known);
        let count: u64 = missing.iter().map(|run| run.end - run.start).sum();
        let mut there = image.digests.blocks() - count;
        let told = |there: u64| there.saturating_mul(BLOCK).min(total);
        self.mirrors.found(told(there));
        progress(stage, told(there), total);
        transfer::fetch(self.mirrors, image, missing, &mut |blocks| {
            there += blocks;
            progress(stage, told(there), total);
        })?;
        progress(stage, total, total);
        Ok(())
    }

    fn write_tree(&self, plan: &Write, tree: &Tree) -> Result<()> {
        let label = plan.slot.verity_label();
        self.disk
            .write_at(tree.bytes(), plan.tree_offset)
            .and_then(|()| self.disk.sync())
            .map_err(Failure::io(format!("write the hash tree to the partition {label}")))
    }

    /// What is on the medium, not what is in memory: every block against the tree, the tree against the root hash.
    fn read_back(&self, plan: &Write, tree: &Tree, root: &Image, progress: Progress) -> Result<()> {
        let label = plan.slot.verity_label();
        let area = Area::new(self.disk, plan.tree_offset, plan.tree.length);
        area.forget_cache().and_then(|()| root.area.forget_cache()).map_err(Failure::io("drop cached pages"))?;
        let mut buffer = vec![0; (CHUNK_BLOCKS * BLOCK) as usize];
        let mut at = 0;
        for wanted in tree.bytes().chunks(buffer.len()) {
            let piece = &mut buffer[..wanted.len()];
            area.read_at(piece, at).map_err(Failure::io(format!("read back the partition {label}")))?;
            if piece != wanted {
                return Err(changed(label, "the hash tree"));
            }
            at += wanted.len() as u64;
        }
        let total = root.digests.blocks();
        let mut first = 0;
        while first < total {
            let count = CHUNK_BLOCKS.min(total - first);
            let piece = &mut buffer[..root.bytes_of(first, count) as usize];
            root.get(first, piece).map_err(Failure::io(format!("read back the partition {}", root.place)))?;
            if let Some(wrong) = root.first_wrong(first, piece) {
                return Err(changed(root.place, &format!("block {wrong}")));
            }
            first += count;
            progress("verify", first * BLOCK, total * BLOCK);
        }
        Ok(())
    }

    /// Makes the UKI's file; says whether it was there.
    fn make_part(&mut self, plan: &Write) -> Result<(Area<'a>, bool)> {
        let name = part_name(plan);
        let failed = || Failure::io(format!("make {name} on the EFI system partition"));
        let there = self.esp.names().map_err(failed())?.contains(&name);
        Ok((self.esp.create(&name, plan.uki.length).map_err(failed())?, there))
    }

    /// Block by block, of which many are in the UKIs on the partition, or in the new root.
    fn write_uki_blocks(&mut self, plan: &Write, list: &BlockList, root: &Image, progress: Progress) -> Result<()> {
        let (area, there) = self.make_part(plan)?;
        let mut known = Known::default();
        for uki in self.esp.ukis().map_err(Failure::io("look at the UKIs on the EFI system partition"))? {
            let file = self.esp.file(&uki.name.to_string()).map_err(io::Error::other);
            let added = file.and_then(|file| known.add_file(file));
            added.unwrap_or_else(|error| log::warn!("read {} on the EFI system partition: {error}", uki.name));
        }
        known.add_digests(root.digests, root.area.clone());
        let image = Image { target: &plan.uki, digests: list, area, place: keel_spec::disk::ESP_LABEL };
        self.fill(&image, known, there, "uki", progress)
    }

    /// A release without a block list.
    fn write_uki_whole(&mut self, plan: &Write, progress: Progress) -> Result<()> {
        let (area, _) = self.make_part(plan)?;
        transfer::whole(self.mirrors, &plan.uki, &area, &mut |done| progress("uki", done, plan.uki.length))
    }

    /// Whole and on the medium, under a name that the boot loader doesn't look at.
    fn read_back_uki(&self, plan: &Write) -> Result<()> {
        let name = part_name(plan);
        let doing = format!("read back {name} on the EFI system partition");
        let area = self.esp.file(&name).map_err(Failure::io(&doing))?;
        let digest = area.sync().and_then(|()| area.forget_cache());
        let digest = digest.and_then(|()| esp::digest(&mut Reader::new(area).take(plan.uki.length + 1)));
        let (sha256, length) = digest.map_err(Failure::io(&doing))?;
        if (sha256.as_str(), length) != (&plan.uki.sha256, plan.uki.length) {
            // Each block was checked, unless there is no list; then the whole was.
            return Err(changed("esp", &name));
        }
        Ok(())
    }
}

fn part_name(plan: &Write) -> String {
    format!("keel_{}.efi{PART_SUFFIX}", plan.release.version)
}

fn changed(label: &str, what: &str) -> Failure {
    let message = format!("read back the partition {label}: {what} isn't what was written: the disk is failing");
    Failure::new(ErrorCode::Internal, message)
}

fn unusable(target: &Target, why: &str) -> Failure {
    Failure::new(ErrorCode::Digest, format!("{}: {why}", target.name))
}
