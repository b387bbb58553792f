//! A volume made anew, elsewhere and of another size, with everything that is on an old one.
//!
//! Names, dates and attributes are taken over as they stand, whoever wrote them; only clusters change. Nobody looks at the
//! new place until the partition table names it, so the order of writes is of no matter here: all is synced and read
//! back from the medium in the end.

use std::collections::BTreeMap;

use super::layout::{FatError, Layout, SECTOR};
use super::name::ENTRY;
use super::volume::Volume;
use crate::area::Area;

/// Most files and folders that are copied.
const MAX_NODES: usize = 4096;
/// Most folders in each other.
const MAX_DEPTH: usize = 8;
/// Bytes that are copied at once.
const CHUNK_BYTES: usize = 256 << 10;
const PER_SECTOR: usize = SECTOR / ENTRY;
/// Sectors before the first table, as everybody has them for FAT32.
const RESERVED: u64 = 32;
/// The sector of hints, and that of the copy of the boot sector, which has its own behind it.
const INFO: u64 = 1;
const BACKUP: u64 = 6;
const ROOT: u32 = 2;
/// Sectors of a cluster, the best first: 4 KiB where that makes clusters enough for FAT32 and not too many.
const CLUSTER_SECTORS: [u8; 7] = [8, 4, 2, 1, 16, 32, 64];

/// A file or folder; the first is the root.
struct Node {
    /// The folder that it is in.
    parent: usize,
    depth: usize,
    is_folder: bool,
    /// Its entries as they are on the disk, but for the cluster; the root's: the volume's label, if it has one.
    set: Vec<[u8; ENTRY]>,
    /// Its clusters on the old volume.
    clusters: Vec<u32>,
    length: u64,
}

/// Makes the volume in `to`, which begins at this sector of the disk, and reads it back.
pub fn copy(from: &Volume, to: &Area, first_lba: u64) -> Result<(), FatError> {
    let nodes = walk(from)?;
    let mut sector = [0; SECTOR];
    from.area.read_at(&mut sector, 0)?;
    let (boot, layout) = boot_sector(sector, to.length(), first_lba)?;
    let (first, table) = place(from, &nodes, &layout)?;
    let zeros = vec![0; RESERVED as usize * SECTOR];
    to.write_at(&zeros, 0)?;
    for start in layout.tables {
        let bytes: Vec<u8> = table.iter().flat_map(|entry: &u32| entry.to_le_bytes()).collect();
        to.write_at(&bytes, start * SECTOR as u64)?;
        let end = start + (layout.tables[1] - layout.tables[0]);
        zero(to, start * SECTOR as u64 + bytes.len() as u64, end * SECTOR as u64)?;
    }
    for (index, node) in nodes.iter().enumerate().filter(|(index, _)| first[*index] != 0) {
        let offset = layout.cluster_offset(first[index]);
        if node.is_folder {
            let bytes = folder(&nodes, index, &first).concat();
            to.write_at(&bytes, offset)?;
            zero(
                to,
                offset + bytes.len() as u64,
                offset + (bytes.len() as u64).next_multiple_of(layout.cluster_bytes()),
            )?;
        } else {
            content(from, to, node, offset)?;
        }
    }
    for at in [0, BACKUP] {
        to.write_at(&boot, at * SECTOR as u64)?;
        to.write_at(&hints(), (at + INFO) * SECTOR as u64)?;
    }
    to.sync()?;
    to.forget_cache()?;
    read_back(from, &nodes, to)
}

/// All files and folders of a volume, each behind the folder that it is in.
fn walk(volume: &Volume) -> Result<Vec<Node>, FatError> {
    let clusters = volume.table.chain(&volume.layout, volume.layout.root)?;
    let label = volume.content(&clusters)?.label();
    let set = label.into_iter().collect();
    let mut nodes = vec![Node { parent: 0, depth: 0, is_folder: true, set, clusters, length: 0 }];
    // Twice: a file may have two names. More is in several files, which can't be.
    let mut left = 2 * volume.layout.clusters as usize;
    let mut at = 0;
    while at < nodes.len() {
        if nodes[at].is_folder {
            let content = volume.content(&nodes[at].clusters)?;
            let depth = nodes[at].depth + 1;
            for entry in content.entries() {
                if nodes.len() >= MAX_NODES || depth > MAX_DEPTH {
                    return Err(FatError::Damaged("it has more files or folders than can be copied".into()));
                }
                let mut set = content.set_of(&entry);
                if let Some(last) = set.last_mut() {
                    put_cluster(last, 0);
                }
                let has_clusters = entry.is_folder || entry.length > 0;
                let clusters =
                    if has_clusters { volume.table.chain(&volume.layout, entry.cluster)? } else { Vec::new() };
                if clusters.len() as u64 * volume.layout.cluster_bytes() < u64::from(entry.length) {
                    return Err(FatError::Damaged(format!("{} is longer than its clusters", entry.name)));
                }
                let in_two = || FatError::Damaged(format!("clusters of {} are in other files, too", entry.name));
                left = left.checked_sub(clusters.len()).ok_or_else(in_two)?;
                let length = entry.length.into();
                nodes.push(Node { parent: at, depth, is_folder: entry.is_folder, set, clusters, length });
            }
        }
        at += 1;
    }
    Ok(nodes)
}

/// The old boot sector, with label and serial number, for a volume of another size (specification, section 3).
fn boot_sector(mut old: [u8; SECTOR], bytes: u64, first_lba: u64) -> Result<([u8; SECTOR], Layout), FatError> {
    let unusable = || FatError::Format("its size can't be that of an EFI system partition");
    let sectors = u32::try_from(bytes / SECTOR as u64).map_err(|_| unusable())?;
    for cluster_sectors in CLUSTER_SECTORS {
        let clusters = u64::from(sectors).saturating_sub(RESERVED) / u64::from(cluster_sectors);
        let table_sectors = ((clusters + 2) * 4).div_ceil(SECTOR as u64) as u32;
        let mut put = |at: usize, value: &[u8]| old[at..at + value.len()].copy_from_slice(value);
        put(11, &(SECTOR as u16).to_le_bytes());
        put(13, &[cluster_sectors]);
        put(14, &(RESERVED as u16).to_le_bytes());
        put(16, &[2, 0, 0, 0, 0]);
        put(22, &[0, 0]);
        put(28, &u32::try_from(first_lba).unwrap_or(0).to_le_bytes());
        put(32, &sectors.to_le_bytes());
        put(36, &table_sectors.to_le_bytes());
        put(40, &[0; 4]);
        put(44, &ROOT.to_le_bytes());
        put(48, &(INFO as u16).to_le_bytes());
        put(50, &(BACKUP as u16).to_le_bytes());
        if let Ok(layout) = Layout::read(&old, bytes) {
            return Ok((old, layout));
        }
    }
    Err(unusable())
}

/// The first cluster of each node, and the table that goes with that: one behind the other. A file that has two names, as
/// power cuts leave it, keeps both.
fn place(from: &Volume, nodes: &[Node], layout: &Layout) -> Result<(Vec<u32>, Vec<u32>), FatError> {
    let (mut first, mut table) = (vec![0; nodes.len()], vec![0x0fff_fff8, 0x0fff_ffff]);
    let mut known = BTreeMap::new();
    for (index, node) in nodes.iter().enumerate() {
        let bytes = if node.is_folder { (folder(nodes, index, &first).len() * SECTOR) as u64 } else { node.length };
        let count = bytes.div_ceil(layout.cluster_bytes());
        let begin = table.len() as u32;
        if count == 0 {
            continue;
        }
        if let (Some(old), false) = (node.clusters.first(), node.is_folder) {
            let there = known.entry((*old, node.length)).or_insert(begin);
            first[index] = *there;
            if *there != begin {
                continue;
            }
        }
        if u64::from(begin) + count > u64::from(layout.clusters) + 2 {
            return Err(FatError::Full(format!("all that is on the old volume of {} bytes", from.area.length())));
        }
        first[index] = begin;
        table.extend(begin + 1..begin + count as u32);
        table.push(0x0fff_ffff);
    }
    Ok((first, table))
}

/// The sectors of a folder. A name lies within one sector, where it can.
fn folder(nodes: &[Node], index: usize, first: &[u32]) -> Vec<[u8; SECTOR]> {
    let mut entries: Vec<[u8; ENTRY]> = Vec::new();
    if index == 0 {
        entries.extend(&nodes[0].set);
    } else {
        // The root is 0 to those in it (section 6.5).
        let parent = nodes[index].parent;
        for (name, cluster) in
            [(b".          ", first[index]), (b"..         ", if parent == 0 { 0 } else { first[parent] })]
        {
            let mut entry = nodes[index].set.last().copied().unwrap_or([0; ENTRY]);
            entry[..11].copy_from_slice(name);
            entry[12] = 0;
            put_cluster(&mut entry, cluster);
            entries.push(entry);
        }
    }
    for (child, node) in nodes.iter().enumerate().skip(1).filter(|(_, node)| node.parent == index) {
        let left = PER_SECTOR - entries.len() % PER_SECTOR;
        if node.set.len() > left && node.set.len() <= PER_SECTOR {
            let mut gap = [0; ENTRY];
            gap[0] = super::folder::FREE;
            entries.extend(std::iter::repeat_n(gap, left));
        }
        entries.extend(&node.set);
        if let Some(last) = entries.last_mut() {
            put_cluster(last, first[child]);
        }
    }
    // What follows the last is zero: the end.
    let mut sectors: Vec<[u8; SECTOR]> = entries
        .chunks(PER_SECTOR)
        .map(|chunk| {
            let mut sector = [0; SECTOR];
            sector.chunks_mut(ENTRY).zip(chunk).for_each(|(place, entry)| place.copy_from_slice(entry));
            sector
        })
        .collect();
    if sectors.is_empty() {
        sectors.push([0; SECTOR]);
    }
    sectors
}

fn put_cluster(entry: &mut [u8; ENTRY], cluster: u32) {
    entry[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
    entry[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
}

/// Hints (section 5): how much is free is unknown.
fn hints() -> [u8; SECTOR] {
    let mut sector = [0; SECTOR];
    sector[..4].copy_from_slice(b"RRaA");
    sector[484..488].copy_from_slice(b"rrAa");
    sector[488..496].fill(0xff);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    sector
}

fn zero(to: &Area, from: u64, end: u64) -> Result<(), FatError> {
    let zeros = vec![0; CHUNK_BYTES];
    let mut at = from;
    while at < end {
        let count = (end - at).min(CHUNK_BYTES as u64);
        to.write_at(&zeros[..count as usize], at)?;
        at += count;
    }
    Ok(())
}

fn content(from: &Volume, to: &Area, node: &Node, offset: u64) -> Result<(), FatError> {
    let old = from.piece(&node.clusters).cut(node.length);
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut at = 0;
    while at < node.length {
        let piece = &mut buffer[..(node.length - at).min(CHUNK_BYTES as u64) as usize];
        old.read_at(piece, at)?;
        to.write_at(piece, offset + at)?;
        at += piece.len() as u64;
    }
    Ok(())
}

/// Every name and every byte, as any reader finds them.
fn read_back(from: &Volume, nodes: &[Node], to: &Area) -> Result<(), FatError> {
    let changed = || FatError::Damaged("what was read back isn't what was written: the disk is failing".into());
    let new = Volume::open(to.clone(), "")?;
    let there = walk(&new)?;
    if there.len() != nodes.len() {
        return Err(changed());
    }
    let (mut buffer, mut other) = (vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]);
    for (node, copy) in nodes.iter().zip(&there) {
        if (&node.set, node.parent, node.is_folder, node.length)
            != (&copy.set, copy.parent, copy.is_folder, copy.length)
        {
            return Err(changed());
        }
        let areas = (from.piece(&node.clusters).cut(node.length), new.piece(&copy.clusters).cut(node.length));
        let mut at = 0;
        while at < node.length && !node.is_folder {
            let count = (node.length - at).min(CHUNK_BYTES as u64) as usize;
            areas.0.read_at(&mut buffer[..count], at)?;
            areas.1.read_at(&mut other[..count], at)?;
            if buffer[..count] != other[..count] {
                return Err(changed());
            }
            at += count as u64;
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "copy_tests.rs"]
mod tests;
