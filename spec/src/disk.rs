//! The disk: partition types, labels and sizes (Discoverable Partitions Specification).
//!
//! A slot is a root partition and the partition of its hash tree. What makes a slot bootable is the pair of GUIDs of
//! its partitions: the first half of the roothash on the root, the last half on the tree ([`root_guid`],
//! [`verity_guid`]). An erased slot has the GUIDs of [`Slot::erased_root_guid`] and [`Slot::erased_verity_guid`].

use crate::gpt::{Entry, Guid, PRIMARY_SECTORS, SECTOR_BYTES, Table};
use crate::verity::RootHash;

/// Type of the EFI system partition.
pub const ESP: Guid = Guid::from_u128(0xc12a7328_f81f_11d2_ba4b_00a0c93ec93b);
/// Type of a root partition for x86-64.
pub const ROOT_X86_64: Guid = Guid::from_u128(0x4f68bce3_e8cd_4db1_96e7_fbcaf984b709);
/// Type of the hash tree's partition of a root for x86-64.
pub const ROOT_X86_64_VERITY: Guid = Guid::from_u128(0x2c7357ed_ebd2_46d9_aec1_23d437ec2bf5);
/// Type of a partition for `/var`.
pub const VAR: Guid = Guid::from_u128(0x4d21b016_b534_45c2_a9fb_5c16e091fd2d);

/// Label of the EFI system partition.
pub const ESP_LABEL: &str = "esp";
/// Label of the state partition.
pub const STATE_LABEL: &str = "state";

/// GPT attribute "read only" of the Discoverable Partitions Specification: roots and trees carry it.
pub const ATTRIBUTE_READ_ONLY: u64 = 1 << 60;
/// GPT attribute "grow file system" of the Discoverable Partitions Specification: the state partition carries it.
pub const ATTRIBUTE_GROW_FILE_SYSTEM: u64 = 1 << 59;

/// Partitions start at multiples of this.
pub const ALIGNMENT_BYTES: u64 = 1 << 20;

const MIB: u64 = 1 << 20;

/// One of the two places for a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Slot {
    /// `root-a` and `verity-a`.
    A,
    /// `root-b` and `verity-b`.
    B,
}

impl Slot {
    /// Both slots.
    pub const ALL: [Self; 2] = [Self::A, Self::B];

    /// Its letter, `a` or `b`.
    pub const fn letter(self) -> &'static str {
        match self {
            Self::A => "a",
            Self::B => "b",
        }
    }

    /// Label of its root partition.
    pub const fn root_label(self) -> &'static str {
        match self {
            Self::A => "root-a",
            Self::B => "root-b",
        }
    }

    /// Label of its hash tree's partition.
    pub const fn verity_label(self) -> &'static str {
        match self {
            Self::A => "verity-a",
            Self::B => "verity-b",
        }
    }

    /// The other slot.
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    /// GUID of its root partition while it holds no release. Constant, so that an erased slot can be recognised and
    /// erasing needs no randomness; nothing looks for it.
    pub const fn erased_root_guid(self) -> Guid {
        Guid::from_u128(0x6b65656c_0000_4000_8000_000000000000 + 2 * self as u128)
    }

    /// GUID of its hash tree's partition while it holds no release.
    pub const fn erased_verity_guid(self) -> Guid {
        Guid::from_u128(0x6b65656c_0000_4000_8000_000000000001 + 2 * self as u128)
    }

    /// The slot that holds the release with this roothash: both of its partitions carry its GUIDs.
    pub fn holding(table: &Table, root_hash: &RootHash) -> Option<Self> {
        let has = |label, guid| table.by_name(label).is_some_and(|entry| entry.unique == guid);
        Self::ALL.into_iter().find(|slot| {
            has(slot.root_label(), root_guid(root_hash)) && has(slot.verity_label(), verity_guid(root_hash))
        })
    }
}

/// GUID of the partition that holds the root with this hash: the hash's first 128 bits.
pub fn root_guid(root_hash: &RootHash) -> Guid {
    half(root_hash, 0)
}

/// GUID of the partition that holds the tree of the root with this hash: the hash's last 128 bits.
pub fn verity_guid(root_hash: &RootHash) -> Guid {
    half(root_hash, 16)
}

fn half(root_hash: &RootHash, from: usize) -> Guid {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&root_hash.as_bytes()[from..from + 16]);
    Guid::from_bytes(bytes)
}

/// Sizes of the partitions of a disk image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// EFI system partition: three UKIs, of which one is being replaced.
    pub esp_bytes: u64,
    /// Each root partition.
    pub root_bytes: u64,
    /// Each hash tree's partition; a tree takes 1/127 of its root and one block.
    pub verity_bytes: u64,
    /// State partition, before the host grows it to the disk's end, but for [`reserve_bytes`].
    pub state_bytes: u64,
}

impl Sizes {
    /// Of the `cloud` profile.
    pub const CLOUD: Self =
        Self { esp_bytes: 256 * MIB, root_bytes: 192 * MIB, verity_bytes: 4 * MIB, state_bytes: 64 * MIB };

    /// These, or as much more as a release with files of these sizes takes, with [`with_headroom`].
    pub fn holding(self, root_bytes: u64, verity_bytes: u64, uki_bytes: u64) -> Self {
        let enough = |has: u64, needs: u64| if needs > has { with_headroom(needs) } else { has };
        Self {
            esp_bytes: enough(self.esp_bytes, uki_bytes.saturating_mul(3)),
            root_bytes: enough(self.root_bytes, root_bytes),
            verity_bytes: enough(self.verity_bytes, verity_bytes),
            ..self
        }
    }
}

/// Bytes of a partition that is made for this much: a quarter more, so that not every release needs a larger one; a
/// multiple of [`ALIGNMENT_BYTES`].
pub fn with_headroom(bytes: u64) -> u64 {
    aligned(bytes.saturating_add(bytes / 4))
}

/// The next multiple of [`ALIGNMENT_BYTES`], or, where there is none, a size that no disk has.
pub fn aligned(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(ALIGNMENT_BYTES).unwrap_or(u64::MAX)
}

/// Longest hash tree that is handled, by hosts and by what makes releases: hosts keep it in memory. That of a root of
/// nearly 2 GiB.
pub const MAX_TREE_BYTES: u64 = 16 << 20;

/// One in so many bytes of a disk is kept free by [`reserve_bytes`].
pub const RESERVE_SHARE: u64 = 16;
/// Largest reserve.
const MAX_RESERVE_BYTES: u64 = 2 << 30;
/// On a smaller disk there is no reserve: what would be left holds no larger slot.
pub const MIN_DISK_WITH_RESERVE_BYTES: u64 = 4 << 30;

/// Bytes at a disk's end that the state partition leaves free when it grows, for slots and an EFI system partition that
/// have to be larger one day: a sixteenth of the disk, at most 2 GiB, and nothing on a disk of less than 4 GiB.
pub fn reserve_bytes(disk_bytes: u64) -> u64 {
    if disk_bytes < MIN_DISK_WITH_RESERVE_BYTES {
        return 0;
    }
    (disk_bytes / RESERVE_SHARE).min(MAX_RESERVE_BYTES) / ALIGNMENT_BYTES * ALIGNMENT_BYTES
}

/// GUIDs that make one disk image different from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Of the disk.
    pub disk: Guid,
    /// Of the EFI system partition.
    pub esp: Guid,
    /// Of the state partition.
    pub state: Guid,
}

/// The table of a new disk whose slot A holds the release with this roothash, and slot B none.
pub fn new_table(identity: &Identity, sizes: &Sizes, root_hash: &RootHash) -> Table {
    let (a, b) = (Slot::A, Slot::B);
    let plan = [
        (ESP, identity.esp, sizes.esp_bytes, 0, ESP_LABEL),
        (ROOT_X86_64, root_guid(root_hash), sizes.root_bytes, ATTRIBUTE_READ_ONLY, a.root_label()),
        (ROOT_X86_64_VERITY, verity_guid(root_hash), sizes.verity_bytes, ATTRIBUTE_READ_ONLY, a.verity_label()),
        (ROOT_X86_64, b.erased_root_guid(), sizes.root_bytes, ATTRIBUTE_READ_ONLY, b.root_label()),
        (ROOT_X86_64_VERITY, b.erased_verity_guid(), sizes.verity_bytes, ATTRIBUTE_READ_ONLY, b.verity_label()),
        (VAR, identity.state, sizes.state_bytes, ATTRIBUTE_GROW_FILE_SYSTEM, STATE_LABEL),
    ];
    let align = |sectors: u64| sectors.next_multiple_of(ALIGNMENT_BYTES / SECTOR_BYTES as u64);
    let mut first_lba = align(PRIMARY_SECTORS);
    let mut entries = Vec::new();
    for ((kind, unique, bytes, attributes, label), number) in plan.into_iter().zip(1..) {
        let end = align(first_lba + bytes.div_ceil(SECTOR_BYTES as u64));
        let name = label.into();
        entries.push(Entry { number, kind, unique, first_lba, last_lba: end - 1, attributes, name });
        first_lba = end;
    }
    // One unit of alignment at the end holds the backup copy of the table.
    let sectors = first_lba + ALIGNMENT_BYTES / SECTOR_BYTES as u64;
    Table { disk: identity.disk, sectors, entries }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpt::Damage;

    #[test]
    fn a_large_release_gets_larger_slots_and_a_small_disk_keeps_no_reserve() {
        let sizes = Sizes::CLOUD;
        assert_eq!(sizes.holding(192 * MIB, 4 * MIB, 85 * MIB), sizes);
        let larger = sizes.holding(192 * MIB + 4096, MIB, MIB);
        assert_eq!((larger.root_bytes, larger.verity_bytes, larger.esp_bytes), (241 * MIB, 4 * MIB, sizes.esp_bytes));
        assert_eq!(with_headroom(u64::MAX), u64::MAX);
        assert_eq!(
            [reserve_bytes((4 << 30) - 1), reserve_bytes(4 << 30), reserve_bytes(1 << 40)],
            [0, 256 * MIB, 2 << 30]
        );
    }

    #[test]
    fn a_new_disk_holds_its_release_in_slot_a() {
        let identity = Identity { disk: Guid::from_u128(1), esp: Guid::from_u128(2), state: Guid::from_u128(3) };
        let root_hash: RootHash = "00112233445566778899aabbccddeeff0123456789abcdef0123456789abcdef".parse().unwrap();
        let table = new_table(&identity, &Sizes::CLOUD, &root_hash);
        assert_eq!(Table::read(&table.primary(), &table.backup()), Ok((table.clone(), Damage::None)));
        assert_eq!(Slot::holding(&table, &root_hash), Some(Slot::A));
        let root = table.by_name("root-a").unwrap();
        assert_eq!(root.unique.to_string(), "00112233-4455-6677-8899-aabbccddeeff");
        assert_eq!(root.size_bytes(), 192 * MIB);
        let guids: std::collections::HashSet<_> = table.entries.iter().map(|entry| entry.unique).collect();
        assert_eq!(guids.len(), 6);
    }
}
