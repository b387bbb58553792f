//! Entries of a folder, read and placed (specification, sections 6 and 7). No I/O: what is to be written comes back as
//! a list of sectors, in the order in which they have to reach the disk.

use super::layout::{FatError, SECTOR};
use super::name::{self, Assembly, ENTRY, LONG};

/// Entries in a sector.
const PER_SECTOR: usize = SECTOR / ENTRY;
/// First byte of an entry that isn't in use.
pub const FREE: u8 = 0xe5;
const VOLUME_LABEL: u8 = 0x08;
const FOLDER: u8 = 0x10;
const ARCHIVE: u8 = 0x20;

/// A file or folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its long name, or else its short one.
    pub name: String,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// First cluster; 0: none.
    pub cluster: u32,
    /// Bytes.
    pub length: u32,
    short: [u8; 11],
    /// Where its entries are, the first and the one after the last.
    place: (usize, usize),
}

/// A folder's content: the sectors of all its clusters.
#[derive(Clone)]
pub struct Content(pub Vec<[u8; SECTOR]>);

/// Sectors to write: which, and what. Between two steps everything has to be on the medium.
pub type Steps = Vec<Vec<(usize, [u8; SECTOR])>>;

impl Content {
    fn entry(&self, index: usize) -> &[u8] {
        self.0.get(index / PER_SECTOR).map_or(&[0; ENTRY], |sector| &sector[index % PER_SECTOR * ENTRY..][..ENTRY])
    }

    fn entry_mut(&mut self, index: usize) -> Option<&mut [u8]> {
        Some(&mut self.0.get_mut(index / PER_SECTOR)?[index % PER_SECTOR * ENTRY..][..ENTRY])
    }

    /// Index of the first entry that was never used: nothing after it counts.
    fn end(&self) -> usize {
        let all = self.0.len() * PER_SECTOR;
        (0..all).find(|index| self.entry(*index)[0] == 0).unwrap_or(all)
    }

    /// Files and folders, without `.` and `..`.
    pub fn entries(&self) -> Vec<Entry> {
        let (mut found, mut assembly, mut first) = (Vec::new(), Assembly::default(), None);
        for index in 0..self.end() {
            let bytes = self.entry(index);
            if bytes[0] != FREE && bytes[11] & 0x3f == LONG {
                if bytes[0] & 0x40 != 0 {
                    first = Some(index);
                }
                assembly.take(bytes);
                continue;
            }
            let (long, begin) = (std::mem::take(&mut assembly), first.take());
            if bytes[0] == FREE || bytes[0] == b'.' || bytes[11] & VOLUME_LABEL != 0 {
                continue;
            }
            let mut short = [0; 11];
            short.copy_from_slice(&bytes[..11]);
            let long = long.finish(&short);
            let place = (begin.filter(|_| long.is_some()).unwrap_or(index), index + 1);
            let half = |at: usize| u32::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]));
            found.push(Entry {
                name: long.unwrap_or_else(|| name::short_text(&short, bytes[12])),
                is_folder: bytes[11] & FOLDER != 0,
                cluster: half(20) << 16 | half(26),
                length: u32::from_le_bytes([bytes[28], bytes[29], bytes[30], bytes[31]]),
                short,
                place,
            });
        }
        found
    }

    /// The entry of this name; upper and lower case are the same.
    pub fn find(&self, name: &str) -> Option<Entry> {
        self.entries().into_iter().find(|entry| entry.name.eq_ignore_ascii_case(name))
    }

    /// The entries of a file or folder as they are on the disk: those of its long name, then the short one.
    pub fn set_of(&self, entry: &Entry) -> Vec<[u8; ENTRY]> {
        let bytes = (entry.place.0..entry.place.1).map(|index| self.entry(index).try_into());
        bytes.map(|bytes| bytes.unwrap_or([0; ENTRY])).collect()
    }

    /// The entry with the volume's label.
    pub fn label(&self) -> Option<[u8; ENTRY]> {
        let is_label = |bytes: &&[u8]| bytes[0] != FREE && bytes[11] & 0x3f != LONG && bytes[11] & VOLUME_LABEL != 0;
        (0..self.end()).map(|index| self.entry(index)).find(is_label)?.try_into().ok()
    }

    /// The entries that a name takes; `None` if it can't be written.
    fn set(&self, name: &str, cluster: u32, length: u32) -> Option<Vec<[u8; ENTRY]>> {
        let entries = self.entries();
        let short = name::short(name, |short| entries.iter().any(|entry| entry.short == *short))?;
        let mut set = name::parts(name, &short)?;
        let mut last = [0; ENTRY];
        last[..11].copy_from_slice(&short);
        last[11] = ARCHIVE;
        // 1980-01-01, the first day there is: a host's clock may know no better.
        for at in [16, 18, 24] {
            last[at..at + 2].copy_from_slice(&0x0021u16.to_le_bytes());
        }
        last[20..22].copy_from_slice(&((cluster >> 16) as u16).to_le_bytes());
        last[26..28].copy_from_slice(&(cluster as u16).to_le_bytes());
        last[28..].copy_from_slice(&length.to_le_bytes());
        set.push(last);
        Some(set)
    }

    /// Adds a file. `Ok(None)`: there is no room, the folder needs another cluster. `Err`: the name can't be written.
    pub fn add(&self, name: &str, cluster: u32, length: u32) -> Result<Option<Steps>, FatError> {
        let set = self.set(name, cluster, length).ok_or_else(|| FatError::Name(name.into()))?;
        Ok(self.place(set.len()).map(|at| self.put(&set, at)))
    }

    /// Renames a file: in one sector if there is room, otherwise the new name comes first. A file that has the new name
    /// already is the caller's to remove. As with [`Content::add`].
    pub fn rename(&self, from: &Entry, to: &str) -> Result<Option<Steps>, FatError> {
        let set = self.set(to, from.cluster, from.length).ok_or_else(|| FatError::Name(to.into()))?;
        let sector = from.place.0 / PER_SECTOR;
        let mut without = self.clone();
        without.free(from);
        if (from.place.1 - 1) / PER_SECTOR == sector
            && let Some(at) = without.place_in(sector, set.len())
        {
            return Ok(Some(without.put(&set, at)));
        }
        let Some(at) = self.place(set.len()) else { return Ok(None) };
        let mut steps = self.put(&set, at);
        let mut after = self.clone();
        steps.iter().flatten().for_each(|(sector, bytes)| after.0[*sector] = *bytes);
        steps.extend(after.remove(from));
        Ok(Some(steps))
    }

    /// Removes a name. Where it lies in two sectors, its short entry goes first: without it the rest means nothing,
    /// while the short entry alone would be a file of another name.
    pub fn remove(&self, entry: &Entry) -> Steps {
        let mut after = self.clone();
        after.free(entry);
        let (first, last) = (entry.place.0 / PER_SECTOR, (entry.place.1 - 1) / PER_SECTOR);
        (first..=last).rev().map(|sector| vec![(sector, after.0[sector])]).collect()
    }

    fn free(&mut self, entry: &Entry) {
        for index in entry.place.0..entry.place.1 {
            if let Some(bytes) = self.entry_mut(index) {
                bytes[0] = FREE;
            }
        }
    }

    /// Where so many entries fit, all within one sector.
    fn place(&self, count: usize) -> Option<usize> {
        (0..self.0.len()).find_map(|sector| self.place_in(sector, count))
    }

    fn place_in(&self, sector: usize, count: usize) -> Option<usize> {
        let (first, end) = (sector * PER_SECTOR, self.end());
        let free = |index: usize| index >= end || self.entry(index)[0] == FREE;
        (first..=(first + PER_SECTOR).checked_sub(count)?).find(|at| (*at..at + count).all(free))
    }

    /// Puts entries at a place that [`Content::place`] found.
    fn put(&self, set: &[[u8; ENTRY]], at: usize) -> Steps {
        let (mut after, end) = (self.clone(), self.end());
        let mut steps = Steps::new();
        let next = at + set.len();
        if next > end {
            // The end moves on; what was never used may hold anything.
            if next.is_multiple_of(PER_SECTOR) && after.entry(next)[0] != 0 {
                after.0[next / PER_SECTOR] = [0; SECTOR];
                steps.push(vec![(next / PER_SECTOR, [0; SECTOR])]);
            }
            (next..next.next_multiple_of(PER_SECTOR)).for_each(|index| {
                if let Some(bytes) = after.entry_mut(index) {
                    bytes.fill(0);
                }
            });
        }
        for (index, bytes) in (at..).zip(set) {
            if let Some(place) = after.entry_mut(index) {
                place.copy_from_slice(bytes);
            }
        }
        let sector = at / PER_SECTOR;
        steps.push(vec![(sector, after.0[sector])]);
        if at > end {
            // Beyond the end nothing is seen: filling the gap before, in one sector, is what makes it visible.
            for index in end..at {
                if let Some(bytes) = after.entry_mut(index) {
                    bytes[0] = FREE;
                }
            }
            (end / PER_SECTOR..sector).rev().for_each(|gap| steps.push(vec![(gap, after.0[gap])]));
        }
        steps
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(content: &mut Content, steps: Steps) -> usize {
        let writes = steps.iter().flatten().count();
        steps.into_iter().flatten().for_each(|(sector, bytes)| content.0[sector] = bytes);
        writes
    }

    fn names(content: &Content) -> Vec<String> {
        content.entries().into_iter().map(|entry| entry.name).collect()
    }

    #[test]
    fn a_name_never_spans_sectors_and_is_changed_by_one_write() {
        let mut content = Content(vec![[0; SECTOR]; 8]);
        for number in 0..12 {
            let steps = content.add(&format!("keel_1.0.{number}+3.efi.part"), 9, 5).unwrap().unwrap();
            apply(&mut content, steps);
        }
        assert_eq!(names(&content).len(), 12);
        for number in 0..12 {
            let entry = content.find(&format!("keel_1.0.{number}+3.efi.part")).unwrap();
            assert_eq!(entry.place.0 / PER_SECTOR, (entry.place.1 - 1) / PER_SECTOR, "{entry:?}");
            let steps = content.rename(&entry, &format!("keel_1.0.{number}+3.efi")).unwrap().unwrap();
            assert_eq!(apply(&mut content, steps), 1);
        }
        let mut found = names(&content);
        found.sort();
        assert_eq!(found.len(), 12);
        assert!(found.iter().all(|name| name.ends_with("+3.efi")), "{found:?}");
        for name in found {
            let steps = content.remove(&content.find(&name).unwrap());
            assert_eq!(apply(&mut content, steps), 1);
        }
        assert_eq!(names(&content), Vec::<String>::new());
    }

    #[test]
    fn a_name_that_others_wrote_across_sectors_never_shows_its_short_one() {
        let mut content = Content(vec![[0; SECTOR]; 2]);
        content.0[0].chunks_mut(ENTRY).for_each(|entry| entry[0] = FREE);
        let set = content.set("keel_1.0.0+3-0.efi", 7, 9).unwrap();
        content.0[0][15 * ENTRY..].copy_from_slice(&set[0]);
        content.0[1][..ENTRY].copy_from_slice(&set[1]);
        content.0[1][ENTRY..2 * ENTRY].copy_from_slice(&set[2]);
        assert_eq!(names(&content), ["keel_1.0.0+3-0.efi"]);
        let entry = content.find("keel_1.0.0+3-0.efi").unwrap();
        for steps in [content.remove(&entry), content.rename(&entry, "keel_1.0.0.efi").unwrap().unwrap()] {
            let mut now = content.clone();
            for (sector, bytes) in steps.into_iter().flatten() {
                now.0[sector] = bytes;
                let seen = names(&now);
                assert!(seen.iter().all(|name| name.starts_with("keel_1.0.0")), "{seen:?}");
            }
        }
    }

    #[test]
    fn what_was_never_used_may_hold_anything() {
        let mut content = Content(vec![[0x41; SECTOR]; 3]);
        content.0[0][14 * ENTRY] = 0;
        content.0[0][..14 * ENTRY].chunks_mut(ENTRY).for_each(|entry| entry[0] = FREE);
        content.0[0][..14 * ENTRY]
            .chunks_mut(ENTRY)
            .step_by(2)
            .for_each(|entry| entry[..12].copy_from_slice(b"SHORT   TXT "));
        for number in 0..6 {
            let steps = content.add(&format!("keel_1.2.{number}.efi"), 9, 5).unwrap().unwrap();
            apply(&mut content, steps);
        }
        let ours = names(&content).into_iter().filter(|name| name.starts_with("keel_1.2.")).count();
        assert_eq!((ours, names(&content).len()), (6, 13));
        let mut full = Content(vec![[FREE; SECTOR]; 1]);
        full.0[0].chunks_mut(ENTRY).for_each(|entry| entry[..12].copy_from_slice(b"SHORT   TXT "));
        assert!(matches!(full.add("a", 1, 1), Ok(None)));
        assert!(full.add("a b", 1, 1).is_err());
    }
}
