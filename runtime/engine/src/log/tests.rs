//! The log as its users see it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::sync::Arc;

use super::reader::{Cursor, From, Want};
use super::writer::{Keep, Log};
use crate::Cancel;
use crate::output::{Frame, Stream};

fn text(mut cursor: Cursor) -> String {
    let mut bytes = Vec::new();
    while let Some(frame) = cursor.next().unwrap() {
        bytes.extend(frame.data);
    }
    String::from_utf8(bytes).unwrap()
}

fn read(log: &Arc<Log>, want: Want, from: From) -> String {
    text(Cursor::new(log.clone(), want, from, Cancel::new()).unwrap())
}

#[test]
fn a_torn_tail_is_cut_off_and_the_log_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    Log::new(folder.path(), Keep::default()).append(Stream::Stdout, 1, b"one\n");
    let path = folder.path().join("log.0");
    let mut file = OpenOptions::new().append(true).open(&path).unwrap();
    file.write_all(&[0xA7, 1, 0, 0, 255, 0, 0, 0, 1]).unwrap();
    let log = Arc::new(Log::new(folder.path(), Keep::default()));
    log.append(Stream::Stderr, 2, b"two\n");
    assert_eq!(read(&log, Want::default(), From::Start), "one\ntwo\n");
}

#[test]
fn a_log_of_zeroes_after_a_power_failure_starts_afresh() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("log.3"), [0; 4096]).unwrap();
    let log = Arc::new(Log::new(folder.path(), Keep::default()));
    log.append(Stream::Stdout, 2, b"x\n");
    assert_eq!(read(&log, Want::default(), From::Start), "x\n");
}

#[test]
fn tail_streams_times_and_timestamps_select() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(folder.path(), Keep::default()));
    log.append(Stream::Stdout, 1, b"a\nb\n");
    log.append(Stream::Stderr, 2, b"e\n");
    log.append(Stream::Stdout, 3, b"c");
    log.append(Stream::Stdout, 4, b"d\nlast");
    assert_eq!(read(&log, Want::default(), From::Tail(2)), "cd\nlast");
    assert_eq!(read(&log, Want::default(), From::Tail(0)), "");
    assert_eq!(read(&log, Want { stdout: false, ..Want::default() }, From::Tail(9)), "e\n");
    assert_eq!(read(&log, Want { since_ns: 2, until_ns: 3, ..Want::default() }, From::Start), "e\nc");
    let stamped = read(&log, Want { timestamps: true, stderr: false, ..Want::default() }, From::Tail(2));
    assert_eq!(stamped, "1970-01-01T00:00:00.000000003Z cd\n1970-01-01T00:00:00.000000004Z last");
    let detailed = Want { timestamps: true, details: b"a=1 ".to_vec(), stderr: false, ..Want::default() };
    assert_eq!(read(&log, detailed, From::Tail(1)), "1970-01-01T00:00:00.000000004Z a=1 last");
}

#[test]
fn who_follows_before_the_run_misses_nothing_and_ends_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(folder.path(), Keep::default()));
    log.append(Stream::Stdout, 1, b"old\n");
    let (run, begun) = log.run();
    assert!(!begun);
    let follow = Want { follow: Some(run), ..Want::default() };
    let cursor = Cursor::new(log.clone(), follow, From::End, Cancel::new()).unwrap();
    let reader = std::thread::spawn(move || text(cursor));
    log.begin_run();
    log.append(Stream::Stdout, 2, b"new\n");
    log.end_run();
    log.append(Stream::Stdout, 3, b"of the next run\n");
    assert_eq!(reader.join().unwrap(), "new\n");
}

#[test]
fn a_reader_that_does_not_read_is_told_what_it_missed_and_stops_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(folder.path(), Keep { file_bytes: 4096, files: 2 }));
    log.begin_run();
    let follow = Want { follow: Some(log.run().0), ..Want::default() };
    let mut slow = Cursor::new(log.clone(), follow, From::End, Cancel::new()).unwrap();
    log.append(Stream::Stdout, 1, b"first\n");
    assert_eq!(slow.next().unwrap(), Some(Frame { stream: Stream::Stdout, data: b"first\n".to_vec() }));
    for number in 0..2000 {
        log.append(Stream::Stdout, 1, format!("{number}\n").as_bytes());
    }
    log.end_run();
    let rest = text(slow);
    assert!(rest.contains("too slow") && rest.ends_with("1999\n"), "{rest}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
}

#[test]
fn the_log_of_a_removed_container_is_still_read_to_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let log = Arc::new(Log::new(folder.path(), Keep { file_bytes: 100, files: 2 }));
    log.begin_run();
    let follow = Want { follow: Some(1), ..Want::default() };
    let cursor = Cursor::new(log.clone(), follow, From::Start, Cancel::new()).unwrap();
    log.append(Stream::Stdout, 1, &[b'a'; 60]);
    log.append(Stream::Stdout, 2, &[b'b'; 60]);
    log.end_run();
    fs::remove_dir_all(folder.path()).unwrap();
    let cursor_end = Cursor::new(log, Want::default(), From::Start, Cancel::new()).unwrap();
    for cursor in [cursor, cursor_end] {
        assert_eq!(text(cursor), format!("{}{}", "a".repeat(60), "b".repeat(60)));
    }
}

#[test]
fn as_many_files_are_kept_as_asked_for_and_all_are_read() {
    for files in [1, 2, 5] {
        let folder = tempfile::tempdir().unwrap();
        let log = Arc::new(Log::new(folder.path(), Keep { file_bytes: 40, files }));
        for number in 0..20 {
            log.append(Stream::Stdout, number, format!("{number:02}\n").as_bytes());
        }
        let count = fs::read_dir(folder.path()).unwrap().count() as u64;
        assert_eq!(count, files);
        let text = read(&log, Want::default(), From::Start);
        assert!(text.ends_with("18\n19\n"), "{text}");
        assert!(text.lines().count() as u64 >= files, "{text}");
        let last = read(&log, Want::default(), From::Tail(1));
        assert_eq!(last, "19\n");
    }
}
