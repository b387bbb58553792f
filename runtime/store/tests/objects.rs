//! Files that are kept once for all images. Runs as root.

mod common;

use std::fs::File;
use std::io::Cursor;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use common::{assert_nothing_left, import, noise, store};
use keel_store::{Commit, Digest, Removed};

/// Files of a user and a group that aren't root's.
fn archive(files: &[(&str, &[u8])]) -> Vec<u8> {
    common::archive(files, (7, 8))
}

fn objects(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> =
        std::fs::read_dir(folder.join("store/objects")).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn root(mount: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", mount.as_raw_fd()).into()
}

#[test]
fn equal_files_of_several_images_are_one_and_go_with_the_last() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (common, mine, long) = (noise(5000), noise(7000), noise(300_000));
    let first = archive(&[("a", &common), ("again", &common), ("long", &long), ("small", b"s")]);
    let second = archive(&[("dir/b", &common), ("mine", &mine), ("long", &long)]);
    import(&store, &mut Cursor::new(first), "first:1").unwrap();
    let inodes: Vec<u64> = objects(folder.path()).iter().map(|path| path.metadata().unwrap().ino()).collect();
    assert_eq!(inodes.len(), 2);
    let alone = store.usage().layers_bytes;
    let second = import(&store, &mut Cursor::new(second), "second:1").unwrap();
    let now = objects(folder.path());
    assert_eq!(now.len(), 3);
    let kept = now.iter().filter(|path| inodes.contains(&path.metadata().unwrap().ino())).count();
    assert_eq!(kept, 2, "what was there stays the same file");
    let usage = store.usage();
    assert!((7_000..30_000).contains(&(usage.layers_bytes - alone)), "{usage:?} after {alone}");
    assert_eq!(usage.shared_bytes[&second], 305_000);

    let removed = store.remove("first:1", false, &|_| false).unwrap();
    assert!(removed.iter().any(|step| matches!(step, Removed::Deleted(_))));
    assert_eq!(objects(folder.path()).len(), 3);
    let mount = store.mount(&second, &folder.path().join("c"), None).unwrap();
    assert!(std::fs::read(root(&mount).join("long")).unwrap() == long);
    store.remove("second:1", false, &|_| false).unwrap();
    assert_nothing_left(folder.path());
}

#[test]
fn objects_are_named_by_what_fs_verity_computes() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    import(&store, &mut Cursor::new(archive(&[("zeros", &[0; 4096])])), "zeros:1").unwrap();
    let root = Digest::of(&[0; 4096]);
    let mut descriptor = vec![1, 1, 12, 0, 0, 0, 0, 0, 0, 16, 0, 0, 0, 0, 0, 0];
    let hex = root.to_string();
    let hex = hex.strip_prefix("sha256:").unwrap();
    descriptor.extend((0..32).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()));
    descriptor.resize(256, 0);
    let name = Digest::of(&descriptor).to_string();
    assert_eq!(objects(folder.path())[0].file_name().unwrap().to_str().unwrap(), &name["sha256:".len()..]);
}

#[test]
fn layers_are_one_tree_and_what_a_container_changes_shows_in_a_view() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let (old, new) = (noise(6000), noise(9000));
    let base = archive(&[("d/kept", &old), ("d/gone", &old), ("opaque/gone", &old), ("f", &old)]);
    let base = import(&store, &mut Cursor::new(base), "base:1").unwrap();
    let diff = archive(&[("d/.wh.gone", b""), ("opaque/.wh..wh..opq", b""), ("opaque/new", &new), ("f", &new)]);
    let image = store.commit(&base, Some(&mut Cursor::new(diff)), &Commit::default()).unwrap();
    let upper = folder.path().join("c");
    let mount = store.mount(&image, &upper, None).unwrap();
    let top = root(&mount);
    assert!(!top.join("d/gone").exists() && !top.join("opaque/gone").exists());
    assert!(std::fs::read(top.join("f")).unwrap() == new && std::fs::read(top.join("d/kept")).unwrap() == old);
    assert_eq!(top.join("f").metadata().unwrap().dev(), top.join(".").metadata().unwrap().dev(), "one device");
    std::os::unix::fs::chown(top.join("f"), Some(1), Some(2)).unwrap();
    std::fs::rename(top.join("d"), top.join("renamed")).unwrap();
    let view = store.view(&image, Some(&upper), None).unwrap();
    let seen = root(&view);
    assert!(std::fs::read(seen.join("renamed/kept")).unwrap() == old && !seen.join("d").exists());
    assert!(std::fs::read(seen.join("f")).unwrap() == new);
    assert_eq!(seen.join("f").metadata().unwrap().uid(), 1);
    assert!(File::create(seen.join("x")).is_err(), "it is only to be read");
    let image = store.view(&image, None, None).unwrap();
    assert_eq!(root(&image).join("f").metadata().unwrap().uid(), 7);
}

#[test]
fn a_tree_that_is_lost_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let id = import(&store, &mut Cursor::new(archive(&[("a", &noise(4000)), ("b", b"small")])), "lost:1").unwrap();
    let trees = folder.path().join("store/trees");
    let before: Vec<_> = std::fs::read_dir(&trees).unwrap().map(|entry| entry.unwrap().path()).collect();
    let bytes = std::fs::read(&before[0]).unwrap();
    std::fs::remove_file(&before[0]).unwrap();
    let mount = store.mount(&id, &folder.path().join("c"), None).unwrap();
    assert_eq!(std::fs::read(root(&mount).join("b")).unwrap(), b"small");
    assert!(std::fs::read(&before[0]).unwrap() == bytes, "the same layers give the same bytes");
}

#[test]
fn objects_that_were_replaced_on_disk_are_replaced_by_the_next_pull() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let content = noise(5000);
    import(&store, &mut Cursor::new(archive(&[("a", &content)])), "one:1").unwrap();
    let path = objects(folder.path()).remove(0);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, "torn").unwrap();
    import(&store, &mut Cursor::new(archive(&[("b", &content)])), "two:1").unwrap();
    assert!(std::fs::read(&path).unwrap() == content);
}
