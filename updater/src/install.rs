//! Carries out an install, in the order that makes power cuts harmless.
//!
//! 1. The UKI of the release in the other slot goes, then that slot's GUIDs: from here on the boot loader offers the
//!    running release alone, and nothing half-written can be found.
//! 2. The hash tree comes first and is checked up to the root hash; then each block of the root is checked against it
//!    on its way to the slot. What the running release has too is copied from there instead of fetched.
//! 3. The tree is written; everything is read back from the medium and checked again.
//! 4. The slot gets its GUIDs, in both copies of the partition table.
//! 5. The UKI is written under a name that the boot loader doesn't look at, read back, and renamed: that is the commit.
//!
//! Power may fail between any two writes: the running release always boots, and the new one is whole or isn't offered.

use std::io::{self, Read, Write as _};

use keel_spec::api::ErrorCode;
use keel_spec::disk::{root_guid, verity_guid};
use keel_spec::verity::{BLOCK_BYTES, Tree};
use ring::digest;

use crate::blocks;
use crate::delta::{self, Run};
use crate::disk::{self, Device};
use crate::esp::{self, Esp, PART_SUFFIX};
use crate::failure::{Failure, Result};
use crate::plan::{Plan, Target, Write};
use crate::source::Source;

/// Told how far an install is: stage, bytes done, bytes in all.
pub type Progress<'a> = &'a mut dyn FnMut(&'static str, u64, u64);

/// Where an install reads from and writes to.
pub struct Installer<'a> {
    /// The repository.
    pub source: &'a dyn Source,
    /// The disk.
    pub disk: &'a dyn Device,
    /// The UKIs.
    pub esp: &'a dyn Esp,
}

impl Installer<'_> {
    /// Carries out a plan.
    pub fn run(&self, plan: &Plan, progress: Progress) -> Result<()> {
        match plan {
            Plan::Offer { from, to } => {
                progress("commit", 0, 0);
                if from != to {
                    self.esp
                        .rename(&from.to_string(), &to.to_string())
                        .map_err(Failure::io(format!("rename {from} to {to} on the EFI system partition")))?;
                }
                self.sync_esp()
            }
            Plan::Write(write) => self.write(write, progress),
        }
    }

    fn write(&self, plan: &Write, progress: Progress) -> Result<()> {
        let tree = self.fetch_tree(plan, progress)?;
        self.clear(plan)?;
        self.write_root(plan, &tree, progress)?;
        self.write_tree(plan, &tree)?;
        self.read_back(plan, &tree, progress)?;
        drop(tree);
        let hash = &plan.release.root_hash;
        disk::set_guids(self.disk, plan.slot, root_guid(hash), verity_guid(hash))?;
        self.write_uki(plan, progress)?;
        progress("commit", 0, 0);
        let part = part_name(plan);
        self.esp
            .rename(&part, &plan.uki_name.to_string())
            .map_err(Failure::io(format!("rename {part} to {} on the EFI system partition", plan.uki_name)))?;
        self.sync_esp()
    }

    fn sync_esp(&self) -> Result<()> {
        self.esp.sync().map_err(Failure::io("sync the EFI system partition"))
    }

    fn fetch_tree(&self, plan: &Write, progress: Progress) -> Result<Tree> {
        progress("tree", 0, plan.tree.length);
        let bytes = fetch_whole(self.source, &plan.tree)?;
        progress("tree", plan.tree.length, plan.tree.length);
        Tree::check(bytes, plan.release.root_blocks, &plan.release.root_hash, &blocks::sha256)
            .map_err(|error| refused(self.source, &plan.tree, &format!("isn't the tree of its root hash: {error}")))
    }

    /// The other release stops being offered before its slot is touched, and left-overs go.
    fn clear(&self, plan: &Write) -> Result<()> {
        let names = self.esp.names().map_err(Failure::io("list the UKIs on the EFI system partition"))?;
        let left_over = names.iter().filter(|name| name.starts_with("keel_") && name.ends_with(PART_SUFFIX)).cloned();
        for name in plan.remove.iter().map(ToString::to_string).chain(left_over) {
            self.esp.remove(&name).map_err(Failure::io(format!("remove {name} from the EFI system partition")))?;
        }
        self.sync_esp()?;
        disk::set_guids(self.disk, plan.slot, plan.slot.erased_root_guid(), plan.slot.erased_verity_guid())
    }

    fn write_root(&self, plan: &Write, tree: &Tree, progress: Progress) -> Result<()> {
        let total = plan.root.length;
        let known = plan.running.and_then(|(_, offset, bytes)| delta::Known::read(self.disk, offset, bytes));
        let mut done = 0;
        progress("root", 0, total);
        for run in delta::runs(tree, known.as_ref()) {
            match (run, plan.running) {
                (Run::Copy { first, count, from }, Some((running, _, _))) => {
                    self.copy(plan, tree, first, count, running + from * BLOCK_BYTES as u64)?;
                }
                (Run::Copy { first, count, .. } | Run::Fetch { first, count }, _) => {
                    self.fetch_run(plan, tree, first, count, &mut |bytes| progress("root", done + bytes, total))?;
                }
            }
            done += run.count() * BLOCK_BYTES as u64;
            progress("root", done, total);
        }
        Ok(())
    }

    /// Blocks that the running release has too. Its disk may rot like any other, so what doesn't verify is fetched.
    fn copy(&self, plan: &Write, tree: &Tree, first: u64, count: u64, from: u64) -> Result<()> {
        let mut buffer = vec![0; blocks::CHUNK_BLOCKS * BLOCK_BYTES];
        let mut at = 0;
        while at < count {
            let some = (count - at).min(blocks::CHUNK_BLOCKS as u64);
            let piece = &mut buffer[..some as usize * BLOCK_BYTES];
            let read = self.disk.read_at(piece, from + at * BLOCK_BYTES as u64);
            if read.is_ok() && blocks::first_wrong(tree, first + at, piece).is_none() {
                self.put_root(plan, first + at, piece)?;
            } else {
                self.fetch_run(plan, tree, first + at, some, &mut |_| ())?;
            }
            at += some;
        }
        Ok(())
    }

    fn put_root(&self, plan: &Write, block: u64, bytes: &[u8]) -> Result<()> {
        self.disk
            .write_at(bytes, plan.root_offset + block * BLOCK_BYTES as u64)
            .map_err(Failure::io(format!("write block {block} to the partition {}", plan.slot.root_label())))
    }

    /// Fetches blocks; after a failure goes on where it stopped, at most [`blocks::MAX_TRIES`] times without progress.
    fn fetch_run(
        &self,
        plan: &Write,
        tree: &Tree,
        first: u64,
        count: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let mut at = first;
        let mut tries = 0;
        while at < first + count {
            let before = at;
            let outcome = self.fetch_some(plan, tree, &mut at, first + count, &mut |block| {
                progress((block - first) * BLOCK_BYTES as u64);
            });
            match outcome {
                Ok(()) => {}
                Err(failure) if failure.code != ErrorCode::Network => return Err(failure),
                Err(failure) => {
                    tries = if at > before { 1 } else { tries + 1 };
                    if tries >= blocks::MAX_TRIES {
                        return Err(failure);
                    }
                    log::warn!("{failure}; going on at block {at}");
                }
            }
        }
        Ok(())
    }

    fn fetch_some(
        &self,
        plan: &Write,
        tree: &Tree,
        at: &mut u64,
        end: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<()> {
        let block = BLOCK_BYTES as u64;
        let whole = *at == 0 && end == plan.release.root_blocks;
        let range = (!whole).then_some(*at * block..end * block);
        let opened = self
            .source
            .open(&plan.root.path(), range, plan.root.length)
            .map_err(|error| unreachable(self.source, &plan.root, &error))?
            .ok_or_else(|| missing(self.source, &plan.root))?;
        let mut body = opened.body;
        if !whole && !opened.ranged {
            // A server without ranges sends the whole file: what comes before is passed over.
            let skipped = io::copy(&mut (&mut body).take(*at * block), &mut io::sink());
            skipped.map_err(|error| unreachable(self.source, &plan.root, &error))?;
        }
        let mut buffer = vec![0; blocks::CHUNK_BLOCKS * BLOCK_BYTES];
        while *at < end {
            let some = (end - *at).min(blocks::CHUNK_BLOCKS as u64);
            let piece = &mut buffer[..some as usize * BLOCK_BYTES];
            body.read_exact(piece).map_err(|error| unreachable(self.source, &plan.root, &error))?;
            if let Some(wrong) = blocks::first_wrong(tree, *at, piece) {
                return Err(refused(
                    self.source,
                    &plan.root,
                    &format!("block {wrong} doesn't have the digest that its hash tree promises"),
                ));
            }
            self.put_root(plan, *at, piece)?;
            *at += some;
            progress(*at);
        }
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
    fn read_back(&self, plan: &Write, tree: &Tree, progress: Progress) -> Result<()> {
        let (root_label, tree_label) = (plan.slot.root_label(), plan.slot.verity_label());
        let total = plan.root.length;
        self.disk
            .forget_cache(plan.root_offset, total)
            .and_then(|()| self.disk.forget_cache(plan.tree_offset, plan.tree.length))
            .map_err(Failure::io("drop the disk's cached pages"))?;
        let changed = |label: &str, what: String| {
            let message =
                format!("read back the partition {label}: {what} isn't what was written: the disk is failing");
            Failure::new(ErrorCode::Internal, message)
        };
        let mut buffer = vec![0; blocks::CHUNK_BLOCKS * BLOCK_BYTES];
        let mut offset = 0;
        while offset < plan.tree.length {
            let piece =
                &mut buffer[..(plan.tree.length - offset).min((blocks::CHUNK_BLOCKS * BLOCK_BYTES) as u64) as usize];
            self.disk
                .read_at(piece, plan.tree_offset + offset)
                .map_err(Failure::io(format!("read back the partition {tree_label}")))?;
            if tree.bytes().get(offset as usize..offset as usize + piece.len()) != Some(&*piece) {
                return Err(changed(tree_label, "the hash tree".into()));
            }
            offset += piece.len() as u64;
        }
        let mut at = 0;
        while at < plan.release.root_blocks {
            let some = (plan.release.root_blocks - at).min(blocks::CHUNK_BLOCKS as u64);
            let piece = &mut buffer[..some as usize * BLOCK_BYTES];
            self.disk
                .read_at(piece, plan.root_offset + at * BLOCK_BYTES as u64)
                .map_err(Failure::io(format!("read back the partition {root_label}")))?;
            if let Some(wrong) = blocks::first_wrong(tree, at, piece) {
                return Err(changed(root_label, format!("block {wrong}")));
            }
            at += some;
            progress("verify", at * BLOCK_BYTES as u64, total);
        }
        Ok(())
    }

    /// Whole and on the medium under a name that the boot loader doesn't look at.
    fn write_uki(&self, plan: &Write, progress: Progress) -> Result<()> {
        let (name, target) = (part_name(plan), &plan.uki);
        let write_error = || Failure::io(format!("write {name} to the EFI system partition"));
        let mut body = open_whole(self.source, target)?;
        let mut file = self.esp.create(&name).map_err(write_error())?;
        let mut context = digest::Context::new(&digest::SHA256);
        let mut buffer = vec![0; blocks::CHUNK_BLOCKS * BLOCK_BYTES];
        let mut done = 0;
        while done < target.length {
            let some = (target.length - done).min(buffer.len() as u64) as usize;
            body.read_exact(&mut buffer[..some]).map_err(|error| unreachable(self.source, target, &error))?;
            context.update(&buffer[..some]);
            file.write_all(&buffer[..some]).map_err(write_error())?;
            done += some as u64;
            progress("uki", done, target.length);
        }
        file.flush().map_err(write_error())?;
        drop(file);
        if crate::tuf::keys::to_hex(context.finish().as_ref()) != target.sha256 {
            return Err(refused(self.source, target, "doesn't have the digest that targets.json promises"));
        }
        self.sync_esp()?;
        let mut file = self.esp.open(&name).map_err(write_error())?;
        let (sha256, length) = esp::digest(&mut file).map_err(Failure::io(format!("read back {name}")))?;
        if (sha256.as_str(), length) != (&target.sha256, target.length) {
            let message = format!("read back {name} on the EFI system partition: it isn't what was written");
            return Err(Failure::new(ErrorCode::Internal, message));
        }
        Ok(())
    }
}

fn part_name(plan: &Write) -> String {
    format!("keel_{}.efi{PART_SUFFIX}", plan.release.version)
}

/// Fetches a small target whole and checks it.
pub fn fetch_whole(source: &dyn Source, target: &Target) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let body = open_whole(source, target)?;
    body.take(target.length + 1).read_to_end(&mut bytes).map_err(|error| unreachable(source, target, &error))?;
    if bytes.len() as u64 != target.length {
        return Err(refused(source, target, "doesn't have the length that targets.json promises"));
    }
    if crate::tuf::keys::sha256_hex(&bytes) != target.sha256 {
        return Err(refused(source, target, "doesn't have the digest that targets.json promises"));
    }
    Ok(bytes)
}

fn open_whole(source: &dyn Source, target: &Target) -> Result<Box<dyn Read>> {
    let opened =
        source.open(&target.path(), None, target.length).map_err(|error| unreachable(source, target, &error))?;
    Ok(opened.ok_or_else(|| missing(source, target))?.body)
}

fn refused(source: &dyn Source, target: &Target, why: &str) -> Failure {
    Failure::new(ErrorCode::Digest, format!("update repository {}: {}: {why}", source.name(), target.name))
}

fn missing(source: &dyn Source, target: &Target) -> Failure {
    let message = format!("update repository {}: {} is listed, but isn't there", source.name(), target.path());
    Failure::new(ErrorCode::Network, message)
}

fn unreachable(source: &dyn Source, target: &Target, error: &io::Error) -> Failure {
    // A file longer than was promised is wrong, not far away.
    let code = match error.kind() {
        io::ErrorKind::FileTooLarge => ErrorCode::Digest,
        _ => ErrorCode::Network,
    };
    let why = crate::failure::chain(error);
    Failure::new(code, format!("update repository {}: fetch {}: {why}", source.name(), target.name))
}

#[cfg(test)]
#[path = "install_tests.rs"]
mod tests;
