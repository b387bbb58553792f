//! From what is to be and what there is to what can be done now, and what has to wait for what. Pure.

use std::collections::{BTreeMap, BTreeSet};

use keel_spec::config::{Condition, DeclaredContainer, PullPolicy};

use super::{Marked, Wanted};
use crate::health::Status;

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Actual {
    /// All containers, by name.
    pub containers: BTreeMap<String, Container>,
    /// Marks of all networks by name; `None`: somebody else's.
    pub networks: BTreeMap<String, Option<String>>,
    /// Names of all volumes.
    pub volumes: BTreeSet<String>,
    /// IDs of declared images that are there, by the name that is declared.
    pub images: BTreeMap<String, String>,
    /// Images that were pulled since this program started.
    pub pulled: BTreeSet<String>,
}

/// A container as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    /// `None`: somebody else's.
    pub mark: Option<String>,
    /// The image that it was made of.
    pub image_id: String,
    /// Its networks, by name or ID.
    pub networks: Vec<String>,
    /// Where it is.
    pub run: Run,
    /// Its health, if that is checked.
    pub health: Option<Status>,
}

/// Where a container is since the host booted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Run {
    /// Not started, or its start failed.
    #[default]
    Waiting,
    /// Runs, or is started again by its restart policy.
    Up,
    /// Ended with this code and stays so.
    Ended(i32),
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Fetch an image.
    Pull(String),
    /// Stop a container and remove it.
    RemoveContainer(String),
    /// Remove a network.
    RemoveNetwork(String),
    /// Make the declared network of this name.
    CreateNetwork(String),
    /// Make the declared volume of this name.
    CreateVolume(String),
    /// Make the declared container of this name.
    CreateContainer(String),
    /// Start a container.
    Start(String),
}

impl Action {
    /// What it is about, for messages and for pauses after failures.
    pub fn subject(&self) -> String {
        match self {
            Self::Pull(name) => format!("image {name}"),
            Self::RemoveContainer(name) | Self::CreateContainer(name) | Self::Start(name) => {
                format!("container {name}")
            }
            Self::RemoveNetwork(name) | Self::CreateNetwork(name) => format!("network {name}"),
            Self::CreateVolume(name) => format!("volume {name}"),
        }
    }
}

/// What to do now, in this order, and what waits. Both empty: all is as it is declared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// To do now.
    pub actions: Vec<Action>,
    /// What waits, and why.
    pub waiting: BTreeMap<String, String>,
    /// What stays as it is, because it isn't ours to change.
    pub foreign: BTreeMap<String, String>,
}

/// How a declared container stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Stand {
    Absent,
    Foreign,
    Outdated,
    Current,
}

/// See the module.
pub fn plan(wanted: &Wanted, actual: &Actual) -> Plan {
    let mut plan = Plan::default();
    let gone = gone_networks(wanted, actual);
    let stands: Vec<Stand> = wanted.containers.iter().map(|container| stand(container, actual, &gone)).collect();
    let declared: BTreeSet<&str> = wanted.containers.iter().map(|container| container.what.name.as_str()).collect();
    for container in &wanted.containers {
        let what = &container.what;
        if needs_pull(what, actual) {
            let action = Action::Pull(what.image.clone());
            if !plan.actions.contains(&action) {
                plan.actions.push(action);
            }
        }
    }
    // Those that nobody declares any more, then those that changed, whoever depends on others first. One that changed
    // runs on until its new image is there.
    for (name, container) in &actual.containers {
        if container.mark.is_some() && !declared.contains(name.as_str()) {
            plan.actions.push(Action::RemoveContainer(name.clone()));
        }
    }
    let ready = |what: &DeclaredContainer| !needs_pull(what, actual);
    for (container, stand) in wanted.containers.iter().zip(&stands).rev() {
        if *stand == Stand::Outdated && ready(&container.what) {
            plan.actions.push(Action::RemoveContainer(container.what.name.clone()));
        }
    }
    objects(wanted, actual, &gone, &mut plan);
    for (container, stand) in wanted.containers.iter().zip(&stands) {
        let what = &container.what;
        let subject = format!("container {}", what.name);
        match stand {
            Stand::Foreign => {
                plan.foreign.insert(subject, "one of that name is there that the machine config did not make".into());
            }
            Stand::Absent | Stand::Outdated if ready(what) => {
                plan.actions.push(Action::CreateContainer(what.name.clone()));
            }
            Stand::Absent | Stand::Outdated => {
                plan.waiting.insert(subject, format!("waits for image {}", what.image));
            }
            Stand::Current => start(what, wanted, &stands, actual, &mut plan),
        }
    }
    plan
}

/// Networks that are ours and have to go or to be made anew.
fn gone_networks(wanted: &Wanted, actual: &Actual) -> BTreeSet<String> {
    let current = |name: &str, mark: &str| wanted.networks.iter().any(|n| n.what.name == name && n.mark == mark);
    let ours = actual.networks.iter().filter_map(|(name, mark)| Some((name, mark.as_ref()?)));
    ours.filter(|(name, mark)| !current(name, mark)).map(|(name, _)| name.clone()).collect()
}

fn stand(container: &Marked<DeclaredContainer>, actual: &Actual, gone: &BTreeSet<String>) -> Stand {
    let what = &container.what;
    let Some(found) = actual.containers.get(&what.name) else { return Stand::Absent };
    let Some(mark) = &found.mark else { return Stand::Foreign };
    let image = actual.images.get(&what.image);
    let newer = what.pull == PullPolicy::Always && image.is_some_and(|id| *id != found.image_id);
    let moved = found.networks.iter().any(|network| gone.contains(network));
    if *mark != container.mark || newer || moved { Stand::Outdated } else { Stand::Current }
}

fn needs_pull(what: &DeclaredContainer, actual: &Actual) -> bool {
    let missing = !actual.images.contains_key(&what.image);
    let up = actual.containers.get(&what.name).is_some_and(|found| found.run != Run::Waiting);
    match what.pull {
        // Creating it says that it isn't there.
        PullPolicy::Never => false,
        PullPolicy::Missing => missing,
        PullPolicy::Always => missing || !up && !actual.pulled.contains(&what.image),
    }
}

fn objects(wanted: &Wanted, actual: &Actual, gone: &BTreeSet<String>, plan: &mut Plan) {
    // A network goes when nobody is in it: not while a container on it still waits for an image.
    let held = |name: &String| {
        actual.containers.iter().find(|(container, found)| {
            let goes = plan.actions.contains(&Action::RemoveContainer((*container).clone()));
            !goes && found.networks.contains(name) && found.run == Run::Up
        })
    };
    let mut removals = Vec::new();
    for name in gone {
        match held(name) {
            Some((container, _)) => {
                plan.waiting.insert(format!("network {name}"), format!("waits for container {container} to leave it"));
            }
            None => removals.push(Action::RemoveNetwork(name.clone())),
        }
    }
    plan.actions.extend(removals);
    for network in &wanted.networks {
        let name = &network.what.name;
        match actual.networks.get(name) {
            None => plan.actions.push(Action::CreateNetwork(name.clone())),
            Some(None) => {
                let why = "one of that name is there that the machine config did not make; used as it is";
                plan.foreign.insert(format!("network {name}"), why.into());
            }
            Some(Some(_)) if plan.actions.contains(&Action::RemoveNetwork(name.clone())) => {
                plan.actions.push(Action::CreateNetwork(name.clone()));
            }
            Some(Some(_)) => {}
        }
    }
    for volume in &wanted.volumes {
        if !actual.volumes.contains(&volume.what.name) {
            plan.actions.push(Action::CreateVolume(volume.what.name.clone()));
        }
    }
}

fn start(what: &DeclaredContainer, wanted: &Wanted, stands: &[Stand], actual: &Actual, plan: &mut Plan) {
    let found = actual.containers.get(&what.name);
    if found.is_none_or(|found| found.run != Run::Waiting) {
        return;
    }
    for dependency in &what.depends_on {
        let other = &dependency.container;
        let at = wanted.containers.iter().position(|container| container.what.name == *other);
        let stand = at.and_then(|at| stands.get(at));
        let found = actual.containers.get(other).filter(|_| matches!(stand, Some(Stand::Current | Stand::Foreign)));
        if let Some(why) = unmet(dependency.condition, found) {
            plan.waiting
                .insert(format!("container {}", what.name), format!("waits for container {other}, which {why}"));
            return;
        }
    }
    plan.actions.push(Action::Start(what.name.clone()));
}

/// Why a dependency isn't met; `None`: it is.
fn unmet(condition: Condition, found: Option<&Container>) -> Option<String> {
    let Some(found) = found else { return Some("isn't made yet".into()) };
    match (condition, found.run, found.health) {
        (_, Run::Waiting, _) => Some("isn't started yet".into()),
        (Condition::Started, _, _) => None,
        (Condition::Healthy, Run::Up, Some(Status::Healthy)) => None,
        (Condition::Healthy, Run::Up, Some(Status::Starting)) => Some("isn't healthy yet".into()),
        (Condition::Healthy, Run::Up, Some(Status::Unhealthy)) => Some("is unhealthy".into()),
        (Condition::Healthy, Run::Up, None) => Some("has no health check".into()),
        (Condition::Completed, Run::Ended(0), _) => None,
        (Condition::Completed, Run::Up, _) => Some("hasn't ended yet".into()),
        (_, Run::Ended(code), _) => Some(format!("ended with {code}")),
    }
}
