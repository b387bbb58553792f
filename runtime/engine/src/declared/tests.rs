//! The plan, step by step, on declarations as the machine config gives them.

use keel_spec::config;

use super::Wanted;
use super::plan::{Action, Actual, Container, Plan, Run, plan};
use crate::health::Status;

const SHOP: &str = r#"
[[container]]
name = "web"
image = "web:1"
networks = ["back"]
depends_on = { db = { condition = "service_healthy" }, setup = { condition = "service_completed_successfully" } }
[[container]]
name = "db"
image = "db:1"
networks = ["back"]
volumes = ["data:/data"]
[[container]]
name = "setup"
image = "db:1"
[[container_network]]
name = "back"
[[volume]]
name = "data"
"#;

fn wanted(text: &str) -> Wanted {
    Wanted::new(&config::parse(text).unwrap_or_else(|error| panic!("{error}")).declared)
}

/// Does what a plan says, as if all went well.
fn carry_out(wanted: &Wanted, actual: &mut Actual, plan: &Plan) {
    for action in &plan.actions {
        match action {
            Action::Pull(image) => {
                actual.images.insert(image.clone(), format!("id of {image}"));
                actual.pulled.insert(image.clone());
            }
            Action::RemoveContainer(name) => drop(actual.containers.remove(name)),
            Action::RemoveNetwork(name) => drop(actual.networks.remove(name)),
            Action::CreateNetwork(name) => {
                let network = wanted.networks.iter().find(|network| network.what.name == *name).unwrap();
                actual.networks.insert(name.clone(), Some(network.mark.clone()));
            }
            Action::CreateVolume(name) => drop(actual.volumes.insert(name.clone())),
            Action::CreateContainer(name) => {
                let found = wanted.containers.iter().find(|container| container.what.name == *name).unwrap();
                let endpoints = found.what.create["NetworkingConfig"]["EndpointsConfig"].as_object();
                let made = Container {
                    mark: Some(found.mark.clone()),
                    image_id: actual.images[&found.what.image].clone(),
                    networks: endpoints.map(|map| map.keys().cloned().collect()).unwrap_or_default(),
                    ..Container::default()
                };
                assert!(actual.containers.insert(name.clone(), made).is_none(), "{name} is there already");
            }
            Action::Start(name) => actual.containers.get_mut(name).unwrap().run = Run::Up,
        }
    }
}

/// Everything in `text` made and running.
fn settled(text: &str) -> (Wanted, Actual) {
    let (wanted, mut actual) = (wanted(text), Actual::default());
    for _ in 0..10 {
        let next = plan(&wanted, &actual);
        carry_out(&wanted, &mut actual, &next);
        for (name, container) in &mut actual.containers {
            if container.run == Run::Up && name == "setup" {
                container.run = Run::Ended(0);
            }
            container.health = Some(Status::Healthy);
        }
    }
    assert_eq!(plan(&wanted, &actual), Plan::default(), "it doesn't settle");
    (wanted, actual)
}

fn names(actions: &[Action]) -> Vec<String> {
    actions.iter().map(|action| format!("{action:?}")).collect()
}

#[test]
fn all_is_made_in_order_and_starts_wait_for_health_and_ends() {
    let (wanted, mut actual) = (wanted(SHOP), Actual::default());
    let first = plan(&wanted, &actual);
    let pulls = [Action::Pull("db:1".into()), Action::Pull("web:1".into())];
    assert_eq!(names(&first.actions[..2]), names(&pulls));
    assert_eq!(first.waiting.len(), 3, "nothing is made without its image");
    carry_out(&wanted, &mut actual, &first);
    let second = plan(&wanted, &actual);
    assert_eq!(second.actions.len(), 3, "{second:?}");
    carry_out(&wanted, &mut actual, &second);
    let third = plan(&wanted, &actual);
    assert_eq!(names(&third.actions), [r#"Start("db")"#, r#"Start("setup")"#]);
    assert_eq!(third.waiting["container web"], "waits for container db, which isn't started yet");
    carry_out(&wanted, &mut actual, &third);
    assert_eq!(plan(&wanted, &actual).waiting["container web"], "waits for container db, which has no health check");
    let run = |actual: &mut Actual, name: &str, run, health| {
        let container = actual.containers.get_mut(name).unwrap();
        (container.run, container.health) = (run, health);
    };
    run(&mut actual, "db", Run::Up, Some(Status::Healthy));
    assert_eq!(plan(&wanted, &actual).waiting["container web"], "waits for container setup, which hasn't ended yet");
    run(&mut actual, "setup", Run::Ended(3), None);
    assert_eq!(plan(&wanted, &actual).waiting["container web"], "waits for container setup, which ended with 3");
    run(&mut actual, "setup", Run::Ended(0), None);
    assert_eq!(plan(&wanted, &actual).actions, [Action::Start("web".into())]);
}

#[test]
fn what_changed_is_made_anew_once_its_image_is_there_and_all_else_stays() {
    let (_, mut actual) = settled(SHOP);
    let changed = wanted(&SHOP.replace("web:1", "web:2"));
    let first = plan(&changed, &actual);
    assert_eq!(first.actions, [Action::Pull("web:2".into())], "the old one runs on meanwhile");
    carry_out(&changed, &mut actual, &first);
    let second = plan(&changed, &actual);
    assert_eq!(second.actions, [Action::RemoveContainer("web".into()), Action::CreateContainer("web".into())]);
}

#[test]
fn what_is_no_longer_declared_goes_but_not_what_others_made() {
    let (_, mut actual) = settled(SHOP);
    actual.containers.insert("mine".into(), Container { run: Run::Up, ..Container::default() });
    actual.networks.insert("mine".into(), None);
    let less = wanted("[[container]]\nname = \"db\"\nimage = \"db:1\"\n");
    let next = plan(&less, &actual);
    let removals = ["setup", "web", "db"].map(|name| Action::RemoveContainer(name.into()));
    assert_eq!(next.actions[..3], removals, "db changed with its network and volume");
    assert_eq!(next.actions[3..], [Action::RemoveNetwork("back".into()), Action::CreateContainer("db".into())]);
    carry_out(&less, &mut actual, &next);
    assert!(actual.volumes.contains("data"), "volumes are data");
    assert!(actual.containers.contains_key("mine"));
}

#[test]
fn a_changed_network_takes_its_containers_with_it() {
    let (_, actual) = settled(SHOP);
    let changed = wanted(&SHOP.replace("name = \"back\"", "name = \"back\"\ninternal = true"));
    let next = plan(&changed, &actual);
    let expected = [
        Action::RemoveContainer("web".into()),
        Action::RemoveContainer("db".into()),
        Action::RemoveNetwork("back".into()),
        Action::CreateNetwork("back".into()),
        Action::CreateContainer("db".into()),
        Action::CreateContainer("web".into()),
    ];
    assert_eq!(next.actions, expected);
}

#[test]
fn names_that_others_took_are_told_and_left_alone() {
    let (wanted, mut actual) = settled(SHOP);
    actual.containers.get_mut("web").unwrap().mark = None;
    *actual.networks.get_mut("back").unwrap() = None;
    let next = plan(&wanted, &actual);
    assert_eq!((next.actions.len(), next.waiting.len()), (0, 0), "{next:?}");
    assert_eq!(next.foreign.len(), 2);
}

#[test]
fn after_a_boot_all_start_again_and_what_a_user_stopped_since_stays() {
    let (wanted, mut actual) = settled(SHOP);
    actual.containers.get_mut("db").unwrap().run = Run::Ended(137);
    assert_eq!(plan(&wanted, &actual), Plan::default());
    actual.containers.values_mut().for_each(|container| container.run = Run::Waiting);
    assert_eq!(names(&plan(&wanted, &actual).actions), [r#"Start("db")"#, r#"Start("setup")"#]);
}

#[test]
fn an_image_that_is_always_pulled_replaces_its_containers_when_it_is_another() {
    let text = "[[container]]\nname = \"web\"\nimage = \"web:1\"\npull_policy = \"always\"\n";
    let (wanted, mut actual) = settled(text);
    actual.images.insert("web:1".into(), "another".into());
    assert!(plan(&wanted, &actual).actions.contains(&Action::RemoveContainer("web".into())));
    actual.containers.get_mut("web").unwrap().run = Run::Waiting;
    actual.pulled.clear();
    assert_eq!(plan(&wanted, &actual).actions[0], Action::Pull("web:1".into()), "once at each boot");
}
