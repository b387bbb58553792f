//! Who depends on whom: containers are put in order, and circles are refused.

use super::super::ConfigError;
use super::super::declared::{Condition, DeclaredContainer};
use super::node::{Place, refuse};
use super::service::set;
use serde_json::json;

/// Puts each container after those that it depends on, otherwise as they are written, and fills in how those restart
/// that don't say: always, but for those that others wait for to end.
pub fn order(containers: Vec<(Place, DeclaredContainer)>) -> Result<Vec<DeclaredContainer>, ConfigError> {
    for (at, container) in &containers {
        if containers.iter().filter(|(_, other)| other.name == container.name).count() > 1 {
            return refuse(*at, "container", format!("name = {:?} is there twice", container.name));
        }
        for dependency in &container.depends_on {
            let other = &dependency.container;
            if !containers.iter().any(|(_, known)| known.name == *other) {
                return refuse(
                    *at,
                    "container",
                    format!("{:?} depends on {other:.60?}, which isn't declared", container.name),
                );
            }
        }
    }
    let ends: Vec<String> = containers
        .iter()
        .flat_map(|(_, container)| &container.depends_on)
        .filter(|dependency| dependency.condition == Condition::Completed)
        .map(|dependency| dependency.container.clone())
        .collect();
    let (mut left, mut ordered) = (containers, Vec::<DeclaredContainer>::new());
    while !left.is_empty() {
        let ready = |container: &DeclaredContainer| {
            let done = |name: &str| ordered.iter().any(|other| other.name == name);
            container.depends_on.iter().all(|dependency| done(&dependency.container))
        };
        let Some(next) = left.iter().position(|(_, container)| ready(container)) else {
            let names: Vec<&str> = left.iter().map(|(_, container)| container.name.as_str()).collect();
            let at = left.first().map(|(at, _)| *at).unwrap_or_default();
            return refuse(at, "container", format!("depends_on goes in a circle: {:.200}", names.join(", ")));
        };
        let (_, mut container) = left.remove(next);
        if container.create["HostConfig"]["RestartPolicy"].is_null() {
            let word = if ends.contains(&container.name) { "on-failure" } else { "always" };
            set(&mut container.create, "HostConfig.RestartPolicy", json!({ "Name": word }));
        }
        ordered.push(container);
    }
    Ok(ordered)
}
