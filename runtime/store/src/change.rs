//! Instructions of a Dockerfile that change an image's config: `CMD`, `ENV` and the like, one a line, as `docker
//! import --change` and `docker commit --change` send them (Dockerfile reference).

use crate::error::Error;
use crate::image::{Empty, Healthcheck, ImageConfig};

/// Most instructions at a time.
const MAX_CHANGES: usize = 1000;
/// Longest instruction.
const MAX_LINE_BYTES: usize = 64 * 1024;
/// Most ports that one range may span.
const MAX_PORTS: u16 = 1024;

/// Applies instructions in order. What can't be read is an error that quotes it.
pub fn apply_all(config: &mut ImageConfig, lines: &[String]) -> Result<(), Error> {
    if lines.len() > MAX_CHANGES {
        return Err(Error::Invalid { what: "changes".into(), reason: format!("more than {MAX_CHANGES}") });
    }
    for line in lines.iter().flat_map(|text| text.lines()).map(str::trim).filter(|line| !line.is_empty()) {
        apply(config, line).map_err(|reason| Error::Invalid {
            what: format!("change {:?}", line.chars().take(100).collect::<String>()),
            reason,
        })?;
    }
    Ok(())
}

fn apply(config: &mut ImageConfig, line: &str) -> Result<(), String> {
    if line.len() > MAX_LINE_BYTES {
        return Err("too long".into());
    }
    let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let rest = rest.trim();
    if rest.is_empty() {
        return Err("it needs an argument".into());
    }
    match name.to_ascii_uppercase().as_str() {
        "CMD" => config.cmd = Some(command(rest, config.shell.as_deref())),
        "ENTRYPOINT" => {
            config.entrypoint = Some(command(rest, config.shell.as_deref()));
            config.cmd = None;
        }
        "ENV" => pairs(rest)?.into_iter().for_each(|(key, value)| set_env(&mut config.env, &key, &value)),
        "LABEL" => config.labels.extend(pairs(rest)?),
        "EXPOSE" => {
            for port in words(rest)? {
                config.exposed_ports.extend(ports(&port)?.into_iter().map(|port| (port, Empty {})));
            }
        }
        "VOLUME" => {
            let paths = json_words(rest).map_or_else(|| words(rest), Ok)?;
            config.volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => config.user = rest.to_owned(),
        "WORKDIR" => config.working_dir = folder(&config.working_dir, &words(rest)?.join(" ")),
        "STOPSIGNAL" => config.stop_signal = Some(rest.to_owned()),
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        "HEALTHCHECK" => config.healthcheck = Some(healthcheck(rest, config.shell.as_deref())?),
        other => return Err(format!("{other} is not an instruction that changes the config")),
    }
    Ok(())
}

/// `["a", "b"]` as it is; anything else is a line for the shell.
fn command(text: &str, shell: Option<&[String]>) -> Vec<String> {
    json_words(text).unwrap_or_else(|| {
        let default = ["/bin/sh".to_owned(), "-c".to_owned()];
        shell.unwrap_or(&default).iter().cloned().chain([text.to_owned()]).collect()
    })
}

fn json_words(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// `key=value key="a value"`, or `key a value`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = text.split_once(char::is_whitespace).ok_or("want key=value")?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: String| match word.split_once('=') {
        Some(("", _)) | None => Err(format!("want key=value, got {word:?}")),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
    };
    words(text)?.into_iter().map(pair).collect()
}

/// Words apart by blanks; quotes hold one together, a backslash takes the next character as it is.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match (character, quote) {
            ('\\', None | Some('"')) => {
                let next = characters.next().ok_or("it ends in a backslash")?;
                word.get_or_insert_default().push(next);
            }
            (end, Some(open)) if end == open => quote = None,
            (other, Some(_)) => word.get_or_insert_default().push(other),
            ('"' | '\'', None) => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (blank, None) if blank.is_whitespace() => words.extend(word.take()),
            (other, None) => word.get_or_insert_default().push(other),
        }
    }
    if quote.is_some() {
        return Err("a quote isn't closed".into());
    }
    words.extend(word);
    Ok(words)
}

fn set_env(env: &mut Vec<String>, key: &str, value: &str) {
    let line = format!("{key}={value}");
    match env.iter_mut().find(|old| old.split('=').next() == Some(key)) {
        Some(old) => *old = line,
        None => env.push(line),
    }
}

/// `80`, `80/udp`, `8000-8010/tcp`.
fn ports(text: &str) -> Result<Vec<String>, String> {
    let bad = || format!("{text:?} is not a port such as 80 or 53/udp");
    let (numbers, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    if !matches!(protocol, "tcp" | "udp" | "sctp") {
        return Err(bad());
    }
    let (first, last) = numbers.split_once('-').unwrap_or((numbers, numbers));
    let (first, last): (u16, u16) = (first.parse().map_err(|_| bad())?, last.parse().map_err(|_| bad())?);
    if first == 0 || last < first || last - first >= MAX_PORTS {
        return Err(bad());
    }
    Ok((first..=last).map(|port| format!("{port}/{protocol}")).collect())
}

/// A folder, seen from another one where it isn't absolute.
fn folder(from: &str, to: &str) -> String {
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

/// `NONE`, or `--interval=30s --retries=3 CMD command`.
fn healthcheck(text: &str, shell: Option<&[String]>) -> Result<Healthcheck, String> {
    let mut check = Healthcheck::default();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).ok_or("want CMD or NONE after the options")?;
        let (name, value) = option.split_once('=').ok_or("want --option=value")?;
        match name {
            "interval" => check.interval = duration_ns(value)?,
            "timeout" => check.timeout = duration_ns(value)?,
            "start-period" => check.start_period = duration_ns(value)?,
            "start-interval" => check.start_interval = duration_ns(value)?,
            "retries" => check.retries = value.parse().map_err(|_| format!("{value:?} is not a number"))?,
            other => return Err(format!("--{other} is not an option of a health check")),
        }
        rest = after.trim_start();
    }
    let (kind, line) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    check.test = match (kind.to_ascii_uppercase().as_str(), json_words(line.trim())) {
        ("NONE", _) => vec!["NONE".into()],
        ("CMD", Some(words)) => ["CMD".to_owned()].into_iter().chain(words).collect(),
        ("CMD", None) if shell.is_some() => ["CMD".to_owned()].into_iter().chain(command(line.trim(), shell)).collect(),
        ("CMD", None) => vec!["CMD-SHELL".into(), line.trim().into()],
        _ => return Err("want CMD or NONE".into()),
    };
    Ok(check)
}

/// Go's durations: `1m30s`, `500ms`.
fn duration_ns(text: &str) -> Result<i64, String> {
    let bad = || format!("{text:?} is not a duration such as 30s");
    let mut total: i64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (number, after) = rest.split_at(digits);
        let letters = after.len() - after.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
        let (unit, after) = after.split_at(letters);
        let factor: i64 = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(bad()),
        };
        let number: i64 = number.parse().map_err(|_| bad())?;
        total = number.checked_mul(factor).and_then(|part| total.checked_add(part)).ok_or_else(bad)?;
        rest = after;
    }
    if text.is_empty() { Err(bad()) } else { Ok(total) }
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
            r#"CMD ["a", "b"]"#,
            "EXPOSE 80 53/udp 8000-8001",
            "LABEL x=y z='a b'",
            "VOLUME /data /more",
            "USER 5:6",
            "WORKDIR /a/b",
            "WORKDIR ../c",
            "STOPSIGNAL SIGINT",
            "ONBUILD RUN true",
            "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
        ]);
        assert_eq!(config.env, ["A=3 4", "B=two words"]);
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
    fn a_line_goes_to_the_shell_and_an_entry_point_takes_the_command_away() {
        let config = after(&["CMD echo $HOME", "ENTRYPOINT exec me"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "exec me"]);
        assert_eq!(config.cmd, None);
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for line in
            ["RUN true", "CMD", "ENV A", "ENV =1 b=2", "ENV a=\"1", "EXPOSE 0", "EXPOSE 1-9999", "HEALTHCHECK x"]
        {
            let refused = apply_all(&mut ImageConfig::default(), &[line.to_owned()]);
            assert!(refused.is_err_and(|error| error.to_string().contains(&line[..3])), "{line}");
        }
    }
}
