//! `commit`: an image made of a container's image and what the container has changed.

use keel_store::{Commit, ImageConfig, ImageId};

use crate::container::Container;
use crate::create::{from_store, image_id};
use crate::engine::Engine;
use crate::error::{Doing, Error};
use crate::inside::stream::piped;

impl Engine {
    /// Makes an image of a container. Its `config` is what the client wants otherwise than the container has it;
    /// `change` may alter what comes of both. With `pause`, one that runs stands still meanwhile.
    pub fn commit(
        &self,
        wanted: &str,
        pause: bool,
        mut commit: Commit,
        change: &dyn Fn(&mut ImageConfig) -> Result<(), String>,
    ) -> Result<ImageId, Error> {
        let container = self.find(wanted)?;
        let shown = self.inspect(&container.id, false)?;
        let base = self.store.image(&container.config().image_id).map_err(from_store)?;
        let mut of_container: ImageConfig = serde_json::to_value(shown.config)
            .and_then(serde_json::from_value)
            .doing(|| format!("reading the settings of container {}", container.id))?;
        // Containers hold their volumes by name; what the image declares is the image's.
        of_container.volumes = base.config.volumes;
        let mut config = overlaid(commit.config.take().unwrap_or_default(), of_container);
        change(&mut config).map_err(Error::BadParameter)?;
        commit.config = Some(config);
        commit.created_by =
            shown.path.into_iter().chain(shown.args.into_iter().flatten()).collect::<Vec<_>>().join(" ");
        let comment = commit.message.clone();
        let id = self.standing_still(&container, pause, || self.commit_changes(&container, &commit))?;
        self.tell_of(&container, "commit", &[("comment", comment), ("imageID", id.to_string())]);
        if let Some(name) = &commit.name {
            self.tell_tagged(&id, name);
        }
        Ok(id)
    }

    fn commit_changes(&self, container: &Container, commit: &Commit) -> Result<ImageId, Error> {
        let base = image_id(&container.config())?;
        if self.upper(container)?.is_none() {
            // It was never started: only its settings are new.
            return self.store.commit(&base, None, commit).map_err(from_store);
        }
        let write = |out: &mut dyn std::io::Write| {
            self.write_layer(&container.id, out).map_err(|error| error.chain())?;
            // Files that vanish are no failure in a container that runs; in one that is being removed they all do.
            if container.live().removed { Err("it was removed meanwhile".to_owned()) } else { Ok(()) }
        };
        let committed = piped(write, |diff| self.store.commit(&base, Some(diff), commit));
        committed.doing(|| format!("committing container {}", container.id))?.map_err(from_store)
    }

    /// Does `work` while a container that runs is paused; without cgroups it can't be.
    fn standing_still<T>(
        &self,
        container: &Container,
        wanted: bool,
        work: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        let state = container.state();
        let pause = wanted && state.is_running() && !state.paused && self.options.cgroups.is_some();
        if pause {
            self.pause(&container.id)?;
        }
        let result = work();
        if pause && let Err(error) = self.unpause(&container.id) {
            // Someone else let it go on, or it was killed meanwhile.
            ::log::warn!("container {}: {}", container.id, error.chain());
        }
        result
    }
}

/// What the client wants, filled up with what the container has (Docker Engine API, "Create a new image from a
/// container": the body overrides the container's config).
fn overlaid(wanted: ImageConfig, container: ImageConfig) -> ImageConfig {
    let text = |wanted: String, other: String| if wanted.is_empty() { other } else { wanted };
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let known: Vec<String> = wanted.env.iter().map(name).collect();
    let mut env = wanted.env;
    env.extend(container.env.into_iter().filter(|variable| !known.contains(&name(variable))));
    // An entry point of the client's takes the container's command away.
    let (entrypoint, cmd) = match wanted.entrypoint.filter(|words| !words.is_empty()) {
        Some(entrypoint) => (Some(entrypoint), wanted.cmd),
        None => (container.entrypoint, wanted.cmd.filter(|words| !words.is_empty()).or(container.cmd)),
    };
    let mut labels = container.labels;
    labels.extend(wanted.labels);
    ImageConfig {
        user: text(wanted.user, container.user),
        exposed_ports: container.exposed_ports.into_iter().chain(wanted.exposed_ports).collect(),
        env,
        entrypoint,
        cmd,
        volumes: container.volumes.into_iter().chain(wanted.volumes).collect(),
        working_dir: text(wanted.working_dir, container.working_dir),
        labels,
        stop_signal: wanted.stop_signal.or(container.stop_signal).filter(|signal| !signal.is_empty()),
        healthcheck: wanted.healthcheck.or(container.healthcheck),
        on_build: wanted.on_build,
        shell: wanted.shell,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_goes_before_the_container() {
        let words = |text: &str| Some(vec![text.to_owned()]);
        let container = ImageConfig {
            env: vec!["A=1".into(), "B=2".into()],
            entrypoint: words("enter"),
            cmd: words("serve"),
            working_dir: "/w".into(),
            ..ImageConfig::default()
        };
        let wanted = ImageConfig { env: vec!["B=3".into()], user: "5".into(), ..ImageConfig::default() };
        let both = overlaid(wanted, container.clone());
        assert_eq!((both.env, both.user.as_str()), (vec!["B=3".to_owned(), "A=1".to_owned()], "5"));
        assert_eq!((both.entrypoint, both.cmd, both.working_dir.as_str()), (words("enter"), words("serve"), "/w"));
        let wanted = ImageConfig { entrypoint: words("mine"), ..ImageConfig::default() };
        assert_eq!(overlaid(wanted, container).cmd, None);
    }
}
