//! `prune`: removes containers that don't run.

use std::collections::HashMap;

use crate::clock;
use crate::container::Container;
use crate::disk::Phase;
use crate::engine::Engine;
use crate::error::Error;
use crate::events::Subject;

/// What `prune` removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// IDs.
    pub ids: Vec<String>,
    /// Bytes that their changes took.
    pub freed_bytes: u64,
}

/// Which containers `prune` may remove.
#[derive(Clone, Debug, Default)]
pub struct PruneWant {
    /// Those created before, nanoseconds since the Unix epoch.
    pub until_unix_ns: Option<u64>,
    /// `name` or `name=value`, all of which one must have.
    pub labels: Vec<String>,
    /// The same, none of which one may have.
    pub not_labels: Vec<String>,
}

impl Engine {
    /// Removes all wanted ones that don't run. One that can't be removed stays, and is logged.
    pub fn prune(&self, want: &PruneWant) -> Result<Pruned, Error> {
        let mut pruned = Pruned::default();
        for container in self.all() {
            if !matches!(container.state().phase, Phase::Created | Phase::Exited) || !fits(want, &container) {
                continue;
            }
            let size_bytes = self.size_rw(&container).unwrap_or(0);
            match self.remove_held(&container, false) {
                Ok(()) => {
                    pruned.ids.push(container.id.clone());
                    pruned.freed_bytes = pruned.freed_bytes.saturating_add(size_bytes);
                }
                Err(error) => ::log::warn!("container {}: it is not pruned: {}", container.id, error.chain()),
            }
        }
        self.tell_pruned(Subject::Container, pruned.freed_bytes);
        Ok(pruned)
    }
}

fn fits(want: &PruneWant, container: &Container) -> bool {
    let config = container.config();
    let none = HashMap::new();
    let labels = config.body.labels.as_ref().unwrap_or(&none);
    want.until_unix_ns.unwrap_or_else(clock::unix_ns) >= config.created_unix_ns
        && want.labels.iter().all(|wanted| has_label(labels, wanted))
        && !want.not_labels.iter().any(|unwanted| has_label(labels, unwanted))
}

/// Whether there is such a label: `name` or `name=value`.
pub fn has_label(labels: &HashMap<String, String>, wanted: &str) -> bool {
    let (name, value) = wanted.split_once('=').map_or((wanted, None), |(name, value)| (name, Some(value)));
    labels.get(name).is_some_and(|found| value.is_none_or(|value| value == found))
}
