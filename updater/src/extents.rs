//! Where a slot and the EFI system partition go that have become too small: decided from the partition table alone,
//! before anything is written.
//!
//! What moves goes where nothing is: the slot that isn't running, whose own partitions count as free, to the smallest area
//! that is large enough; the EFI system partition beside what is there now, since it stays in force until the new one is
//! whole. An area behind the state partition is filled from its end, because the state grows towards it; what lies there is
//! moved on once the disk has been enlarged.

use keel_spec::disk::{
    ALIGNMENT_BYTES, ESP_LABEL, MIN_DISK_WITH_RESERVE_BYTES, RESERVE_SHARE, STATE_LABEL, Slot, aligned, with_headroom,
};
use keel_spec::gpt::{Extent, Table};

/// What an install needs, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Needs {
    /// For the root.
    pub root_bytes: u64,
    /// For its hash tree.
    pub tree_bytes: u64,
    /// For the EFI system partition as a whole; `None`: the one that is there will do.
    pub esp_bytes: Option<u64>,
}

/// What moves, and where to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moves {
    /// The slot's root and tree.
    pub slot: Option<[Extent; 2]>,
    /// The EFI system partition.
    pub esp: Option<Extent>,
    /// Whether the EFI system partition would do where it is, and only makes way for the state.
    pub esp_can_stay: bool,
}

/// There is no area that is large enough.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoRoom {
    /// Bytes that are needed together.
    pub needed_bytes: u64,
    /// Bytes of the largest area.
    pub largest_bytes: u64,
}

/// How generous new sizes are, the best first: with headroom, as large as before, no more than is needed.
const SIZES: [fn(u64, u64) -> u64; 3] = [
    |needs, has| with_headroom(needs).max(aligned(has)),
    |needs, has| aligned(needs.max(has)),
    |needs, _| aligned(needs),
];

/// Decides where the partitions of the slot that isn't running, and the EFI system partition, go.
///
/// # Errors
///
/// [`NoRoom`]: something has to move, and nothing is large enough, not even for what is needed at the least.
pub fn plan(table: &Table, slot: Slot, needs: &Needs) -> Result<Moves, NoRoom> {
    let has = |label: &str| table.by_name(label).map_or(0, |entry| Extent::of(entry).size_bytes());
    let (root, tree, esp) = (has(slot.root_label()), has(slot.verity_label()), has(ESP_LABEL));
    let slot_moves = root < needs.root_bytes || tree < needs.tree_bytes;
    if !slot_moves && needs.esp_bytes.is_none() {
        let pair = out_of_the_way(table, &labels(slot), &labels(slot));
        let slot = pair.and_then(|places| places.first_chunk().copied());
        // One at a time, so that neither is in the other's way.
        let esp = if slot.is_none() { out_of_the_way(table, &[ESP_LABEL], &[]) } else { None };
        return Ok(Moves { slot, esp: esp.and_then(|places| places.first().copied()), esp_can_stay: true });
    }
    let planner = Planner { table, released: labels(slot) };
    for size in SIZES {
        let pair = slot_moves.then(|| [size(needs.root_bytes, root), size(needs.tree_bytes, tree)]);
        let esp = needs.esp_bytes.map(|needs| size(needs, esp));
        if let Some(moves) = planner.both(pair, esp) {
            return Ok(moves);
        }
    }
    let slot_bytes = if slot_moves { aligned(needs.root_bytes).saturating_add(aligned(needs.tree_bytes)) } else { 0 };
    let released: &[&str] = if slot_moves { &planner.released } else { &[] };
    Err(NoRoom {
        needed_bytes: slot_bytes.saturating_add(needs.esp_bytes.map_or(0, aligned)),
        largest_bytes: table.free(released, &[]).iter().map(Extent::size_bytes).max().unwrap_or(0),
    })
}

/// Bytes of a disk on which so much is free behind all that is there, and stays free when the state partition has grown at
/// the next boot.
pub fn large_enough_bytes(table: &Table, needed_bytes: u64) -> u64 {
    let end = table.entries.iter().map(Extent::of).max_by_key(|extent| extent.end_lba);
    let end_bytes = end.map_or(0, |extent| extent.offset_bytes().saturating_add(extent.size_bytes()));
    let reserved = needed_bytes.saturating_mul(RESERVE_SHARE).max(MIN_DISK_WITH_RESERVE_BYTES);
    // One unit for what isn't aligned, another for the backup of the table.
    end_bytes.saturating_add(needed_bytes).saturating_add(2 * ALIGNMENT_BYTES).max(reserved)
}

fn labels(slot: Slot) -> [&'static str; 2] {
    [slot.root_label(), slot.verity_label()]
}

/// Partitions that would do where they are, but keep the state partition from growing to the end of an enlarged disk,
/// move there.
fn out_of_the_way(table: &Table, labels: &[&str], released: &[&str]) -> Option<Vec<Extent>> {
    let now: Option<Vec<Extent>> = labels.iter().map(|label| table.by_name(label).map(Extent::of)).collect();
    let now = now?;
    let sizes: Vec<u64> = now.iter().map(|extent| aligned(extent.size_bytes())).collect();
    let tail = table.free(released, &[]).last().copied().filter(|area| is_behind_the_state(table, area))?;
    let places = cut(table, tail, &sizes)?;
    // Not for the sake of some sectors: the old place has to be free afterwards.
    let end = now.iter().map(|extent| extent.end_lba).max()?;
    let behind = now.iter().all(|extent| is_behind_the_state(table, extent));
    (behind && places.iter().all(|place| place.first_lba >= end)).then_some(places)
}

/// Whether the state partition grows towards an area.
fn is_behind_the_state(table: &Table, area: &Extent) -> bool {
    table.by_name(STATE_LABEL).is_some_and(|state| Extent::of(state).end_lba <= area.first_lba)
}

/// Extents of these sizes, multiples of the alignment, one behind the other within an area.
fn cut(table: &Table, area: Extent, sizes: &[u64]) -> Option<Vec<Extent>> {
    let bytes = sizes.iter().try_fold(0u64, |sum, size| sum.checked_add(*size))?;
    let sectors = |bytes: u64| bytes / keel_spec::gpt::SECTOR_BYTES as u64;
    if bytes > area.size_bytes() {
        return None;
    }
    let mut at = if is_behind_the_state(table, &area) { area.end_lba - sectors(bytes) } else { area.first_lba };
    let mut next = |size: &u64| {
        let extent = Extent { first_lba: at, end_lba: at + sectors(*size) };
        at = extent.end_lba;
        extent
    };
    Some(sizes.iter().map(&mut next).collect())
}

struct Planner<'a> {
    table: &'a Table,
    /// Labels of the slot's partitions, which make room for themselves alone: the EFI system partition moves first.
    released: [&'static str; 2],
}

impl Planner<'_> {
    /// Places for root and tree, and for the EFI system partition, whichever of them move.
    fn both(&self, pair: Option<[u64; 2]>, esp: Option<u64>) -> Option<Moves> {
        let slot = |taken: &[Extent]| match &pair {
            Some(pair) => self.place(&self.released, taken, pair).map(Some),
            None => Some(None),
        };
        let esp = |taken: &[Extent]| match &esp {
            Some(bytes) => self.place(&[], taken, &[*bytes]).map(Some),
            None => Some(None),
        };
        let slot_first = || {
            let slot = slot(&[])?;
            Some((esp(slot.as_deref().unwrap_or_default())?, slot))
        };
        let esp_first = || {
            let esp = esp(&[])?;
            let slot = slot(esp.as_deref().unwrap_or_default())?;
            Some((esp, slot))
        };
        let (esp, slot) = slot_first().or_else(esp_first)?;
        Some(Moves {
            slot: slot.and_then(|extents| extents.first_chunk().copied()),
            esp: esp.and_then(|extents| extents.first().copied()),
            esp_can_stay: false,
        })
    }

    /// All in the smallest area that has room for them together; otherwise each in the smallest of its own.
    fn place(&self, released: &[&str], taken: &[Extent], sizes: &[u64]) -> Option<Vec<Extent>> {
        let fit = |taken: &[Extent], sizes: &[u64]| {
            let mut free = self.table.free(released, taken);
            free.sort_by_key(Extent::size_bytes);
            free.into_iter().find_map(|area| cut(self.table, area, sizes))
        };
        fit(taken, sizes).or_else(|| {
            let mut taken = taken.to_vec();
            let mut placed = Vec::new();
            for size in sizes {
                let extent = *fit(&taken, &[*size])?.first()?;
                taken.push(extent);
                placed.push(extent);
            }
            Some(placed)
        })
    }
}

#[cfg(test)]
#[path = "extents_tests.rs"]
mod tests;
