//! What listeners are told of containers, images, networks and volumes: actors and attributes are Docker's.

use std::collections::BTreeMap;

use keel_net::{Network, Sandbox};
use keel_store::{ImageId, Reference, Removed};

use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::events::{Event, Subject};
use crate::plan::mounts::{self, Planned, Source};

/// Further attributes of an event.
type Further<'a> = &'a [(&'a str, String)];

impl Engine {
    fn tell(&self, subject: Subject, action: &str, id: &str, mut attributes: BTreeMap<String, String>, more: Further) {
        attributes.extend(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));
        let (action, id, unix_ns) = (action.into(), id.into(), clock::unix_ns());
        self.events.tell(Event { subject, action, id, attributes, unix_ns });
    }

    /// Tells listeners that what isn't used of a kind was removed, and how many bytes that freed.
    pub fn tell_pruned(&self, subject: Subject, freed_bytes: u64) {
        self.tell(subject, "prune", "", BTreeMap::new(), &[("reclaimed", freed_bytes.to_string())]);
    }

    /// Tells listeners what happened to a container.
    pub(crate) fn tell_of(&self, container: &Container, action: &str, more: Further) {
        let config = container.config();
        let mut attributes: BTreeMap<String, String> =
            config.body.labels.clone().unwrap_or_default().into_iter().collect();
        attributes.insert("image".into(), config.body.image.clone().unwrap_or_default());
        attributes.insert("name".into(), config.name.clone());
        self.tell(Subject::Container, action, &container.id, attributes, more);
    }

    /// Tells listeners what happened to an image: `load`, `save`, `import`. Its ID is its name there, too.
    pub fn tell_of_image(&self, action: &str, id: &ImageId) {
        self.tell_named(action, &id.to_string(), &id.to_string());
    }

    /// Tells listeners that an image was given a name.
    pub fn tell_tagged(&self, id: &ImageId, name: &Reference) {
        self.tell_named("tag", &id.to_string(), &name.to_string());
    }

    /// Tells listeners that an image came from a registry (`pull`) or went to one (`push`).
    pub fn tell_moved(&self, action: &str, name: &Reference) {
        self.tell_named(action, &name.to_string(), &name.familiar_name());
    }

    /// Tells listeners of the steps in which an image was removed.
    pub fn tell_removed(&self, id: &ImageId, steps: &[Removed]) {
        for step in steps {
            match step {
                Removed::Untagged(_) => self.tell_of_image("untag", id),
                // The others are its layers.
                Removed::Deleted(gone) if *gone == id.to_string() => self.tell_of_image("delete", id),
                Removed::Deleted(_) => {}
            }
        }
    }

    fn tell_named(&self, action: &str, id: &str, name: &str) {
        let labels = self.store.image(id).map(|image| image.config.labels.into_iter().collect()).unwrap_or_default();
        self.tell(Subject::Image, action, id, labels, &[("name", name.to_owned())]);
    }

    /// Tells listeners what happened to a network.
    pub(crate) fn tell_of_network(&self, network: &Network, action: &str, more: Further) {
        let known = [("name", network.name.clone()), ("type", network.driver.name().to_owned())];
        let known = known.map(|(name, value)| (name.to_owned(), value)).into();
        self.tell(Subject::Network, action, &network.id, known, more);
    }

    /// Tells listeners what happened to a volume.
    pub(crate) fn tell_of_volume(&self, name: &str, action: &str, more: Further) {
        let known = [("driver".to_owned(), "local".to_owned())].into();
        self.tell(Subject::Volume, action, name, known, more);
    }

    /// Tells listeners which networks and volumes a container has that is about to start.
    pub(crate) fn tell_entered(&self, container: &Container) {
        for (name, mount) in volumes(container) {
            let more = [
                ("container", container.id.clone()),
                ("destination", mount.target),
                ("read/write", (!mount.read_only).to_string()),
                ("propagation", mount.how.propagation.unwrap_or_default()),
            ];
            self.tell_of_volume(&name, "mount", &more);
        }
        self.tell_of_places(container, container.state().networks.as_ref(), "connect");
    }

    /// Tells listeners that a container whose run has ended uses its networks and volumes no more.
    pub(crate) fn tell_left(&self, container: &Container, networks: Option<&Sandbox>) {
        self.tell_of_places(container, networks, "disconnect");
        for (name, _) in volumes(container) {
            self.tell_of_volume(&name, "unmount", &[("container", container.id.clone())]);
        }
    }

    fn tell_of_places(&self, container: &Container, networks: Option<&Sandbox>, action: &str) {
        let Some(net) = self.network.opened() else { return };
        for endpoint in networks.into_iter().flat_map(|sandbox| &sandbox.endpoints) {
            if let Ok(network) = net.find(&endpoint.network) {
                self.tell_of_network(&network, action, &[("container", container.id.clone())]);
            }
        }
    }
}

/// The volumes that a container has.
fn volumes(container: &Container) -> Vec<(String, Planned)> {
    let planned = mounts::planned(&container.config().body).unwrap_or_default().into_iter();
    planned.filter_map(|mount| Some((volume(&mount.source)?, mount))).collect()
}

fn volume(source: &Source) -> Option<String> {
    if let Source::Volume(name) = source { Some(name.clone()) } else { None }
}
