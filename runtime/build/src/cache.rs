//! Steps that needn't be taken again: what came of a step, by the image before it, its words, and the content of the
//! files it takes. The layers are the images' own: an entry holds good as long as some image has its layer.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keel_durable as durable;
use keel_store::digest::Hasher;
use keel_store::{Digest, ImageId};
use serde::{Deserialize, Serialize};

/// Longest file.
const MAX_FILE_BYTES: u64 = 8 << 20;
/// Most steps that are remembered.
const MAX_ENTRIES: usize = 8192;

/// What came of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The layer; `None`: no file was changed.
    #[serde(default)]
    pub layer: Option<Digest>,
    /// When, RFC 3339: an image of the same steps is the same image, to the byte.
    pub created: String,
    /// When it was of use last, seconds since 1970.
    #[serde(default)]
    pub used_unix_s: i64,
}

/// What names a step.
pub type Key = Digest;

/// The key of a step on an image. `words`: what it says and does, with the digests of files.
pub fn key(before: &ImageId, words: &[&str]) -> Key {
    let mut hasher = Hasher::new();
    hasher.update(before.to_string().as_bytes());
    for word in words {
        // With their lengths, so that no two lists look the same.
        hasher.update(format!("\n{}:{word}", word.len()).as_bytes());
    }
    hasher.finish()
}

/// The steps that are remembered.
#[derive(Debug)]
pub struct Cache {
    path: PathBuf,
    entries: BTreeMap<Key, Entry>,
}

impl Cache {
    /// Reads the file; one that is damaged is as good as none.
    pub fn open(path: &Path) -> Self {
        let entries = match durable::read_json(path, MAX_FILE_BYTES) {
            Ok(stored) => stored.value().unwrap_or_default(),
            Err(error) => {
                log::warn!("builds begin without a cache: reading {}: {error}", path.display());
                BTreeMap::new()
            }
        };
        Self { path: path.into(), entries }
    }

    /// What came of a step.
    pub fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Remembers steps, and forgets those whose layers are gone, then those that were of no use for longest. A cache that
    /// can't be written costs time, not the build.
    pub fn add(&mut self, steps: impl IntoIterator<Item = (Key, Entry)>, is_here: impl Fn(&Digest) -> bool) {
        self.entries.extend(steps);
        self.entries.retain(|_, entry| entry.layer.is_none_or(|layer| is_here(&layer)));
        if self.entries.len() > MAX_ENTRIES {
            let mut ages: Vec<(i64, Key)> = self.entries.iter().map(|(key, entry)| (entry.used_unix_s, *key)).collect();
            ages.sort_unstable();
            for (_, key) in ages.iter().take(self.entries.len() - MAX_ENTRIES) {
                self.entries.remove(key);
            }
        }
        self.save();
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.save();
    }

    fn save(&self) {
        if let Err(error) = durable::write_json(&self.path, &self.entries) {
            log::warn!("the build cache isn't durable: writing {}: {error}", self.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_tell_all_that_differs() {
        let (one, two) = (Digest::of(b"1"), Digest::of(b"2"));
        let keys = [key(&one, &["a", "b"]), key(&one, &["ab"]), key(&one, &["a", "b", ""]), key(&two, &["a", "b"])];
        let distinct: std::collections::BTreeSet<_> = keys.iter().collect();
        assert_eq!(distinct.len(), keys.len());
    }

    #[test]
    fn steps_are_remembered_until_their_layer_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cache.json");
        let (gone, here, neither) = (Digest::of(b"gone"), Digest::of(b"here"), Digest::of(b"neither"));
        let entry = |layer| Entry { layer, created: "now".into(), used_unix_s: 5 };
        let mut cache = Cache::open(&path);
        let steps = [(gone, entry(Some(gone))), (here, entry(Some(here))), (neither, entry(None))];
        cache.add(steps, |layer| *layer == here);
        let mut again = Cache::open(&path);
        assert_eq!((again.get(&gone), again.get(&here)), (None, Some(&entry(Some(here)))));
        assert!(again.get(&neither).is_some());
        again.add(
            (0..MAX_ENTRIES as u32 + 5)
                .map(|n| (Digest::of(&n.to_le_bytes()), Entry { used_unix_s: 9, ..entry(None) })),
            |_| true,
        );
        assert_eq!((again.entries.len(), again.get(&here)), (MAX_ENTRIES, None));
        std::fs::write(&path, b"{ torn").unwrap();
        assert_eq!(Cache::open(&path).get(&here), None);
    }
}
