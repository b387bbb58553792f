//! Filters of `list`. Of one filter's values one has to fit, but of labels all.

use std::collections::{HashMap, HashSet};

use crate::container::Container;
use crate::disk::Phase;
use crate::engine::Engine;
use crate::error::Error;
use crate::plan::mounts::{self, Source};
use crate::plan::{bad, ports};
use crate::prune::has_label;
use crate::show;

type Filters = HashMap<String, Vec<String>>;

const KNOWN: [&str; 14] = [
    "ancestor", "before", "exited", "expose", "health", "id", "is-task", "label", "name", "network", "publish",
    "since", "status", "volume",
];
const STATES: [&str; 7] = ["created", "dead", "exited", "paused", "removing", "restarting", "running"];
const HEALTH: [&str; 4] = ["none", "starting", "healthy", "unhealthy"];

/// Filters, checked and looked up.
pub struct Filter<'a> {
    filters: &'a Filters,
    /// IDs of the images that `ancestor` names.
    ancestors: Option<HashSet<String>>,
    /// Creation times that `before` and `since` name, nanoseconds since the Unix epoch.
    before: Option<u64>,
    since: Option<u64>,
}

impl<'a> Filter<'a> {
    /// Checks the filters and looks up what they name.
    pub fn new(engine: &Engine, filters: &'a Filters) -> Result<Self, Error> {
        check(filters)?;
        let ancestors = filters.get("ancestor").map(|names| {
            // An image that isn't there matches nothing.
            names.iter().filter_map(|name| engine.store.image(name).ok()).map(|image| image.id.to_string()).collect()
        });
        let created = |key: &str| -> Result<Option<u64>, Error> {
            let names = filters.get(key).into_iter().flatten();
            names.last().map(|name| Ok(engine.find(name)?.config().created_unix_ns)).transpose()
        };
        Ok(Self { filters, ancestors, before: created("before")?, since: created("since")? })
    }

    /// Whether they ask for such as only stopped ones have, so that all are looked at, as with Docker.
    pub fn wants_stopped(&self) -> bool {
        ["status", "exited", "before", "since"].iter().any(|key| self.filters.contains_key(*key))
    }

    /// Whether a container passes.
    pub fn fits(&self, container: &Container) -> bool {
        let (config, state) = (container.config(), container.state());
        let labels = config.body.labels.as_ref();
        let created = config.created_unix_ns;
        self.any("id", |id| config.id.starts_with(id))
            && self.any("name", |name| name_fits(&config.name, name))
            && self.any("status", |status| status == show::state_name(&state))
            && self.any("exited", |code| state.phase == Phase::Exited && code.parse() == Ok(state.exit_code))
            && self.any("health", |health| health == show::health_name(container))
            && self.any("network", |network| network == show::network_name(&config))
            && self.any("is-task", |is| matches!(is, "false" | "0"))
            && self.any("volume", |volume| has_volume(container, volume))
            && self.any("publish", |port| port_fits(port, &published(container)))
            && self.any("expose", |port| port_fits(port, &exposed(container)))
            && self
                .filters
                .get("label")
                .is_none_or(|wanted| wanted.iter().all(|wanted| labels.is_some_and(|labels| has_label(labels, wanted))))
            && self.ancestors.as_ref().is_none_or(|ids| ids.contains(&config.image_id))
            && self.before.is_none_or(|before| created < before)
            && self.since.is_none_or(|since| created > since)
    }

    fn any(&self, key: &str, fits: impl Fn(&str) -> bool) -> bool {
        self.filters.get(key).is_none_or(|values| values.is_empty() || values.iter().any(|value| fits(value)))
    }
}

fn check(filters: &Filters) -> Result<(), Error> {
    for (key, values) in filters {
        let fits: fn(&str) -> bool = match key.as_str() {
            key if !KNOWN.contains(&key) => return bad(format!("invalid filter '{key}'")),
            "exited" => |value| value.parse::<i32>().is_ok(),
            "status" => |value| STATES.contains(&value),
            "health" => |value| HEALTH.contains(&value),
            "is-task" => |value| matches!(value, "0" | "1" | "false" | "true"),
            "publish" | "expose" => |value| port_range(value).is_some(),
            _ => |_| true,
        };
        if let Some(wrong) = values.iter().find(|value| !fits(value)) {
            return bad(format!("invalid filter '{key}={wrong}'"));
        }
    }
    Ok(())
}

fn has_volume(container: &Container, wanted: &str) -> bool {
    let planned = mounts::planned(&container.config().body).unwrap_or_default();
    planned.iter().any(|mount| {
        let source = match &mount.source {
            Source::Host { path, .. } => Some(path),
            Source::Volume(name) => Some(name),
            Source::Anonymous | Source::Tmpfs(_) => None,
        };
        mount.target == wanted || source.is_some_and(|source| source == wanted)
    })
}

/// Ports of the host that lead to it.
fn published(container: &Container) -> Vec<(String, u16)> {
    let ports = ports::published(&container.config().body).unwrap_or_default();
    ports.iter().map(|port| (port.proto.to_string(), port.host_port)).collect()
}

fn exposed(container: &Container) -> Vec<(String, u16)> {
    let config = container.config();
    let ports = config.body.exposed_ports.iter().flatten().filter_map(|name| ports::port(name).ok());
    let mut found: Vec<_> = ports.map(|(proto, number)| (proto.to_string(), number)).collect();
    let bound = ports::published(&config.body).unwrap_or_default();
    found.extend(bound.iter().map(|port| (port.proto.to_string(), port.container_port)));
    found
}

/// `80`, `80/udp`, `8000-8080/tcp`.
fn port_range(text: &str) -> Option<(&str, u16, u16)> {
    let (numbers, proto) = text.split_once('/').unwrap_or((text, "tcp"));
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last) = (first.parse().ok()?, last.parse().ok()?);
    (first <= last && !proto.is_empty()).then_some((proto, first, last))
}

fn port_fits(wanted: &str, ports: &[(String, u16)]) -> bool {
    let Some((proto, first, last)) = port_range(wanted) else { return false };
    ports.iter().any(|(of, number)| of == proto && (first..=last).contains(number))
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
    fn ports_match_in_ranges_and_by_protocol() {
        let ports = [("tcp".to_owned(), 8080), ("udp".to_owned(), 53)];
        assert!(port_fits("8000-8100", &ports) && port_fits("53/udp", &ports));
        assert!(!port_fits("53", &ports) && !port_fits("8081-9000/tcp", &ports));
    }

    #[test]
    fn wrong_filters_are_refused_by_name() {
        for (key, value) in
            [("color", "red"), ("exited", "x"), ("status", "asleep"), ("publish", "9-1"), ("health", "")]
        {
            let filters = Filters::from([(key.into(), vec![value.into()])]);
            assert!(check(&filters).unwrap_err().to_string().contains(key), "{key}");
        }
    }
}
