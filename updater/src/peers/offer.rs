//! The files of the running release, found on the disk. They are looked up anew for each request, since slots and the
//! EFI system partition may come to lie elsewhere while the host runs; the sums are made once.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use keel_spec::api::ErrorCode;
use keel_spec::blocks::{self, BlockList};
use keel_spec::disk::{ESP_LABEL, MAX_TREE_BYTES, Slot};
use keel_spec::gpt::Table;
use keel_spec::release::{ReleaseFile, Version};
use keel_spec::tuf::TargetFile;
use keel_spec::verity::{BLOCK_BYTES, RootHash, Tree};

use crate::area::Area;
use crate::blocks::{CHUNK_BLOCKS, sha256};
use crate::disk::{self, Device};
use crate::esp::Esp;
use crate::failure::{Failure, Result};
use crate::plan::Target;
use crate::tuf::keys::to_hex;

/// What runs, and who vouches for it.
pub struct Running<'a> {
    /// Its version.
    pub version: &'a Version,
    /// Its profile.
    pub profile: &'a str,
    /// Its root hash.
    pub root_hash: RootHash,
    /// Trusted targets.
    pub targets: &'a BTreeMap<String, TargetFile>,
    /// Its description, if it is at hand; offered if it is the one that was signed.
    pub description: Option<Vec<u8>>,
}

/// Where a file is.
#[derive(Clone)]
enum Place {
    Root,
    Tree,
    Uki,
    Memory(Arc<Vec<u8>>),
}

/// Files that peers may have.
pub struct Offer {
    device: Arc<dyn Device>,
    root_hash: RootHash,
    files: Vec<(Target, Place)>,
}

/// A file that is open for reading.
pub struct Opened {
    /// Bytes.
    pub length: u64,
    /// SHA-256, hexadecimal.
    pub sha256: String,
    content: Content,
}

enum Content {
    /// Offset on the device and length of each piece.
    Disk(Arc<dyn Device>, Vec<(u64, u64)>),
    Memory(Arc<Vec<u8>>),
}

impl Opened {
    /// Fills `buffer` from an offset.
    pub fn read_at(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        match &self.content {
            Content::Disk(device, pieces) => {
                Area::from_pieces(&**device, pieces.iter().copied()).cut(self.length).read_at(buffer, at)
            }
            Content::Memory(bytes) => {
                let from = usize::try_from(at).ok().and_then(|at| bytes.get(at..at.checked_add(buffer.len())?));
                buffer.copy_from_slice(from.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

impl Offer {
    /// Looks at what is on the disk. Tree and UKI have to be as they were signed, the tree that of the running root;
    /// the root's blocks are checked by whoever fetches them. What of the rest isn't there isn't offered.
    pub fn make(device: Arc<dyn Device>, running: Running) -> Result<Self> {
        let target =
            |file: ReleaseFile| Target::of(running.targets, file.target_name(running.profile, running.version));
        let (root, tree, uki) = (target(ReleaseFile::Root)?, target(ReleaseFile::Tree)?, target(ReleaseFile::Uki)?);
        let mut offer = Self { device, root_hash: running.root_hash, files: Vec::new() };
        offer.check_tree(&tree, &root)?;
        let list = offer.check_uki(&uki)?;
        offer.files = vec![(root, Place::Root), (tree, Place::Tree), (uki, Place::Uki)];
        let small = [(ReleaseFile::UkiBlocks, Some(list)), (ReleaseFile::Description, running.description)];
        for (file, bytes) in small {
            let (Ok(target), Some(bytes)) = (target(file), bytes) else { continue };
            if bytes.len() as u64 == target.length && to_hex(&sha256(&[&bytes])) == target.sha256 {
                offer.files.push((target, Place::Memory(bytes.into())));
            }
        }
        Ok(offer)
    }

    /// Files and bytes that are offered.
    pub fn size(&self) -> (usize, u64) {
        (self.files.len(), self.files.iter().map(|(target, _)| target.length).sum())
    }

    fn check_tree(&self, tree: &Target, root: &Target) -> Result<()> {
        let wrong = |why: String| Failure::new(ErrorCode::Digest, format!("look at {} on the disk: {why}", tree.name));
        if tree.length > MAX_TREE_BYTES {
            return Err(wrong(format!("it is longer than {MAX_TREE_BYTES} bytes")));
        }
        let opened = self.open_place(tree, &Place::Tree)?;
        let mut bytes = vec![0; tree.length as usize];
        opened.read_at(&mut bytes, 0).map_err(Failure::io(format!("read {} from the disk", tree.name)))?;
        if to_hex(&sha256(&[&bytes])) != tree.sha256 {
            return Err(wrong("it isn't what was published".into()));
        }
        let blocks = root.length / BLOCK_BYTES as u64;
        Tree::check(bytes, blocks, &self.root_hash, &sha256).map(drop).map_err(|error| wrong(error.to_string()))
    }

    /// The digests of its blocks, as a file.
    fn check_uki(&self, uki: &Target) -> Result<Vec<u8>> {
        if uki.length > blocks::MAX_FILE_BYTES {
            let message = format!("look at {}: it is longer than {} bytes", uki.name, blocks::MAX_FILE_BYTES);
            return Err(Failure::new(ErrorCode::Digest, message));
        }
        let opened = self.open_place(uki, &Place::Uki)?;
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        let mut buffer = vec![0; CHUNK_BLOCKS as usize * BLOCK_BYTES];
        let (mut at, mut digests) = (0, Vec::new());
        while at < uki.length {
            let piece = &mut buffer[..(uki.length - at).min(CHUNK_BLOCKS * BLOCK_BYTES as u64) as usize];
            opened.read_at(piece, at).map_err(Failure::io(format!("read {} from the disk", uki.name)))?;
            context.update(piece);
            digests.extend(piece.chunks(BLOCK_BYTES).map(|block| blocks::digest(block, &sha256)));
            at += piece.len() as u64;
        }
        if to_hex(context.finish().as_ref()) != uki.sha256 {
            let message = format!("look at {} on the disk: it isn't what was published", uki.name);
            return Err(Failure::new(ErrorCode::Digest, message));
        }
        Ok(BlockList::of_digests(uki.length, digests).to_bytes())
    }

    /// Opens the file with this path, as in a repository. `None`: it isn't offered.
    pub fn open(&self, path: &str) -> Result<Option<Opened>> {
        let found = self.files.iter().find(|(target, _)| target.path() == path);
        found.map(|(target, place)| self.open_place(target, place)).transpose()
    }

    fn open_place(&self, target: &Target, place: &Place) -> Result<Opened> {
        let content = match place {
            Place::Memory(bytes) => Content::Memory(Arc::clone(bytes)),
            Place::Root | Place::Tree => {
                let (table, _) = disk::read_table(&*self.device)?;
                let slot = Slot::holding(&table, &self.root_hash);
                let slot = slot.ok_or_else(|| gone("no slot has the running release's root hash"))?;
                let label = if matches!(place, Place::Root) { slot.root_label() } else { slot.verity_label() };
                Content::Disk(Arc::clone(&self.device), vec![partition(&table, label)?])
            }
            Place::Uki => self.uki(target)?,
        };
        if let Content::Disk(_, pieces) = &content
            && pieces.iter().map(|(_, length)| length).sum::<u64>() < target.length
        {
            return Err(gone(&format!("there is no room for {} where it should be", target.name)));
        }
        Ok(Opened { length: target.length, sha256: target.sha256.clone(), content })
    }

    fn uki(&self, target: &Target) -> Result<Content> {
        let (table, _) = disk::read_table(&*self.device)?;
        let (offset, length) = partition(&table, ESP_LABEL)?;
        // The partition is written through a device of its own, whose cache isn't the disk's.
        self.device.forget_cache(offset, length).map_err(Failure::io("drop cached pages"))?;
        let failed = || Failure::io("read the EFI system partition");
        let esp = Esp::open(&*self.device, offset, length).map_err(failed())?;
        let running = esp.ukis().map_err(failed())?.into_iter();
        let mut running =
            running.filter(|uki| uki.root_hash == Some(self.root_hash) && uki.size_bytes == target.length);
        let uki = running.next().ok_or_else(|| gone("the EFI system partition has no UKI of the running release"))?;
        let area = esp.file(&uki.name.to_string()).map_err(failed())?;
        Ok(Content::Disk(Arc::clone(&self.device), area.pieces()))
    }
}

fn partition(table: &Table, label: &str) -> Result<(u64, u64)> {
    let entry = table.by_name(label).ok_or_else(|| gone(&format!("the disk has no partition {label}")))?;
    Ok((entry.offset_bytes(), entry.size_bytes()))
}

fn gone(why: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("open the running release's files: {why}"))
}
