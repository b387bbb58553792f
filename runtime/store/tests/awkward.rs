//! Awkward content: what the store mounts is, entry by entry, what GNU tar unpacks. Runs as root.

mod common;

use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{import, run, store};
use keel_store::Digest;
use proptest::prelude::*;
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, lgetxattr, llistxattr, mknodat, utimensat,
};

/// One file in the making.
#[derive(Clone, Debug)]
struct Entry {
    folder: usize,
    name: Vec<u8>,
    what: What,
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    attribute: Option<Vec<u8>>,
}

#[derive(Clone, Debug)]
enum What {
    Folder,
    File(Vec<u8>),
    Sparse(Vec<u32>),
    Capable,
    Link(usize),
    Symlink(Vec<u8>),
    Device(bool, u32, u32),
    Pipe,
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![3 => b'a'..=b'z', 1 => any::<u8>()];
    let bytes =
        prop_oneof![4 => proptest::collection::vec(byte.clone(), 1..12), 1 => proptest::collection::vec(byte, 90..240)];
    bytes.prop_map(|bytes| bytes.into_iter().map(|byte| if byte == 0 || byte == b'/' { b'_' } else { byte }).collect())
}

fn what() -> impl Strategy<Value = What> {
    prop_oneof![
        4 => Just(What::Folder),
        4 => proptest::collection::vec(any::<u8>(), 0..3000).prop_map(What::File),
        1 => proptest::collection::vec(0..60_u32, 1..40).prop_map(What::Sparse),
        1 => Just(What::Capable),
        2 => any::<usize>().prop_map(What::Link),
        2 => name().prop_map(What::Symlink),
        1 => (any::<bool>(), 1..200_u32, 0..300_u32).prop_map(|(block, major, minor)| What::Device(block, major, minor)),
        1 => Just(What::Pipe),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let owner = || prop_oneof![Just(0), 1..70_000_u32, Just(u32::MAX - 1)];
    let time = (prop_oneof![Just(0), 0..2_000_000_000_i64], 0..1_000_000_000_i64);
    let attribute = proptest::option::weighted(0.2, proptest::collection::vec(any::<u8>(), 0..200));
    (any::<usize>(), name(), what(), 0..0o10000_u32, (owner(), owner()), time, attribute).prop_map(
        |(folder, name, what, mode, owner, time, attribute)| Entry { folder, name, what, mode, owner, time, attribute },
    )
}

/// Makes entries below a folder; those that can't be made (a name is taken) are left out.
fn make(root: &Path, entries: &[Entry]) {
    let mut folders = vec![root.to_owned()];
    let mut files: Vec<PathBuf> = Vec::new();
    let mut made = Vec::new();
    for entry in entries {
        let name = OsStr::from_bytes(&entry.name);
        let path = folders[entry.folder % folders.len()].join(name);
        if name == "." || name == ".." || entry.name.starts_with(b".wh.") || path.symlink_metadata().is_ok() {
            continue;
        }
        if path.as_os_str().len() > 3000 || path.components().count() > 200 {
            continue;
        }
        match &entry.what {
            What::Folder => {
                std::fs::create_dir(&path).unwrap();
                folders.push(path.clone());
            }
            What::File(content) => std::fs::write(&path, content).unwrap(),
            What::Sparse(blocks) => {
                let file = File::create(&path).unwrap();
                for block in blocks {
                    file.write_all_at(&[b'x'; 4096], u64::from(*block) * 8192).unwrap();
                }
                file.set_len(64 * 8192).unwrap();
            }
            What::Capable => {
                std::fs::write(&path, "capable").unwrap();
            }
            What::Link(number) if !files.is_empty() => {
                std::fs::hard_link(&files[number % files.len()], &path).unwrap();
                continue;
            }
            What::Link(_) => continue,
            What::Symlink(target) => symlink(OsStr::from_bytes(target), &path).unwrap(),
            What::Device(block, major, minor) => {
                let kind = if *block { FileType::BlockDevice } else { FileType::CharacterDevice };
                mknodat(CWD, &path, kind, Mode::RUSR, rustix::fs::makedev(*major, *minor)).unwrap();
            }
            What::Pipe => mknodat(CWD, &path, FileType::Fifo, Mode::RUSR, 0).unwrap(),
        }
        if matches!(entry.what, What::File(_) | What::Sparse(_) | What::Capable) {
            files.push(path.clone());
        }
        made.push((path, entry));
    }
    // Folders last, the deepest first: what is made in them changes their times.
    for (path, entry) in made.iter().rev() {
        dress(path, entry);
    }
}

fn dress(path: &Path, entry: &Entry) {
    std::os::unix::fs::lchown(path, Some(entry.owner.0), Some(entry.owner.1)).unwrap();
    let kind = path.symlink_metadata().unwrap().file_type();
    if !kind.is_symlink() {
        rustix::fs::chmod(path, Mode::from_raw_mode(entry.mode)).unwrap();
    }
    if let Some(value) = entry.attribute.as_ref().filter(|_| kind.is_file() || kind.is_dir()) {
        rustix::fs::lsetxattr(path, "user.keel", value, XattrFlags::empty()).unwrap();
    }
    if matches!(entry.what, What::Capable) {
        // VFS_CAP_REVISION_2 with cap_net_raw, effective.
        let value = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::lsetxattr(path, "security.capability", &value, XattrFlags::empty()).unwrap();
    }
    let time = Timespec { tv_sec: entry.time.0, tv_nsec: entry.time.1 };
    let times = Timestamps { last_access: time, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

/// All that can be seen of a file. Links to the same file are told by the first path that it has.
#[derive(Debug, PartialEq)]
struct Seen {
    mode: u32,
    owner: (u32, u32),
    time: (i64, i64),
    device: Option<u64>,
    link: Option<OsString>,
    content: Option<(u64, Digest)>,
    attributes: BTreeMap<OsString, Vec<u8>>,
    same_as: PathBuf,
}

fn see(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = BTreeMap::new();
    let mut first: BTreeMap<u64, PathBuf> = BTreeMap::new();
    let mut waiting = vec![PathBuf::new()];
    while let Some(inner) = waiting.pop() {
        let path = if inner.as_os_str().is_empty() { root.join(".") } else { root.join(&inner) };
        let stat = path.symlink_metadata().unwrap();
        let kind = stat.file_type();
        if kind.is_dir() {
            let mut names: Vec<_> = std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            waiting.extend(names.into_iter().rev().map(|name| inner.join(name)));
        }
        let is_device = stat.mode() & 0o170000 == 0o020000 || stat.mode() & 0o170000 == 0o060000;
        seen.insert(
            inner.clone(),
            Seen {
                mode: stat.mode(),
                owner: (stat.uid(), stat.gid()),
                // The root's time is that of the container's own upper folder.
                time: if inner.as_os_str().is_empty() { (0, 0) } else { (stat.mtime(), stat.mtime_nsec()) },
                device: is_device.then(|| stat.rdev()),
                link: kind.is_symlink().then(|| std::fs::read_link(&path).unwrap().into_os_string()),
                content: kind.is_file().then(|| (stat.size(), Digest::of(&std::fs::read(&path).unwrap()))),
                attributes: attributes(&path),
                same_as: first.entry(stat.ino()).or_insert(inner).clone(),
            },
        );
    }
    seen
}

fn attributes(path: &Path) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0_u8; 4096];
    let length = llistxattr(path, &mut names[..]).unwrap_or(0);
    let names = names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty());
    let wanted = names.filter(|name| name.starts_with(b"user.") || *name == b"security.capability");
    wanted
        .map(|name| {
            let mut value = vec![0_u8; 4096];
            let length = lgetxattr(path, CString::new(name).unwrap(), &mut value[..]).unwrap();
            (OsString::from_vec(name.to_vec()), value[..length].to_vec())
        })
        .collect()
}

/// Packs a tree with GNU tar, unpacks it with it, and holds what the store makes of the archive against that.
fn compare(folder: &Path, options: &[&str]) {
    let (source, unpacked) = (folder.join("source"), folder.join("unpacked"));
    let archive = folder.join("a.tar");
    let attributes = ["--xattrs", "--xattrs-include=*", "--numeric-owner"];
    run(Command::new("tar").args(options).args(attributes).arg("-C").arg(&source).arg("-cf").arg(&archive).arg("."));
    std::fs::create_dir(&unpacked).unwrap();
    run(Command::new("tar").args(attributes).arg("-C").arg(&unpacked).args(["--same-owner", "-xpf"]).arg(&archive));
    let store = store(folder);
    let id = import(&store, &mut File::open(&archive).unwrap(), "awkward:1").unwrap();
    let mount = store.mount(&id, &folder.join("container"), None).unwrap();
    let (ours, tars) = (see(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd()))), see(&unpacked));
    for (path, seen) in &tars {
        assert_eq!(ours.get(path), Some(seen), "{path:?} with {options:?}");
    }
    assert_eq!(ours.len(), tars.len());
    // Saving checks that the archive is put together again byte by byte.
    store.save(&["awkward:1".into()]).unwrap().write(&mut std::io::sink()).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 30, ..ProptestConfig::default() })]

    #[test]
    fn what_is_mounted_is_what_tar_unpacks(entries in proptest::collection::vec(entry(), 1..60), form in 0..5_usize) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("source")).unwrap();
        make(&folder.path().join("source"), &entries);
        let forms: [&[&str]; 5] = [
            &["--format=posix"],
            &["--format=posix", "--sparse", "--sparse-version=0.0"],
            &["--format=posix", "--sparse", "--sparse-version=0.1"],
            &["--format=posix", "--sparse", "--sparse-version=1.0"],
            &["--format=posix", "--sparse", "--sort=name"],
        ];
        compare(folder.path(), forms[form]);
    }
}

#[test]
fn the_old_gnu_format_with_long_names_and_sparse_files_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir_all(source.join("d".repeat(200)).join("e".repeat(200))).unwrap();
    std::fs::write(source.join("d".repeat(200)).join("f".repeat(255)), "x").unwrap();
    symlink("t".repeat(300), source.join("link")).unwrap();
    let file = File::create(source.join("sparse")).unwrap();
    // More parts than the header and one block after it hold.
    for part in 0..60 {
        file.write_all_at(b"part", part * 100_000).unwrap();
    }
    file.set_len(9_999_999).unwrap();
    std::fs::write(source.join("big-owner"), "x").unwrap();
    std::os::unix::fs::chown(source.join("big-owner"), Some(3_000_000_000), Some(4_000_000_000)).unwrap();
    let plain = run_gnu(folder.path());
    assert_eq!(plain, 9_999_999);
}

fn run_gnu(folder: &Path) -> u64 {
    let archive = folder.join("a.tar");
    run(Command::new("tar")
        .args(["--format=gnu", "--sparse", "--numeric-owner", "-C"])
        .arg(folder.join("source"))
        .arg("-cf")
        .arg(&archive)
        .arg("."));
    let store = store(folder);
    let id = import(&store, &mut File::open(&archive).unwrap(), "gnu:1").unwrap();
    let mount = store.mount(&id, &folder.join("container"), None).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    let source = folder.join("source");
    for name in ["sparse", "big-owner", &format!("{}/{}", "d".repeat(200), "f".repeat(255))] {
        assert!(std::fs::read(root.join(name)).unwrap() == std::fs::read(source.join(name)).unwrap(), "{name}");
    }
    assert_eq!(std::fs::metadata(root.join("big-owner")).unwrap().gid(), 4_000_000_000);
    assert_eq!(std::fs::read_link(root.join("link")).unwrap().as_os_str().len(), 300);
    let sparse = std::fs::metadata(root.join("sparse")).unwrap();
    assert!(sparse.blocks() * 512 < sparse.len() / 4, "holes stay holes");
    store.save(&["gnu:1".into()]).unwrap().write(&mut std::io::sink()).unwrap();
    sparse.len()
}
