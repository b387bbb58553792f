//! Instructions that change an image's settings: `ENV`, `CMD` and the like, in a build and as `docker commit --change`
//! and `docker import --change` send them.

use keel_store::ImageConfig;
use keel_store::image::Empty;

use crate::dockerfile::expand::{self, Lookup};
use crate::dockerfile::file::parse_one;
use crate::dockerfile::{Command, Instruction};

/// Most changes at a time.
const MAX_CHANGES: usize = 1000;
/// Most ports that one range may span.
const MAX_PORTS: u16 = 1024;
/// `PATH` where an image sets none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Applies changes in order; each is an instruction, or several lines of them. What can't be read is quoted.
pub fn apply_all(config: &mut ImageConfig, changes: &[String]) -> Result<(), String> {
    let mut has_command = false;
    let lines = changes.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty());
    for (count, line) in lines.enumerate() {
        let shown = || line.chars().take(100).collect::<String>();
        if count == MAX_CHANGES {
            return Err(format!("more than {MAX_CHANGES} changes"));
        }
        let fail = |reason: String| format!("change {:?} can't be used: {reason}", shown());
        let instruction = parse_one(line).map_err(fail)?.instruction;
        if matches!(instruction, Instruction::Shell(_) | Instruction::Maintainer(_)) {
            return Err(fail("it is not an instruction that changes the settings".into()));
        }
        let env = config.env.clone();
        let lookup = |name: &str| variable(&env, name);
        apply(config, &instruction, '\\', &lookup, &mut has_command).map_err(fail)?;
    }
    Ok(())
}

/// The value of a variable in a list of `NAME=value`.
pub fn variable(env: &[String], name: &str) -> Option<String> {
    let found = env.iter().find_map(|line| line.split_once('=').filter(|(key, _)| *key == name));
    found.map(|(_, value)| value.to_owned()).or_else(|| (name == "PATH").then(|| DEFAULT_PATH.into()))
}

/// Applies one instruction; what it came to once variables stood for their values, for the image's history. Others than
/// those that change settings are refused. `has_command`: whether an instruction before it was `CMD`.
pub fn apply(
    config: &mut ImageConfig,
    instruction: &Instruction,
    escape: char,
    lookup: Lookup<'_>,
    has_command: &mut bool,
) -> Result<String, String> {
    let word = |text: &str| expand::word(text, escape, lookup);
    Ok(match instruction {
        Instruction::Cmd(command) => {
            let words = words_of(command, config.shell.as_deref());
            let text = format!("CMD {}", shown(&words));
            config.cmd = Some(words);
            *has_command = true;
            text
        }
        Instruction::Entrypoint(command) => {
            let words = words_of(command, config.shell.as_deref());
            let text = format!("ENTRYPOINT {}", shown(&words));
            config.entrypoint = Some(words);
            // The base image's command would be nonsense to this entry point.
            if !*has_command {
                config.cmd = None;
            }
            text
        }
        Instruction::Env(pairs) => {
            let pairs = expanded(pairs, &word)?;
            pairs.iter().for_each(|(name, value)| set_env(&mut config.env, name, value));
            format!("ENV {}", joined(&pairs))
        }
        Instruction::Label(pairs) => {
            let pairs = expanded(pairs, &word)?;
            let text = format!("LABEL {}", joined(&pairs));
            config.labels.extend(pairs);
            text
        }
        Instruction::Expose(text) => {
            let words = expand::words(text, escape, lookup)?;
            for port in words.iter().map(|word| ports(word)).collect::<Result<Vec<_>, _>>()?.into_iter().flatten() {
                config.exposed_ports.insert(port, Empty {});
            }
            format!("EXPOSE {}", words.join(" "))
        }
        Instruction::Volume(paths) => {
            let paths = paths.iter().map(|path| word(path)).collect::<Result<Vec<_>, _>>()?;
            if paths.iter().any(|path| path.trim().is_empty()) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            let text = format!("VOLUME {}", shown(&paths));
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
            text
        }
        Instruction::User(user) => {
            config.user = word(user)?;
            format!("USER {}", config.user)
        }
        Instruction::Workdir(folder) => {
            config.working_dir = within(&config.working_dir, &word(folder)?);
            format!("WORKDIR {}", config.working_dir)
        }
        Instruction::StopSignal(signal) => {
            let signal = word(signal)?;
            let text = format!("STOPSIGNAL {signal}");
            config.stop_signal = Some(signal);
            text
        }
        Instruction::Healthcheck(check) => {
            let mut health = check.options.clone();
            health.test = match (&check.command, config.shell.as_deref()) {
                (None, _) => vec!["NONE".into()],
                (Some(Command::Shell(line)), None) => vec!["CMD-SHELL".into(), line.clone()],
                (Some(command), shell) => [vec!["CMD".into()], words_of(command, shell)].concat(),
            };
            let text = format!("HEALTHCHECK {health:?}");
            config.healthcheck = Some(health);
            text
        }
        Instruction::Shell(words) => {
            config.shell = Some(words.clone());
            format!("SHELL {}", shown(words))
        }
        Instruction::OnBuild(text) => {
            config.on_build.get_or_insert_default().push(text.clone());
            format!("ONBUILD {text}")
        }
        Instruction::Maintainer(who) => format!("MAINTAINER {who}"),
        Instruction::From(_) | Instruction::Arg(_) | Instruction::Run(_) | Instruction::Transfer(_) => {
            return Err("it is not an instruction that changes the settings".into());
        }
    })
}

/// The words of a command; a line goes to the image's shell.
pub fn words_of(command: &Command, shell: Option<&[String]>) -> Vec<String> {
    match command {
        Command::Exec(words) => words.clone(),
        Command::Shell(line) => {
            let default = ["/bin/sh".to_owned(), "-c".to_owned()];
            shell.unwrap_or(&default).iter().cloned().chain([line.clone()]).collect()
        }
    }
}

/// A folder, seen from another one where it isn't absolute.
pub fn within(from: &str, to: &str) -> String {
    let start = if to.starts_with('/') { "" } else { from };
    let mut parts: Vec<&str> = Vec::new();
    for part in start.split('/').chain(to.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn expanded(
    pairs: &[(String, String)],
    word: &dyn Fn(&str) -> Result<String, String>,
) -> Result<Vec<(String, String)>, String> {
    let pair = |(name, value): &(String, String)| {
        let name = word(name)?;
        if name.is_empty() { Err("names can not be blank".into()) } else { Ok((name, word(value)?)) }
    };
    pairs.iter().map(pair).collect()
}

fn joined(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
}

fn shown(words: &[String]) -> String {
    serde_json::to_string(words).unwrap_or_default()
}

fn set_env(env: &mut Vec<String>, name: &str, value: &str) {
    let line = format!("{name}={value}");
    match env.iter_mut().find(|old| old.split('=').next() == Some(name)) {
        Some(old) => *old = line,
        None => env.push(line),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let bad = || format!("invalid containerPort: {text}: want a port such as 80 or 53/udp");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = protocol.to_ascii_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first == 0 || last < first || last - first >= MAX_PORTS {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(lines: &[&str]) -> ImageConfig {
        let mut config = ImageConfig::default();
        let lines: Vec<_> = lines.iter().map(|line| (*line).to_owned()).collect();
        apply_all(&mut config, &lines).unwrap();
        config
    }

    #[test]
    fn each_instruction_changes_its_part() {
        let config = after(&[
            "ENV A=1 B=\"two words\"",
            "env A  3 4",
            "ENV C=${A}5 PATH=/x:$PATH",
            r#"CMD ["a", "b"]"#,
            "EXPOSE 80 53/UDP 8000-8001",
            "LABEL x=y z='a b'",
            "VOLUME /data /more",
            "USER 5:6",
            "WORKDIR /a/b",
            "WORKDIR ../c",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
        ]);
        assert_eq!(config.env, ["A=3 4", "B=two words", "C=3 45", &format!("PATH=/x:{DEFAULT_PATH}")]);
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        let ports: Vec<_> = config.exposed_ports.into_keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp"]);
        assert_eq!((config.labels["z"].as_str(), config.volumes.len()), ("a b", 2));
        assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("5:6", "/a/c"));
        assert_eq!((config.stop_signal.as_deref(), config.on_build.unwrap().len()), (Some("SIGINT"), 1));
        let check = config.healthcheck.unwrap();
        assert_eq!((check.interval, check.retries, check.test[1].as_str()), (90_000_000_000, 2, "true"));
    }

    #[test]
    fn an_entry_point_takes_the_bases_command_away_but_none_that_was_just_set() {
        let config = after(&["CMD echo $HOME", "ENTRYPOINT exec me"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec me"]);
        assert_eq!(config.cmd.unwrap(), ["/bin/sh", "-c", "echo $HOME"]);
        let mut config = ImageConfig { cmd: Some(vec!["old".into()]), ..ImageConfig::default() };
        apply_all(&mut config, &["ENTRYPOINT [\"x\"]".into()]).unwrap();
        assert_eq!(config.cmd, None);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for line in [
            "RUN true",
            "FROM x",
            "SHELL [\"a\"]",
            "ENV A",
            "ENV =1 b=2",
            "ENV a=\"1",
            "EXPOSE 0",
            "EXPOSE 1-9999",
            "HEALTHCHECK x",
        ] {
            let refused = apply_all(&mut ImageConfig::default(), &[line.to_owned()]);
            assert!(refused.is_err_and(|error| error.contains(&line[..3])), "{line}");
        }
    }
}
