use super::*;
use keel_spec::disk::{Identity, Sizes, new_table, reserve_bytes};
use keel_spec::gpt::{Entry, Guid, SECTOR_BYTES};
use keel_spec::verity::RootHash;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;

const STAYS: Moves = Moves { slot: None, esp: None, esp_can_stay: true };

/// A new machine's table after its first boot; slot a runs.
fn installed(disk_bytes: u64) -> Table {
    let identity = Identity { disk: Guid::from_u128(1), esp: Guid::from_u128(2), state: Guid::from_u128(3) };
    let mut table = new_table(&identity, &Sizes::CLOUD, &RootHash::new([7; 32]));
    grow(&mut table, disk_bytes);
    table
}

/// What the host does at each boot.
fn grow(table: &mut Table, disk_bytes: u64) {
    table.resize_disk(disk_bytes / SECTOR_BYTES as u64).unwrap();
    table.grow(STATE_LABEL, reserve_bytes(disk_bytes) / SECTOR_BYTES as u64).unwrap();
}

fn needs(root_mib: u64) -> Needs {
    Needs { root_bytes: root_mib * MIB, tree_bytes: (root_mib / 64).max(1) * MIB, esp_bytes: None }
}

fn apply(table: &mut Table, slot: Slot, moves: &Moves) {
    for (label, extent) in labels(slot).iter().zip(moves.slot.iter().flatten()) {
        table.set_extent(label, extent).unwrap();
    }
    moves.esp.iter().for_each(|extent| table.set_extent(ESP_LABEL, extent).unwrap());
}

fn size_mib(table: &Table, label: &str) -> u64 {
    table.by_name(label).unwrap().size_bytes() / MIB
}

/// Read back as any program would; what overlaps is refused.
fn whole(table: &Table) {
    assert_eq!(Table::read_primary(&table.primary()).as_ref(), Ok(table));
}

#[test]
fn what_fits_stays_where_it_is() {
    assert_eq!(plan(&installed(8 * GIB), Slot::B, &needs(192)), Ok(STAYS));
    assert_eq!(plan(&installed(2 * GIB), Slot::B, &needs(100)), Ok(STAYS));
}

#[test]
fn both_slots_grow_one_after_the_other_into_the_reserve_and_into_what_became_free() {
    let mut table = installed(8 * GIB);
    let moves = plan(&table, Slot::B, &needs(240)).unwrap();
    let state_end = Extent::of(table.by_name(STATE_LABEL).unwrap()).end_lba;
    assert!(moves.slot.unwrap().iter().all(|extent| extent.first_lba >= state_end && moves.esp.is_none()));
    apply(&mut table, Slot::B, &moves);
    whole(&table);
    assert_eq!((size_mib(&table, "root-b"), size_mib(&table, "verity-b")), (300, 4));
    assert_eq!(plan(&table, Slot::B, &needs(240)), Ok(STAYS), "a resumed install finds it moved");
    let moves = plan(&table, Slot::A, &needs(240)).unwrap();
    assert!(moves.slot.unwrap().iter().all(|extent| extent.end_lba <= state_end));
    apply(&mut table, Slot::A, &moves);
    whole(&table);
    assert_eq!(size_mib(&table, "root-a"), 300);
    assert_eq!(plan(&table, Slot::B, &needs(300)), Ok(STAYS));
}

#[test]
fn headroom_is_given_up_before_the_release_is() {
    let mut table = installed(4 * GIB);
    let moves = plan(&table, Slot::B, &needs(240)).unwrap();
    apply(&mut table, Slot::B, &moves);
    assert_eq!((size_mib(&table, "root-b"), size_mib(&table, "verity-b")), (240, 4));
    let tail = table.free(&[], &[]).pop().unwrap();
    assert!(tail.end_lba <= table.by_name("root-b").unwrap().first_lba, "the disk's end is filled from behind");
}

#[test]
fn a_disk_without_room_says_how_much_is_needed_and_there() {
    let table = installed(2 * GIB);
    let needed = Needs { root_bytes: 240 * MIB + 1, tree_bytes: 2 * MIB, esp_bytes: None };
    let refused = plan(&table, Slot::B, &needed).unwrap_err();
    assert_eq!(refused, NoRoom { needed_bytes: 243 * MIB, largest_bytes: 196 * MIB });
    let esp = Needs { root_bytes: 1, tree_bytes: 1, esp_bytes: Some(300 * MIB) };
    let refused = plan(&table, Slot::B, &esp).unwrap_err();
    assert_eq!(refused, NoRoom { needed_bytes: 300 * MIB, largest_bytes: 0 });
    let endless = Needs { root_bytes: u64::MAX, tree_bytes: u64::MAX, esp_bytes: Some(u64::MAX) };
    assert_eq!(plan(&table, Slot::A, &endless).unwrap_err().needed_bytes, u64::MAX);
}

#[test]
fn on_a_disk_as_large_as_is_asked_for_there_is_room_before_and_after_the_next_boot() {
    for (disk_bytes, root_mib) in [(2 * GIB, 240), (3 * GIB, 700), (64 * GIB, 2000)] {
        let mut table = installed(disk_bytes);
        table.grow(STATE_LABEL, 0).unwrap();
        let refused = plan(&table, Slot::B, &needs(root_mib)).unwrap_err();
        let larger = large_enough_bytes(&table, refused.needed_bytes);
        table.resize_disk(larger / SECTOR_BYTES as u64).unwrap();
        assert!(plan(&table, Slot::B, &needs(root_mib)).is_ok(), "{root_mib}");
        grow(&mut table, larger);
        assert!(plan(&table, Slot::B, &needs(root_mib)).is_ok(), "{root_mib}");
    }
}

#[test]
fn the_esp_goes_beside_the_old_one_and_not_where_the_slot_was() {
    let mut table = installed(16 * GIB);
    let both = Needs { esp_bytes: Some(300 * MIB), ..needs(240) };
    let before = table.clone();
    let moves = plan(&table, Slot::B, &both).unwrap();
    let esp = moves.esp.unwrap();
    assert!(before.entries.iter().all(|entry| !Extent::of(entry).overlaps(&esp)));
    apply(&mut table, Slot::B, &moves);
    whole(&table);
    assert_eq!((size_mib(&table, "esp"), size_mib(&table, "root-b")), (375, 300));
}

#[test]
fn what_is_behind_the_state_moves_to_the_end_of_an_enlarged_disk() {
    let mut table = installed(8 * GIB);
    let larger = plan(&table, Slot::B, &Needs { esp_bytes: Some(200 * MIB), ..needs(200) }).unwrap();
    apply(&mut table, Slot::B, &larger);
    grow(&mut table, 8 * GIB + 64 * MIB);
    assert_eq!(plan(&table, Slot::B, &needs(200)), Ok(STAYS), "it isn't worth it");
    grow(&mut table, 32 * GIB);
    let state = size_mib(&table, STATE_LABEL);
    assert!(state < 8 << 10);
    for _ in 0..2 {
        let moves = plan(&table, Slot::B, &needs(200)).unwrap();
        assert_ne!(moves, STAYS);
        apply(&mut table, Slot::B, &moves);
        whole(&table);
    }
    assert_eq!(plan(&table, Slot::B, &needs(200)), Ok(STAYS));
    grow(&mut table, 32 * GIB);
    whole(&table);
    assert!(size_mib(&table, STATE_LABEL) > 29 << 10, "{}", size_mib(&table, STATE_LABEL));
}

/// Numbers that look random.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// Partitions of any size with gaps of any size between them, in any order, and some that are nobody's.
fn random_table(random: &mut Numbers) -> Table {
    let mut labels = vec!["esp", "root-a", "verity-a", "root-b", "verity-b", "state", "x", "y"];
    let mut entries = Vec::new();
    let mut at = 34;
    for number in 1..=labels.len() as u32 {
        let name = labels.remove(random.below(labels.len() as u64) as usize).to_owned();
        at += random.below(6) * random.below(30_000);
        let first_lba = at;
        at += 1 + random.below(40_000);
        let unique = Guid::from_u128(number.into());
        let kind = keel_spec::disk::VAR;
        entries.push(Entry { number, kind, unique, first_lba, last_lba: at - 1, attributes: 0, name });
    }
    Table { entries, ..Table::new(Guid::from_u128(1), at + 34 + random.below(4) * random.below(100_000)) }
}

#[test]
fn whatever_the_disk_looks_like_only_the_slot_and_the_esp_move_and_only_to_where_nothing_is() {
    let mut random = Numbers(0x9e37_79b9_7f4a_7c15);
    let (mut moved, mut refused) = (0, 0);
    for round in 0..20_000 {
        let table = random_table(&mut random);
        whole(&table);
        let slot = Slot::ALL[random.below(2) as usize];
        let esp_bytes = (random.below(2) == 0).then(|| random.below(60 * MIB));
        let needs = Needs { root_bytes: random.below(90 * MIB), tree_bytes: random.below(10 * MIB), esp_bytes };
        let Ok(moves) = plan(&table, slot, &needs) else {
            refused += 1;
            continue;
        };
        moved += usize::from(moves != STAYS);
        let mut after = table.clone();
        apply(&mut after, slot, &moves);
        whole(&after);
        let mine = |name: &str| labels(slot).contains(&name) || name == ESP_LABEL;
        for (old, new) in table.entries.iter().zip(&after.entries).filter(|(old, _)| !mine(&old.name)) {
            assert_eq!(old, new, "round {round}");
        }
        let place = |label: &str| after.by_name(label).unwrap().size_bytes();
        assert!(place(slot.root_label()) >= needs.root_bytes && place(slot.verity_label()) >= needs.tree_bytes);
        assert!(moves.esp.map_or(needs.esp_bytes.is_none(), |esp| esp.size_bytes() >= needs.esp_bytes.unwrap_or(0)));
        // The old EFI system partition is in force until the new one is whole.
        let old = |extent: &Extent| table.entries.iter().any(|entry| Extent::of(entry).overlaps(extent));
        assert!(!moves.esp.as_ref().is_some_and(old), "round {round}: {moves:?}");
    }
    assert!(moved > 2000 && refused > 2000, "{moved} {refused}");
}

#[test]
fn tables_that_contradict_themselves_never_panic() {
    let mut random = Numbers(77);
    for _ in 0..20_000 {
        let mut table = random_table(&mut random);
        for _ in 0..3 {
            let index = random.below(8) as usize;
            let value = [0, u64::MAX, random.below(200_000), u64::MAX - 3][random.below(4) as usize];
            match random.below(3) {
                0 => table.entries[index].first_lba = value,
                1 => table.entries[index].last_lba = value,
                _ => table.sectors = value,
            }
        }
        let needs =
            Needs { root_bytes: random.below(30 * MIB), tree_bytes: MIB, esp_bytes: Some(random.below(9 * MIB)) };
        let _ = plan(&table, Slot::A, &needs);
    }
}
