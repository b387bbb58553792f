//! Somebody who shares files with a container changes them while it is made. Each test fails without what protects from it,
//! within a few of its rounds. Needs root.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use common::{Image, host_users, spec, try_create};
use keel_oci::spec::{Mount, Spec};
use rustix::fs::{CWD, RenameFlags};

/// Containers that each race makes.
const ROUNDS: usize = 60;

/// Makes containers while the two names are exchanged for each other, over and over; `look` sees each that could be made.
fn race(image: &Image, spec: &Spec, names: [PathBuf; 2], look: impl Fn(u32)) -> usize {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let [one, other] = &names;
                rustix::fs::renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).unwrap();
                std::hint::spin_loop();
            }
        });
        // Also where one fails: the other thread would go on forever.
        struct Ended<'a>(&'a AtomicBool);
        impl Drop for Ended<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let _ended = Ended(&done);
        (0..ROUNDS)
            .filter(|_| match try_create(image, spec) {
                Ok((created, _reader)) => {
                    look(created.pid());
                    true
                }
                // Refusing what is being changed is fine.
                Err(_) => false,
            })
            .count()
    })
}

/// One line of mountinfo.
#[derive(Debug, PartialEq)]
struct Mounted {
    id: String,
    parent: String,
    root: String,
    place: String,
    kind: String,
}

/// Mounts in a process's namespace.
fn mounts(pid: u32) -> Vec<Mounted> {
    let table = fs::read_to_string(format!("/proc/{pid}/mountinfo")).unwrap();
    let row = |line: &str| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<String> = left.split(' ').map(str::to_owned).collect();
        let [id, parent, _, root, place, ..] = &left[..] else { return None };
        let kind = right.split(' ').next()?.to_owned();
        Some(Mounted { id: id.clone(), parent: parent.clone(), root: root.clone(), place: place.clone(), kind })
    };
    table.lines().filter_map(row).collect()
}

fn bind(destination: &str, source: &Path) -> Mount {
    Mount {
        destination: destination.into(),
        kind: Some("bind".into()),
        source: Some(source.to_str().unwrap().into()),
        options: vec!["rbind".into()],
        ..Mount::default()
    }
}

/// CVE-2021-30465: a volume's folder becomes a link to the host's while something is mounted in it.
#[test]
fn a_volume_that_changes_leads_no_mount_out() {
    let (image, volume, outside) = (Image::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let names = [volume.path().join("place"), volume.path().join("link")];
    fs::create_dir(&names[0]).unwrap();
    symlink(outside.path(), &names[1]).unwrap();
    let mut s = host_users(spec("true"));
    s.mounts.push(bind("/volume", volume.path()));
    s.mounts.push(Mount { destination: "/volume/place/deep".into(), kind: Some("tmpfs".into()), ..Mount::default() });
    race(&image, &s, names, |_| {});
    assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "something was made outside");
}

/// CVE-2025-31133, CVE-2025-52881: another folder comes in proc's place while parts of proc are hidden.
#[test]
fn a_folder_in_the_place_of_proc_keeps_nothing_from_being_hidden() {
    let image = Image::new();
    let names = [image.path("proc"), image.path("fake")];
    for folder in &names {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("interrupts"), "fake").unwrap();
        fs::create_dir(folder.join("irq")).unwrap();
    }
    let mut s = host_users(spec("true"));
    s.linux.masked_paths = vec!["/proc/interrupts".into()];
    s.linux.readonly_paths = vec!["/proc/irq".into()];
    let made = race(&image, &s, names, |pid| {
        let mounts = mounts(pid);
        let proc = mounts.iter().find(|m| m.root == "/" && m.kind == "proc").unwrap();
        for hidden in ["/interrupts", "/irq"] {
            // The place of proc itself changes from line to line.
            let covers = |m: &Mounted| m.parent == proc.id && m.place.ends_with(hidden);
            assert!(mounts.iter().any(covers), "{hidden} shows: {mounts:?}");
        }
    });
    assert!(made > 0, "not one container could be made");
}

/// CVE-2025-52565: `/dev/console` becomes a link while the terminal is bound on it.
#[test]
fn a_console_that_becomes_a_link_covers_nothing_else() {
    let image = Image::new();
    fs::create_dir_all(image.path("devices/pts")).unwrap();
    let names = [image.path("devices/console"), image.path("devices/link")];
    fs::write(image.path("devices/other"), "").unwrap();
    fs::write(&names[0], "").unwrap();
    symlink("other", &names[1]).unwrap();
    let mut s = host_users(spec("true"));
    s.mounts.retain(|m| !m.destination.starts_with("/dev"));
    s.mounts.push(bind("/dev", &image.path("devices")));
    s.mounts.push(Mount {
        destination: "/dev/pts".into(),
        kind: Some("devpts".into()),
        options: ["newinstance", "ptmxmode=0666"].map(String::from).to_vec(),
        ..Mount::default()
    });
    s.process.terminal = true;
    race(&image, &s, names, |pid| {
        let covered = mounts(pid).into_iter().find(|m| m.place == "/dev/other");
        assert_eq!(covered, None);
    });
}
