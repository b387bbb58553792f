//! Stores of releases that unpacked each layer into a folder. Runs as root.

mod common;

use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;

use common::{archive_of_file, noise, store};
use keel_store::Digest;

fn hex(digest: &Digest) -> String {
    digest.to_string().replace("sha256:", "")
}

/// What such a release left of an image with one layer of one file.
fn left_by_an_older_release(root: &Path, content: &[u8]) {
    let archive = archive_of_file("dir/file", content);
    let diff_id = Digest::of(&archive);
    let layer = root.join("layers").join(hex(&diff_id));
    std::fs::create_dir_all(layer.join("fs/dir")).unwrap();
    std::fs::write(layer.join("fs/dir/file"), content).unwrap();
    let length = |length: usize| u32::try_from(length).unwrap().to_le_bytes();
    let rest = &archive[512 + content.len()..];
    let mut recipe = [b"R", &length(512)[..], &archive[..512]].concat();
    recipe.extend([b"F", &length(8)[..], b"dir/file", &length(1)[..], &[0; 8][..]].concat());
    recipe.extend((content.len() as u64).to_le_bytes());
    recipe.extend([b"R", &length(rest.len())[..], rest, b"E"].concat());
    let mut packed = zstd::Encoder::new(std::fs::File::create(layer.join("recipe")).unwrap(), 1).unwrap();
    packed.window_log(17).unwrap();
    packed.write_all(&recipe).unwrap();
    packed.finish().unwrap();
    let record = format!(r#"{{"size_bytes":{},"archive_bytes":{}}}"#, content.len(), archive.len());
    std::fs::write(layer.join("layer.json"), record).unwrap();

    let config = serde_json::json!({"architecture": "amd64", "os": "linux", "rootfs": {"diff_ids": [diff_id]}});
    let id = Digest::of(config.to_string().as_bytes());
    std::fs::create_dir_all(root.join("blobs/sha256")).unwrap();
    std::fs::write(root.join("blobs/sha256").join(hex(&id)), config.to_string()).unwrap();
    let images = serde_json::json!({"images": {id.to_string(): {"tags": ["old:1"], "layers": [diff_id]}}});
    std::fs::write(root.join("images.json"), images.to_string()).unwrap();
}

#[test]
fn their_layers_are_converted_when_they_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let content = noise(5000);
    left_by_an_older_release(&folder.path().join("store"), &content);
    let store = store(folder.path());
    let image = store.image("old:1").unwrap();
    assert_eq!(image.size_bytes, 5000);
    store.save(&["old:1".into()]).unwrap().write(&mut std::io::sink()).unwrap();
    let layers = folder.path().join("store/layers");
    assert_eq!(std::fs::read_dir(&layers).unwrap().count(), 1, "not before");
    let mount = store.mount(&image.id, &folder.path().join("c"), None).unwrap();
    let file = format!("/proc/self/fd/{}/dir/file", mount.as_raw_fd());
    assert!(std::fs::read(file).unwrap() == content);
    assert!(common::is_empty(&layers));
    store.save(&["old:1".into()]).unwrap().write(&mut std::io::sink()).unwrap();
}

#[test]
fn layers_that_no_image_has_go() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("store");
    left_by_an_older_release(&root, &noise(5000));
    std::fs::write(root.join("images.json"), r#"{"images":{}}"#).unwrap();
    drop(store(folder.path()));
    assert!(!root.join("layers").exists());
    common::assert_nothing_left(folder.path());
}
