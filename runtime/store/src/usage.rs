//! What images take on disk: each layer counts once, however many images have it.

use std::collections::{BTreeMap, BTreeSet};

use crate::digest::{Digest, ImageId};
use crate::store::Store;

/// What images take on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of all layers, each once.
    pub layers_bytes: u64,
    /// Bytes of each image's layers that another image has as well.
    pub shared_bytes: BTreeMap<ImageId, u64>,
}

impl Store {
    /// What images take on disk.
    pub fn usage(&self) -> Usage {
        let images: Vec<(ImageId, BTreeSet<Digest>)> = {
            let records = self.records();
            records.images().iter().map(|(id, record)| (*id, record.layers.iter().copied().collect())).collect()
        };
        let mut users: BTreeMap<Digest, u32> = BTreeMap::new();
        for layer in images.iter().flat_map(|(_, layers)| layers) {
            *users.entry(*layer).or_default() += 1;
        }
        let sizes: BTreeMap<Digest, u64> = users.keys().map(|layer| (*layer, self.depot.size_bytes(layer))).collect();
        let size = |layer: &Digest| sizes.get(layer).copied().unwrap_or_default();
        let shared = |layers: &BTreeSet<Digest>| {
            layers.iter().filter(|layer| users.get(layer).is_some_and(|count| *count > 1)).map(size).sum()
        };
        Usage {
            layers_bytes: sizes.values().sum(),
            shared_bytes: images.iter().map(|(id, layers)| (*id, shared(layers))).collect(),
        }
    }
}
