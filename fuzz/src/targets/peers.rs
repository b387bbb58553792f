//! What other hosts and plugged-in disks bring: requests for files, FAT volumes, partition tables of the old kind.

use std::io;

use keel_updater::area::Area;
use keel_updater::disk::Device;
use keel_updater::fat::Volume;
use keel_updater::peers::ranges::{self, Part, Piece};
use keel_updater::peers::request::{self, MAX_HEAD_BYTES};
use keel_updater::plugged::stretch;

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 3] = [
    Target { name: "peer_request", seeds: request_seeds, make: || Box::new(peer_request), share: 1000 },
    Target { name: "plugged_volume", seeds: volume_seeds, make: || Box::new(volume), share: 100 },
    Target { name: "plugged_table", seeds: table_seeds, make: || Box::new(table), share: 1000 },
];

const LENGTH: u64 = 100_000;
const HOW_MANY: [&str; 3] = ["no", "one", "several"];

fn request_seeds() -> Vec<Vec<u8>> {
    [
        "GET /targets/a HTTP/1.1\r\nHost: a\r\nRange: bytes=0-9,50-,-7\r\n\r\nHEAD / HTTP/1.0\r\n\r\n",
        "\r\nHEAD http://a/b HTTP/1.1\r\nhost: a:1\r\nconnection: close\r\nif-range: \"x\"\r\nrange: bytes=5-4\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nRange: bytes=99999-18446744073709551615\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec()
}

fn peer_request(bytes: &[u8]) -> String {
    match request::parse(bytes) {
        Err(refused) => refused.1.into(),
        Ok(None) => {
            assert!(bytes.len() < MAX_HEAD_BYTES + 2, "a head without an end is waited for");
            "more".into()
        }
        Ok(Some((request, length))) => {
            assert!(length <= bytes.len() && request.path.bytes().all(|byte| byte.is_ascii_graphic()));
            let part = ranges::part(request.range.as_deref(), LENGTH);
            let answer = ranges::answer(&part, LENGTH, "abc", request.keep);
            let mut sum = 0;
            for piece in &answer.body {
                if let Piece::Bytes(range) = piece {
                    assert!(range.start < range.end && range.end <= LENGTH, "bytes that the file has");
                    sum += range.end - range.start;
                }
            }
            assert!(sum <= LENGTH && answer.head.matches("\r\n\r\n").count() == 1, "one head, one file at most");
            match part {
                Part::Whole => "accepted, whole".into(),
                Part::Beyond => "accepted, beyond".into(),
                Part::Ranges(ranges) => format!("accepted, {} ranges", HOW_MANY[ranges.len().min(2)]),
            }
        }
    }
}

/// The beginnings of boot sector, table and top folder; all else is zeros.
const BOOT: usize = 64;
const TABLE: usize = 64;
const RESERVED: u64 = 2;
const TABLE_SECTORS: u64 = 513;
const VOLUME_BYTES: u64 = (RESERVED + TABLE_SECTORS + 65_600) * 512;

fn volume_seeds() -> Vec<Vec<u8>> {
    let mut boot = [0; BOOT];
    boot[11..14].copy_from_slice(&[0, 2, 1]);
    boot[14] = RESERVED as u8;
    boot[16] = 1;
    boot[32..36].copy_from_slice(&((VOLUME_BYTES / 512) as u32).to_le_bytes());
    boot[36..40].copy_from_slice(&(TABLE_SECTORS as u32).to_le_bytes());
    boot[44] = 2;
    boot[48] = 1;
    let mut table = [0; TABLE];
    // The top folder in one cluster, a file in three.
    for (cluster, next) in [(2, 0x0fff_ffffu32), (3, 4), (4, 5), (5, 0x0fff_ffff)] {
        table[cluster * 4..][..4].copy_from_slice(&next.to_le_bytes());
    }
    let mut folder = [0; 96];
    folder[..12].copy_from_slice(b"STICK      \x08");
    folder[32..44].copy_from_slice(b"A       BUN\x20");
    folder[58] = 3;
    folder[60..64].copy_from_slice(&1200u32.to_le_bytes());
    vec![[&boot[..], &table, &folder].concat()]
}

struct Sparse(Vec<(u64, Vec<u8>)>);

impl Device for Sparse {
    fn size_bytes(&self) -> io::Result<u64> {
        Ok(VOLUME_BYTES)
    }
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let end = offset.checked_add(buffer.len() as u64).filter(|end| *end <= VOLUME_BYTES);
        assert!(end.is_some(), "read beyond the end of the disk");
        buffer.fill(0);
        for (start, bytes) in &self.0 {
            for (at, byte) in (*start..).zip(bytes) {
                if let Some(place) = at.checked_sub(offset).and_then(|at| buffer.get_mut(at as usize)) {
                    *place = *byte;
                }
            }
        }
        Ok(())
    }
    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        panic!("a plugged-in disk is written to")
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn forget_cache(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

fn volume(bytes: &[u8]) -> String {
    let (boot, rest) = bytes.split_at(bytes.len().min(BOOT));
    let (table, folder) = rest.split_at(rest.len().min(TABLE));
    let folder = folder[..folder.len().min(4096)].to_vec();
    let pieces = [(0, boot.to_vec()), (510, vec![0x55, 0xaa]), (RESERVED * 512, table.to_vec())];
    let sparse = Sparse(pieces.into_iter().chain([((RESERVED + TABLE_SECTORS) * 512, folder)]).collect());
    let volume = match Volume::open(Area::new(&sparse, 0, VOLUME_BYTES), "") {
        Ok(volume) => volume,
        Err(error) => return error.to_string().chars().take(40).collect(),
    };
    let Ok(files) = volume.files() else { return "no files".into() };
    let mut opened = 0_usize;
    for file in files.iter().take(20) {
        let Ok(area) = volume.file(&file.name) else { continue };
        opened += 1;
        let sum: u64 = area.pieces().iter().map(|(_, length)| length).sum();
        assert_eq!(sum, area.length(), "pieces make up the file");
        assert!(area.pieces().iter().all(|(offset, length)| offset + length <= VOLUME_BYTES), "a file is on the disk");
        let mut last = [0; 1];
        if area.length() > 0 {
            area.read_at(&mut last, area.length() - 1).unwrap_or_else(|error| panic!("read a file's end: {error}"));
        }
    }
    format!("accepted, {} files, {} open", HOW_MANY[files.len().min(2)], HOW_MANY[opened.min(2)])
}

fn table_seeds() -> Vec<Vec<u8>> {
    let mut entries = vec![0; 64];
    (entries[0], entries[4], entries[9], entries[13]) = (0x80, 0x0c, 8, 9);
    (entries[20], entries[25], entries[29]) = (0x83, 0x40, 7);
    vec![entries]
}

fn table(bytes: &[u8]) -> String {
    let mut sector = [0; 512];
    let count = bytes.len().min(64);
    sector[446..446 + count].copy_from_slice(&bytes[..count]);
    sector[510..].copy_from_slice(&[0x55, 0xaa]);
    let found = stretch::mbr(&sector, VOLUME_BYTES);
    assert!(found.iter().all(|it| it.length > 0 && it.offset > 0 && it.offset + it.length <= VOLUME_BYTES));
    answer(if found.is_empty() { Err("none") } else { Ok(()) })
}
