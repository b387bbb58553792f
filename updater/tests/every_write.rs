//! Power fails at every write: whatever is on the disk then, it boots the old release or the new one, whole.
//!
//! The code that writes is the updater's own, on a disk in memory that records each write and sync, the EFI system
//! partition's included. `make bench` reads the last line that this prints.

mod support;

use std::sync::atomic::Ordering;

use keel_spec::disk::Slot;
use keel_spec::gpt::{BACKUP_SECTORS, PRIMARY_SECTORS, SECTOR_BYTES, Table};
use keel_updater::disk;
use support::checker::{Disk, Found, explore};
use support::{
    MIB, Made, Memory, Op, Recorder, as_firmware, fill_esp, image, install_from, make, open_esp, with_free_space,
    write_ahead,
};

const BLOCKS: u64 = 300;

struct Releases {
    old: Made,
    running: Made,
    new: Made,
}

fn releases() -> Releases {
    Releases {
        old: make("0.9.0", BLOCKS, 1, |block| block + 5000),
        running: make("1.0.0", BLOCKS, 2, |block| block),
        new: make("1.1.0", BLOCKS, 3, |block| if block % 3 == 0 { block + 9000 } else { block + 7 }),
    }
}

/// Records what something does to a disk, then goes through all states.
fn each(
    name: &str,
    before: &[u8],
    all: &Releases,
    allowed: &[&Made],
    act: impl FnOnce(&Recorder),
) -> (Found, Vec<u8>, Vec<Op>) {
    let recorder = Recorder::new(before.to_vec());
    act(&recorder);
    let log = recorder.take_log();
    let (found, after) = explore(name, before.to_vec(), &log, &[&all.old, &all.running, &all.new], allowed);
    assert_eq!(after, *recorder.image.lock().unwrap(), "{name}: the log isn't all that was written");
    println!("{name}: {} states, {} bad, booted {:?} {:?}", found.tried, found.bad, found.booted, found.why);
    (found, after, log)
}

/// An install that is cut short goes on at the next try, wherever that was, and one cut short again as well.
fn cut_and_again(all: &Releases, before: &[u8], source: &Memory, cuts: impl Iterator<Item = usize>) -> Found {
    let mut found = Found::default();
    for cut in cuts {
        let recorder = Recorder::new(before.to_vec());
        recorder.power.store(cut as i64, Ordering::Relaxed);
        install_from(&recorder, &all.running, &[source], &all.new.release, false).unwrap_err();
        let torn = recorder.image.into_inner().unwrap();
        let name = format!("install again after a cut at {cut}");
        let (again, after, _) = each(&name, &torn, all, &[&all.running, &all.new], |recorder| {
            install_from(recorder, &all.running, &[source], &all.new.release, true).unwrap();
        });
        found.add(again);
        let booted = Disk::new(after, &[&all.old, &all.running, &all.new]).boots();
        assert_eq!(booted.unwrap(), all.new.release.version, "{name}");
    }
    found
}

/// After each write of the partition table's primary copy, when the backup still says what was before.
fn between_tables(log: &[Op]) -> impl Iterator<Item = usize> {
    let primary = log.iter().enumerate().filter(|(_, op)| matches!(op, Op::Write(0, _)));
    primary.map(|(index, _)| index + 1)
}

/// A release that is written ahead is never offered, wherever power fails; installed afterwards, it boots.
fn ahead(all: &Releases, before: &[u8], source: &Memory) -> Found {
    let (mut found, written, _) = each("write ahead", before, all, &[&all.running], |recorder| {
        write_ahead(recorder, &all.running, source, &all.new.release, false).unwrap();
    });
    let allowed = [&all.running, &all.new];
    let (more, installed, _) = each("install what was written ahead", &written, all, &allowed, |recorder| {
        install_from(recorder, &all.running, &[source], &all.new.release, true).unwrap();
    });
    found.add(more);
    let (more, after, _) = each("no longer offer it", &installed, all, &allowed, |recorder| {
        open_esp(recorder).remove("keel_1.1.0+3.efi").unwrap();
    });
    found.add(more);
    let booted = Disk::new(after, &[&all.old, &all.running, &all.new]).boots();
    assert_eq!(booted.unwrap(), all.running.release.version);
    found
}

/// What happens to a disk after an install: firmware counts a try, the release is marked good, rolled back from, taken
/// back.
fn afterwards(all: &Releases, installed: Vec<u8>) -> Found {
    let mut found = Found::default();
    let mut image = installed;
    as_firmware(&mut image, |folder| folder.rename("keel_1.1.0+3.efi", &folder, "keel_1.1.0+2-1.efi").unwrap());
    let steps: [(&str, &str, &str, Vec<&Made>); 4] = [
        ("mark good", "keel_1.1.0+2-1.efi", "keel_1.1.0.efi", vec![&all.new]),
        ("roll back", "keel_1.1.0.efi", "keel_1.1.0+0-1.efi", vec![&all.new, &all.running]),
        ("take back", "keel_1.1.0+0-1.efi", "keel_1.1.0+3.efi", vec![&all.new, &all.running]),
        ("mark good again", "keel_1.1.0+3.efi", "keel_1.1.0.efi", vec![&all.new]),
    ];
    for (name, from, to, allowed) in steps {
        let (more, after, _) = each(name, &image, all, &allowed, |recorder| {
            open_esp(recorder).rename(from, to).unwrap();
        });
        found.add(more);
        image = after;
    }
    found
}

/// The disk has grown, and the partition table follows: as the first boot does it, and as an install does it where
/// that failed.
fn growth(all: &Releases, before: &[u8], source: &Memory) -> Found {
    let mut found = Found::default();
    let mut grown = before.to_vec();
    grown.resize(before.len() + (8 << 20), 0);
    let (more, after, _) = each("first boot grows the table", &grown, all, &[&all.running], |recorder| {
        let sectors = (grown.len() / SECTOR_BYTES) as u64;
        let primary = &grown[..PRIMARY_SECTORS as usize * SECTOR_BYTES];
        let backup = &grown[grown.len() - BACKUP_SECTORS as usize * SECTOR_BYTES..];
        let (_, writes) = keel_host::provision::grow::table_writes(primary, backup, sectors).unwrap().unwrap();
        for (bytes, offset) in writes {
            disk::Device::write_at(recorder, &bytes, offset).unwrap();
            disk::Device::sync(recorder).unwrap();
        }
    });
    found.add(more);
    let state = Table::read_primary(&after).unwrap().by_name("state").unwrap().size_bytes();
    assert!(state > 8 << 20);
    let (more, _, _) = each("install on a disk that has grown", &grown, all, &[&all.running, &all.new], |recorder| {
        install_from(recorder, &all.running, &[source], &all.new.release, false).unwrap();
    });
    found.add(more);
    // A copy of the table that was torn before is mended first.
    for (name, offset) in [("primary", 1024), ("backup", before.len() - 5000)] {
        let mut torn = before.to_vec();
        torn[offset] ^= 1;
        let name = format!("install with a torn {name} table");
        let (more, _, _) = each(&name, &torn, all, &[&all.running, &all.new], |recorder| {
            install_from(recorder, &all.running, &[source], &all.new.release, false).unwrap();
        });
        found.add(more);
    }
    found
}

#[test]
fn every_state_that_a_power_cut_leaves_boots_the_old_or_the_new_release_whole() {
    let all = releases();
    let source = Memory::of(&all.new);
    let before = image(&all.running, Some(&all.old));
    let mut found = Found::default();
    let (more, installed, log) = each("install", &before, &all, &[&all.running, &all.new], |recorder| {
        install_from(recorder, &all.running, &[&source], &all.new.release, false).unwrap();
    });
    assert_eq!(more.booted.len(), 2, "the commit was never seen");
    assert_eq!(Slot::holding(&Table::read_primary(&installed).unwrap(), &all.new.release.root_hash), Some(Slot::B));
    found.add(more);
    found.add(cut_and_again(&all, &before, &source, (0..log.len()).step_by(log.len().div_ceil(12))));
    found.add(afterwards(&all, installed));
    found.add(ahead(&all, &before, &source));
    found.add(growth(&all, &before, &source));
    println!("write_prefixes_tried {} write_prefixes_bad {}", found.tried, found.bad);
    assert_eq!(found.bad, 0, "{:#?}", found.why);
    assert!(found.tried >= 5000);
}

/// A release that is too large for slot b, one whose UKI is too large for the EFI system partition, one that is both: what
/// is too small moves. Then the release that follows, for which slot a moves, too.
fn enlarged(all: &Releases, before: &[u8]) -> Found {
    let mut found = Found::default();
    let large = |version: &str, kernel| make(version, 2 * BLOCKS, kernel, |block| block + u64::from(kernel) * 1000);
    let size = |image: &[u8], label: &str| Table::read_primary(image).unwrap().by_name(label).unwrap().size_bytes();
    let place = |image: &[u8], label: &str| Table::read_primary(image).unwrap().by_name(label).unwrap().first_lba;
    let roomy = with_free_space(before.to_vec(), 64 * MIB);
    let mut full = roomy.clone();
    fill_esp(&mut full, 200);
    for (name, before, blocks, moved) in [
        ("that moves the slot", &roomy, 2 * BLOCKS, vec!["root-b", "verity-b"]),
        ("that moves the esp", &full, BLOCKS, vec!["esp"]),
        ("that moves both", &full, 2 * BLOCKS, vec!["esp", "root-b", "verity-b"]),
    ] {
        let new = make("1.1.0", blocks, 3, |block| if block % 3 == 0 { block + 9000 } else { block + 7 });
        let all = Releases { old: make("0.9.0", BLOCKS, 1, |block| block + 5000), new, ..releases() };
        let source = Memory::of(&all.new);
        let allowed = [&all.running, &all.new];
        let (more, after, log) = each(&format!("install {name}"), before, &all, &allowed, |recorder| {
            install_from(recorder, &all.running, &[&source], &all.new.release, false).unwrap();
        });
        found.add(more);
        for label in ["esp", "root-a", "verity-a", "root-b", "verity-b", "state"] {
            let moves = place(before, label) != place(&after, label);
            assert_eq!(moves, moved.contains(&label), "{name}: {label}");
            assert!(size(&after, label) >= size(before, label), "{name}: {label}");
        }
        if moved.len() == 3 {
            assert_eq!(
                between_tables(&log).count(),
                3,
                "the esp moves, the slot is erased and moves, the slot is named"
            );
            found.add(cut_and_again(&all, before, &source, between_tables(&log)));
        }
        found.add(afterwards(&all, after.clone()));
    }
    let second = Releases { new: large("1.1.0", 3), ..releases() };
    let (more, after, _) = each("write ahead what moves the slot", &roomy, &second, &[&all.running], |recorder| {
        write_ahead(recorder, &second.running, &Memory::of(&second.new), &second.new.release, false).unwrap();
    });
    found.add(more);
    assert_ne!(place(&roomy, "root-b"), place(&after, "root-b"));
    let (more, mut after, _) = each(
        "install what was written ahead into a moved slot",
        &after,
        &second,
        &[&all.running, &second.new],
        |recorder| {
            install_from(recorder, &second.running, &[&Memory::of(&second.new)], &second.new.release, true).unwrap();
        },
    );
    found.add(more);
    as_firmware(&mut after, |folder| folder.rename("keel_1.1.0+3.efi", &folder, "keel_1.1.0.efi").unwrap());
    let third = Releases { old: second.running, running: second.new, new: large("1.2.0", 4) };
    let (more, last, _) = each("then move the other slot", &after, &third, &[&third.running, &third.new], |recorder| {
        install_from(recorder, &third.running, &[&Memory::of(&third.new)], &third.new.release, false).unwrap();
    });
    found.add(more);
    assert_eq!(Slot::holding(&Table::read_primary(&last).unwrap(), &third.new.release.root_hash), Some(Slot::A));
    assert!(size(&last, "root-a") > size(&roomy, "root-a") && place(&last, "root-b") == place(&after, "root-b"));
    found
}

#[test]
fn what_moves_to_a_larger_place_is_whole_in_every_state_that_a_power_cut_leaves() {
    let all = releases();
    let found = enlarged(&all, &image(&all.running, Some(&all.old)));
    println!("write_prefixes_of_moves_tried {} bad {}", found.tried, found.bad);
    assert_eq!(found.bad, 0, "{:#?}", found.why);
    assert!(found.tried >= 5000);
}

#[test]
fn the_checker_finds_a_commit_that_comes_too_early() {
    let all = releases();
    let source = Memory::of(&all.new);
    let before = image(&all.running, Some(&all.old));
    let recorder = Recorder::new(before.clone());
    install_from(&recorder, &all.running, &[&source], &all.new.release, false).unwrap();
    let log = recorder.take_log();
    // Without its syncs, any of it may come first.
    let unsynced: Vec<Op> = log.into_iter().filter(|op| matches!(op, Op::Write(..))).collect();
    let every = [&all.old, &all.running, &all.new];
    let (found, _) = explore("no syncs", before.clone(), &unsynced, &every, &[&all.running, &all.new]);
    assert!(found.bad > 0);

    let mut full = with_free_space(before, 64 * MIB);
    fill_esp(&mut full, 200);
    let recorder = Recorder::new(full.clone());
    install_from(&recorder, &all.running, &[&source], &all.new.release, false).unwrap();
    let log = recorder.take_log();
    let moved = between_tables(&log).next().unwrap();
    let unsynced: Vec<Op> = log.into_iter().take(moved).filter(|op| matches!(op, Op::Write(..))).collect();
    let (found, _) = explore("an esp without syncs", full, &unsynced, &every, &[&all.running]);
    assert!(found.bad > 0);
}
