//! What an install would do, in bytes. Fetches no more than the tree and the list of blocks, and writes nothing.

use std::io;

use keel_spec::api::ErrorCode;
use keel_spec::api::plan::{Room, UpdatePlan};
use keel_spec::blocks::{BlockList, Digests};
use keel_spec::disk::ESP_LABEL;
use keel_spec::gpt::{Extent, Table};
use keel_spec::release::Version;
use keel_spec::verity::{BLOCK_BYTES, Tree};

use crate::area::Area;
use crate::blocks::sha256;
use crate::delta::Known;
use crate::disk::{self, Device};
use crate::esp::Esp;
use crate::failure::{Failure, Result};
use crate::mirrors::Mirrors;
use crate::operations::Updater;
use crate::plan::{Plan, Write};
use crate::transfer;

/// What a preview is made from.
pub struct Preview<'a, 'b> {
    /// The repository and its mirrors.
    pub mirrors: &'b Mirrors<'b>,
    /// The disk.
    pub disk: &'a dyn Device,
    /// Its partition table.
    pub table: &'b Table,
    /// The UKIs.
    pub esp: &'b Esp<'a>,
    /// Running release.
    pub running: &'b Version,
}

impl Preview<'_, '_> {
    /// What a plan would do.
    pub fn of(&self, plan: &Plan) -> Result<UpdatePlan> {
        let nothing = |version: &Version| UpdatePlan {
            running: self.running.clone(),
            version: version.clone(),
            slot: String::new(),
            fetch_bytes: 0,
            copy_bytes: 0,
            write_bytes: 0,
            remove: Vec::new(),
            resume: false,
            room: Vec::new(),
        };
        match plan {
            Plan::Offer { to, .. } => Ok(nothing(&to.version)),
            Plan::Write(write) => {
                let (fetch_bytes, copy_bytes) = self.count(write)?;
                Ok(UpdatePlan {
                    slot: write.slot.letter().to_owned(),
                    fetch_bytes,
                    copy_bytes,
                    write_bytes: write.root.length + write.tree.length + write.uki.length,
                    remove: write.remove.iter().map(ToString::to_string).collect(),
                    resume: write.resume,
                    room: self.room(write),
                    ..nothing(&write.release.version)
                })
            }
        }
    }

    fn room(&self, write: &Write) -> Vec<Room> {
        let bytes = |place: Extent| place.size_bytes();
        let partition = |label: &str, needs_bytes, place: Option<Extent>| {
            let has_bytes = self.table.by_name(label).map_or(0, |entry| entry.size_bytes());
            Room { partition: label.to_owned(), needs_bytes, has_bytes, moves_to_bytes: place.map(bytes) }
        };
        let removed = self.esp.ukis().unwrap_or_default().into_iter().filter(|uki| write.remove.contains(&uki.name));
        let has_bytes = self.esp.free_bytes().saturating_add(removed.map(|uki| uki.size_bytes).sum());
        let [root, tree] = write.moves.slot.map_or([None, None], |places| places.map(Some));
        let moves_to_bytes = write.moves.esp.map(bytes);
        vec![
            partition(write.slot.root_label(), write.root.length, root),
            partition(write.slot.verity_label(), write.tree.length, tree),
            Room { partition: ESP_LABEL.into(), needs_bytes: write.uki.length, has_bytes, moves_to_bytes },
        ]
    }

    /// Bytes to fetch, and bytes that are on the disk.
    fn count(&self, write: &Write) -> Result<(u64, u64)> {
        let unusable = |name: &str, why: &dyn std::fmt::Display| {
            Failure::new(ErrorCode::Digest, format!("{name}: can't be used: {why}"))
        };
        let bytes = transfer::small(self.mirrors, &write.tree)?;
        let tree = Tree::check(bytes, write.release.root_blocks, &write.release.root_hash, &sha256)
            .map_err(|error| unusable(&write.tree.name, &error))?;
        let (mut fetch, mut copy) = Known::of_roots(self.disk, &write.roots).split(&tree);
        fetch += write.tree.length;
        match &write.uki_blocks {
            None => fetch += write.uki.length,
            Some(target) => {
                let list = BlockList::parse(transfer::small(self.mirrors, target)?)
                    .map_err(|error| unusable(&target.name, &error))?;
                let mut known = Known::default();
                for uki in self.esp.ukis().map_err(Failure::io("look at the UKIs on the EFI system partition"))? {
                    let file = self.esp.file(&uki.name.to_string()).map_err(io::Error::other);
                    let added = file.and_then(|file| known.add_file(file));
                    added.unwrap_or_else(|error| log::warn!("read {} on the EFI system partition: {error}", uki.name));
                }
                known.add_digests(&tree, Area::new(self.disk, write.root_offset, write.root.length));
                let (more, there) = known.split(&list);
                (fetch, copy) = (fetch + target.length + more, copy + there);
            }
        }
        Ok((fetch, copy))
    }
}

impl Known<'_> {
    /// Of a file that has these digests: bytes that aren't known, and bytes that are.
    pub fn split(&self, digests: &dyn Digests) -> (u64, u64) {
        let known = |block: &u64| digests.digest(*block).is_some_and(|digest| self.knows(digest));
        let there = (0..digests.blocks()).filter(known).count() as u64 * BLOCK_BYTES as u64;
        let there = there.min(digests.length());
        (digests.length() - there, there)
    }
}

impl Updater {
    /// What an install of a version, or of the newest that may follow, would do.
    pub fn preview(&self, version: Option<&Version>) -> Result<UpdatePlan> {
        self.planned(version, |plan, mirrors, disk, esp| {
            let (table, _) = disk::read_table(disk)?;
            Preview { mirrors, disk, table: &table, esp, running: self.running() }.of(plan)
        })
    }
}
