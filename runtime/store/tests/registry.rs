//! Pushing to Debian's registry, with and without TLS and credentials, and pulling it back; removal beside pulls.

mod common;

use std::io::Cursor;
use std::path::Path;

use common::debian::{guarded, plain};
use common::{archive_of_file, import, is_empty, noise};
use keel_store::{Auth, Commit, Error, ImageConfig, Options, Pull, Reference, Status, Store};

fn open(folder: &Path, name: &str, options: Options) -> Store {
    Store::open(&folder.join(name), options).unwrap()
}

fn push(store: &Store, name: &str, auth: Option<&Auth>) -> Result<Vec<Status>, Error> {
    let mut told = Vec::new();
    let name: Reference = name.parse().unwrap();
    store.push(&name, auth, &mut |progress| told.push(progress.status))?;
    Ok(told)
}

fn count(told: &[Status], wanted: &str) -> usize {
    told.iter().filter(|status| status.text().starts_with(wanted)).count()
}

#[test]
fn an_image_is_pushed_with_tls_and_password_and_comes_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let registry = guarded(folder.path());
    let options = || Options { extra_ca_pem: registry.ca_pem.clone(), ..Options::default() };
    let auth = Auth::Basic { user: "keel".into(), password: "secret".into() };
    let store = open(folder.path(), "a", options());
    // More than one chunk, of content that doesn't shrink.
    let base = import(&store, &mut Cursor::new(archive_of_file("large", &noise(12 << 20))), "large:1").unwrap();
    let name = format!("{}/team/image:1", registry.address);
    let config = ImageConfig { cmd: Some(vec!["x".into()]), ..ImageConfig::default() };
    let commit = Commit { name: Some(name.parse().unwrap()), config: Some(config), ..Commit::default() };
    let diff = archive_of_file("more", b"small");
    let id = store.commit(&base, Some(&mut Cursor::new(diff)), &commit).unwrap();

    assert!(matches!(push(&store, &name, None), Err(Error::Denied { .. })));
    let told = push(&store, &name, Some(&auth)).unwrap();
    assert_eq!((count(&told, "Pushed"), count(&told, "1: digest: sha256:")), (2, 1), "{told:?}");
    assert!(told.iter().any(|status| matches!(status, Status::Pushing { current, total } if current == total)));
    let told = push(&store, &name, Some(&auth)).unwrap();
    assert_eq!(count(&told, "Layer already exists"), 2, "{told:?}");
    let elsewhere = format!("{}/other/place:2", registry.address);
    store.tag(&name, &elsewhere.parse().unwrap()).unwrap();
    let told = push(&store, &elsewhere, Some(&auth)).unwrap();
    assert_eq!(count(&told, "Mounted from team/image"), 2, "{told:?}");
    assert_eq!(store.image(&name).unwrap().digests.len(), 2);

    let other = open(folder.path(), "b", options());
    let reference: Reference = elsewhere.parse().unwrap();
    let distribution = other.distribution(&reference, Some(&auth)).unwrap();
    assert_eq!(distribution.platforms[0].architecture, "amd64");
    let by_digest: Reference =
        format!("{}@{}", reference.familiar_name(), distribution.descriptor.digest).parse().unwrap();
    let pull = Pull { auth: Some(&auth), platform: Some("linux/amd64") };
    assert_eq!(other.pull(&by_digest, &pull, &mut |_| {}).unwrap(), id);
    assert_eq!(other.image(&id.to_string()).unwrap().config.cmd.unwrap(), ["x"]);
    let arm = Pull { platform: Some("linux/arm64"), ..pull };
    assert!(matches!(other.pull(&by_digest, &arm, &mut |_| {}), Err(Error::NoPlatform(..))));
    // What was pulled goes back under the same digest.
    let back = format!("{}/back:1", registry.address);
    other.tag(&id.to_string(), &back.parse().unwrap()).unwrap();
    let told = push(&other, &back, Some(&auth)).unwrap();
    assert_eq!(count(&told, &format!("1: digest: {}", distribution.descriptor.digest)), 1, "{told:?}");

    assert!(other.login(&registry.address, &auth).is_ok());
    let wrong = Auth::Basic { user: "keel".into(), password: "wrong".into() };
    assert!(matches!(other.login(&registry.address, &wrong), Err(Error::Denied { .. })));
    let error = open(folder.path(), "c", Options::default()).login(&registry.address, &auth).unwrap_err();
    assert!(format!("{error:?}").contains("Tls"), "an unknown authority: {error:?}");
}

#[test]
fn what_pulls_and_tags_need_survives_removals_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let registry = plain(folder.path());
    let options = || Options { insecure_registries: vec![registry.address.clone()], ..Options::default() };
    let source = open(folder.path(), "source", options());
    let base = import(&source, &mut Cursor::new(archive_of_file("base", &noise(1 << 20))), "base:1").unwrap();
    let names: Vec<String> = (0..3).map(|number| format!("{}/image:{number}", registry.address)).collect();
    for name in &names {
        let commit = Commit { name: Some(name.parse().unwrap()), ..Commit::default() };
        let diff = archive_of_file("own", name.as_bytes());
        source.commit(&base, Some(&mut Cursor::new(diff)), &commit).unwrap();
        push(&source, name, None).unwrap();
    }
    let store = open(folder.path(), "store", options());
    std::thread::scope(|scope| {
        for name in &names {
            let store = &store;
            scope.spawn(move || {
                for _ in 0..15 {
                    let id = store.pull(&name.parse().unwrap(), &Pull::default(), &mut |_| {}).unwrap();
                    // Nobody but this thread removes it: so here its layers are all there, whatever the others do.
                    let mut sink = std::io::sink();
                    store.save(&[id.to_string()]).unwrap().write(&mut sink).unwrap();
                    store.remove(&id.to_string(), true, &|_| false).unwrap();
                }
            });
        }
    });
    assert!(store.images().is_empty());
    for part in ["recipes", "objects", "trees", "tmp", "blobs/sha256"] {
        assert!(is_empty(&folder.path().join("store").join(part)), "{part}");
    }
}

#[test]
fn an_image_in_use_stays_mountable_and_goes_when_it_is_free() {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), "store", Options::default());
    let id = import(&store, &mut Cursor::new(archive_of_file("file", b"x")), "used:1").unwrap();
    assert!(store.prune(&id, &|_| true).unwrap().is_empty());
    store.remove("used:1", true, &|_| true).unwrap();
    drop(store);
    // A new start clears away what nothing refers to; the container's image isn't that.
    let store = open(folder.path(), "store", Options::default());
    store.mount(&id, &folder.path().join("container"), None).unwrap();
    assert_eq!(store.prune(&id, &|_| false).unwrap().len(), 2);
    assert!(is_empty(&folder.path().join("store/recipes")) && is_empty(&folder.path().join("store/blobs/sha256")));
}
