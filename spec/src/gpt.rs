//! GUID partition tables, read and written (UEFI Specification 2.10, chapter 5.3).
//!
//! A table is there twice: its primary copy is the first [`PRIMARY_SECTORS`] sectors of the disk, its backup the last
//! [`BACKUP_SECTORS`]. Both are made from one [`Table`] in memory, so a change is: [`Table::read`], edit, write one
//! copy, sync, write the other, sync. Power may fail at any moment of that: the copy being written is torn at worst,
//! its checksums say so, and [`Table::read`] takes the other. Where both are whole and differ, the primary counts.

mod free;

use std::fmt;
use std::str::FromStr;

pub use free::Extent;

/// Bytes of a sector. Disks with 4096-byte logical sectors are not supported.
pub const SECTOR_BYTES: usize = 512;
/// Sectors at the start of a disk: protective MBR, header, entries.
pub const PRIMARY_SECTORS: u64 = 2 + ENTRIES_SECTORS;
/// Sectors at the end of a disk: entries, header.
pub const BACKUP_SECTORS: u64 = 1 + ENTRIES_SECTORS;
/// Entries that a table has room for; what everybody writes, and the only number read here.
pub const MAX_ENTRIES: usize = 128;

const ENTRY_BYTES: usize = 128;
const ENTRIES_SECTORS: u64 = (MAX_ENTRIES * ENTRY_BYTES / SECTOR_BYTES) as u64;
const HEADER_BYTES: usize = 92;
const NAME_UNITS: usize = 36;

/// A GUID, kept in the order of its text. On disk its first three fields are little-endian.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Guid([u8; 16]);

/// Why text isn't a GUID.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a GUID: want 8-4-4-4-12 hexadecimal digits")]
pub struct InvalidGuid(pub String);

impl Guid {
    /// No GUID: the type of an unused entry.
    pub const ZERO: Self = Self([0; 16]);

    /// From bytes in the order of the text.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// From the number that the text's digits make.
    pub const fn from_u128(number: u128) -> Self {
        Self(number.to_be_bytes())
    }

    /// Bytes in the order of the text.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Makes 16 random bytes a GUID of version 4 (RFC 9562).
    pub const fn random(mut bytes: [u8; 16]) -> Self {
        bytes[6] = bytes[6] & 0x0f | 0x40;
        bytes[8] = bytes[8] & 0x3f | 0x80;
        Self(bytes)
    }

    /// From bytes in the order of the disk.
    pub const fn from_disk(disk: [u8; 16]) -> Self {
        Self(Self::swap(disk))
    }

    /// Bytes in the order of the disk.
    pub const fn to_disk(self) -> [u8; 16] {
        Self::swap(self.0)
    }

    const fn swap(b: [u8; 16]) -> [u8; 16] {
        [b[3], b[2], b[1], b[0], b[5], b[4], b[7], b[6], b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]]
    }
}

impl FromStr for Guid {
    type Err = InvalidGuid;

    fn from_str(text: &str) -> Result<Self, InvalidGuid> {
        let dashes_fit = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        let digits: String = text.chars().filter(|&digit| digit != '-').collect();
        match u128::from_str_radix(&digits, 16) {
            Ok(number) if dashes_fit => Ok(Self::from_u128(number)),
            _ => Err(InvalidGuid(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Guid({self})")
    }
}

/// One partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its number, from 1: the kernel's `vda<number>`.
    pub number: u32,
    /// What it is for.
    pub kind: Guid,
    /// Its own GUID, the kernel's `PARTUUID`.
    pub unique: Guid,
    /// First sector.
    pub first_lba: u64,
    /// Last sector, itself included.
    pub last_lba: u64,
    /// Attribute bits.
    pub attributes: u64,
    /// Its label, at most 36 UTF-16 units; what is longer is cut.
    pub name: String,
}

impl Entry {
    /// Sectors of the partition.
    pub fn sectors(&self) -> u64 {
        (self.last_lba - self.first_lba).saturating_add(1)
    }

    /// Bytes from the disk's start to the partition's.
    pub fn offset_bytes(&self) -> u64 {
        self.first_lba * SECTOR_BYTES as u64
    }

    /// Bytes of the partition.
    pub fn size_bytes(&self) -> u64 {
        self.sectors() * SECTOR_BYTES as u64
    }
}

/// A partition table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// GUID of the disk.
    pub disk: Guid,
    /// Sectors of the disk that the table knows of; fewer than the disk has, once it has grown.
    pub sectors: u64,
    /// Partitions, by ascending number.
    pub entries: Vec<Entry>,
}

/// Which copy of a table was not whole, and so has to be written again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Damage {
    /// Both copies are whole and agree.
    None,
    /// The primary copy can't be used; the backup was.
    Primary(ReadError),
    /// The backup can't be used (it isn't at the disk's end after the disk has grown); the primary copy was.
    Backup(ReadError),
    /// Both are whole and differ: power failed between the two writes. The primary copy was used.
    Differ,
}

/// Why bytes aren't a copy of a partition table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Too few bytes were given.
    #[error("partition table is cut off: {0} bytes")]
    Short(usize),
    /// There is no header.
    #[error("there is no GPT header")]
    NoHeader,
    /// A checksum is wrong.
    #[error("checksum of the GPT {0} is wrong")]
    Checksum(&'static str),
    /// A field has a value that isn't allowed or isn't supported.
    #[error("GPT field {0} has the unsupported value {1}")]
    Field(&'static str, u64),
    /// A partition lies outside of the disk or overlaps another.
    #[error("partition {0} lies outside of the usable disk or on another partition")]
    Partition(u32),
}

/// Why a disk has no usable partition table.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("neither copy of the partition table can be used: primary: {primary}; backup: {backup}")]
pub struct Unreadable {
    /// What is wrong with the primary copy.
    pub primary: ReadError,
    /// What is wrong with the backup.
    pub backup: ReadError,
}

/// Why a table can't be changed as asked.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChangeError {
    /// There is no such partition.
    #[error("there is no partition {0:?}")]
    NoPartition(String),
    /// The disk is smaller than what is on it.
    #[error("partition {number} ends at sector {last_lba}, beyond the usable end of a disk of {sectors} sectors")]
    TooSmall {
        /// The partition.
        number: u32,
        /// Its last sector.
        last_lba: u64,
        /// Sectors of the disk.
        sectors: u64,
    },
}

impl Table {
    /// A table without partitions, for a disk of `sectors`.
    pub fn new(disk: Guid, sectors: u64) -> Self {
        Self { disk, sectors, entries: Vec::new() }
    }

    /// Reads both copies: the first [`PRIMARY_SECTORS`] of the disk and the last [`BACKUP_SECTORS`], as bytes. Either
    /// may be empty where it couldn't be read.
    pub fn read(primary: &[u8], backup: &[u8]) -> Result<(Self, Damage), Unreadable> {
        match (Self::read_primary(primary), Self::read_backup(backup)) {
            (Ok(table), Ok(other)) if table == other => Ok((table, Damage::None)),
            (Ok(table), Ok(_)) => Ok((table, Damage::Differ)),
            (Ok(table), Err(error)) => Ok((table, Damage::Backup(error))),
            (Err(error), Ok(table)) => Ok((table, Damage::Primary(error))),
            (Err(primary), Err(backup)) => Err(Unreadable { primary, backup }),
        }
    }

    /// Reads the primary copy alone, from the first [`PRIMARY_SECTORS`] sectors.
    pub fn read_primary(bytes: &[u8]) -> Result<Self, ReadError> {
        let header = bytes.get(SECTOR_BYTES..2 * SECTOR_BYTES).ok_or(ReadError::Short(bytes.len()))?;
        let header = Header::read(header)?;
        if header.this_lba != 1 {
            return Err(ReadError::Field("MyLBA", header.this_lba));
        }
        if header.entries_lba != 2 {
            return Err(ReadError::Field("PartitionEntryLBA", header.entries_lba));
        }
        let sectors = header.other_lba.checked_add(1).ok_or(ReadError::Field("AlternateLBA", header.other_lba))?;
        Self::read_entries(&header, sectors, bytes.get(2 * SECTOR_BYTES..).unwrap_or(&[]))
    }

    /// Reads the backup alone, from the last [`BACKUP_SECTORS`] sectors.
    pub fn read_backup(bytes: &[u8]) -> Result<Self, ReadError> {
        let entries_bytes = MAX_ENTRIES * ENTRY_BYTES;
        let header = bytes.get(entries_bytes..entries_bytes + SECTOR_BYTES).ok_or(ReadError::Short(bytes.len()))?;
        let header = Header::read(header)?;
        let sectors = header.this_lba.checked_add(1).ok_or(ReadError::Field("MyLBA", header.this_lba))?;
        if header.other_lba != 1 {
            return Err(ReadError::Field("AlternateLBA", header.other_lba));
        }
        if sectors.checked_sub(BACKUP_SECTORS) != Some(header.entries_lba) {
            return Err(ReadError::Field("PartitionEntryLBA", header.entries_lba));
        }
        Self::read_entries(&header, sectors, bytes)
    }

    fn read_entries(header: &Header, sectors: u64, bytes: &[u8]) -> Result<Self, ReadError> {
        // Byte offsets are computed from sectors, so they must fit into 64 bits.
        if sectors < PRIMARY_SECTORS + BACKUP_SECTORS + 1 || sectors > u64::MAX / SECTOR_BYTES as u64 {
            return Err(ReadError::Field("disk size", sectors));
        }
        let bytes = bytes.get(..MAX_ENTRIES * ENTRY_BYTES).ok_or(ReadError::Short(bytes.len()))?;
        if crc32fast::hash(bytes) != header.entries_crc {
            return Err(ReadError::Checksum("entries"));
        }
        let entries: Vec<Entry> = bytes
            .chunks_exact(ENTRY_BYTES)
            .zip(1..)
            .filter(|(entry, _)| entry[..16] != [0; 16])
            .map(|(entry, number)| read_entry(entry, number))
            .collect();
        let table = Self { disk: header.disk, sectors, entries };
        table.check()?;
        Ok(table)
    }

    fn check(&self) -> Result<(), ReadError> {
        let mut by_place: Vec<&Entry> = self.entries.iter().collect();
        by_place.sort_by_key(|entry| entry.first_lba);
        let mut free_from = PRIMARY_SECTORS;
        for entry in by_place {
            if entry.first_lba < free_from || entry.last_lba < entry.first_lba || entry.last_lba > self.last_usable() {
                return Err(ReadError::Partition(entry.number));
            }
            free_from = entry.last_lba + 1;
        }
        Ok(())
    }

    /// The last sector that a partition may have.
    pub fn last_usable(&self) -> u64 {
        self.sectors.saturating_sub(BACKUP_SECTORS + 1)
    }

    /// The sector at which the backup is to be written.
    pub fn backup_lba(&self) -> u64 {
        self.sectors.saturating_sub(BACKUP_SECTORS)
    }

    /// The primary copy, [`PRIMARY_SECTORS`] sectors with the protective MBR, to be written at the disk's start.
    pub fn primary(&self) -> Vec<u8> {
        let entries = self.entry_bytes();
        let mut bytes = protective_mbr(self.sectors);
        bytes.extend(self.header(1, self.sectors - 1, 2, crc32fast::hash(&entries)));
        bytes.extend(entries);
        bytes
    }

    /// The backup, [`BACKUP_SECTORS`] sectors, to be written at [`Table::backup_lba`].
    pub fn backup(&self) -> Vec<u8> {
        let mut bytes = self.entry_bytes();
        let crc = crc32fast::hash(&bytes);
        bytes.extend(self.header(self.sectors - 1, 1, self.backup_lba(), crc));
        bytes
    }

    fn header(&self, this_lba: u64, other_lba: u64, entries_lba: u64, entries_crc: u32) -> Vec<u8> {
        let mut bytes = vec![0; SECTOR_BYTES];
        bytes[..8].copy_from_slice(b"EFI PART");
        bytes[8..12].copy_from_slice(&0x0001_0000u32.to_le_bytes());
        bytes[12..16].copy_from_slice(&(HEADER_BYTES as u32).to_le_bytes());
        for (at, value) in
            [(24, this_lba), (32, other_lba), (40, PRIMARY_SECTORS), (48, self.last_usable()), (72, entries_lba)]
        {
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes[56..72].copy_from_slice(&self.disk.to_disk());
        bytes[80..84].copy_from_slice(&(MAX_ENTRIES as u32).to_le_bytes());
        bytes[84..88].copy_from_slice(&(ENTRY_BYTES as u32).to_le_bytes());
        bytes[88..92].copy_from_slice(&entries_crc.to_le_bytes());
        let crc = crc32fast::hash(&bytes[..HEADER_BYTES]);
        bytes[16..20].copy_from_slice(&crc.to_le_bytes());
        bytes
    }

    fn entry_bytes(&self) -> Vec<u8> {
        let mut bytes = vec![0; MAX_ENTRIES * ENTRY_BYTES];
        for entry in &self.entries {
            let at = (entry.number as usize).wrapping_sub(1).saturating_mul(ENTRY_BYTES);
            if let Some(place) = at.checked_add(ENTRY_BYTES).and_then(|end| bytes.get_mut(at..end)) {
                write_entry(entry, place);
            }
        }
        bytes
    }

    /// The first partition with this label.
    pub fn by_name(&self, name: &str) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.name == name)
    }

    /// The first partition with this GUID of its own.
    pub fn by_unique(&self, unique: Guid) -> Option<&Entry> {
        self.entries.iter().find(|entry| entry.unique == unique)
    }

    /// Gives the partition with this label another GUID of its own.
    pub fn set_unique(&mut self, name: &str, unique: Guid) -> Result<(), ChangeError> {
        let entry = self.entries.iter_mut().find(|entry| entry.name == name);
        entry.ok_or_else(|| ChangeError::NoPartition(name.into()))?.unique = unique;
        Ok(())
    }

    /// Tells the table how many sectors the disk has now, so that the backup goes to its end.
    pub fn resize_disk(&mut self, sectors: u64) -> Result<(), ChangeError> {
        let usable_end = sectors.saturating_sub(BACKUP_SECTORS);
        let beyond = self.entries.iter().find(|entry| entry.last_lba >= usable_end);
        if let Some(entry) = beyond {
            return Err(ChangeError::TooSmall { number: entry.number, last_lba: entry.last_lba, sectors });
        }
        self.sectors = sectors;
        Ok(())
    }

    /// Grows the partition with this label to the next partition on the disk, or, where there is none, to so many
    /// sectors before the disk's usable end (a multiple of 8 sectors, for blocks of 4096 bytes). Says whether that changed
    /// anything; it never shrinks.
    pub fn grow(&mut self, name: &str, keep_free_sectors: u64) -> Result<bool, ChangeError> {
        let entry = self.by_name(name).ok_or_else(|| ChangeError::NoPartition(name.into()))?;
        let behind = self.entries.iter().map(|other| other.first_lba).filter(|first| *first > entry.first_lba).min();
        let usable = (self.last_usable() + 1).saturating_sub(keep_free_sectors);
        let limit = usable.min(behind.unwrap_or(u64::MAX));
        let end = limit - limit.saturating_sub(entry.first_lba) % 8;
        let (number, grows) = (entry.number, end > entry.last_lba + 1);
        if let Some(entry) = self.entries.iter_mut().find(|entry| grows && entry.number == number) {
            entry.last_lba = end - 1;
        }
        Ok(grows)
    }
}

struct Header {
    this_lba: u64,
    other_lba: u64,
    entries_lba: u64,
    disk: Guid,
    entries_crc: u32,
}

impl Header {
    fn read(sector: &[u8]) -> Result<Self, ReadError> {
        if sector.get(..8) != Some(b"EFI PART") {
            return Err(ReadError::NoHeader);
        }
        let u32_at = |at| u32::from_le_bytes(array(sector, at));
        let u64_at = |at| u64::from_le_bytes(array(sector, at));
        if u32_at(12) as usize != HEADER_BYTES {
            return Err(ReadError::Field("HeaderSize", u32_at(12).into()));
        }
        let mut header = sector.get(..HEADER_BYTES).ok_or(ReadError::Short(sector.len()))?.to_vec();
        header[16..20].fill(0);
        if crc32fast::hash(&header) != u32_at(16) {
            return Err(ReadError::Checksum("header"));
        }
        for (name, at, wanted) in [
            ("Revision", 8, 0x0001_0000),
            ("NumberOfPartitionEntries", 80, MAX_ENTRIES as u32),
            ("SizeOfPartitionEntry", 84, ENTRY_BYTES as u32),
        ] {
            if u32_at(at) != wanted {
                return Err(ReadError::Field(name, u32_at(at).into()));
            }
        }
        Ok(Self {
            this_lba: u64_at(24),
            other_lba: u64_at(32),
            entries_lba: u64_at(72),
            disk: Guid::from_disk(array(sector, 56)),
            entries_crc: u32_at(88),
        })
    }
}

/// Bytes at a place; zeros where there are none, so that no length can make this panic.
fn array<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    bytes.get(at..at + N).and_then(|part| part.try_into().ok()).unwrap_or([0; N])
}

fn read_entry(bytes: &[u8], number: u32) -> Entry {
    let units = bytes[56..56 + 2 * NAME_UNITS].chunks_exact(2).map(|unit| u16::from_le_bytes([unit[0], unit[1]]));
    let name: Vec<u16> = units.take_while(|&unit| unit != 0).collect();
    Entry {
        number,
        kind: Guid::from_disk(array(bytes, 0)),
        unique: Guid::from_disk(array(bytes, 16)),
        first_lba: u64::from_le_bytes(array(bytes, 32)),
        last_lba: u64::from_le_bytes(array(bytes, 40)),
        attributes: u64::from_le_bytes(array(bytes, 48)),
        name: String::from_utf16_lossy(&name),
    }
}

fn write_entry(entry: &Entry, bytes: &mut [u8]) {
    bytes[..16].copy_from_slice(&entry.kind.to_disk());
    bytes[16..32].copy_from_slice(&entry.unique.to_disk());
    bytes[32..40].copy_from_slice(&entry.first_lba.to_le_bytes());
    bytes[40..48].copy_from_slice(&entry.last_lba.to_le_bytes());
    bytes[48..56].copy_from_slice(&entry.attributes.to_le_bytes());
    for (place, unit) in bytes[56..].chunks_exact_mut(2).zip(entry.name.encode_utf16()) {
        place.copy_from_slice(&unit.to_le_bytes());
    }
}

/// UEFI 2.10, 5.2.3: one partition of type 0xEE over the whole disk.
fn protective_mbr(sectors: u64) -> Vec<u8> {
    let mut bytes = vec![0; SECTOR_BYTES];
    let size = u32::try_from(sectors - 1).unwrap_or(u32::MAX);
    bytes[446..462].copy_from_slice(&[0, 0, 2, 0, 0xee, 0xff, 0xff, 0xff, 1, 0, 0, 0, 0, 0, 0, 0]);
    bytes[458..462].copy_from_slice(&size.to_le_bytes());
    bytes[510..].copy_from_slice(&[0x55, 0xaa]);
    bytes
}

#[cfg(test)]
#[path = "gpt_tests.rs"]
mod tests;
