//! What only a kernel with fs-verity shows. Runs in a bare guest (`keel-store-guest`), which gives a disk as a file,
//! formatted as ext4 with the feature `verity`.

mod common;

use std::io::Cursor;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use common::{archive_of_file, import, noise, store};
use keel_store::IdMap;

/// The disk, as the guest has it.
const DISK: &str = "/disk.ext4";

/// Attaches the disk to a loop device and mounts it.
fn mount_disk(at: &Path) {
    use nix::ioctl_write_int_bad;
    ioctl_write_int_bad!(loop_set_fd, 0x4c00);
    let disk = std::fs::File::options().read(true).write(true).open(DISK).expect("the guest gives a disk");
    let device = std::fs::File::options().read(true).write(true).open("/dev/loop0").unwrap();
    // SAFETY: both descriptors are open; the call takes no pointer.
    unsafe { loop_set_fd(device.as_raw_fd(), disk.as_raw_fd()) }.unwrap();
    std::fs::create_dir_all(at).unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("/dev/loop0"), at, Some("ext4"), none, None::<&str>).unwrap();
}

fn root(mount: &OwnedFd) -> PathBuf {
    format!("/proc/self/fd/{}", mount.as_raw_fd()).into()
}

/// Changes the one place on the disk where some bytes stand, and has the kernel forget what it read.
fn change_on_disk(content: &[u8]) {
    rustix::fs::sync();
    let disk = std::fs::File::options().read(true).write(true).open(DISK).unwrap();
    let bytes = std::fs::read(DISK).unwrap();
    // Objects begin with a block, what is kept with the metadata at a multiple of four.
    let found: Vec<usize> =
        (0..bytes.len() - 64).step_by(4).filter(|at| bytes[*at..*at + 64] == content[..64]).collect();
    assert!(!found.is_empty(), "the content is on the disk");
    for at in found {
        disk.write_all_at(&[content[1] ^ 1], at as u64 + 1).unwrap();
    }
    std::fs::write("/proc/sys/vm/drop_caches", "3").unwrap();
}

#[test]
#[ignore = "needs a kernel with fs-verity: run by keel-store-guest"]
fn what_was_changed_on_disk_is_an_io_error_and_never_wrong_bytes() {
    let folder = Path::new("/disk");
    mount_disk(folder);
    let store = store(folder);
    let (large, small) = (noise(40_000), noise(42_000)[41_000..].to_vec());
    let large_image = import(&store, &mut Cursor::new(archive_of_file("file", &large)), "large:1").unwrap();
    let small_image = import(&store, &mut Cursor::new(archive_of_file("file", &small)), "small:1").unwrap();
    let mapping = Some(IdMap { host_base: 100_000, count: 65_536 });
    for (image, content) in [(large_image, &large), (small_image, &small)] {
        let upper = folder.join(format!("container-{}", content.len()));
        let mount = store.mount(&image, &upper, mapping).unwrap();
        assert!(std::fs::read(root(&mount).join("file")).unwrap() == **content);
        std::os::unix::fs::chown(root(&mount).join("file"), Some(100_001), None).unwrap();
        assert!(std::fs::read(root(&mount).join("file")).unwrap() == **content, "after a copy of the metadata alone");
        let other = store.mount(&image, &folder.join(format!("other-{}", content.len())), mapping).unwrap();
        change_on_disk(content);
        let error = std::fs::read(root(&other).join("file")).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(5), "{error}");
    }

    // Another file in the place of an object, or of a tree.
    let content = noise(50_000)[40_000..].to_vec();
    let image = import(&store, &mut Cursor::new(archive_of_file("file", &content)), "replaced:1").unwrap();
    let mut objects = std::fs::read_dir(folder.join("store/objects")).unwrap().map(|entry| entry.unwrap().path());
    let object = objects.find(|path| std::fs::read(path).is_ok_and(|found| found == content)).unwrap();
    std::fs::write(&object, b"x").expect_err("a sealed file can't be written");
    std::fs::remove_file(&object).unwrap();
    let mut other = content.clone();
    other[7] ^= 1;
    std::fs::write(&object, &other).unwrap();
    let mount = store.mount(&image, &folder.join("third"), mapping).unwrap();
    let error = std::fs::read(root(&mount).join("file")).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5), "{error}");
    let id = import(&store, &mut Cursor::new(archive_of_file("again", &content)), "healed:1").unwrap();
    let mount = store.mount(&id, &folder.join("fourth"), mapping).unwrap();
    assert!(std::fs::read(root(&mount).join("again")).unwrap() == content);
    for tree in std::fs::read_dir(folder.join("store/trees")).unwrap() {
        let tree = tree.unwrap().path();
        std::fs::remove_file(&tree).unwrap();
        std::fs::write(&tree, b"forged").unwrap();
    }
    let mount = store.mount(&id, &folder.join("fifth"), mapping).unwrap();
    assert!(std::fs::read(root(&mount).join("again")).unwrap() == content, "a forged tree is made again");
}
