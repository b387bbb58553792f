//! Where things are on a volume, from its boot sector.

use std::io;

/// Bytes of a sector; others aren't supported, like on the whole disk.
pub const SECTOR: usize = 512;
/// Most clusters that are handled: the table is kept in memory, 4 bytes for each.
pub const MAX_CLUSTERS: u32 = 1 << 21;
/// Fewer clusters make a volume FAT16.
const MIN_CLUSTERS: u32 = 65_525;

/// Why a volume can't be used.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// Reading or writing failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It isn't FAT32, or uses what isn't supported.
    #[error("it is no FAT32 volume that can be used here: {0}")]
    Format(&'static str),
    /// What is on it contradicts itself.
    #[error("the file system is damaged: {0}")]
    Damaged(String),
    /// There is no such file.
    #[error("there is no file {0}")]
    NotFound(String),
    /// There is no room.
    #[error("no room for {0}")]
    Full(String),
    /// The name can't be used.
    #[error("{0:?} can't be the name of a file here")]
    Name(String),
}

/// Where things are, in sectors of the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Sectors of a cluster.
    pub cluster_sectors: u64,
    /// First sectors of the copies of the table.
    pub tables: [u64; 2],
    /// Copies of the table, 1 or 2.
    pub table_count: usize,
    /// First sector of cluster 2.
    pub data: u64,
    /// Clusters.
    pub clusters: u32,
    /// First cluster of the root folder.
    pub root: u32,
    /// Sector with hints about free clusters.
    pub info: u64,
}

impl Layout {
    /// Reads a boot sector (specification, section 3).
    pub fn read(sector: &[u8; SECTOR], volume_bytes: u64) -> Result<Self, FatError> {
        let u16_at = |at: usize| u64::from(u16::from_le_bytes([sector[at], sector[at + 1]]));
        let u32_at = |at: usize| u32::from_le_bytes([sector[at], sector[at + 1], sector[at + 2], sector[at + 3]]);
        if sector[510..] != [0x55, 0xaa] {
            return Err(FatError::Format("its boot sector has no signature"));
        }
        if u16_at(11) != SECTOR as u64 {
            return Err(FatError::Format("its sectors don't have 512 bytes"));
        }
        let (cluster_sectors, reserved, table_count) = (u64::from(sector[13]), u16_at(14), usize::from(sector[16]));
        if !cluster_sectors.is_power_of_two() || reserved == 0 || !matches!(table_count, 1 | 2) {
            return Err(FatError::Format("its boot sector makes no sense"));
        }
        if u16_at(17) != 0 || u16_at(22) != 0 || u16_at(42) != 0 {
            return Err(FatError::Format("it is FAT12, FAT16 or of an unknown version"));
        }
        // Bit 7: only one copy of the table is in use.
        if u16_at(40) & 0x80 != 0 {
            return Err(FatError::Format("its tables aren't copies of each other"));
        }
        let table_sectors = u64::from(u32_at(36));
        let sectors = match u16_at(19) {
            0 => u64::from(u32_at(32)),
            small => small,
        };
        let data = reserved + table_count as u64 * table_sectors;
        let clusters = sectors.saturating_sub(data) / cluster_sectors;
        if sectors * SECTOR as u64 > volume_bytes {
            return Err(FatError::Format("it is larger than its partition"));
        }
        let clusters = u32::try_from(clusters).unwrap_or(u32::MAX);
        if !(MIN_CLUSTERS..=MAX_CLUSTERS).contains(&clusters) || (u64::from(clusters) + 2) > table_sectors * 128 {
            return Err(FatError::Format("the number of its clusters can't be handled"));
        }
        let (root, info) = (u32_at(44), u16_at(48));
        if !(2..clusters + 2).contains(&root) || info >= reserved {
            return Err(FatError::Format("its boot sector points outside of the volume"));
        }
        Ok(Self {
            cluster_sectors,
            tables: [reserved, reserved + table_sectors],
            table_count,
            data,
            clusters,
            root,
            info,
        })
    }

    /// Bytes of a cluster.
    pub fn cluster_bytes(&self) -> u64 {
        self.cluster_sectors * SECTOR as u64
    }

    /// Where a cluster is, in bytes from the volume's start. The cluster must be one of the volume's.
    pub fn cluster_offset(&self, cluster: u32) -> u64 {
        (self.data + u64::from(cluster.saturating_sub(2)) * self.cluster_sectors) * SECTOR as u64
    }

    /// Whether the volume has this cluster.
    pub fn has(&self, cluster: u32) -> bool {
        (2..self.clusters + 2).contains(&cluster)
    }
}
