//! Partition tables, hash trees, UKIs.

use std::io::Cursor;

use keel_spec::gpt::{BACKUP_SECTORS, Entry, Guid, SECTOR_BYTES, Table};
use keel_spec::verity::{BLOCK_BYTES, Builder, RootHash, Tree};
use keel_updater::uki;
use ring::digest;

use super::answer;
use crate::runner::{Run, Target};

pub const TARGETS: [Target; 3] = [
    Target { name: "gpt", seeds: gpt_seeds, make: || Box::new(gpt), share: 1000 },
    Target { name: "hash_tree", seeds: || vec![tree().0], make: hash_tree, share: 300 },
    Target { name: "uki", seeds: uki_seeds, make: || Box::new(find_cmdline), share: 1000 },
];

/// Bytes of either copy.
const COPY: usize = BACKUP_SECTORS as usize * SECTOR_BYTES;

fn gpt_seeds() -> Vec<Vec<u8>> {
    let mut table = Table::new(Guid::from_bytes([7; 16]), 1 << 20);
    for number in 1..=5 {
        table.entries.push(Entry {
            number,
            kind: Guid::from_bytes([number as u8; 16]),
            unique: Guid::from_bytes([0x10 + number as u8; 16]),
            first_lba: 2048 * u64::from(number),
            last_lba: 2048 * u64::from(number) + 2047,
            attributes: 0,
            name: format!("part-{number}"),
        });
    }
    let primary = table.primary();
    // Without the protective MBR and the many entries that are empty, so that changes meet what matters.
    vec![
        [&[0], &primary[SECTOR_BYTES..SECTOR_BYTES + 92], &primary[2 * SECTOR_BYTES..2 * SECTOR_BYTES + 5 * 128]]
            .concat(),
    ]
}

/// The first byte says whether checksums are put right, which a change alone hardly ever does.
fn gpt(bytes: &[u8]) -> String {
    let Some((&how, bytes)) = bytes.split_first() else { return "empty".into() };
    let mut header = [0; SECTOR_BYTES];
    let (head, entries) = bytes.split_at(bytes.len().min(92));
    header[..head.len()].copy_from_slice(head);
    let mut array = entries.to_vec();
    array.resize(COPY - SECTOR_BYTES, 0);
    if how.is_multiple_of(2) {
        header[88..92].copy_from_slice(&crc32fast::hash(&array).to_le_bytes());
        header[16..20].fill(0);
        let sum = crc32fast::hash(&header[..92]);
        header[16..20].copy_from_slice(&sum.to_le_bytes());
    }
    let primary = [[0; SECTOR_BYTES].as_slice(), &header, &array].concat();
    let backup = [array.as_slice(), &header].concat();
    if let Ok((table, _)) = Table::read(&primary, &backup) {
        let again = Table::read(&table.primary(), &table.backup());
        assert_eq!(again.expect("what is written is read").0, table);
        for entry in &table.entries {
            assert!(
                entry.first_lba <= entry.last_lba && entry.last_lba <= table.last_usable(),
                "a partition is on the disk"
            );
        }
    }
    format!("{} {}", answer(Table::read_primary(&primary)), answer(Table::read_backup(&backup)))
}

fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = digest::Context::new(&digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    context.finish().as_ref().try_into().unwrap_or_default()
}

const TREE_BLOCKS: u64 = 200;

fn tree() -> (Vec<u8>, RootHash) {
    let build = || {
        let mut builder = Builder::new(TREE_BLOCKS, sha256)?;
        for block in 0..TREE_BLOCKS {
            builder.feed(&[block as u8; BLOCK_BYTES])?;
        }
        builder.finish()
    };
    build().unwrap_or_else(|error: keel_spec::verity::TreeError| panic!("make a tree: {error}"))
}

/// Only the one tree that the root hash is of may be accepted.
fn hash_tree() -> Run {
    let (whole, root) = tree();
    Box::new(move |bytes| {
        let outcome = Tree::check(bytes.to_vec(), TREE_BLOCKS, &root, &sha256);
        assert!(outcome.is_err() || bytes == whole, "another tree is accepted");
        answer(outcome)
    })
}

fn uki_seeds() -> Vec<Vec<u8>> {
    let mut file = vec![0; 0x240];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x46] = 1;
    file[0x58..0x60].copy_from_slice(b".cmdline");
    file[0x60] = 0x10;
    file[0x69] = 0x02;
    file[0x6d] = 0x02;
    vec![file]
}

fn find_cmdline(bytes: &[u8]) -> String {
    if let Some((offset, length)) = uki::find_section(bytes, ".linux") {
        assert!(offset <= u64::from(u32::MAX) && length <= u64::from(u32::MAX));
    }
    match uki::cmdline(&mut Cursor::new(bytes)) {
        Ok(Some(text)) => format!("accepted, {}", text.len().min(3)),
        Ok(None) => "none".into(),
        Err(error) => error.to_string(),
    }
}
