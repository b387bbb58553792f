use super::*;
use crate::disk;

fn table() -> Table {
    let entry = |number, first_lba, last_lba, name: &str| Entry {
        number,
        kind: disk::ROOT_X86_64,
        unique: Guid::from_u128(0x1234 + u128::from(number)),
        first_lba,
        last_lba,
        attributes: 0,
        name: name.into(),
    };
    let entries = vec![entry(1, 2048, 4095, "a"), entry(2, 4096, 8191, "b"), entry(5, 8192, 10239, "state")];
    Table { entries, ..Table::new(Guid::from_u128(7), 12288) }
}

#[test]
fn guids_are_mixed_endian_on_disk() {
    let guid: Guid = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b".parse().unwrap();
    assert_eq!(guid.to_disk()[..8], [0x28, 0x73, 0x2a, 0xc1, 0x1f, 0xf8, 0xd2, 0x11]);
    assert_eq!(Guid::from_disk(guid.to_disk()), guid);
    assert_eq!(guid.to_string(), "c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
    for text in ["", "c12a7328f81f11d2ba4b00a0c93ec93b", "+12a7328-f81f-11d2-ba4b-00a0c93ec93b", "ä"] {
        assert!(text.parse::<Guid>().is_err(), "{text}");
    }
}

#[test]
fn both_copies_round_trip() {
    let table = table();
    assert_eq!(Table::read(&table.primary(), &table.backup()), Ok((table, Damage::None)));
}

#[test]
fn one_torn_copy_is_survived() {
    let table = table();
    let (mut primary, backup) = (table.primary(), table.backup());
    primary[1100] ^= 1;
    let (read, damage) = Table::read(&primary, &backup).unwrap();
    assert_eq!((read, damage), (table.clone(), Damage::Primary(ReadError::Checksum("entries"))));
    let (read, damage) = Table::read(&table.primary(), &[]).unwrap();
    assert_eq!((read, damage), (table, Damage::Backup(ReadError::Short(0))));
}

#[test]
fn power_failing_between_the_copies_leaves_the_primary_in_force() {
    let old = table();
    let mut new = old.clone();
    new.set_unique("b", Guid::from_u128(99)).unwrap();
    assert_eq!(Table::read(&old.primary(), &new.backup()), Ok((old.clone(), Damage::Differ)));
    assert_eq!(Table::read(&new.primary(), &old.backup()), Ok((new, Damage::Differ)));
}

#[test]
fn a_grown_disk_gets_its_backup_at_the_end_and_a_larger_last_partition() {
    let mut table = table();
    table.resize_disk(100_003).unwrap();
    assert_eq!(table.grow("state", 0), Ok(true));
    assert_eq!(table.grow("state", 0), Ok(false));
    let state = table.by_name("state").unwrap();
    assert_eq!(state.sectors() % 8, 0);
    assert!(table.last_usable() - state.last_lba < 8);
    assert_eq!(Table::read_backup(&table.backup()), Ok(table.clone()));
    assert!(matches!(table.resize_disk(5000), Err(ChangeError::TooSmall { .. })));
    assert_eq!(table.grow("none", 0), Err(ChangeError::NoPartition("none".into())));
}

#[test]
fn a_partition_grows_up_to_what_is_kept_free_and_to_the_next_one_and_never_shrinks() {
    let mut table = table();
    table.resize_disk(100_003).unwrap();
    assert_eq!(table.grow("b", 0), Ok(false), "another partition follows at once");
    assert_eq!(table.grow("state", 50_000), Ok(true));
    let end = table.by_name("state").unwrap().last_lba;
    assert!((49_962..49_970).contains(&end), "{end}");
    assert_eq!(table.grow("state", 60_000), Ok(false));
    assert_eq!(table.grow("state", u64::MAX), Ok(false));
    let behind = Entry { number: 6, first_lba: 60_003, last_lba: 70_000, ..table.entries[0].clone() };
    table.entries.push(Entry { name: "behind".into(), ..behind });
    assert_eq!(table.grow("state", 0), Ok(true));
    assert_eq!(table.by_name("state").unwrap().last_lba, 59_999);
    assert_eq!(Table::read_primary(&table.primary()), Ok(table));
}

#[test]
fn overlaps_and_partitions_beyond_the_end_are_refused() {
    let mut overlapping = table();
    overlapping.entries[1].first_lba = 4000;
    assert_eq!(Table::read_primary(&overlapping.primary()), Err(ReadError::Partition(2)));
    let mut beyond = table();
    beyond.entries[2].last_lba = 12287;
    assert_eq!(Table::read_primary(&beyond.primary()), Err(ReadError::Partition(5)));
    let mut backwards = table();
    backwards.entries[0].last_lba = 2047;
    assert_eq!(Table::read_primary(&backwards.primary()), Err(ReadError::Partition(1)));
}

#[test]
fn hostile_headers_are_refused_without_panic() {
    let table = table();
    for at in 512..604 {
        for value in [0, 0x7f, 0xff] {
            let mut bytes = table.primary();
            bytes[at] = value;
            // With a correct checksum, so that the fields themselves are looked at.
            bytes[528..532].fill(0);
            let crc = crc32fast::hash(&bytes[512..604]);
            bytes[528..532].copy_from_slice(&crc.to_le_bytes());
            let _ = Table::read_primary(&bytes);
            let _ = Table::read_primary(&bytes[..at]);
        }
    }
}
