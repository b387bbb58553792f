//! Carries plans out, on a thread of its own: nothing here holds the API up.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use keel_spec::config::{Declared, Login};
use keel_store::{Auth, Pull, Reference};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::plan::{self, Action, Actual, Run};
use super::{LABEL, Wanted, missing};
use crate::Cancel;
use crate::container::Container;
use crate::create::from_store;
use crate::disk::{Phase, State};
use crate::engine::{Engine, named};
use crate::error::{Doing, Error};
use crate::plan::networks;
use crate::show::health_status;

/// First pause after a failure.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause after a failure.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// Longest sleep while something waits: bells ring before, but for what has none (an end of a network's use).
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// Longest sleep of one turn, so that an engine that is dropped is noticed.
const TURN: Duration = Duration::from_millis(500);

/// Failures of one subject.
struct Failed {
    pause: Duration,
    until: Instant,
    why: String,
}

struct Driver {
    engine: Weak<Engine>,
    wanted: Wanted,
    logins: Vec<Login>,
    pulled: BTreeSet<String>,
    failed: BTreeMap<String, Failed>,
}

/// Whether a container is one that the machine config declares.
pub(crate) fn is_declared(container: &Container) -> bool {
    mark(container.config().body.labels.as_ref()).is_some()
}

fn mark(labels: Option<&std::collections::HashMap<String, String>>) -> Option<String> {
    labels.and_then(|labels| labels.get(LABEL)).cloned()
}

impl Engine {
    /// Has all be as it is declared, on a thread that ends when it is so. To be called once.
    pub fn declare(self: &Arc<Self>, declared: &Declared, logins: &[Login]) -> Result<(), Error> {
        let mut driver = Driver {
            engine: Arc::downgrade(self),
            wanted: Wanted::new(declared),
            logins: logins.to_vec(),
            pulled: BTreeSet::new(),
            failed: BTreeMap::new(),
        };
        let open = BTreeMap::new();
        let missing = missing(&driver.wanted, &|name| named(&self.table(), name).is_some(), &open);
        self.declared_open.set(open, missing);
        let thread = std::thread::Builder::new().name("declared".into()).stack_size(512 * 1024);
        thread.spawn(move || while driver.turn() {}).map(drop).doing(|| "starting the thread for declared containers")
    }

    /// What of the declared containers, networks and volumes isn't as it should be yet, and why.
    pub fn declared_problems(&self) -> Vec<String> {
        self.declared_open.lines()
    }
}

impl Driver {
    /// One comparison and what follows from it; `false`: there is no more to do.
    fn turn(&mut self) -> bool {
        let Some(engine) = self.engine.upgrade().filter(|engine| !engine.is_shutting_down()) else { return false };
        let bell = Cancel::new();
        let rings = bell.rings();
        let actual = match self.look(&engine, &bell) {
            Ok(actual) => actual,
            Err(error) => {
                ::log::error!("declared containers: {}; tried again", error.chain());
                drop(engine);
                std::thread::sleep(FIRST_PAUSE);
                return true;
            }
        };
        let plan = plan::plan(&self.wanted, &actual);
        let mut done = 0;
        for action in &plan.actions {
            done += usize::from(self.attempt(&engine, action));
            if engine.is_shutting_down() {
                return false;
            }
        }
        let mut open = plan.waiting.clone();
        open.extend(plan.foreign);
        let subjects: BTreeSet<String> = plan.actions.iter().map(Action::subject).collect();
        self.failed.retain(|subject, _| subjects.contains(subject));
        open.extend(self.failed.iter().map(|(subject, failed)| (subject.clone(), failed.why.clone())));
        let missing = missing(&self.wanted, &|name| named(&engine.table(), name).is_some(), &open);
        engine.declared_open.set(open, missing);
        if done > 0 {
            return true;
        }
        if self.failed.is_empty() && plan.waiting.is_empty() && plan.actions.is_empty() {
            ::log::info!("declared containers, networks and volumes are as they should be");
            return false;
        }
        drop(engine);
        self.sleep(&bell, rings)
    }

    /// Sleeps until something may be done: a container changed, or a pause is over. `false`: the engine is gone.
    fn sleep(&self, bell: &Cancel, rings: u64) -> bool {
        let next = self.failed.values().map(|failed| failed.until).min();
        let until = next.unwrap_or_else(Instant::now).max(Instant::now()).min(Instant::now() + LOOK_AGAIN);
        let until = if next.is_none() { Instant::now() + LOOK_AGAIN } else { until };
        while bell.rings() == rings && Instant::now() < until {
            bell.wait(rings, Some(until.min(Instant::now() + TURN)));
            if self.engine.strong_count() == 0 {
                return false;
            }
        }
        true
    }

    /// What there is. `bell` rings when a container changes from now on.
    fn look(&self, engine: &Engine, bell: &Cancel) -> Result<Actual, Error> {
        let mut actual = Actual { pulled: self.pulled.clone(), ..Actual::default() };
        for container in engine.all() {
            container.bells.add(bell);
            let config = container.config();
            let names = networks::asked(&config.body)?.into_iter().map(|(name, _)| name).collect();
            let found = plan::Container {
                mark: mark(config.body.labels.as_ref()),
                image_id: config.image_id.clone(),
                networks: names,
                run: run(&container.state(), &engine.boot_id),
                health: health_status(&container),
            };
            actual.containers.insert(config.name.clone(), found);
        }
        let all = std::collections::HashMap::new();
        for network in engine.network_list(&all)? {
            let name = network.name.unwrap_or_default();
            actual.networks.insert(name, mark(network.labels.as_ref()));
        }
        actual.volumes = engine.volumes.list().into_iter().map(|volume| volume.name).collect();
        for container in &self.wanted.containers {
            let name = &container.what.image;
            if let Ok(image) = engine.store.image_to_run(name) {
                actual.images.insert(name.clone(), image.id.to_string());
            }
        }
        Ok(actual)
    }

    /// Does one step unless its subject failed just now. Whether it is done.
    fn attempt(&mut self, engine: &Engine, action: &Action) -> bool {
        let subject = action.subject();
        let before = self.failed.get(&subject).map(|failed| (failed.pause, failed.until));
        if before.is_some_and(|(_, until)| until > Instant::now()) {
            return false;
        }
        match self.perform(engine, action) {
            Ok(()) | Err(Error::NotModified(_)) => {
                self.failed.remove(&subject);
                true
            }
            Err(error) => {
                let pause = before.map_or(FIRST_PAUSE, |(pause, _)| (pause * 2).min(MAX_PAUSE));
                let why = error.chain();
                ::log::warn!("declared {subject}: {why}; tried again in {} s", pause.as_secs());
                self.failed.insert(subject, Failed { pause, until: Instant::now() + pause, why });
                false
            }
        }
    }

    fn perform(&mut self, engine: &Engine, action: &Action) -> Result<(), Error> {
        match action {
            Action::Pull(name) => {
                self.pull(engine, name)?;
                self.pulled.insert(name.clone());
                Ok(())
            }
            Action::RemoveContainer(name) => {
                match engine.stop(name, None, None) {
                    Ok(()) | Err(Error::NotModified(_)) => {}
                    Err(error) => return Err(error),
                }
                engine.remove(name, true, false)
            }
            Action::RemoveNetwork(name) => engine.network_remove(name),
            Action::CreateNetwork(name) => {
                let found = self.wanted.networks.iter().find(|network| network.what.name == *name);
                found.map_or(Ok(()), |network| engine.network_create(request(&network.what.create)?).map(drop))
            }
            Action::CreateVolume(name) => {
                let found = self.wanted.volumes.iter().find(|volume| volume.what.name == *name);
                found.map_or(Ok(()), |volume| engine.volume_create(request(&volume.what.create)?).map(drop))
            }
            Action::CreateContainer(name) => {
                let found = self.wanted.containers.iter().find(|container| container.what.name == *name);
                let Some(container) = found else { return Ok(()) };
                engine.create(Some(name), request(&container.what.create)?).map(drop)
            }
            Action::Start(name) => engine.start(name),
        }
    }

    fn pull(&self, engine: &Engine, name: &str) -> Result<(), Error> {
        let reference: Reference = name
            .parse()
            .map_err(|error| Error::BadParameter(format!("{name:.200?} is no name of an image: {error}")))?;
        let auth = auth_of(&self.logins, &reference);
        ::log::info!("pulling {reference}, which the machine config declares");
        engine
            .store
            .pull(&reference, &Pull { auth: auth.as_ref(), platform: None }, &mut |_| {})
            .map_err(from_store)?;
        engine.tell_moved("pull", &reference);
        Ok(())
    }
}

/// Who the host is towards the registry of an image.
pub fn auth_of(logins: &[Login], reference: &Reference) -> Option<Auth> {
    let login = logins.iter().find(|login| login.registry == reference.registry())?;
    Some(Auth::Basic { user: login.user.clone(), password: login.password.clone() })
}

fn request<T: DeserializeOwned>(create: &Value) -> Result<T, Error> {
    T::deserialize(create).map_err(|error| Error::BadParameter(format!("the declaration can't be read: {error}")))
}

/// Where a container is since this boot.
fn run(state: &State, boot_id: &str) -> Run {
    let failed = !state.error.is_empty();
    match state.phase {
        Phase::Running | Phase::Starting | Phase::Restarting => Run::Up,
        Phase::Exited if state.boot_id == boot_id && (!failed || state.user_stopped) => Run::Ended(state.exit_code),
        Phase::Created | Phase::Exited | Phase::Removing => Run::Waiting,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_of_another_boot_or_a_start_that_failed_counts_for_nothing() {
        let of = |phase, boot: &str, error: &str| {
            let state = State { phase, boot_id: boot.into(), error: error.into(), exit_code: 3, ..State::default() };
            run(&state, "now")
        };
        assert_eq!(of(Phase::Exited, "now", ""), Run::Ended(3));
        assert_eq!(of(Phase::Exited, "before", ""), Run::Waiting);
        assert_eq!(of(Phase::Exited, "now", "port taken"), Run::Waiting);
        assert_eq!(of(Phase::Restarting, "now", "port taken"), Run::Up);
    }

    #[test]
    fn logins_are_for_their_own_registry_alone() {
        let login = |registry: &str| Login { registry: registry.into(), user: "me".into(), password: "x".into() };
        let logins = [login("docker.io"), login("registry.example:5000")];
        let found = |name: &str| auth_of(&logins, &name.parse().unwrap()).is_some();
        assert!(found("alpine") && found("registry.example:5000/a/b:1"));
        assert!(!found("registry.example/a") && !found("other.example/alpine"));
    }
}
