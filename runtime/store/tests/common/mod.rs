//! What several tests of the store share.
#![allow(dead_code)]

use std::io::Read;
use std::path::Path;
use std::process::Command;

use keel_store::{Import, Options, Store};

/// Runs a program that has to succeed.
pub fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}; is it installed?"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A store below a folder.
pub fn store(folder: &Path) -> Store {
    Store::open(&folder.join("store"), Options::default()).unwrap()
}

/// Imports an archive under a name.
pub fn import(store: &Store, archive: &mut dyn Read, name: &str) -> Result<keel_store::ImageId, keel_store::Error> {
    store.import(archive, &Import { name: Some(name.parse().unwrap()), ..Import::default() })
}

/// Whether a folder is there and has nothing in it.
pub fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

/// Whether nothing of a layer, tree, config or half-made file is left in a store.
pub fn assert_nothing_left(folder: &Path) {
    for part in ["tmp", "recipes", "objects", "trees", "blobs/sha256"] {
        assert!(is_empty(&folder.join("store").join(part)), "something is left in {part}");
    }
}

pub mod debian;
pub mod fake;

/// An archive of one file, root's.
pub fn archive_of_file(name: &str, content: &[u8]) -> Vec<u8> {
    archive(&[(name, content)], (0, 0))
}

/// An archive of files of one owner, a user and a group.
pub fn archive(files: &[(&str, &[u8])], (uid, gid): (u64, u64)) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (name, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        header.set_uid(uid);
        header.set_gid(gid);
        header.set_mtime(1);
        builder.append_data(&mut header, name, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// Bytes that don't compress, the same each time.
pub fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[3]
        })
        .collect()
}
