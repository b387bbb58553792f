//! Installs on a disk in memory: what is fetched, from whom, and what is refused.

mod support;

use std::sync::atomic::Ordering;

use keel_spec::api::ErrorCode;
use keel_spec::disk::{root_guid, verity_guid};
use keel_spec::gpt::SECTOR_BYTES;
use keel_spec::verity::{BLOCK_BYTES, RootHash};
use keel_updater::disk::{self, Device as _};
use keel_updater::plan::{Facts, decide};
use support::checker::Disk;
use support::{
    MIB, Made, Memory, Recorder, as_firmware, fill_esp, image, install_from, make, open_esp, with_free_space,
    write_ahead,
};

const BLOCKS: u64 = 300;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// 1.0.0 runs in slot a, 0.9.0 is in slot b.
fn machine() -> (Recorder, Made, Made) {
    let (old, running) = (make("0.9.0", BLOCKS, 1, |block| block + 5000), make("1.0.0", BLOCKS, 2, |block| block));
    (Recorder::new(image(&running, Some(&old))), running, old)
}

/// Shares 100 of its 300 blocks with 1.0.0, at other places.
fn new_release() -> Made {
    make("1.1.0", BLOCKS, 2, |block| if block < 100 { block + 50 } else { block + 9000 })
}

fn booted(recorder: &Recorder, all: &[&Made]) -> String {
    Disk::new(recorder.image.lock().unwrap().clone(), all).boots().unwrap().to_string()
}

#[test]
fn only_what_is_new_is_fetched_for_root_and_uki() {
    let ((recorder, running, _), new) = (machine(), new_release());
    let source = Memory::of(&new);
    let fetched = install_from(&recorder, &running, &[&source], &new.release, false).unwrap();
    // Of the UKI, the block with the command line alone.
    let wanted = 200 * BLOCK + BLOCK + (new.tree.len() + new.list.len()) as u64;
    assert_eq!((fetched, source.served()), (wanted, wanted));
    assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0");
}

#[test]
fn what_a_new_root_holds_is_not_fetched_again_for_the_uki() {
    let (recorder, running, _) = machine();
    let mut new = new_release();
    let list = keel_spec::blocks::BlockList::of(
        &new.root[100 * BLOCK_BYTES..110 * BLOCK_BYTES],
        &keel_updater::blocks::sha256,
    );
    new.uki = new.root[100 * BLOCK_BYTES..110 * BLOCK_BYTES].to_vec();
    new.list = list.to_bytes();
    new.release.uki_bytes = new.uki.len() as u64;
    new.release.uki_blocks_bytes = Some(new.list.len() as u64);
    let source = Memory::of(&new);
    let fetched = install_from(&recorder, &running, &[&source], &new.release, false).unwrap();
    assert_eq!(fetched, 200 * BLOCK + (new.tree.len() + new.list.len()) as u64);
}

#[test]
fn an_install_goes_on_where_it_was_cut_and_fetches_nothing_twice() {
    let new = new_release();
    let small = (new.tree.len() + new.list.len()) as u64;
    let mut last = 0;
    for cut in (0..).step_by(4) {
        let (recorder, running, _) = machine();
        let source = Memory::of(&new);
        recorder.power.store(cut, Ordering::Relaxed);
        if install_from(&recorder, &running, &[&source], &new.release, false).is_ok() {
            break;
        }
        recorder.power.store(i64::MAX, Ordering::Relaxed);
        install_from(&recorder, &running, &[&source], &new.release, true).unwrap();
        assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0");
        // A request that was cut is made again, for what it hadn't brought.
        last = source.served();
        assert!(last <= 401 * BLOCK + 2 * small, "{last} after a cut at {cut}");
    }
    assert_eq!(last, 201 * BLOCK + 2 * small, "the last cut came after all was fetched");
}

#[test]
fn what_was_written_ahead_is_not_offered_and_its_install_fetches_no_block() {
    let ((recorder, running, old), new) = (machine(), new_release());
    let source = Memory::of(&new);
    let small = (new.tree.len() + new.list.len()) as u64;
    let fetched = write_ahead(&recorder, &running, &source, &new.release, false).unwrap();
    assert_eq!(fetched, 201 * BLOCK + small);
    assert_eq!(booted(&recorder, &[&old, &running, &new]), "1.0.0");
    assert!(open_esp(&recorder).ukis().unwrap().iter().all(|uki| uki.name.version != new.release.version));
    let fetched = install_from(&recorder, &running, &[&source], &new.release, true).unwrap();
    assert_eq!(fetched, small);
    assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0");
}

#[test]
fn servers_with_one_range_none_and_broken_connections_do_not_stop_an_install() {
    let new = make("1.1.0", BLOCKS, 9, |block| if block % 50 < 3 { block + 9000 } else { block });
    for most_ranges in [1, 0] {
        for (cut_after, cuts) in [(0, 0), (70 * BLOCK, 3)] {
            let (recorder, running, _) = machine();
            let source = Memory { most_ranges, cut_after, cuts: cuts.into(), ..Memory::of(&new) };
            install_from(&recorder, &running, &[&source], &new.release, false).unwrap();
            assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0", "{most_ranges} ranges, {cuts} cuts");
        }
    }
}

#[test]
fn a_release_without_a_block_list_has_its_uki_fetched_whole() {
    let ((recorder, running, _), mut new) = (machine(), new_release());
    new.release.uki_blocks_bytes = None;
    let source = Memory::of(&new);
    let fetched = install_from(&recorder, &running, &[&source], &new.release, false).unwrap();
    assert_eq!(fetched, 200 * BLOCK + (new.tree.len() + new.uki.len()) as u64);
    assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0");
}

#[test]
fn changed_files_are_refused_by_name_and_nothing_new_is_offered() {
    let new = new_release();
    for (suffix, at) in [(".root", 160 * BLOCK_BYTES), (".verity", 5000), (".efi", 600), (".blocks", 100)] {
        let (recorder, running, old) = machine();
        let mut source = Memory::of(&new);
        source.corrupt(suffix, at);
        let failure = install_from(&recorder, &running, &[&source], &new.release, false).unwrap_err();
        assert_eq!(failure.code, ErrorCode::Digest, "{failure}");
        assert!(failure.message.contains(&format!("keel-cloud-1.1.0{suffix}")), "{failure}");
        assert_eq!(booted(&recorder, &[&old, &running]), "1.0.0");
    }
}

#[test]
fn a_mirror_that_lies_is_left_for_the_next_and_one_that_has_nothing_too() {
    let new = new_release();
    let (mut lying, empty, good) = (Memory::of(&new), Memory::default(), Memory::of(&new));
    lying.corrupt(".root", 250 * BLOCK_BYTES);
    let (recorder, running, _) = machine();
    install_from(&recorder, &running, &[&empty, &lying, &good], &new.release, false).unwrap();
    assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0");
    assert!(good.served() > 0 && lying.served() > 0);
    // Once for each of four files, by each of three that fetch at once.
    assert!((4..=8).contains(&empty.requests.load(Ordering::Relaxed)), "it was asked again");
}

#[test]
fn a_release_that_was_rolled_back_from_is_offered_again_without_a_fetch() {
    let ((recorder, running, _), new) = (machine(), new_release());
    let source = Memory::of(&new);
    install_from(&recorder, &running, &[&source], &new.release, false).unwrap();
    open_esp(&recorder).rename("keel_1.1.0+3.efi", "keel_1.1.0+0-1.efi").unwrap();
    let nothing = Memory { targets: source.targets.clone(), ..Memory::default() };
    assert_eq!(install_from(&recorder, &running, &[&nothing], &new.release, false).unwrap(), 0);
    assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0");
}

#[test]
fn clusters_that_a_power_cut_left_do_not_fill_the_partition() {
    let ((recorder, running, old), new) = (machine(), new_release());
    let source = Memory::of(&new);
    let free = open_esp(&recorder).free_bytes();
    for cut in [170, 175, 180, 185, 190, 195, 200, 205] {
        recorder.power.store(cut, Ordering::Relaxed);
        let _ = install_from(&recorder, &running, &[&source], &new.release, false);
    }
    recorder.power.store(i64::MAX, Ordering::Relaxed);
    install_from(&recorder, &running, &[&source], &new.release, true).unwrap();
    let mut esp = open_esp(&recorder);
    esp.remove("keel_1.1.0+3.efi").unwrap();
    esp.reclaim().unwrap();
    let of_old = old.uki.len().next_multiple_of(SECTOR_BYTES) as u64;
    assert_eq!(esp.free_bytes(), free + of_old);
}

#[test]
fn the_partition_stays_in_order_for_others_to_check() {
    let ((recorder, running, _), new) = (machine(), new_release());
    // Names that firmware wrote, many enough for the folder to need another cluster.
    as_firmware(&mut recorder.image.lock().unwrap(), |folder| {
        (0..8).for_each(|number| {
            folder.create_file(&format!("another-loader-entry-{number}.conf")).unwrap();
        });
    });
    let before = fsck(&recorder);
    install_from(&recorder, &running, &[&Memory::of(&new)], &new.release, false).unwrap();
    assert_eq!(fsck(&recorder), before);
}

/// What `fsck.fat` minds, but for the number of clusters in use, and that of free ones, which isn't kept. (It minds long
/// names of `.` and `..`, which `fatfs` makes.)
fn fsck(recorder: &Recorder) -> Vec<String> {
    let (offset, length) = support::esp_place(&recorder.image.lock().unwrap());
    let path = std::env::temp_dir().join(format!("keel-updater-esp-{}", std::process::id()));
    std::fs::write(&path, &recorder.image.lock().unwrap()[offset as usize..(offset + length) as usize]).unwrap();
    let program = if std::path::Path::new("/sbin/fsck.fat").exists() { "/sbin/fsck.fat" } else { "fsck.fat" };
    let output = std::process::Command::new(program).args(["-n", "-v"]).arg(&path).output();
    let output = output.expect("fsck.fat is missing: install dosfstools (`make deps`)");
    std::fs::remove_file(path).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().filter(|line| !line.contains("ree cluster") && !line.contains(" files, ")).map(str::to_owned).collect()
}

fn facts_refused(change: impl Fn(&mut Facts)) -> keel_updater::failure::Failure {
    let ((recorder, running, _), new) = (machine(), new_release());
    let source = Memory::of(&new);
    let (table, _) = disk::read_table(&recorder).unwrap();
    let ukis = open_esp(&recorder).ukis().unwrap();
    let mut facts = Facts {
        release: &new.release,
        targets: &source.targets,
        table: &table,
        running_root: &running.release.root_hash,
        running: &running.release.version,
        on_trial: false,
        ukis: &ukis,
        esp_free_bytes: MIB,
        tries: 3,
        resume: false,
        disk_bytes: recorder.size_bytes().unwrap(),
        battery_percent: None,
    };
    assert!(decide(&facts).is_ok());
    change(&mut facts);
    decide(&facts).unwrap_err()
}

#[test]
fn what_cannot_be_done_is_refused_before_the_first_write() {
    let none: &'static RootHash = Box::leak(Box::new(RootHash::new([9; 32])));
    type Change<'a> = &'a dyn Fn(&mut Facts);
    let refused: [(&str, ErrorCode, Change); 6] = [
        ("esp", ErrorCode::Space, &|facts| facts.esp_free_bytes = 0),
        ("trial", ErrorCode::Conflict, &|facts| facts.on_trial = true),
        ("battery", ErrorCode::Conflict, &|facts| facts.battery_percent = Some(19)),
        ("root hash", ErrorCode::Conflict, &|facts| facts.running_root = none),
        ("fall back", ErrorCode::Conflict, &|facts| facts.ukis = &[]),
        ("ends at", ErrorCode::Conflict, &|facts| facts.disk_bytes = 36 * MIB),
    ];
    for (word, code, change) in refused {
        let failure = facts_refused(change);
        assert!(failure.code == code && failure.message.contains(word), "{word}: {failure}");
    }
}

#[test]
fn a_partition_that_is_too_small_where_nothing_larger_is_free_is_named_before_the_first_write() {
    let ((recorder, running, _), new) = (machine(), make("1.1.0", 3 * BLOCKS, 2, |block| block));
    let failure = install_from(&recorder, &running, &[&Memory::of(&new)], &new.release, false).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Space);
    for word in ["root-b has 2097152 bytes", "needs 3686400", "free area of the disk has 3145728", "enlarge the disk"] {
        assert!(failure.message.contains(word), "{word}: {failure}");
    }
    assert!(recorder.take_log().is_empty());
}

#[test]
fn a_slot_that_somebody_made_smaller_is_made_large_enough_again() {
    let ((recorder, running, _), new) = (machine(), new_release());
    let mut table = disk::read_table(&recorder).unwrap().0;
    let entry = table.entries.iter_mut().find(|entry| entry.name == "root-b").unwrap();
    entry.last_lba = entry.first_lba + 7;
    recorder.write_at(&table.primary(), 0).unwrap();
    install_from(&recorder, &running, &[&Memory::of(&new)], &new.release, false).unwrap();
    assert_eq!(booted(&recorder, &[&running, &new]), "1.1.0");
    let after = disk::read_table(&recorder).unwrap().0;
    assert_eq!(after.by_name("root-b").unwrap().size_bytes(), 2 * MIB);
}

/// A large slot and a large EFI system partition behind the state, on a disk that was enlarged afterwards.
#[test]
fn what_is_in_the_way_of_the_state_is_moved_on_and_an_esp_that_cannot_be_copied_stays() {
    let (_, running, old) = machine();
    let mut before = with_free_space(image(&running, Some(&old)), 64 * MIB);
    fill_esp(&mut before, 200);
    let recorder = Recorder::new(before);
    let (large, next) = (make("1.1.0", 2 * BLOCKS, 2, |block| block + 3), make("1.2.0", BLOCKS, 2, |block| block + 11));
    install_from(&recorder, &running, &[&Memory::of(&large)], &large.release, false).unwrap();
    let enlarged = with_free_space(recorder.image.into_inner().unwrap(), 96 * MIB);
    let place =
        |recorder: &Recorder, label: &str| disk::read_table(recorder).unwrap().0.by_name(label).unwrap().first_lba;
    // The slot, then the partition.
    let recorder = Recorder::new(enlarged);
    for moved in ["root-b", "esp"] {
        let before = place(&recorder, moved);
        open_esp(&recorder).ukis().unwrap();
        install_from(&recorder, &running, &[&Memory::of(&next)], &next.release, false).unwrap();
        assert!(place(&recorder, moved) > before, "{moved}");
        assert_eq!(booted(&recorder, &[&running, &next]), "1.2.0");
        open_esp(&recorder).remove("keel_1.2.0+3.efi").unwrap();
    }
    let image = recorder.image.into_inner().unwrap();
    let recorder = Recorder::new(with_free_space(image, 96 * MIB));
    install_from(&recorder, &running, &[&Memory::of(&next)], &next.release, false).unwrap();
    open_esp(&recorder).remove("keel_1.2.0+3.efi").unwrap();
    // A file in the root that leads nowhere; the boot loader never looks at it.
    let (offset, _) = support::esp_place(&recorder.image.lock().unwrap());
    let (esp, found) = (place(&recorder, "esp"), recorder.image.lock().unwrap()[offset as usize..].to_vec());
    let at = found.windows(11).position(|name| &name[..4] == b"KEEL" && &name[8..] == b"TOM").unwrap();
    recorder.write_at(&[0xff, 0x0f], offset + at as u64 + 26).unwrap();
    install_from(&recorder, &running, &[&Memory::of(&next)], &next.release, false).unwrap();
    assert_eq!(place(&recorder, "esp"), esp);
    assert_eq!(booted(&recorder, &[&running, &next]), "1.2.0");
}

#[test]
fn nothing_is_written_where_nothing_tells_which_slot_runs() {
    let ((recorder, running, _), new) = (machine(), new_release());
    let hash = &running.release.root_hash;
    disk::set_slot(&recorder, keel_spec::disk::Slot::B, [root_guid(hash), verity_guid(hash)], None).unwrap();
    recorder.take_log();
    let failure = install_from(&recorder, &running, &[&Memory::of(&new)], &new.release, false).unwrap_err();
    assert!(failure.code == ErrorCode::Conflict && failure.message.contains("both slots"), "{failure}");
    assert!(recorder.take_log().is_empty());
}

#[test]
fn what_a_failed_release_left_in_the_slot_is_not_fetched_for_the_next_one() {
    // 1.1.0 was tried and left; 1.2.0 is 1.1.0 with ten blocks mended.
    let (running, failed) = (make("1.0.0", BLOCKS, 2, |block| block), new_release());
    let recorder = Recorder::new(image(&running, Some(&failed)));
    let mended = make("1.2.0", BLOCKS, 2, |block| match block {
        120..130 => block + 20_000,
        block if block < 100 => block + 50,
        block => block + 9000,
    });
    let source = Memory::of(&mended);
    let fetched = install_from(&recorder, &running, &[&source], &mended.release, false).unwrap();
    let small = (mended.tree.len() + mended.list.len()) as u64;
    assert_eq!(fetched, 10 * BLOCK + BLOCK + small);
    assert_eq!(booted(&recorder, &[&running, &mended]), "1.2.0");
}

#[test]
fn blocks_that_move_within_the_slot_are_right_or_fetched() {
    for shift in [-40, -1, 1, 40] {
        let (running, failed) =
            (make("1.0.0", BLOCKS, 2, |block| block), make("1.1.0", BLOCKS, 2, |block| block + 9000));
        let recorder = Recorder::new(image(&running, Some(&failed)));
        let moved = make("1.2.0", BLOCKS, 2, |block| (block + 9000).wrapping_add_signed(shift));
        let source = Memory::of(&moved);
        let fetched = install_from(&recorder, &running, &[&source], &moved.release, false).unwrap();
        assert!(shift < 0 || fetched < 100 * BLOCK, "towards the front nothing is written over: {fetched}");
        assert_eq!(booted(&recorder, &[&running, &moved]), "1.2.0");
    }
}
