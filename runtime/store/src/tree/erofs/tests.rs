//! The file system against `fsck.erofs` and the kernel. Runs as root.

use std::collections::BTreeMap;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount, fsopen};

use super::write;
use crate::digest::ObjectId;
use crate::layer::path::LayerPath;
use crate::tree::{Attributes, Body, Device, Tree};

/// VFS_CAP_REVISION_2 with cap_net_raw, effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn put(tree: &mut Tree, path: &[u8], body: Body) {
    put_with(tree, path, Attributes { mode: 0o644, ..Attributes::default() }, body);
}

fn put_with(tree: &mut Tree, path: &[u8], attributes: Attributes, body: Body) {
    tree.put(&LayerPath::new(path).unwrap(), attributes, body).unwrap();
}

/// Content that stands at an offset of the spool in these tests.
fn inline(offset: u64, length: u16) -> std::io::Result<Vec<u8>> {
    Ok((0..length).map(|at| (offset + u64::from(at)) as u8).collect())
}

fn written(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(tree, &mut inline, &mut bytes).unwrap();
    bytes
}

fn checked(folder: &Path, tree: &Tree) -> PathBuf {
    let path = folder.join("tree");
    std::fs::write(&path, written(tree)).unwrap();
    let output = Command::new("fsck.erofs").arg(&path).output().expect("install erofs-utils");
    let text = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "fsck.erofs: {text}");
    path
}

/// Mounts a file system, visible nowhere, and calls `test` with a path to it.
fn mounted(file: &Path, test: impl FnOnce(&Path)) {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC).unwrap();
    fsconfig_set_string(&context, "source", file).unwrap();
    fsconfig_create(&context).unwrap();
    let mount = fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty()).unwrap();
    test(Path::new(&format!("/proc/self/fd/{}", mount.as_raw_fd())));
}

fn xattr(path: &Path, name: &str) -> Vec<u8> {
    let mut value = vec![0; 70_000];
    let length = rustix::fs::lgetxattr(path, name, &mut value[..]).unwrap();
    value.truncate(length);
    value
}

#[test]
fn all_kinds_of_files_are_what_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::default();
    let attributes = Attributes {
        mode: 0o4755,
        uid: u32::MAX - 1,
        gid: 70_000,
        mtime_s: -5,
        mtime_ns: 999_999_999,
        xattrs: vec![
            ((*b"security.capability").into(), CAPABILITY.into()),
            ((*b"user.large").into(), vec![8; 9000].into()),
            ((*b"user.none").into(), Vec::new().into()),
        ],
    };
    put_with(&mut tree, b"d/odd\xff", attributes, Body::Inline(3, 2048));
    tree.link(&LayerPath::new(b"linked").unwrap(), &LayerPath::new(b"d/odd\xff").unwrap()).unwrap();
    put(&mut tree, b"empty", Body::Inline(0, 0));
    put(&mut tree, b"device", Body::Special(Device::Char, 0x0012_3456));
    put(&mut tree, b"disk", Body::Special(Device::Block, 0x0000_0801));
    put(&mut tree, b"pipe", Body::Special(Device::Fifo, 0));
    for length in [1, 500, 3999, 4001, 4095] {
        put(&mut tree, format!("l{length}").as_bytes(), Body::Symlink(vec![b'x'; length].into()));
    }
    let object = ObjectId::of(b"x");
    for (number, size) in [2049, 4096, 4097, (1 << 36) - 1, 1 << 36].into_iter().enumerate() {
        put(&mut tree, format!("o{number}").as_bytes(), Body::Object(object, size));
    }
    mounted(&checked(folder.path(), &tree), |root| {
        use std::os::unix::ffi::OsStrExt;
        let odd = root.join(std::ffi::OsStr::from_bytes(b"d/odd\xff"));
        assert_eq!(std::fs::read(&odd).unwrap(), inline(3, 2048).unwrap());
        let stat = odd.metadata().unwrap();
        assert_eq!((stat.mode(), stat.uid(), stat.gid(), stat.nlink()), (0o104_755, u32::MAX - 1, 70_000, 2));
        assert_eq!((stat.mtime(), stat.mtime_nsec()), (-5, 999_999_999));
        assert_eq!(root.join("linked").metadata().unwrap().ino(), stat.ino());
        assert_eq!(xattr(&odd, "user.large"), [8; 9000]);
        assert_eq!(xattr(&odd, "user.none"), [0; 0]);
        assert_eq!(xattr(&odd, "security.capability"), CAPABILITY);
        assert_eq!(root.join("d").metadata().unwrap().nlink(), 2);
        assert_eq!(root.join(".").metadata().unwrap().nlink(), 3);
        assert_eq!(root.join("empty").metadata().unwrap().len(), 0);
        let device = root.join("device").metadata().unwrap();
        assert_eq!((rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev())), (0x234, 0x156));
        assert!(device.file_type().is_char_device());
        assert!(root.join("disk").metadata().unwrap().file_type().is_block_device());
        assert!(root.join("pipe").metadata().unwrap().file_type().is_fifo());
        for length in [1, 500, 3999, 4001, 4095] {
            let target = std::fs::read_link(root.join(format!("l{length}"))).unwrap();
            assert_eq!(target.as_os_str().len(), length);
        }
        for (number, size) in [2049, 4096, 4097, (1 << 36) - 1, 1 << 36].into_iter().enumerate() {
            let path = root.join(format!("o{number}"));
            assert_eq!(path.metadata().unwrap().len(), size);
            assert_eq!(xattr(&path, "trusted.overlay.redirect"), format!("/{}", object.hex()).as_bytes());
            assert_eq!(xattr(&path, "trusted.overlay.metacopy"), [&[0, 36, 0, 1], &object.bytes()[..]].concat());
        }
    });
}

#[test]
fn folders_of_all_sizes_are_read_and_searched() {
    let folder = tempfile::tempdir().unwrap();
    let mut tree = Tree::default();
    let name = |folder: usize, number: usize| format!("d{folder}/{number:0width$}", width = 1 + number * 37 % 250);
    let counts = [0, 1, 2, 15, 16, 17, 40, 300, 5000];
    let mut expected = BTreeMap::new();
    for (folder, count) in counts.into_iter().enumerate() {
        put(&mut tree, format!("d{folder}").as_bytes(), Body::Folder(BTreeMap::new()));
        for number in 0..count {
            let path = name(folder, number);
            if expected.insert(path.clone(), number).is_none() {
                put(&mut tree, path.as_bytes(), Body::Inline(number as u64, (number % 2049) as u16));
            }
        }
        // Names that stand before and between the two that every folder has.
        for odd in ["!", "-", ".!", "..!", "/"] {
            let path = format!("d{folder}/{odd}");
            if odd != "/" {
                put(&mut tree, path.as_bytes(), Body::Inline(9, 1));
            }
        }
    }
    mounted(&checked(folder.path(), &tree), |root| {
        for (folder, _) in counts.into_iter().enumerate() {
            let listed = std::fs::read_dir(root.join(format!("d{folder}"))).unwrap().count();
            let wanted = expected.keys().filter(|path| path.starts_with(&format!("d{folder}/"))).count();
            assert_eq!(listed, wanted + 4, "d{folder}");
        }
        for path in expected.keys() {
            assert!(root.join(path).symlink_metadata().is_ok(), "{path}");
        }
        assert_eq!(std::fs::read(root.join(name(8, 4999))).unwrap().len(), 4999 % 2049);
        assert!(!root.join("d8/nothing").exists());
    });
}

#[test]
fn equal_trees_are_equal_bytes_however_they_came_about() {
    let make = |order: &[&str]| {
        let mut tree = Tree::default();
        put(&mut tree, b"gone", Body::Inline(0, 7));
        tree.next_layer();
        order.iter().for_each(|name| put(&mut tree, name.as_bytes(), Body::Inline(0, 7)));
        tree.hide(&LayerPath::default(), b"gone").unwrap();
        tree
    };
    assert!(written(&make(&["a", "b/c", "d"])) == written(&make(&["d", "a", "b/c"])));
    assert!(written(&make(&["a"])) != written(&make(&["b"])));
}
