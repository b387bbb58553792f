//! The image's settings below the client's.

use std::collections::HashMap;

use bollard_stubs::models::ContainerCreateBody;
use keel_store::ImageConfig;

/// `PATH` of a container whose image sets none.
const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Fills in what the client left to the image. A client's entry point takes the image's command away, too.
pub fn merge(body: &mut ContainerCreateBody, image: &ImageConfig) {
    if body.entrypoint.as_ref().is_none_or(Vec::is_empty) {
        if body.cmd.as_ref().is_none_or(Vec::is_empty) {
            body.cmd.clone_from(&image.cmd);
        }
        body.entrypoint.clone_from(&image.entrypoint);
    }
    // Docker's way of saying "no entry point at all".
    if body.entrypoint.as_ref().is_some_and(|words| words.len() == 1 && words[0].is_empty()) {
        body.entrypoint = None;
    }
    body.env = Some(environment(&image.env, body.env.as_deref().unwrap_or_default()));
    fill(&mut body.working_dir, &image.working_dir);
    fill(&mut body.user, &image.user);
    fill(&mut body.stop_signal, image.stop_signal.as_deref().unwrap_or_default());
    let mut labels: HashMap<_, _> = image.labels.clone().into_iter().collect();
    labels.extend(body.labels.take().unwrap_or_default());
    body.labels = Some(labels);
    if !image.volumes.is_empty() {
        body.volumes.get_or_insert_default().extend(image.volumes.keys().cloned());
    }
    let ports = body.exposed_ports.get_or_insert_default();
    ports.extend(image.exposed_ports.keys().cloned());
    ports.sort();
    ports.dedup();
}

fn fill(field: &mut Option<String>, from: &str) {
    if field.as_ref().is_none_or(String::is_empty) && !from.is_empty() {
        *field = Some(from.into());
    }
}

/// The image's variables, replaced and followed by the client's. A client's word without `=` takes one away.
pub fn environment(image: &[String], client: &[String]) -> Vec<String> {
    let name = |variable: &str| variable.split('=').next().unwrap_or_default().to_owned();
    let mut merged: Vec<String> = Vec::new();
    for variable in std::iter::once(DEFAULT_PATH).chain(image.iter().chain(client).map(String::as_str)) {
        let place = merged.iter().position(|known| name(known) == name(variable));
        match (place, variable.contains('=')) {
            (Some(place), true) => merged[place] = variable.into(),
            (Some(place), false) => drop(merged.remove(place)),
            (None, true) => merged.push(variable.into()),
            (None, false) => {}
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image() -> ImageConfig {
        ImageConfig {
            entrypoint: Some(vec!["/entry".into()]),
            cmd: Some(vec!["serve".into()]),
            env: vec!["A=1".into(), "B=2".into()],
            ..ImageConfig::default()
        }
    }

    fn words(body: &ContainerCreateBody) -> Vec<String> {
        body.entrypoint.iter().chain(&body.cmd).flatten().cloned().collect()
    }

    #[test]
    fn command_and_entry_point_combine_as_dockers() {
        let mut plain = ContainerCreateBody::default();
        merge(&mut plain, &image());
        assert_eq!(words(&plain), ["/entry", "serve"]);
        let mut command = ContainerCreateBody { cmd: Some(vec!["x".into()]), ..Default::default() };
        merge(&mut command, &image());
        assert_eq!(words(&command), ["/entry", "x"]);
        let mut entry = ContainerCreateBody { entrypoint: Some(vec!["/mine".into()]), ..Default::default() };
        merge(&mut entry, &image());
        assert_eq!(words(&entry), ["/mine"]);
        let none = ContainerCreateBody {
            entrypoint: Some(vec![String::new()]),
            cmd: Some(vec!["x".into()]),
            ..Default::default()
        };
        let mut none = none;
        merge(&mut none, &image());
        assert_eq!(words(&none), ["x"]);
    }

    #[test]
    fn variables_are_replaced_in_place_and_taken_away() {
        let merged = environment(&image().env, &["B=3".into(), "A".into(), "C=4".into()]);
        assert_eq!(merged, [DEFAULT_PATH, "B=3", "C=4"]);
    }
}
