//! `list`.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerSummary, ContainerSummaryHostConfig, ContainerSummaryNetworkSettings, PortSummary, PortSummaryTypeEnum,
};
use keel_net::Proto;

use crate::clock;
use crate::container::Container;
use crate::disk::{Config, State};
use crate::engine::Engine;
use crate::error::Error;
use crate::filter::Filter;
use crate::plan::ports;
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
            ports: Some(port_list(&config, &state)),
            size_rw,
            size_root_fs,
            labels: Some(config.body.labels.clone().unwrap_or_default()),
            state: show::state_name(&state).parse().ok(),
            status: Some(show::status(&state, clock::unix_ms())),
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

fn port_list(config: &Config, state: &State) -> Vec<PortSummary> {
    let kind = |proto| match proto {
        Proto::Tcp => PortSummaryTypeEnum::TCP,
        Proto::Udp => PortSummaryTypeEnum::UDP,
    };
    let published = state.endpoint.as_ref().map(|endpoint| endpoint.ports.as_slice()).unwrap_or_default();
    let mut list: Vec<PortSummary> = published
        .iter()
        .map(|port| PortSummary {
            ip: Some(port.host_ip.map_or("0.0.0.0".into(), |ip| ip.to_string())),
            private_port: port.container_port,
            public_port: Some(port.host_port),
            typ: Some(kind(port.proto)),
        })
        .collect();
    let exposed = config.body.exposed_ports.iter().flatten().filter_map(|name| ports::port(name).ok());
    for (proto, number) in exposed.filter(|_| state.is_running()) {
        if !published.iter().any(|port| port.proto == proto && port.container_port == number) {
            list.push(PortSummary { ip: None, private_port: number, public_port: None, typ: Some(kind(proto)) });
        }
    }
    list
}
