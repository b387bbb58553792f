//! `RUN`: a container of the image so far, whose changes become a layer.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use bollard_stubs::models::{ContainerCreateBody, HealthConfig, HostConfig};
use keel_engine::inside::stream::piped;
use keel_engine::{AttachOptions, Cancel, Engine, LogReader, WaitCondition};
use keel_store::{Digest, Draft};

use crate::build::Build;
use crate::builder::LABEL;
use crate::dockerfile::Command;
use crate::dockerfile::instruction::Run;
use crate::dockerfile::lines::heredoc;
use crate::error::Error;
use crate::room::Room;
use crate::settings;
use crate::stage::State;

/// Where a script of a Dockerfile is inside, as BuildKit has it; `/dev` is no part of the image.
const SCRIPTS: &str = "/dev/pipes";

/// A command in its final words.
struct Words {
    words: Vec<String>,
    /// A script that is one of them.
    script: Option<(String, String)>,
}

impl Build<'_> {
    /// Takes a `RUN`.
    pub fn run_command(&mut self, state: &mut State<'_>, run: &Run) -> Result<(), Error> {
        let arguments = state.visible_arguments();
        let config = state.draft.config().clone();
        let command = words(run, config.shell.as_deref());
        let shown = command.words.join(" ");
        let created_by = match arguments.len() {
            0 => shown.clone(),
            count => format!("|{count} {} {shown}", arguments.join(" ")),
        };
        let network = run.network.clone().unwrap_or_default();
        let script = command.script.as_ref().map_or("", |(_, text)| text);
        let mut key = vec!["RUN", network.as_str(), script];
        key.extend(command.words.iter().chain(&arguments).map(String::as_str));
        let mut env = arguments.clone();
        env.extend(state.proxies.iter().map(|(name, value)| format!("{name}={value}")));
        self.take(&mut state.draft, &key, config, created_by, None, |build, draft| {
            build.run_in_container(draft, &command, &shown, env, run.network.as_deref())
        })
    }

    fn run_in_container(
        &mut self,
        draft: &Draft,
        command: &Words,
        shown: &str,
        env: Vec<String>,
        network: Option<&str>,
    ) -> Result<Option<Digest>, Error> {
        if draft.layers().is_empty() {
            return Err(Error::Bad("there is nothing to run it with: the stage has no files yet".into()));
        }
        let image = self.image(draft)?;
        let (script, bind) = self.script(command)?.unzip();
        let mut host = self.options.host.clone();
        host.binds = bind.map(|bind| vec![bind]);
        if let Some(network) = network {
            host.network_mode = Some(network.into());
        }
        let body = ContainerCreateBody {
            image: Some(image.to_string()),
            entrypoint: Some(vec![String::new()]),
            cmd: Some(command.words.clone()),
            env: Some(env),
            attach_stdout: Some(true),
            attach_stderr: Some(true),
            labels: Some([(LABEL.to_owned(), String::new())].into()),
            healthcheck: Some(HealthConfig { test: Some(vec!["NONE".into()]), ..HealthConfig::default() }),
            host_config: Some(HostConfig { auto_remove: Some(false), ..host }),
            ..ContainerCreateBody::default()
        };
        let container = Container::create(self.engine, body)?;
        self.say(format!(" ---> Running in {}\n", container.short()));
        let code = self.follow(&container)?;
        if code != 0 {
            return Err(Error::Failed { command: shown.to_owned(), code });
        }
        let (engine, store, id) = (self.engine, self.store, container.id.as_str());
        let write = |out: &mut dyn std::io::Write| engine.write_layer(id, out).map_err(|error| error.chain());
        let taken = piped(write, |diff| store.add_layer("what the command changed", diff));
        let held = taken.map_err(Error::io("making a layer"))??;
        self.say(format!(" ---> Removed intermediate container {}\n", container.short()));
        drop((container, script));
        // The archive of a command that changed nothing is its end mark alone.
        let is_empty = held.layer == Digest::of(&[0; 1024]);
        Ok(if is_empty { None } else { Some(self.keep_layer(held)) })
    }

    /// Writes a command's script where the container sees it: the folder that it is in, and how it is bound there.
    fn script(&self, command: &Words) -> Result<Option<(Room, String)>, Error> {
        let Some((name, text)) = &command.script else { return Ok(None) };
        let room = self.room.within()?;
        let path: PathBuf = room.path().join("script");
        let written = std::fs::write(&path, text)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)));
        written.map_err(Error::io("writing a command's script"))?;
        Ok(Some((room, format!("{}:{SCRIPTS}/{name}:ro", path.display()))))
    }

    /// Starts a container and tells what it says until it ends: its exit code.
    fn follow(&mut self, container: &Container<'_>) -> Result<i64, Error> {
        let id = container.id.as_str();
        let options = AttachOptions { stdout: true, stderr: true, logs: true, stream: true, stdin: false };
        let output = self.engine.attach(id, &options)?.output;
        let waiter = self.engine.waiter(id, WaitCondition::NextExit)?;
        self.interrupt.waits_for(Some(output.cancel()));
        let result = self.engine.start(id).map_err(Error::from).and_then(|()| self.tell_output(output));
        let ended = result.and_then(|()| {
            self.interrupt.check()?;
            let cancel = Cancel::new();
            self.interrupt.waits_for(Some(cancel.clone()));
            Ok(waiter.wait(&cancel)?)
        });
        self.interrupt.waits_for(None);
        self.interrupt.check()?;
        ended
    }

    fn tell_output(&mut self, mut output: LogReader) -> Result<(), Error> {
        let mut cut = Vec::new();
        while let Some(frame) = output.next()? {
            cut.extend(frame.data);
            let whole = cut.len() - unfinished(&cut);
            let rest = cut.split_off(whole);
            let text = String::from_utf8_lossy(&std::mem::replace(&mut cut, rest)).into_owned();
            if !text.is_empty() {
                self.say(text);
            }
        }
        if !cut.is_empty() {
            self.say(String::from_utf8_lossy(&cut).into_owned());
        }
        Ok(())
    }
}

/// A container that goes with this value.
struct Container<'a> {
    engine: &'a Engine,
    id: String,
}

impl<'a> Container<'a> {
    fn create(engine: &'a Engine, body: ContainerCreateBody) -> Result<Self, Error> {
        let id = engine.create(None, body)?.id;
        Ok(Self { engine, id })
    }

    fn short(&self) -> &str {
        self.id.get(..12).unwrap_or(&self.id)
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Err(error) = self.engine.remove(&self.id, true, true) {
            log::warn!("container {} of a build stays until the next start: {}", self.id, error.chain());
        }
    }
}

/// A command's final words. A here-document that is the whole command is a script; in any other command the shell reads
/// it.
fn words(run: &Run, shell: Option<&[String]>) -> Words {
    let Command::Shell(line) = &run.command else {
        return Words { words: settings::words_of(&run.command, shell), script: None };
    };
    let plain = |text: String| Words { words: settings::words_of(&Command::Shell(text), shell), script: None };
    match run.heredocs.as_slice() {
        [] => plain(line.clone()),
        [only] if heredoc(line).is_some() && only.content.starts_with("#!") => Words {
            words: vec![format!("{SCRIPTS}/{}", only.name)],
            script: Some((only.name.clone(), only.content.clone())),
        },
        [only] if heredoc(line).is_some() => plain(only.content.clone()),
        several => {
            let texts = several.iter().map(|heredoc| format!("{}{}\n", heredoc.content, heredoc.name));
            plain(format!("{line}\n{}", texts.collect::<String>()))
        }
    }
}

/// How many bytes at the end begin a character that isn't whole (UTF-8, RFC 3629).
fn unfinished(bytes: &[u8]) -> usize {
    let last = bytes.len().min(3);
    (1..=last)
        .find(|back| {
            let wanted = match bytes.get(bytes.len() - back) {
                Some(0xc2..=0xdf) => 2,
                Some(0xe0..=0xef) => 3,
                Some(0xf0..=0xf4) => 4,
                _ => 0,
            };
            wanted > *back
        })
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dockerfile::Heredoc;

    #[test]
    fn characters_are_not_cut() {
        let text = "aä€😀".as_bytes();
        let left: Vec<usize> = (0..=text.len()).map(|end| unfinished(&text[..end])).collect();
        assert_eq!(left, [0, 0, 1, 0, 1, 2, 0, 1, 2, 3, 0]);
        assert_eq!(unfinished(&[0x80, 0x80, 0x80, 0x80]), 0, "what is no text is passed on");
    }

    #[test]
    fn a_heredoc_is_a_script_or_the_shells_input() {
        let heredoc = |content: &str| Heredoc { name: "EOF".into(), content: content.into(), expands: true };
        let run = |line: &str, content: &str| {
            let command = Command::Shell(line.into());
            words(&Run { command, heredocs: vec![heredoc(content)], network: None }, None)
        };
        assert_eq!(run("<<EOF", "a\nb\n").words, ["/bin/sh", "-c", "a\nb\n"]);
        assert_eq!(run("cat <<EOF >x", "a\n").words[2], "cat <<EOF >x\na\nEOF\n");
        let script = run("<<EOF", "#!/bin/x\n");
        assert_eq!((script.words, script.script.is_some()), (vec!["/dev/pipes/EOF".to_owned()], true));
    }
}
