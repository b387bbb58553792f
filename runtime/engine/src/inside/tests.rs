//! Trees in and out of archives, on real folders.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags};

use super::changes::{self, ChangeKind};
use super::pack::Packer;
use super::place;
use super::root::Root;
use super::unpack::{UnpackError, UnpackOptions, unpack};

fn root(path: &Path) -> Root {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Root::new(rustix::fs::openat(CWD, path, flags, Mode::empty()).unwrap(), 0)
}

fn packed(from: &Root, path: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut packer = Packer::new(from, &mut bytes);
    packer.tree(&place::find(from, path).unwrap(), false).unwrap();
    packer.finish().unwrap();
    bytes
}

fn listed(archive: &[u8]) -> Vec<String> {
    let mut archive = tar::Archive::new(archive);
    archive.entries().unwrap().map(|e| String::from_utf8_lossy(&e.unwrap().path_bytes()).into_owned()).collect()
}

#[test]
fn a_tree_comes_back_as_it_was() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let long = "x".repeat(150);
    let tree = from.path().join("a");
    fs::create_dir_all(tree.join("b")).unwrap();
    fs::write(tree.join("b").join(&long), b"hello").unwrap();
    fs::hard_link(tree.join("b").join(&long), tree.join("b/z-again")).unwrap();
    symlink(format!("/{long}"), tree.join("link")).unwrap();
    fs::set_permissions(tree.join("b"), fs::Permissions::from_mode(0o1755)).unwrap();
    let archive = packed(&root(from.path()), "/a");
    assert_eq!(listed(&archive)[..2], ["a/", "a/b/"]);
    unpack(&root(to.path()), Path::new("/"), &mut archive.as_slice(), UnpackOptions::default()).unwrap();
    assert_eq!(fs::read(to.path().join("a/b").join(&long)).unwrap(), b"hello");
    let ino =
        |name: &str| std::os::unix::fs::MetadataExt::ino(&fs::metadata(to.path().join("a/b").join(name)).unwrap());
    assert_eq!(ino(&long), ino("z-again"));
    assert_eq!(fs::read_link(to.path().join("a/link")).unwrap(), Path::new(&format!("/{long}")));
    assert_eq!(fs::metadata(to.path().join("a/b")).unwrap().permissions().mode() & 0o7777, 0o1755);
}

#[test]
fn capabilities_and_users_attributes_come_along() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let name = "n".repeat(120);
    let file = fs::File::create(from.path().join(&name)).unwrap();
    let capability = [&0x0200_0001u32.to_le_bytes()[..], &[0, 0x20, 0, 0], &[0; 12]].concat();
    let set = |name: &str, value: &[u8]| rustix::fs::fsetxattr(&file, name, value, rustix::fs::XattrFlags::empty());
    set("user.any", b"a=\0b").unwrap();
    set("security.capability", &capability).unwrap();
    set("user.lines", b"a\n9 x=y\n\n").unwrap();
    set("user.no", b"\n").unwrap();
    set("trusted.overlay.redirect", b"/etc").unwrap();
    let archive = packed(&root(from.path()), "/");
    unpack(&root(to.path()), Path::new("/"), &mut archive.as_slice(), UnpackOptions::default()).unwrap();
    let file = fs::File::open(to.path().join(&name)).unwrap();
    let found = super::attributes::read(&root(to.path()), &file).unwrap();
    let expected = [
        (&b"security.capability"[..], capability.as_slice()),
        (b"user.any", b"a=\0b"),
        (b"user.lines", b"a\n9 x=y\n\n"),
        (b"user.no", b"\n"),
    ];
    assert_eq!(found, expected.map(|(name, value)| (name.to_vec(), value.to_vec())));
    let mut buffer = [0; 512];
    let length = rustix::fs::flistxattr(&file, &mut buffer[..]).unwrap();
    assert!(!String::from_utf8_lossy(&buffer[..length]).contains("trusted"), "the overlay's own attributes stay away");
}

#[test]
fn archives_of_gnu_tar_keep_holes_and_times() {
    use std::os::unix::fs::{FileExt, MetadataExt};
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let file = fs::File::create(from.path().join("sparse")).unwrap();
    file.write_all_at(b"begin", 0).unwrap();
    file.write_all_at(b"middle", 5 << 20).unwrap();
    file.set_len(9 << 20).unwrap();
    let time = std::time::UNIX_EPOCH + std::time::Duration::new(1_700_000_000, 123_456_789);
    file.set_modified(time).unwrap();
    for format in ["pax", "gnu"] {
        let mut tar = std::process::Command::new("tar");
        let output = tar.args(["-cSf", "-", "--format", format, "-C"]).arg(from.path()).arg("sparse").output().unwrap();
        assert!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
        let options = UnpackOptions { max_bytes: Some(9 << 20), ..UnpackOptions::default() };
        unpack(&root(to.path()), Path::new("/"), &mut output.stdout.as_slice(), options).unwrap();
        let made = to.path().join("sparse");
        assert!(fs::read(&made).unwrap() == fs::read(from.path().join("sparse")).unwrap(), "{format}");
        let meta = fs::metadata(&made).unwrap();
        assert!(meta.blocks() * 512 < 1 << 20, "{format}: its holes take {} blocks", meta.blocks());
        assert_eq!(meta.mtime_nsec(), if format == "pax" { 123_456_789 } else { 0 });
        let small = UnpackOptions { max_bytes: Some((9 << 20) - 1), ..options };
        let refused = unpack(&root(to.path()), Path::new("/"), &mut output.stdout.as_slice(), small);
        assert!(matches!(refused, Err(UnpackError::Refused(_))), "{refused:?}");
    }
}

#[test]
fn names_in_archives_are_what_clients_expect() {
    let from = tempfile::tempdir().unwrap();
    fs::create_dir_all(from.path().join("etc/x")).unwrap();
    let tree = root(from.path());
    assert_eq!(listed(&packed(&tree, "/etc")), ["etc/", "etc/x/"]);
    assert_eq!(listed(&packed(&tree, "/etc/.")), ["./", "./x/"]);
    assert_eq!(listed(&packed(&tree, "/")), ["/", "/etc/", "/etc/x/"]);
}

#[test]
fn links_of_the_tree_do_not_lead_out_of_it() {
    let (outside, inside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    fs::write(outside.path().join("secret"), b"s").unwrap();
    symlink(outside.path(), inside.path().join("out")).unwrap();
    symlink("../../../../../../etc", inside.path().join("up")).unwrap();
    let tree = root(inside.path());
    for path in ["/out/secret", "/up/passwd", "/../etc/passwd", "../../etc/passwd"] {
        assert!(place::find(&tree, path).is_err(), "{path}");
    }
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_size(1);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "out/planted", &b"p"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    // The link names an absolute path: inside the root that path is made, outside nothing is.
    let _ = unpack(&tree, Path::new("/"), &mut archive.as_slice(), UnpackOptions::default());
    assert!(!outside.path().join("planted").exists());
}

#[test]
fn hostile_names_and_kinds_are_refused() {
    let into = tempfile::tempdir().unwrap();
    fs::create_dir(into.path().join("folder")).unwrap();
    let archive = |name: &[u8], kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name);
        header.set_mode(0o644);
        header.set_size(0);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(512 + 1024, 0);
        bytes
    };
    let options = UnpackOptions { keep_kinds: true, ..UnpackOptions::default() };
    for (name, kind) in [
        (&b"../x"[..], tar::EntryType::Regular),
        (b"a/../../x", tar::EntryType::Regular),
        (b"null", tar::EntryType::Char),
        (b"folder", tar::EntryType::Regular),
    ] {
        let result = unpack(&root(into.path()), Path::new("/"), &mut archive(name, kind).as_slice(), options);
        assert!(matches!(result, Err(UnpackError::Refused(_))), "{name:?}: {result:?}");
    }
    assert!(unpack(&root(into.path()), Path::new("/"), &mut &[1_u8; 700][..], options).is_err());
}

#[test]
fn numbers_that_a_client_left_blank_are_0() {
    let to = tempfile::tempdir().unwrap();
    let mut header = tar::Header::new_gnu();
    header.set_size(1);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, "blank", &b"b"[..]).unwrap();
    let archive = builder.into_inner().unwrap();
    unpack(&root(to.path()), Path::new("/"), &mut archive.as_slice(), UnpackOptions::default()).unwrap();
    let meta = fs::metadata(to.path().join("blank")).unwrap();
    assert_eq!((meta.len(), meta.permissions().mode() & 0o7777), (1, 0));
}

#[test]
fn changes_are_told_apart() {
    let (lower, upper) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for folder in [&lower, &upper] {
        fs::create_dir_all(folder.path().join("etc")).unwrap();
    }
    fs::write(lower.path().join("etc/old"), b"1").unwrap();
    fs::write(lower.path().join("etc/gone"), b"1").unwrap();
    fs::write(upper.path().join("etc/old"), b"2").unwrap();
    fs::write(upper.path().join("etc/new"), b"2").unwrap();
    fs::write(upper.path().join("etc/hosts"), b"").unwrap();
    let folder = rustix::fs::openat(CWD, upper.path().join("etc"), OFlags::PATH, Mode::empty()).unwrap();
    rustix::fs::mknodat(&folder, "gone", rustix::fs::FileType::CharacterDevice, Mode::empty(), 0).unwrap();
    let (upper, lower) = (root(upper.path()), root(lower.path()));
    let found = changes::changes(&upper, &lower, &upper, true).unwrap();
    let shown: Vec<_> = found.iter().map(|c| (c.path.to_str().unwrap(), c.kind)).collect();
    let expected = [
        ("etc", ChangeKind::Modified),
        ("etc/gone", ChangeKind::Deleted),
        ("etc/new", ChangeKind::Added),
        ("etc/old", ChangeKind::Modified),
    ];
    assert_eq!(shown, expected);
    let mut layer = Vec::new();
    changes::layer(&upper, &found, &mut layer).unwrap();
    assert_eq!(listed(&layer), ["etc/", "etc/.wh.gone", "etc/new", "etc/old"]);
    assert_eq!(super::root::names(upper.open_exact(Path::new("etc"), OFlags::RDONLY).unwrap()).unwrap().len(), 4);
}

#[test]
fn renamed_folders_and_changed_owners_are_whole_in_a_layer() {
    let folder = tempfile::tempdir().unwrap();
    let store = keel_store::Store::open(&folder.path().join("images"), keel_store::Options::default()).unwrap();
    let mut image = tar::Builder::new(Vec::new());
    let content = [b'c'; 5000];
    for name in ["d/in", "owned"] {
        let mut header = tar::Header::new_gnu();
        header.set_size(5000);
        header.set_mode(0o644);
        header.set_mtime(1);
        header.set_uid(0);
        header.set_gid(0);
        header.set_cksum();
        image.append_data(&mut header, name, &content[..]).unwrap();
    }
    let mut image = &image.into_inner().unwrap()[..];
    let image = store.import(&mut image, &keel_store::Import::default()).unwrap();
    let upper = folder.path().join("container");
    let open = |mount: std::os::fd::OwnedFd| Root::new(mount, 0);
    let mount = store.mount(&image, &upper, None).unwrap();
    let top = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&mount));
    fs::rename(format!("{top}/d"), format!("{top}/moved")).unwrap();
    fs::write(format!("{top}/moved/new"), b"n").unwrap();
    std::os::unix::fs::chown(format!("{top}/owned"), Some(3), None).unwrap();
    let view = open(store.view(&image, Some(&upper), None).unwrap());
    let lower = open(store.view(&image, None, None).unwrap());
    let found = changes::changes(&root(&upper.join("upper")), &lower, &view, true).unwrap();
    let shown: Vec<_> = found.iter().map(|c| (c.path.to_str().unwrap(), c.kind)).collect();
    let expected = [
        ("d", ChangeKind::Deleted),
        ("moved", ChangeKind::Added),
        ("moved/in", ChangeKind::Added),
        ("moved/new", ChangeKind::Added),
        ("owned", ChangeKind::Modified),
    ];
    assert_eq!(shown, expected);
    let mut layer = Vec::new();
    changes::layer(&view, &found, &mut layer).unwrap();
    let mut archive = tar::Archive::new(&layer[..]);
    let whole = archive.entries().unwrap().map(Result::unwrap).filter(|entry| entry.size() == 5000);
    let whole = whole.map(|mut entry| {
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(&mut entry, &mut bytes).unwrap();
        assert!(bytes == content);
        entry.header().uid().unwrap()
    });
    assert_eq!(whole.collect::<Vec<_>>(), [0, 3]);
}
