//! `list`.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{ContainerSummary, ContainerSummaryHostConfig, ContainerSummaryNetworkSettings};

use crate::clock;
use crate::container::Container;
use crate::engine::Engine;
use crate::error::Error;
use crate::filter::Filter;
use crate::show;

/// What `list` is to give.
#[derive(Clone, Debug, Default)]
pub struct ListWant {
    /// Those that don't run, too.
    pub all: bool,
    /// At most so many, the newest (which means all, too).
    pub limit: Option<usize>,
    /// What each one's files take.
    pub size: bool,
    /// Docker's filters.
    pub filters: HashMap<String, Vec<String>>,
}

impl Engine {
    /// Containers, newest first.
    pub fn list(&self, want: &ListWant) -> Result<Vec<ContainerSummary>, Error> {
        let filter = Filter::new(self, &want.filters)?;
        let all = want.all || want.limit.is_some() || filter.wants_stopped();
        let mut found: Vec<(u64, Arc<Container>)> =
            self.all().into_iter().map(|container| (container.config().created_unix_ns, container)).collect();
        found.sort_by_key(|(created_unix_ns, _)| std::cmp::Reverse(*created_unix_ns));
        let wanted = |container: &Arc<Container>| (all || container.is_up()) && filter.fits(container);
        let found = found.into_iter().map(|(_, container)| container).filter(wanted);
        let found = found.take(want.limit.unwrap_or(usize::MAX));
        Ok(found.map(|container| self.summary(&container, want.size)).collect())
    }

    fn summary(&self, container: &Container, size: bool) -> ContainerSummary {
        let (config, state) = (container.config(), container.state());
        let words: Vec<&str> =
            config.body.entrypoint.iter().chain(&config.body.cmd).flatten().map(String::as_str).collect();
        let (size_rw, size_root_fs) = if size { self.sizes(container) } else { (None, None) };
        ContainerSummary {
            id: Some(config.id.clone()),
            names: Some(vec![format!("/{}", config.name)]),
            image: config.body.image.clone(),
            image_id: Some(config.image_id.clone()),
            command: Some(words.join(" ")),
            created: Some((config.created_unix_ns / 1_000_000_000) as i64),
            ports: Some(show::port_list(&config, &state)),
            size_rw,
            size_root_fs,
            labels: Some(config.body.labels.clone().unwrap_or_default()),
            state: show::state_name(&state).parse().ok(),
            status: Some(show::status(&state, show::health_status(container), clock::unix_ms())),
            host_config: Some(ContainerSummaryHostConfig {
                network_mode: Some(show::network_name(&config).into()),
                annotations: None,
            }),
            network_settings: Some(ContainerSummaryNetworkSettings { networks: Some(show::networks(&config, &state)) }),
            mounts: Some(show::mount_points(container, &self.volumes_folder())),
            ..Default::default()
        }
    }

    /// Bytes of what it has changed, and of its whole root; one that can't be measured has none.
    pub(crate) fn sizes(&self, container: &Container) -> (Option<i64>, Option<i64>) {
        let changed = self.size_rw(container).unwrap_or_else(|error| {
            ::log::warn!("{}", error.chain());
            0
        });
        let image = self.store.image(&container.config().image_id).map_or(0, |image| image.size_bytes);
        let signed = |bytes: u64| Some(i64::try_from(bytes).unwrap_or(i64::MAX));
        (signed(changed), signed(image.saturating_add(changed)))
    }
}
