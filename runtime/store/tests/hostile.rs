//! Hostile and broken archives, and disks that fill up: refused by name, nothing left behind. Runs as root.

mod common;

use std::io::{Cursor, Read, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use common::{assert_nothing_left, import, store};
use keel_store::{Error, Store};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use tar::EntryType;

/// An archive of entries as they are told, however little sense they make.
#[derive(Default)]
struct Archive(Vec<u8>);

impl Archive {
    fn entry(self, kind: EntryType, path: &str, link: &str, content: &[u8]) -> Self {
        self.claiming(kind, path, link, content, content.len() as u64)
    }

    fn claiming(mut self, kind: EntryType, path: &str, link: &str, content: &[u8], size: u64) -> Self {
        let mut header = tar::Header::new_ustar();
        // Not by the library's checked setters: they refuse what is tested here.
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    fn pax(self, records: &[(&str, &str)]) -> Self {
        let record = |(key, value): &(&str, &str)| {
            let rest = format!(" {key}={value}\n");
            let length = (1..9).map(|digits| rest.len() + digits).find(|n| n.to_string().len() + rest.len() == *n);
            format!("{}{rest}", length.unwrap())
        };
        let content: String = records.iter().map(record).collect();
        self.entry(EntryType::XHeader, "pax", "", content.as_bytes())
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}

fn refusal(archive: Vec<u8>) -> String {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let start = archive.get(..4).unwrap_or_default().to_vec();
    let length = archive.len();
    let imported = import(&store, &mut Cursor::new(archive), "hostile:1");
    let error = imported.expect_err(&format!("refuses an archive of {length} bytes that begins with {start:?}"));
    assert_nothing_left(folder.path());
    assert!(store.images().is_empty());
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

#[test]
fn ways_out_of_the_root_are_refused_by_name() {
    let link = |path: &str, target: &str| Archive::default().entry(EntryType::Symlink, path, target, b"");
    let deep = "a/".repeat(260);
    for (archive, name, reason) in [
        (Archive::default().file("../evil", b"x"), "../evil", "leads out"),
        (Archive::default().file("a/../../evil", b"x"), "a/../../evil", "leads out"),
        (Archive::default().file("/evil", b"x"), "/evil", "absolute"),
        (link("way", "/etc").file("way/evil", b"x"), "way/evil", "symbolic link"),
        (link("way", "..").file("way/more/evil", b"x"), "way/more/evil", "symbolic link"),
        (Archive::default().entry(EntryType::Link, "evil", "../../etc/passwd", b""), "evil", "leads out"),
        (link("way", "/etc").entry(EntryType::Link, "evil", "way/passwd", b""), "evil", "symbolic link"),
        (link("way", "/etc").file("way/.wh.passwd", b""), "way/.wh.passwd", "symbolic link"),
        (link("way", "/etc").file("way/.wh..wh..opq", b""), "way/.wh..wh..opq", "symbolic link"),
        (Archive::default().entry(EntryType::Symlink, ".", "/etc", b""), ".", "root"),
        (Archive::default().file(".wh..", b""), ".wh..", "whiteout"),
        (Archive::default().pax(&[("path", &deep)]).file("x", b""), "a/a/a", "256"),
    ] {
        let text = refusal(archive.end());
        assert!(text.contains(name) && text.contains(reason), "{name}: {text}");
    }
}

#[test]
fn bombs_are_refused_before_they_take_space() {
    let huge = |content: &[u8], size| Archive::default().claiming(EntryType::Regular, "bomb", "", content, size).end();
    for (archive, reason) in [
        (huge(b"x", 1 << 50), "too large"),
        (Archive::default().pax(&[("size", "18446744073709551615")]).file("bomb", b"").end(), "too large"),
        (Archive::default().claiming(EntryType::XHeader, "x", "", b"", 1 << 40).end(), "extended header"),
        (Archive::default().claiming(EntryType::GNULongName, "x", "", b"", 1 << 40).end(), "extended header"),
        (
            Archive::default()
                .pax(&[("GNU.sparse.map", "0,0"), ("GNU.sparse.size", "18446744073709551615")])
                .file("bomb", b"")
                .end(),
            "sparse",
        ),
        (
            (0..9).fold(Archive::default(), |archive, _| archive.pax(&[("comment", "x")])).file("x", b"").end(),
            "too many",
        ),
    ] {
        let text = refusal(archive);
        assert!(text.contains(reason), "{reason}: {text}");
    }
}

/// Less than a megabyte of gzip, and all of the memory.
#[test]
fn attributes_that_would_fill_the_memory_are_refused() {
    let value = "x".repeat(60_000);
    let names: Vec<_> = (0..16).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let records: Vec<_> = names.iter().map(|name| (name.as_str(), value.as_str())).collect();
    let one = Archive::default().pax(&records).0;
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    for number in 0..150 {
        encoder.write_all(&one).unwrap();
        encoder.write_all(&Archive::default().file(&number.to_string(), b"").0).unwrap();
    }
    let text = refusal(encoder.finish().unwrap());
    assert!(text.contains("take more than 128 MiB"), "{text}");
}

#[test]
fn streams_cut_anywhere_are_refused() {
    let whole = Archive::default().file("a", &[b'x'; 5000]).file("b", &[b'y'; 700]).end();
    let gzip = {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(&whole).unwrap();
        encoder.finish().unwrap()
    };
    let zstd = zstd::encode_all(&whole[..], 1).unwrap();
    // Where an entry ends, an archive may end as well: then it is another archive, with another digest.
    for length in [1, 100, 511, 513, 3000, 5631, 5633, 6400] {
        refusal(whole[..length].to_vec());
    }
    for stream in [gzip, zstd] {
        for length in [3, 5, stream.len() / 2, stream.len() - 1] {
            refusal(stream[..length].to_vec());
        }
    }
    let mut damaged = whole.clone();
    damaged[5632 + 20] ^= 1;
    assert!(refusal(damaged).contains("checksum"));
}

#[test]
fn entries_that_take_the_place_of_others_are_saved_as_they_came() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    let last = [b'l'; 3000];
    let archive = Archive::default()
        .file("file", b"first")
        .entry(EntryType::Directory, "folder", "", b"")
        .file("folder/in", b"inside")
        .entry(EntryType::Link, "folder/linked", "file", b"")
        .file("file", b"second")
        .file("file", b"third")
        .file("folder", b"no folder any more")
        .entry(EntryType::Directory, "file", "", b"")
        .file("file/in", &last)
        .file(".wh.gone", b"")
        .end();
    let id = import(&store, &mut Cursor::new(archive), "replaced:1").unwrap();
    let mount = store.view(&id, None, None).unwrap();
    let root = Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string());
    assert_eq!(std::fs::read(root.join("folder")).unwrap(), b"no folder any more");
    assert_eq!(std::fs::read(root.join("file/in")).unwrap(), last);
    // Writing checks the digest of what it puts together.
    store.save(&["replaced:1".into()]).unwrap().write(&mut std::io::sink()).unwrap();
    let mut changed = last.to_vec();
    changed[0] += 1;
    replace_object(folder.path(), &last, &changed);
    let error = store.save(&["replaced:1".into()]).unwrap().write(&mut std::io::sink()).unwrap_err();
    assert!(matches!(error, Error::Digest { .. }), "{error:?}");
}

/// Puts other bytes into the place of an object.
fn replace_object(folder: &Path, content: &[u8], other: &[u8]) {
    let objects = std::fs::read_dir(folder.join("store/objects")).unwrap();
    let mut paths = objects.map(|entry| entry.unwrap().path());
    let path = paths.find(|path| std::fs::read(path).unwrap() == content).expect("content is kept as an object");
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, other).unwrap();
}

/// Runs on a small file system of its own, which goes with its thread.
fn on_small_disk(options: &str, test: impl FnOnce(&Path) + Send) {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWNS).unwrap();
            mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
            let folder = tempfile::tempdir().unwrap();
            mount(Some("small"), folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options)).unwrap();
            test(folder.path());
            nix::mount::umount2(folder.path(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        });
        thread.join().unwrap();
    });
}

fn free_bytes(folder: &Path) -> u64 {
    let disk = rustix::fs::statvfs(folder).unwrap();
    disk.f_bavail * disk.f_frsize
}

fn assert_full(error: &Error) {
    let mut cause: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = cause {
        if error.to_string().contains("No space left") {
            return;
        }
        cause = error.source();
    }
    panic!("not told as a full disk: {error:?}");
}

fn archive_of(store: &Store, name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    store.save(&[name.into()]).unwrap().write(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_full_disk_is_told_and_the_space_comes_back() {
    on_small_disk("size=48m", |folder| {
        let store = store(folder);
        import(&store, &mut Cursor::new(Archive::default().file("small", b"x").end()), "small:1").unwrap();
        let before = free_bytes(folder);
        // Content that is made up as it is read: 60 MiB that never are in memory.
        let size = 60 << 20;
        let head = Archive::default().claiming(EntryType::Regular, "large", "", b"", size).0;
        let mut stream = Cursor::new(head).chain(std::io::repeat(7).take(size)).chain(std::io::repeat(0).take(1024));
        assert_full(&import(&store, &mut stream, "large:1").unwrap_err());
        assert!(free_bytes(folder) + (64 << 10) >= before, "{} of {before}", free_bytes(folder));
        let images: Vec<_> = store.images().into_iter().flat_map(|image| image.tags).collect();
        assert_eq!(images, ["small:1"]);
        archive_of(&store, "small:1");
        import(&store, &mut Cursor::new(Archive::default().file("other", b"x").end()), "other:1").unwrap();
    });
}

#[test]
fn a_store_in_memory_mounts_its_images() {
    on_small_disk("size=48m", |folder| {
        let store = store(folder);
        let archive = Archive::default().file("small", b"x").file("large", &[7; 5000]).end();
        let id = import(&store, &mut Cursor::new(archive), "memory:1").unwrap();
        let mount = store.mount(&id, &folder.join("container"), None).unwrap();
        let root = Path::new("/proc/self/fd").join(mount.as_raw_fd().to_string());
        assert_eq!(std::fs::read(root.join("small")).unwrap(), b"x");
        assert_eq!(std::fs::read(root.join("large")).unwrap(), [7; 5000]);
    });
}

#[test]
fn a_disk_without_inodes_is_told_as_well_and_load_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // Each larger than what is kept with the metadata, and other than the rest.
    let content = |number: u32| [&number.to_le_bytes()[..], &[7; 2500]].concat();
    let many =
        (0..1500).fold(Archive::default(), |archive, number| archive.file(&format!("f{number}"), &content(number)));
    let source = store(folder.path());
    import(&source, &mut Cursor::new(many.end()), "many:1").unwrap();
    let archive = archive_of(&source, "many:1");
    on_small_disk("size=64m,nr_inodes=1000", |folder| {
        let store = store(folder);
        assert_full(&store.load(&mut Cursor::new(&archive), &mut |_| {}).unwrap_err());
        assert_nothing_left(folder);
    });
}

#[test]
fn saved_archives_are_equal_and_load_to_the_same_images() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path());
    import(&store, &mut Cursor::new(Archive::default().file("a", b"1").end()), "one:1").unwrap();
    import(&store, &mut Cursor::new(Archive::default().file("b", b"2").end()), "two:1").unwrap();
    store.tag("one:1", &"one:2".parse().unwrap()).unwrap();
    let save = |names: &[&str]| {
        let mut bytes = Vec::new();
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        store.save(&names).unwrap().write(&mut bytes).unwrap();
        bytes
    };
    let archive = save(&["one", "two:1"]);
    assert!(archive == save(&["one", "two:1"]), "the same images give the same bytes");
    let other = tempfile::tempdir().unwrap();
    let target = common::store(other.path());
    for stream in [archive.clone(), zstd::encode_all(&archive[..], 1).unwrap()] {
        let mut loaded = target.load(&mut Cursor::new(stream), &mut |_| {}).unwrap();
        loaded.iter_mut().for_each(|image| image.tags.sort());
        let tags: Vec<_> = loaded.iter().map(|image| image.tags.join(" ")).collect();
        assert_eq!(tags, ["one:1 one:2", "two:1"]);
        assert_eq!(loaded[0].id, store.image("one:1").unwrap().id);
    }
    assert!(store.save(&["three".into()]).is_err());
}
