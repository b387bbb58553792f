//! Whether a disk boots a release whole, told without booting it.
//!
//! The checker follows a disk through its states: it is told which bytes changed, and looks at those again. The EFI
//! system partition is read by `fatfs`, the choice is systemd-boot's, slots are compared block by block with what was
//! published.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result};
use fatfs::{FileSystem, FsOptions};
use fscommon::{BufStream, StreamSlice};
use keel_spec::disk::{ESP_LABEL, Slot, root_guid, verity_guid};
use keel_spec::gpt::{BACKUP_SECTORS, Guid, PRIMARY_SECTORS, SECTOR_BYTES, Table};
use keel_spec::release::{Release, ReleaseFile, UkiName, Version};

const BLOCK: u64 = 4096;
/// The boot loader's own file, which no update writes.
const BOOT_LOADER: &str = "EFI/BOOT/BOOTX64.EFI";

/// A place on the disk and what has to be there.
struct Expected {
    unique: Guid,
    offset: u64,
    content: Vec<u8>,
    /// Blocks that differ.
    wrong: BTreeSet<u64>,
}

struct Known {
    version: Version,
    uki: Vec<u8>,
    /// Root and tree.
    parts: [Expected; 2],
}

/// Follows a disk.
pub struct Checker {
    disk: File,
    disk_bytes: u64,
    esp: (u64, u64),
    boot_loader: Vec<u8>,
    releases: Vec<Known>,
    /// What was found last, while the tables and the EFI system partition are as they were then.
    table: Option<Result<Table, String>>,
    offered: Option<Result<Vec<(UkiName, usize)>, String>>,
}

impl Checker {
    /// For a disk whose slots may hold these releases: each with the slot and the folder of its files.
    pub fn new(disk: File, releases: &[(Slot, &Path)]) -> Result<Self> {
        let disk_bytes = disk.metadata()?.len();
        let mut primary = [0; PRIMARY_SECTORS as usize * SECTOR_BYTES];
        disk.read_exact_at(&mut primary, 0)?;
        let table = Table::read_primary(&primary).context("the disk's partition table")?;
        let place = |label: &str| {
            let entry = table.by_name(label).with_context(|| format!("the disk has no partition {label}"))?;
            Ok::<_, anyhow::Error>((entry.offset_bytes(), entry.size_bytes()))
        };
        let mut known = Vec::new();
        for (slot, folder) in releases {
            let offsets = [place(slot.root_label())?.0, place(slot.verity_label())?.0];
            known.push(Known::read(folder, offsets)?);
        }
        let esp = place(ESP_LABEL)?;
        let mut checker =
            Self { disk, disk_bytes, esp, boot_loader: Vec::new(), releases: known, table: None, offered: None };
        checker.boot_loader = checker.esp_file(BOOT_LOADER).context(BOOT_LOADER)?;
        checker.changed(0, disk_bytes)?;
        Ok(checker)
    }

    /// The disk.
    pub fn disk(&self) -> &File {
        &self.disk
    }

    /// Whether a change of these bytes is of any interest here.
    pub fn minds(&self, offset: u64, length: u64) -> bool {
        let touches = |(start, bytes): (u64, u64)| offset < start + bytes && start < offset + length;
        let tables = PRIMARY_SECTORS * SECTOR_BYTES as u64;
        let mut parts = self.releases.iter().flat_map(|release| &release.parts);
        touches((0, tables))
            || touches((self.disk_bytes - tables, tables))
            || touches(self.esp)
            || parts.any(|part| touches((part.offset, part.content.len() as u64)))
    }

    /// Takes note that these bytes were changed.
    pub fn changed(&mut self, offset: u64, length: u64) -> Result<()> {
        let touches = |(start, bytes): (u64, u64)| offset < start + bytes && start < offset + length;
        let tables = PRIMARY_SECTORS * SECTOR_BYTES as u64;
        if touches((0, tables)) || touches((self.disk_bytes - tables, tables)) {
            self.table = None;
        }
        if touches(self.esp) {
            self.offered = None;
        }
        for part in self.releases.iter_mut().flat_map(|release| &mut release.parts) {
            part.look_again(&self.disk, offset, length)?;
        }
        Ok(())
    }

    /// The release that would boot, if everything that could be started would run whole.
    pub fn boots(&mut self) -> Result<Version, String> {
        let table = self.table.take().unwrap_or_else(|| self.read_table());
        let offered = self.offered.take().unwrap_or_else(|| self.read_ukis());
        let outcome = self.choose(&table, &offered);
        (self.table, self.offered) = (Some(table), Some(offered));
        outcome
    }

    fn choose(
        &self,
        table: &Result<Table, String>,
        offered: &Result<Vec<(UkiName, usize)>, String>,
    ) -> Result<Version, String> {
        let (table, offered) = (table.as_ref()?, offered.as_ref()?);
        for (name, release) in offered {
            for part in &self.releases[*release].parts {
                let there = table.by_unique(part.unique).is_some_and(|entry| entry.offset_bytes() == part.offset);
                if !there {
                    return Err(format!("{name} is offered, but a partition of it isn't there"));
                }
                if let Some(block) = part.wrong.first() {
                    return Err(format!("{name} is offered, but block {block} at {} isn't as published", part.offset));
                }
            }
        }
        // systemd-boot: what ran out of tries comes last, then the newest first.
        let best = offered.iter().map(|(name, _)| (name.is_offered(), &name.version)).max();
        best.map(|(_, version)| version.clone()).ok_or("nothing is offered".into())
    }

    fn read_table(&self) -> Result<Table, String> {
        let read = |sectors: u64, offset: u64| {
            let mut bytes = vec![0; sectors as usize * SECTOR_BYTES];
            self.disk.read_exact_at(&mut bytes, offset).map(|()| bytes).map_err(|error| error.to_string())
        };
        let backup = read(BACKUP_SECTORS, self.disk_bytes - BACKUP_SECTORS * SECTOR_BYTES as u64)?;
        let table = Table::read(&read(PRIMARY_SECTORS, 0)?, &backup);
        table.map(|(table, _)| table).map_err(|error| format!("the partition table: {error}"))
    }

    /// What the boot loader offers: each is a release's UKI, whole.
    fn read_ukis(&self) -> Result<Vec<(UkiName, usize)>, String> {
        let broken = |error: std::io::Error| format!("the EFI system partition can't be read: {error}");
        if self.esp_file(BOOT_LOADER).map_err(broken)? != self.boot_loader {
            return Err("the boot loader isn't what it was".into());
        }
        let mut found = Vec::new();
        for file in self.esp_names().map_err(broken)? {
            let name: UkiName = file.parse().map_err(|_| format!("{file} would be started"))?;
            let known = self.releases.iter().position(|known| known.version == name.version);
            let release = known.ok_or(format!("{file} was never published"))?;
            if self.esp_file(&format!("{}/{file}", UkiName::FOLDER)).map_err(broken)? != self.releases[release].uki {
                return Err(format!("{file} isn't whole"));
            }
            found.push((name, release));
        }
        Ok(found)
    }

    fn esp_volume(&self) -> std::io::Result<FileSystem<BufStream<StreamSlice<File>>>> {
        let (offset, length) = self.esp;
        let slice = StreamSlice::new(self.disk.try_clone()?, offset, offset + length)?;
        FileSystem::new(BufStream::new(slice), FsOptions::new())
    }

    fn esp_names(&self) -> std::io::Result<Vec<String>> {
        let volume = self.esp_volume()?;
        let mut names = Vec::new();
        for entry in volume.root_dir().open_dir(UkiName::FOLDER)?.iter() {
            let entry = entry?;
            if entry.is_file() && entry.file_name().to_ascii_lowercase().ends_with(".efi") {
                names.push(entry.file_name());
            }
        }
        Ok(names)
    }

    fn esp_file(&self, path: &str) -> std::io::Result<Vec<u8>> {
        let volume = self.esp_volume()?;
        let mut file = volume.root_dir().open_file(path)?;
        file.seek(SeekFrom::Start(0))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }
}

impl Known {
    fn read(folder: &Path, offsets: [u64; 2]) -> Result<Self> {
        let description = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path());
        let description = description.into_iter().find(|path| path.extension().is_some_and(|it| it == "json"));
        let description = description.with_context(|| format!("{} has no release", folder.display()))?;
        let release: Release = serde_json::from_slice(&std::fs::read(description)?)?;
        let read = |file: ReleaseFile| {
            let path = folder.join(file.target_name(&release.profile, &release.version));
            std::fs::read(&path).with_context(|| format!("read {}", path.display()))
        };
        let [root, tree] = offsets;
        let expected = |unique, offset, content| Expected { unique, offset, content, wrong: BTreeSet::new() };
        let hash = &release.root_hash;
        Ok(Self {
            uki: read(ReleaseFile::Uki)?,
            parts: [
                expected(root_guid(hash), root, read(ReleaseFile::Root)?),
                expected(verity_guid(hash), tree, read(ReleaseFile::Tree)?),
            ],
            version: release.version,
        })
    }
}

impl Expected {
    /// Compares the blocks that a change touched.
    fn look_again(&mut self, disk: &File, offset: u64, length: u64) -> Result<()> {
        let end = self.offset + self.content.len() as u64;
        let (from, to) = (offset.max(self.offset), (offset + length).min(end));
        if from >= to {
            return Ok(());
        }
        let mut there = [0; BLOCK as usize];
        for block in (from - self.offset) / BLOCK..(to - self.offset).div_ceil(BLOCK) {
            let at = (block * BLOCK) as usize;
            let wanted = &self.content[at..self.content.len().min(at + BLOCK as usize)];
            disk.read_exact_at(&mut there[..wanted.len()], self.offset + block * BLOCK)?;
            match there[..wanted.len()] == *wanted {
                true => self.wrong.remove(&block),
                false => self.wrong.insert(block),
            };
        }
        Ok(())
    }
}
