//! What can be done to a volume: its files are found, made, renamed and removed, each in an order that power cuts
//! can't harm.

use std::collections::BTreeSet;

use super::folder::{Content, Entry, Steps};
use super::layout::{FatError, Layout, SECTOR};
use super::table::Table;
use crate::area::Area;

/// Most sectors of a folder that are looked at.
const MAX_FOLDER_SECTORS: usize = 1024;
/// Most folders, and their depth, that are looked at for clusters in use.
const MAX_FOLDERS: usize = 256;
const MAX_DEPTH: usize = 8;
/// Number of free clusters in the hints: unknown.
const UNKNOWN: [u8; 4] = [0xff; 4];

/// A file of a folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: String,
    /// Bytes.
    pub length: u64,
}

/// A volume, and one folder of it.
pub struct Volume<'a> {
    pub(super) area: Area<'a>,
    pub(super) layout: Layout,
    pub(super) table: Table,
    /// Clusters of the folder.
    folder: Vec<u32>,
}

impl<'a> Volume<'a> {
    /// Opens a volume and the folder with this path, `EFI/Linux`; empty: the top folder.
    pub fn open(area: Area<'a>, path: &str) -> Result<Self, FatError> {
        let mut sector = [0; SECTOR];
        area.read_at(&mut sector, 0)?;
        let layout = Layout::read(&sector, area.length())?;
        let table = Table::read(&area, &layout)?;
        let folder = table.chain(&layout, layout.root)?;
        let mut volume = Self { area, layout, table, folder };
        for name in path.split('/').filter(|name| !name.is_empty()) {
            let found = volume.content(&volume.folder)?.find(name).filter(|entry| entry.is_folder);
            let found = found.ok_or_else(|| FatError::NotFound(path.into()))?;
            volume.folder = volume.table.chain(&volume.layout, found.cluster)?;
        }
        Ok(volume)
    }

    pub(super) fn content(&self, clusters: &[u32]) -> Result<Content, FatError> {
        let sectors = clusters.len() * self.layout.cluster_sectors as usize;
        if sectors > MAX_FOLDER_SECTORS {
            return Err(FatError::Damaged(format!("a folder has more than {MAX_FOLDER_SECTORS} sectors")));
        }
        let mut content = vec![[0; SECTOR]; sectors];
        for (sector, offset) in content.iter_mut().zip(self.sectors(clusters)) {
            self.area.read_at(sector, offset)?;
        }
        Ok(Content(content))
    }

    /// Where the sectors of clusters are.
    fn sectors(&self, clusters: &[u32]) -> impl Iterator<Item = u64> {
        let layout = self.layout;
        let clusters = clusters.to_vec();
        clusters.into_iter().flat_map(move |cluster| {
            (0..layout.cluster_sectors).map(move |sector| layout.cluster_offset(cluster) + sector * SECTOR as u64)
        })
    }

    fn find(&self, name: &str) -> Result<Entry, FatError> {
        let found = self.content(&self.folder)?.find(name).filter(|entry| !entry.is_folder);
        found.ok_or_else(|| FatError::NotFound(name.into()))
    }

    /// Files of the folder.
    pub fn files(&self) -> Result<Vec<File>, FatError> {
        let entries = self.content(&self.folder)?.entries().into_iter().filter(|entry| !entry.is_folder);
        Ok(entries.map(|entry| File { name: entry.name, length: entry.length.into() }).collect())
    }

    /// The content of a file.
    pub fn file(&self, name: &str) -> Result<Area<'a>, FatError> {
        let entry = self.find(name)?;
        let clusters = if entry.length == 0 { Vec::new() } else { self.table.chain(&self.layout, entry.cluster)? };
        let bytes = self.layout.cluster_bytes();
        if (clusters.len() as u64) * bytes < u64::from(entry.length) {
            return Err(FatError::Damaged(format!("{name} is longer than its clusters")));
        }
        Ok(self.piece(&clusters).cut(entry.length.into()))
    }

    pub(super) fn piece(&self, clusters: &[u32]) -> Area<'a> {
        let bytes = self.layout.cluster_bytes();
        let pieces: Vec<(u64, u64)> =
            clusters.iter().map(|cluster| (self.layout.cluster_offset(*cluster), bytes)).collect();
        self.area.part(&pieces)
    }

    /// Bytes that can still be written.
    pub fn free_bytes(&self) -> u64 {
        self.table.free(&self.layout) * self.layout.cluster_bytes()
    }

    /// Makes a file of this length, whose content is whatever was there before. Its clusters are on the medium before
    /// its name is.
    pub fn create(&mut self, name: &str, length: u64) -> Result<Area<'a>, FatError> {
        let full = || FatError::Full(format!("{name} of {length} bytes"));
        let length = u32::try_from(length).ok().filter(|length| *length > 0).ok_or_else(full)?;
        if self.content(&self.folder)?.find(name).is_some() {
            return Err(FatError::Name(name.into()));
        }
        let count = u64::from(length).div_ceil(self.layout.cluster_bytes());
        self.forget_hints()?;
        let clusters = self.table.take(&self.layout, count as u32).ok_or_else(full)?;
        self.write_table()?;
        let first = clusters.first().copied().unwrap_or_default();
        self.change(name, |content| content.add(name, first, length))?;
        Ok(self.piece(&clusters).cut(length.into()))
    }

    /// Gives a file another name, which no other file may have.
    pub fn rename(&mut self, from: &str, to: &str) -> Result<(), FatError> {
        let entry = self.find(from)?;
        if self.content(&self.folder)?.find(to).is_some() {
            return Err(FatError::Name(to.into()));
        }
        self.change(to, |content| content.rename(&entry, to))
    }

    /// Removes a file. Its clusters are freed once its name is gone, unless another name has them too.
    pub fn remove(&mut self, name: &str) -> Result<(), FatError> {
        let entry = self.find(name)?;
        let content = self.content(&self.folder)?;
        self.write_steps(content.remove(&entry))?;
        let shared = content.entries().iter().filter(|other| other.cluster == entry.cluster).count() > 1;
        if shared || entry.length == 0 {
            return Ok(());
        }
        self.forget_hints()?;
        let clusters = self.table.chain(&self.layout, entry.cluster)?;
        self.table.give_back(&clusters);
        self.write_table()
    }

    /// Frees clusters that a power cut left without a name; says how many. On a volume that can't be understood whole
    /// nothing is freed.
    pub fn reclaim(&mut self) -> Result<usize, FatError> {
        let mut used = BTreeSet::new();
        let mut folders = vec![(self.layout.root, 0)];
        let mut seen = 0;
        while let Some((first, depth)) = folders.pop() {
            seen += 1;
            if seen > MAX_FOLDERS || depth > MAX_DEPTH {
                return Ok(0);
            }
            let Ok(clusters) = self.table.chain(&self.layout, first) else { return Ok(0) };
            let Ok(content) = self.content(&clusters) else { return Ok(0) };
            used.extend(clusters);
            for entry in content.entries().into_iter().filter(|entry| entry.cluster != 0) {
                if entry.is_folder {
                    folders.push((entry.cluster, depth + 1));
                } else {
                    let Ok(clusters) = self.table.chain(&self.layout, entry.cluster) else { return Ok(0) };
                    used.extend(clusters);
                }
            }
        }
        let freed = self.table.free_all_but(&self.layout, &used);
        if freed > 0 {
            self.forget_hints()?;
            self.write_table()?;
        }
        Ok(freed)
    }

    /// Returns when everything is on the medium.
    pub fn sync(&self) -> Result<(), FatError> {
        Ok(self.area.sync()?)
    }

    /// The number of free clusters isn't kept up to date: it is made unknown, and whoever wants it counts.
    fn forget_hints(&self) -> Result<(), FatError> {
        let mut sector = [0; SECTOR];
        let offset = self.layout.info * SECTOR as u64;
        self.area.read_at(&mut sector, offset)?;
        if sector.starts_with(b"RRaA") && sector[488..492] != UNKNOWN {
            sector[488..492].copy_from_slice(&UNKNOWN);
            self.area.write_at(&sector, offset)?;
        }
        Ok(())
    }

    fn write_table(&mut self) -> Result<(), FatError> {
        self.table.write(&self.area, &self.layout)?;
        self.sync()
    }

    fn change(
        &mut self,
        name: &str,
        plan: impl Fn(&Content) -> Result<Option<Steps>, FatError>,
    ) -> Result<(), FatError> {
        // The second time around the folder has another cluster, which is empty.
        for _ in 0..2 {
            let planned = plan(&self.content(&self.folder)?)?;
            if let Some(steps) = planned {
                return self.write_steps(steps);
            }
            self.grow_folder()?;
        }
        Err(FatError::Full(name.into()))
    }

    fn write_steps(&self, steps: Steps) -> Result<(), FatError> {
        let offsets: Vec<u64> = self.sectors(&self.folder).collect();
        for step in steps {
            for (sector, bytes) in step {
                let beyond = || FatError::Damaged("an entry lies beyond the end of its folder".into());
                self.area.write_at(&bytes, *offsets.get(sector).ok_or_else(beyond)?)?;
            }
            self.sync()?;
        }
        Ok(())
    }

    /// Gives the folder another cluster: emptied and marked as taken before the folder's chain reaches it.
    fn grow_folder(&mut self) -> Result<(), FatError> {
        let full = || FatError::Full("another name in the folder".into());
        let last = *self.folder.last().ok_or_else(full)?;
        let new =
            *self.table.take(&self.layout, 1).and_then(|taken| taken.first().copied()).as_ref().ok_or_else(full)?;
        self.area.write_at(&vec![0; self.layout.cluster_bytes() as usize], self.layout.cluster_offset(new))?;
        self.forget_hints()?;
        self.write_table()?;
        self.table.append(last, new);
        self.write_table()?;
        self.folder.push(new);
        Ok(())
    }
}
