//! What a new file has in common with those on the disk, told by digests alone; and how what is left is asked for.

use std::collections::HashMap;
use std::io;
use std::ops::Range;

use keel_spec::blocks::{self as digests, Digests};
use keel_spec::verity::{BLOCK_BYTES, Geometry};

use crate::area::Area;
use crate::blocks::{CHUNK_BLOCKS, Image, sha256};
use crate::disk::Device;
use crate::failure::Result;
use keel_spec::disk::MAX_TREE_BYTES;

const BLOCK: u64 = BLOCK_BYTES as u64;
const HASHES_PER_BLOCK: u64 = BLOCK / 32;
/// Blocks that are fetched though they are there, so that ranges join, as a share of those that aren't: one in 32.
const JOIN_SHARE: u64 = 32;
/// Most ranges in all; beyond that they are joined whatever it costs.
const MAX_RANGES: usize = 64 << 10;
/// Most ranges, and bytes, of one request.
const MAX_REQUEST_RANGES: usize = 32;
const MAX_REQUEST_BLOCKS: u64 = 512;

/// Most blocks that are known of: those of the largest root, and what else fits into 17 MiB of table.
const MAX_PLACES: usize = (1 << 20) / 8 * 7;

/// Where a block is that may be the one that is wanted.
#[derive(Clone, Copy)]
struct Place {
    source: u32,
    block: u32,
}

/// Blocks on the disk by the beginning of their digest. Nothing here is relied on: what is copied is checked against
/// the new file's digests like everything else.
#[derive(Default)]
pub struct Known<'a> {
    sources: Vec<Area<'a>>,
    places: HashMap<u64, Place>,
}

fn prefix(digest: &[u8]) -> u64 {
    digest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

impl<'a> Known<'a> {
    /// What is in roots on the disk: where each and its tree are, offset and bytes. One may be written over while this is in
    /// use: what is gone by then is fetched.
    pub fn of_roots(disk: &'a dyn Device, roots: &[[(u64, u64); 2]]) -> Self {
        let mut known = Self::default();
        let warn = |error: io::Error| log::warn!("read a hash tree on the disk: {error}");
        let mut there = Vec::new();
        for [(root, root_bytes), (tree, tree_bytes)] in roots {
            let tree = Area::new(disk, *tree, *tree_bytes);
            match geometry(&tree) {
                Ok(Some(geometry)) => there.push((geometry, tree, Area::new(disk, *root, *root_bytes))),
                Ok(None) => {}
                Err(error) => warn(error),
            }
        }
        known.make_room(there.iter().map(|(geometry, ..)| geometry.data_blocks()).sum());
        for (geometry, tree, root) in there {
            known.add_root(&geometry, &tree, root).unwrap_or_else(warn);
        }
        known
    }

    /// Takes memory for so many blocks at once: a table that grows needs, meanwhile, that of the old one, too.
    fn make_room(&mut self, blocks: u64) {
        let most = MAX_PLACES.saturating_sub(self.places.len());
        self.places.reserve(usize::try_from(blocks).unwrap_or(most).min(most));
    }

    fn add(&mut self, source: u32, block: u64, digest: &[u8]) {
        let Some(block) = u32::try_from(block).ok().filter(|_| self.places.len() < MAX_PLACES) else { return };
        self.places.entry(prefix(digest)).or_insert(Place { source, block });
    }

    fn add_source(&mut self, area: Area<'a>) -> u32 {
        self.sources.push(area);
        self.sources.len() as u32 - 1
    }

    /// A root, by the lowest level of the tree in its partition.
    fn add_root(&mut self, geometry: &Geometry, tree: &Area, root: Area<'a>) -> io::Result<()> {
        let source = self.add_source(root);
        let Some((first, blocks)) = geometry.levels().first() else { return Ok(()) };
        let mut block = vec![0; BLOCK_BYTES];
        for index in 0..*blocks {
            tree.read_at(&mut block, (first + index) * BLOCK)?;
            let numbers = index * HASHES_PER_BLOCK..geometry.data_blocks();
            block.chunks(32).zip(numbers).for_each(|(hash, number)| self.add(source, number, hash));
        }
        Ok(())
    }

    /// A file whose digests are known.
    pub fn add_digests(&mut self, known: &dyn Digests, area: Area<'a>) {
        let source = self.add_source(area);
        self.make_room(known.blocks());
        for block in 0..known.blocks() {
            if let Some(digest) = known.digest(block) {
                self.add(source, block, digest);
            }
        }
    }

    /// A file whose digests have to be computed.
    pub fn add_file(&mut self, area: Area<'a>) -> io::Result<()> {
        let source = self.add_source(area.clone());
        self.make_room(area.length().div_ceil(BLOCK));
        let mut buffer = vec![0; (CHUNK_BLOCKS * BLOCK) as usize];
        let mut at = 0;
        while at < area.length() {
            let count = (area.length() - at).min(buffer.len() as u64) as usize;
            area.read_at(&mut buffer[..count], at)?;
            for (block, number) in buffer[..count].chunks(BLOCK_BYTES).zip(at / BLOCK..) {
                self.add(source, number, &digests::digest(block, &sha256));
            }
            at += count as u64;
        }
        Ok(())
    }

    /// Whether a block with this digest seems to be on the disk.
    pub fn knows(&self, digest: &[u8; 32]) -> bool {
        self.find(digest).is_some()
    }

    fn find(&self, digest: &[u8; 32]) -> Option<Place> {
        self.places.get(&prefix(digest)).copied()
    }
}

/// The shape of a tree in a partition; `None`: there is none of ours.
fn geometry(tree: &Area) -> io::Result<Option<Geometry>> {
    let mut superblock = vec![0; BLOCK_BYTES];
    tree.read_at(&mut superblock, 0)?;
    // cryptsetup's superblock: the number of data blocks is at byte 72.
    let data_blocks = superblock.get(72..80).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_le_bytes);
    let Ok(geometry) = Geometry::new(data_blocks) else { return Ok(None) };
    let fits = geometry.file_bytes() <= tree.length().min(MAX_TREE_BYTES);
    Ok((fits && superblock == geometry.superblock()).then_some(geometry))
}

/// Puts everything that is on the disk already into its place; returns the blocks that aren't. With `resume` a block
/// that is in its place stays there.
pub fn fill(image: &Image, known: &Known, resume: bool, done: &mut dyn FnMut(u64)) -> Result<Vec<Range<u64>>> {
    let mut missing: Vec<Range<u64>> = Vec::new();
    let mut buffer = vec![0; (CHUNK_BLOCKS * BLOCK) as usize];
    let blocks = image.digests.blocks();
    let mut first = 0;
    while first < blocks {
        let count = CHUNK_BLOCKS.min(blocks - first);
        let piece = &mut buffer[..image.bytes_of(first, count) as usize];
        let mut there = vec![false; count as usize];
        if resume && image.get(first, piece).is_ok() {
            there = image.right(first, piece).collect();
        }
        copy_chunk(image, known, first, &mut there, piece)?;
        for (block, there) in (first..).zip(&there) {
            match missing.last_mut() {
                _ if *there => {}
                Some(run) if run.end == block => run.end += 1,
                _ => missing.push(block..block + 1),
            }
        }
        first += count;
        done(first);
    }
    Ok(missing)
}

/// Copies what is known of a chunk, run by run, and marks what is there then.
fn copy_chunk(image: &Image, known: &Known, first: u64, there: &mut [bool], buffer: &mut [u8]) -> Result<()> {
    let place = |at: usize| image.digests.digest(first + at as u64).and_then(|digest| known.find(digest));
    let mut at = 0;
    while at < there.len() {
        let Some(begin) = place(at).filter(|_| !there[at]) else {
            at += 1;
            continue;
        };
        let follows = |next: usize| {
            let follower = place(next).filter(|_| !there[next]);
            follower.is_some_and(|place| {
                place.source == begin.source && u64::from(place.block) == u64::from(begin.block) + (next - at) as u64
            })
        };
        let end = (at + 1..there.len()).find(|next| !follows(*next)).unwrap_or(there.len());
        let start = first + at as u64;
        let run = &mut buffer[..image.bytes_of(start, (end - at) as u64) as usize];
        let source = known.sources.get(begin.source as usize);
        // Its disk may rot like any other: what can't be read or isn't right is fetched.
        let read = source.is_some_and(|source| read_padded(source, run, u64::from(begin.block) * BLOCK).is_ok());
        let right: Vec<bool> = if read { image.right(start, run).collect() } else { vec![false; end - at] };
        if right.iter().all(|right| *right) {
            image.put(start, run)?;
        } else {
            for (index, block) in run.chunks(BLOCK_BYTES).enumerate().filter(|(index, _)| right[*index]) {
                image.put(start + index as u64, block)?;
            }
        }
        there[at..end].copy_from_slice(&right);
        at = end;
    }
    Ok(())
}

/// The last block of a file is followed by zeros.
fn read_padded(area: &Area, buffer: &mut [u8], at: u64) -> io::Result<()> {
    let there = (area.length().saturating_sub(at)).min(buffer.len() as u64) as usize;
    buffer[there..].fill(0);
    area.read_at(&mut buffer[..there], at)
}

/// What is to be asked for: short gaps are fetched along as long as that costs next to nothing, then runs are put
/// together into requests.
pub fn requests(missing: Vec<Range<u64>>) -> Vec<Vec<Range<u64>>> {
    let mut requests: Vec<Vec<Range<u64>>> = Vec::new();
    let mut room = 0;
    for run in join(missing) {
        let mut first = run.start;
        while first < run.end {
            if room == 0 || requests.last().is_none_or(|request| request.len() == MAX_REQUEST_RANGES) {
                requests.push(Vec::new());
                room = MAX_REQUEST_BLOCKS;
            }
            let end = run.end.min(first + room);
            room -= end - first;
            if let Some(request) = requests.last_mut() {
                request.push(first..end);
            }
            first = end;
        }
    }
    requests
}

fn join(missing: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let wanted: u64 = missing.iter().map(|run| run.end - run.start).sum();
    let mut gaps: Vec<u64> = missing.windows(2).map(|pair| pair[1].start - pair[0].end).collect();
    gaps.sort_unstable();
    // The shortest gaps first, as long as they are paid for or there are too many ranges.
    let must = missing.len().saturating_sub(MAX_RANGES);
    let mut spent = 0;
    let mut longest = 0;
    for (index, gap) in gaps.into_iter().enumerate() {
        spent += gap;
        if index >= must && spent > wanted / JOIN_SHARE {
            break;
        }
        longest = gap;
    }
    let mut budget = spent;
    let mut joined: Vec<Range<u64>> = Vec::new();
    for run in missing {
        match joined.last_mut() {
            Some(last) if run.start - last.end <= longest && run.start - last.end <= budget => {
                budget -= run.start - last.end;
                last.end = run.end;
            }
            _ => joined.push(run),
        }
    }
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shortest_gaps_are_fetched_along_within_their_budget() {
        // 640 blocks are wanted, so 20 may be fetched along.
        let missing = vec![0..300, 304..400, 430..440, 442..676];
        assert_eq!(join(missing), [0..400, 430..676]);
        assert_eq!(join(vec![0..1, 2..3]), [0..1, 2..3]);
        assert_eq!(join(Vec::new()), Vec::<Range<u64>>::new());
    }

    #[test]
    fn too_many_ranges_are_joined_whatever_it_costs() {
        let missing: Vec<Range<u64>> = (0..200_000).map(|number| number * 3..number * 3 + 1).collect();
        assert!(join(missing).len() <= MAX_RANGES);
    }

    #[test]
    fn requests_are_bounded_in_ranges_and_in_bytes() {
        let scattered: Vec<Range<u64>> = (0..100).map(|number| number * 1000..number * 1000 + 1).collect();
        let requests_of = requests(scattered.clone());
        assert_eq!(requests_of.iter().map(Vec::len).collect::<Vec<_>>(), [32, 32, 32, 4]);
        assert_eq!(requests_of.concat(), scattered);
        let long = 3..3 + 2 * MAX_REQUEST_BLOCKS + 5;
        let one = requests(std::iter::once(long).collect());
        assert_eq!(one.len(), 3);
        assert_eq!(one[2][0], 3 + 2 * MAX_REQUEST_BLOCKS..3 + 2 * MAX_REQUEST_BLOCKS + 5);
    }
}
