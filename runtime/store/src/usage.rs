//! What images take on disk: each file counts once, however many images have it.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{Digest, ImageId, ObjectId};
use crate::store::Store;

/// What images take on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all files of all images, each once, and of what is kept of layers and trees beside them.
    pub layers_bytes: u64,
    /// Bytes of each image's files that another image has as well.
    pub shared_bytes: BTreeMap<ImageId, u64>,
}

/// An object, and by whom it is used.
struct Used {
    size_bytes: u64,
    images: u32,
    /// The last image that was counted.
    last: usize,
}

impl Store {
    /// What images take on disk.
    pub fn usage(&self) -> Usage {
        let (images, trees): (Vec<(ImageId, BTreeSet<Digest>)>, _) = {
            let records = self.records();
            let images = records.images().iter();
            (
                images.map(|(id, record)| (*id, record.layers.iter().copied().collect())).collect(),
                records.images().trees(),
            )
        };
        let mut objects: BTreeMap<ObjectId, Used> = BTreeMap::new();
        for (number, (_, layers)) in images.iter().enumerate() {
            self.each_object(layers, |object, size_bytes| {
                let used = objects.entry(object).or_insert(Used { size_bytes, images: 0, last: usize::MAX });
                if used.last != number {
                    (used.last, used.images) = (number, used.images.saturating_add(1));
                }
            });
        }
        let shared = |layers: &BTreeSet<Digest>| {
            let mut seen = BTreeSet::new();
            self.each_object(layers, |object, _| {
                if objects.get(&object).is_some_and(|used| used.images > 1) {
                    seen.insert(object);
                }
            });
            seen.iter().filter_map(|object| objects.get(object)).map(|used| used.size_bytes).sum()
        };
        let layers: BTreeSet<&Digest> = images.iter().flat_map(|(_, layers)| layers).collect();
        let own: u64 = layers.iter().map(|layer| self.depot.own_bytes(layer)).sum();
        Usage {
            layers_bytes: objects.values().map(|used| used.size_bytes).sum::<u64>()
                + trees.iter().map(|tree| self.trees.size_bytes(tree)).sum::<u64>()
                + own,
            shared_bytes: images.iter().map(|(id, layers)| (*id, shared(layers))).collect(),
        }
    }

    /// Hands on each object of some layers; one may come several times.
    fn each_object(&self, layers: &BTreeSet<Digest>, mut each: impl FnMut(ObjectId, u64)) {
        for layer in layers {
            if let Err(error) = self.depot.each_object(layer, |object| each(object.id, object.size_bytes)) {
                log::warn!("files of layer {layer} aren't counted: {error}");
            }
        }
    }
}
