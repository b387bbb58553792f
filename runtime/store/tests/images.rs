//! The store against real tools: archives of skopeo, Debian's registry, overlayfs. Runs as root.

mod common;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::run;
use keel_store::{Error, IdMap, Options, Pull, Reference, Removed, Status, Store};

/// A `docker save` archive (of skopeo) with busybox and a second layer that hides, replaces and owns files.
fn archive(folder: &Path) -> PathBuf {
    let (base, top) = (folder.join("base"), folder.join("top"));
    std::fs::create_dir_all(base.join("bin")).unwrap();
    std::fs::create_dir_all(base.join("d")).unwrap();
    std::fs::create_dir_all(top.join("d")).unwrap();
    std::fs::copy("/bin/busybox", base.join("bin/busybox")).unwrap();
    std::fs::write(base.join("gone"), "x").unwrap();
    std::fs::write(base.join("d/old"), "x").unwrap();
    std::os::unix::fs::symlink("busybox", base.join("bin/sh")).unwrap();
    std::fs::hard_link(base.join("bin/busybox"), base.join("bin/ls")).unwrap();
    std::fs::write(base.join("owned"), "mine").unwrap();
    std::os::unix::fs::chown(base.join("owned"), Some(5), Some(6)).unwrap();
    std::fs::write(top.join(".wh.gone"), "").unwrap();
    std::fs::write(top.join("d/.wh..wh..opq"), "").unwrap();
    std::fs::write(top.join("d/new"), "new").unwrap();
    let mut diff_ids = Vec::new();
    let mut names = Vec::new();
    for name in ["base", "top"] {
        let tar = folder.join(format!("{name}.tar"));
        run(Command::new("tar").arg("-C").arg(folder.join(name)).arg("-cf").arg(&tar).arg("--xattrs").arg("."));
        diff_ids.push(keel_store::Digest::of(&std::fs::read(&tar).unwrap()).to_string());
        names.push(format!("{name}.tar"));
    }
    let config = serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-02T03:04:05Z",
        "config": {"Env": ["PATH=/bin"], "Cmd": ["sh"], "Labels": null, "ExposedPorts": {"80/tcp": {}}},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    let manifest = serde_json::json!([{"Config": "config.json", "RepoTags": ["keel/test:1"], "Layers": names}]);
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).unwrap();
    let archive = folder.join("image.tar");
    run(Command::new("tar").arg("-C").arg(folder).arg("-cf").arg(&archive).args([
        "base.tar",
        "top.tar",
        "config.json",
        "manifest.json",
    ]));
    archive
}

fn store(folder: &Path, insecure: &[&str]) -> Store {
    let insecure_registries = insecure.iter().map(|name| (*name).to_owned()).collect();
    Store::open(&folder.join("store"), Options { insecure_registries, ..Options::default() }).unwrap()
}

fn load(store: &Store, archive: &Path) -> keel_store::ImageId {
    let loaded = store.load(&mut std::fs::File::open(archive).unwrap(), &mut |_| {}).unwrap();
    assert_eq!(loaded.len(), 1);
    loaded[0].id
}

fn empty(folder: PathBuf) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn an_archive_is_loaded_mounted_and_removed() {
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), &[]);
    let id = load(&store, &archive(folder.path()));
    let image = store.image("keel/test:1").unwrap();
    assert_eq!((image.id, image.tags.as_slice()), (id, &["keel/test:1".to_owned()][..]));
    assert_eq!(image.config.cmd.as_deref(), Some(&["sh".to_owned()][..]));
    assert!(image.size_bytes > 100_000);
    assert_eq!(store.image(&id.short()).unwrap().id, id);

    let mapping = IdMap { host_base: 100_000, count: 65_536 };
    let mount = store.mount(&id, &folder.path().join("c1"), Some(mapping)).unwrap();
    let root = PathBuf::from(format!("/proc/self/fd/{}", mount.as_raw_fd()));
    assert!(!root.join("gone").exists() && !root.join("d/old").exists());
    assert_eq!(std::fs::read_to_string(root.join("d/new")).unwrap(), "new");
    let owned = std::fs::metadata(root.join("owned")).unwrap();
    assert_eq!((owned.uid(), owned.gid()), (100_005, 100_006));
    assert_eq!(std::fs::metadata(root.join(".")).unwrap().uid(), 100_000);
    // Copy-up keeps the mapped owner, and the layer below stays as it was.
    std::fs::OpenOptions::new().append(true).open(root.join("owned")).unwrap().write_all(b"!").unwrap();
    assert_eq!(std::fs::metadata(folder.path().join("c1/upper/owned")).unwrap().uid(), 100_005);
    let plain = store.mount(&id, &folder.path().join("c2"), None).unwrap();
    let other = PathBuf::from(format!("/proc/self/fd/{}", plain.as_raw_fd()));
    assert_eq!(std::fs::read_to_string(other.join("owned")).unwrap(), "mine");
    assert_eq!(std::fs::metadata(other.join("owned")).unwrap().uid(), 5);
    drop((mount, plain));

    let removed = store.remove("keel/test:1", false, &|_| false).unwrap();
    assert!(removed.contains(&Removed::Deleted(id.to_string())) && removed.len() == 4, "{removed:?}");
    assert!(store.images().is_empty());
    common::assert_nothing_left(folder.path());
}

#[test]
fn archives_of_skopeo_are_loaded_in_both_forms_and_compressed() {
    let folder = tempfile::tempdir().unwrap();
    let source = format!("docker-archive:{}", archive(folder.path()).display());
    let docker = folder.path().join("d.tar");
    let oci = folder.path().join("o.tar");
    let skopeo = |target: String| {
        run(Command::new("skopeo").args(["copy", "--insecure-policy", "-q", &source, &target]));
    };
    skopeo(format!("docker-archive:{}:keel/other:2", docker.display()));
    skopeo(format!("oci-archive:{}:keel/oci:3", oci.display()));
    run(Command::new("gzip").arg("-k").arg(&docker));
    let store = store(folder.path(), &[]);
    let first = load(&store, &docker);
    load(&store, &folder.path().join("d.tar.gz"));
    load(&store, &oci);
    assert_eq!(store.image("keel/other:2").unwrap().id, first);
    assert_eq!(store.image("keel/oci:3").unwrap().layers, store.image("keel/other:2").unwrap().layers);
}

#[test]
fn many_layers_mount() {
    let folder = tempfile::tempdir().unwrap();
    let (dir, mut names, mut diff_ids) = (folder.path(), Vec::new(), Vec::new());
    for number in 0..120 {
        std::fs::create_dir(dir.join("t")).unwrap();
        std::fs::write(dir.join(format!("t/f{number}")), number.to_string()).unwrap();
        let name = format!("{number}.tar");
        run(Command::new("tar").arg("-C").arg(dir.join("t")).arg("-cf").arg(dir.join(&name)).arg("."));
        std::fs::remove_dir_all(dir.join("t")).unwrap();
        diff_ids.push(keel_store::Digest::of(&std::fs::read(dir.join(&name)).unwrap()).to_string());
        names.push(name);
    }
    std::fs::write(dir.join("c.json"), serde_json::json!({"rootfs": {"diff_ids": diff_ids}}).to_string()).unwrap();
    let manifest = serde_json::json!([{"Config": "c.json", "Layers": names}]).to_string();
    std::fs::write(dir.join("manifest.json"), manifest).unwrap();
    run(Command::new("tar").current_dir(dir).args(["-cf", "i.tar", "manifest.json", "c.json"]).args(&names));
    let store = store(dir, &[]);
    let id = load(&store, &dir.join("i.tar"));
    let mount = store.mount(&id, &dir.join("c"), Some(IdMap { host_base: 200_000, count: 65_536 })).unwrap();
    for number in [0, 60, 119] {
        let path = format!("/proc/self/fd/{}/f{number}", mount.as_raw_fd());
        assert_eq!(std::fs::read_to_string(path).unwrap(), number.to_string());
    }
}

#[test]
fn images_are_pulled_from_a_real_registry() {
    let folder = tempfile::tempdir().unwrap();
    let registry = common::debian::plain(folder.path());
    let address = &registry.address;
    let source = format!("docker-archive:{}", archive(folder.path()).display());
    for target in ["docker", "oci"] {
        run(Command::new("skopeo").args(["copy", "--insecure-policy", "-q", "--dest-tls-verify=false", "-f"]).args([
            if target == "docker" { "v2s2" } else { "oci" },
            &source,
            &format!("docker://{address}/keel/{target}:1"),
        ]));
    }
    let store = store(folder.path(), &[address]);
    let mut told = Vec::new();
    for target in ["docker", "oci"] {
        let reference: Reference = format!("{address}/keel/{target}:1").parse().unwrap();
        let id = store.pull(&reference, &Pull::default(), &mut |progress| told.push(progress.status)).unwrap();
        let image = store.image(&reference.to_string()).unwrap();
        assert_eq!((image.id, image.layers.len(), image.digests.len()), (id, 2, 1));
        store.mount(&id, &folder.path().join(target), None).unwrap();
    }
    assert!(told.contains(&Status::PullComplete) && told.contains(&Status::AlreadyExists), "{told:?}");
    let missing: Reference = format!("{address}/keel/none:1").parse().unwrap();
    let error = store.pull(&missing, &Pull::default(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, Error::NotInRegistry { .. }) && error.to_string().contains("manifest unknown"), "{error}");
    assert!(empty(folder.path().join("store/tmp")));
}

#[test]
fn a_crash_leaves_no_half_layer() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    std::fs::create_dir_all(root.join("tmp/0/layer")).unwrap();
    let orphan = root.join("recipes").join("0".repeat(64));
    std::fs::create_dir_all(&orphan).unwrap();
    std::fs::write(orphan.join("layer.json"), r#"{"size_bytes":1}"#).unwrap();
    std::fs::write(orphan.join("objects"), "").unwrap();
    for place in ["objects", "trees", "blobs/sha256"] {
        std::fs::create_dir_all(root.join(place)).unwrap();
        std::fs::write(root.join(place).join("1".repeat(64)), "x").unwrap();
    }
    let _store = store(folder.path(), &[]);
    common::assert_nothing_left(folder.path());
    assert!(Store::open(&root, Options::default()).is_err(), "open twice");
}
