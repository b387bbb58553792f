//! `list`.

use std::collections::HashMap;
use std::sync::Arc;

use bollard_stubs::models::{
    ContainerSummary, ContainerSummaryHostConfig, ContainerSummaryNetworkSettings, ContainerSummaryStateEnum,
    PortSummary, PortSummaryTypeEnum,
};
use keel_net::Proto;

use crate::clock;
use crate::container::Container;
use crate::disk::{Config, Phase, State};
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::ports;
use crate::show;

type Filters = HashMap<String, Vec<String>>;

impl Engine {
    /// Containers, newest first: those that run, or `all`, at most `limit` (which means all, too).
    pub fn list(&self, all: bool, limit: Option<usize>, filters: &Filters) -> Result<Vec<ContainerSummary>, Error> {
        const KNOWN: [&str; 11] =
            ["id", "name", "label", "status", "ancestor", "exited", "volume", "network", "before", "since", "health"];
        if let Some(unknown) = filters.keys().find(|key| !KNOWN.contains(&key.as_str())) {
            return Err(Error::BadParameter(format!("invalid filter '{unknown}'")));
        }
        for key in ["volume", "network", "before", "since", "health"] {
            if filters.contains_key(key) {
                return Err(Error::BadParameter(format!("filter '{key}' isn't supported yet")));
            }
        }
        for code in filters.get("exited").into_iter().flatten() {
            code.parse::<i32>().map_err(|_| Error::BadParameter(format!("invalid filter 'exited={code}'")))?;
        }
        // Asking for a state or an exit code means looking at all, as with Docker.
        let all = all || limit.is_some() || filters.contains_key("status") || filters.contains_key("exited");
        let ancestors = self.ancestors(filters);
        let mut found: Vec<Arc<Container>> = self.all();
        found.sort_by_key(|container| std::cmp::Reverse(container.config().created_unix_ns));
        let wanted = |container: &Arc<Container>| {
            let (config, state) = (container.config(), container.state());
            (all || matches!(state.phase, Phase::Running | Phase::Restarting))
                && matches(filters, &config, &state)
                && ancestors.as_ref().is_none_or(|ids| ids.contains(&config.image_id))
        };
        let found = found.into_iter().filter(wanted).take(limit.unwrap_or(usize::MAX));
        Ok(found.map(|container| self.summary(&container)).collect())
    }

    /// IDs of the images that the filter `ancestor` names; those that aren't there match nothing.
    fn ancestors(&self, filters: &Filters) -> Option<Vec<String>> {
        let names = filters.get("ancestor")?;
        Some(names.iter().filter_map(|name| self.store.image(name).ok()).map(|image| image.id.to_string()).collect())
    }

    fn summary(&self, container: &Container) -> ContainerSummary {
        use ContainerSummaryStateEnum as Status;
        let (config, state) = (container.config(), container.state());
        let words: Vec<&str> =
            config.body.entrypoint.iter().chain(&config.body.cmd).flatten().map(String::as_str).collect();
        let status = match state.phase {
            Phase::Created | Phase::Starting => Status::CREATED,
            Phase::Running => Status::RUNNING,
            Phase::Restarting => Status::RESTARTING,
            Phase::Removing => Status::REMOVING,
            Phase::Exited => Status::EXITED,
        };
        ContainerSummary {
            id: Some(config.id.clone()),
            names: Some(vec![format!("/{}", config.name)]),
            image: config.body.image.clone(),
            image_id: Some(config.image_id.clone()),
            command: Some(words.join(" ")),
            created: Some((config.created_unix_ns / 1_000_000_000) as i64),
            ports: Some(port_list(&config, &state)),
            labels: Some(config.body.labels.clone().unwrap_or_default()),
            state: Some(status),
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

/// Whether a container passes all filters; of one filter's values one has to fit, but of labels all.
fn matches(filters: &Filters, config: &Config, state: &State) -> bool {
    let any = |key: &str, fits: &dyn Fn(&str) -> bool| {
        filters.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| fits(value)))
    };
    let label = |wanted: &String| {
        let labels = config.body.labels.as_ref();
        let (name, value) = wanted.split_once('=').map_or((wanted.as_str(), None), |(name, value)| (name, Some(value)));
        let found = labels.and_then(|labels| labels.get(name));
        found.is_some_and(|found| value.is_none_or(|value| value == found))
    };
    any("id", &|id| config.id.starts_with(id))
        && any("name", &|name| name_fits(&config.name, name))
        && any("status", &|status| status == show::phase_name(state.phase))
        && any("exited", &|code| state.phase == Phase::Exited && code.parse() == Ok(state.exit_code))
        && filters.get("label").is_none_or(|labels| labels.iter().all(label))
}

/// Docker takes a regular expression; of that, anchors and plain text are understood here.
fn name_fits(name: &str, wanted: &str) -> bool {
    let (begins, wanted) = wanted.strip_prefix('^').map_or((false, wanted), |rest| (true, rest));
    let (ends, wanted) = wanted.strip_suffix('$').map_or((false, wanted), |rest| (true, rest));
    let wanted = wanted.strip_prefix('/').unwrap_or(wanted);
    match (begins, ends) {
        (true, true) => name == wanted,
        (true, false) => name.starts_with(wanted),
        (false, true) => name.ends_with(wanted),
        (false, false) => name.contains(wanted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_in_part_unless_anchored() {
        assert!(name_fits("my-web-1", "web"));
        assert!(name_fits("web", "^/web$"));
        assert!(!name_fits("my-web", "^web"));
    }

    #[test]
    fn all_labels_and_one_of_each_other_filter_have_to_fit() {
        let body = serde_json::from_str(r#"{"Labels":{"a":"1","b":"2"}}"#).unwrap();
        let config = Config {
            id: "c0ffee".into(),
            name: "web".into(),
            created_unix_ns: 0,
            image_id: String::new(),
            body,
            uid_base: None,
        };
        let check = |key: &str, values: &[&str]| {
            let values = values.iter().map(|value| (*value).into()).collect();
            matches(&Filters::from([(key.into(), values)]), &config, &State::default())
        };
        assert!(check("label", &["a", "b=2"]) && !check("label", &["a=1", "b=3"]));
        assert!(check("status", &["running", "created"]) && !check("exited", &["0"]));
        assert!(check("id", &["c0"]) && !check("id", &["ffee"]));
    }
}
