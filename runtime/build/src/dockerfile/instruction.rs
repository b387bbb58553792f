//! One instruction, as written: variables in it stand for their values only when it is carried out.

use super::health::{self, Check};
use super::lines::{Heredoc, heredoc};
use super::words::{flags, json_words, raw_words};

/// What is to be run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell.
    Shell(String),
    /// Words as they are.
    Exec(Vec<String>),
}

/// Where a stage begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// An image, an earlier stage, or `scratch`.
    pub image: String,
    /// For which machine.
    pub platform: Option<String>,
    /// The stage's own name, in lower case.
    pub name: Option<String>,
}

/// What `COPY` or `ADD` takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A path, a pattern, or for `ADD` an address.
    Path(String),
    /// Text of the Dockerfile itself.
    Inline(Heredoc),
}

/// `COPY` and `ADD`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    /// `ADD`: archives are unpacked, addresses fetched.
    pub is_add: bool,
    /// What is taken.
    pub sources: Vec<Source>,
    /// Where it goes.
    pub target: String,
    /// `--from`: a stage or an image to take it from.
    pub from: Option<String>,
    /// `--chown`
    pub owner: Option<String>,
    /// `--chmod`
    pub mode: Option<String>,
    /// `--checksum` of what is fetched.
    pub checksum: Option<String>,
}

/// `RUN`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What is run.
    pub command: Command,
    /// Texts in it.
    pub heredocs: Vec<Heredoc>,
    /// `--network`: `default`, `none` or `host`.
    pub network: Option<String>,
}

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Instruction {
    From(From),
    Arg(Vec<(String, Option<String>)>),
    Run(Run),
    Transfer(Transfer),
    Cmd(Command),
    Entrypoint(Command),
    Env(Vec<(String, String)>),
    Label(Vec<(String, String)>),
    Expose(String),
    Volume(Vec<String>),
    User(String),
    Workdir(String),
    StopSignal(String),
    Healthcheck(Check),
    Shell(Vec<String>),
    OnBuild(String),
    Maintainer(String),
}

/// Reads one logical line.
pub fn parse(text: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Instruction, String> {
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let keyword = keyword.to_ascii_uppercase();
    let rest = rest.trim();
    if rest.is_empty() && !matches!(keyword.as_str(), "CMD" | "ENTRYPOINT") {
        return Err(if is_known(&keyword) {
            format!("{keyword} requires at least one argument")
        } else {
            unknown(&keyword)
        });
    }
    let command = || json_words(rest).map_or_else(|| Command::Shell(rest.into()), Command::Exec);
    Ok(match keyword.as_str() {
        "FROM" => Instruction::From(from(rest, escape)?),
        "ARG" => Instruction::Arg(arguments(rest, escape)?),
        "RUN" => Instruction::Run(run(rest, heredocs, escape)?),
        "COPY" | "ADD" => Instruction::Transfer(transfer(&keyword, rest, heredocs, escape)?),
        "CMD" => Instruction::Cmd(command()),
        "ENTRYPOINT" => Instruction::Entrypoint(command()),
        "ENV" => Instruction::Env(pairs("ENV", rest, escape)?),
        "LABEL" => Instruction::Label(pairs("LABEL", rest, escape)?),
        "EXPOSE" => Instruction::Expose(rest.into()),
        "VOLUME" => {
            let paths = json_words(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
            if paths.is_empty() || paths.iter().any(|path| path.trim().is_empty()) {
                return Err("VOLUME specified can not be an empty string".into());
            }
            Instruction::Volume(paths)
        }
        "USER" => Instruction::User(rest.into()),
        "WORKDIR" => Instruction::Workdir(rest.into()),
        "STOPSIGNAL" => Instruction::StopSignal(rest.into()),
        "HEALTHCHECK" => Instruction::Healthcheck(health::parse(rest, escape)?),
        "SHELL" => match json_words(rest) {
            Some(words) if !words.is_empty() => Instruction::Shell(words),
            _ => return Err("SHELL requires the arguments to be in JSON form".into()),
        },
        "ONBUILD" => Instruction::OnBuild(trigger(rest, heredocs, escape)?),
        "MAINTAINER" => Instruction::Maintainer(rest.into()),
        other => return Err(unknown(other)),
    })
}

fn is_known(keyword: &str) -> bool {
    const KNOWN: &[&str] = &[
        "FROM",
        "ARG",
        "RUN",
        "COPY",
        "ADD",
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "LABEL",
        "EXPOSE",
        "VOLUME",
        "USER",
        "WORKDIR",
        "STOPSIGNAL",
        "HEALTHCHECK",
        "SHELL",
        "ONBUILD",
        "MAINTAINER",
    ];
    KNOWN.contains(&keyword)
}

fn unknown(keyword: &str) -> String {
    format!("unknown instruction: {}", keyword.chars().take(60).collect::<String>())
}

fn from(rest: &str, escape: char) -> Result<From, String> {
    let (flags, rest) = flags(rest, escape);
    let mut platform = None;
    for (name, value) in flags {
        match (name.as_str(), value) {
            ("platform", Some(value)) => platform = Some(value),
            (other, _) => return Err(format!("unknown flag: --{other}")),
        }
    }
    let words: Vec<&str> = rest.split_whitespace().collect();
    let (image, name) = match words.as_slice() {
        [image] => (image, None),
        [image, keyword, name] if keyword.eq_ignore_ascii_case("as") => (image, Some(name.to_ascii_lowercase())),
        _ => return Err("FROM requires either one or three arguments".into()),
    };
    if let Some(name) = &name {
        let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
        if name == "scratch" || !name.starts_with(|c: char| c.is_ascii_lowercase()) || !name.chars().all(fits) {
            return Err(format!(
                "invalid name for build stage: {name:?}, name can't start with a number or contain symbols"
            ));
        }
    }
    Ok(From { image: (*image).to_owned(), platform, name })
}

fn run(rest: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Run, String> {
    let (flags, rest) = flags(rest, escape);
    let mut network = None;
    for (name, value) in flags {
        match (name.as_str(), value) {
            ("network", Some(value)) if matches!(value.as_str(), "default" | "none" | "host") => network = Some(value),
            ("network", value) => return Err(format!("invalid network mode {:?}", value.unwrap_or_default())),
            ("mount" | "security" | "device", _) => {
                return Err(format!("the --{name} option requires BuildKit, which Keel does not serve"));
            }
            (other, _) => return Err(format!("unknown flag: --{other}")),
        }
    }
    if rest.is_empty() {
        return Err("RUN requires at least one argument".into());
    }
    let command = json_words(rest).map_or_else(|| Command::Shell(rest.into()), Command::Exec);
    if command == Command::Exec(Vec::new()) {
        return Err("RUN requires at least one argument".into());
    }
    Ok(Run { command, heredocs, network })
}

fn transfer(keyword: &str, rest: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<Transfer, String> {
    let (flags, rest) = flags(rest, escape);
    let mut transfer = Transfer { is_add: keyword == "ADD", ..Transfer::default() };
    for (name, value) in flags {
        match (name.as_str(), value) {
            ("from", value) if !transfer.is_add => transfer.from = value,
            ("chown", value) => transfer.owner = value,
            ("chmod", value) => transfer.mode = value,
            ("checksum", value) if transfer.is_add => transfer.checksum = value,
            // It speeds BuildKit's cache up; the files are the same.
            ("link", None) => {}
            ("link", Some(value)) if matches!(value.as_str(), "true" | "false") => {}
            ("parents" | "exclude" | "keep-git-dir", _) => {
                return Err(format!("the --{name} option requires BuildKit, which Keel does not serve"));
            }
            (other, _) => return Err(format!("unknown flag: --{other}")),
        }
    }
    let mut words = json_words(rest).unwrap_or_else(|| rest.split_whitespace().map(str::to_owned).collect());
    let target = words.pop().filter(|_| !words.is_empty());
    transfer.target = target.ok_or_else(|| {
        format!(
            "{keyword} requires at least two arguments, but only one was provided. Destination could not be determined"
        )
    })?;
    let mut heredocs = heredocs.into_iter();
    transfer.sources = words
        .into_iter()
        .map(|word| match heredoc(&word).and_then(|_| heredocs.next()) {
            Some(text) => Source::Inline(text),
            None => Source::Path(word),
        })
        .collect();
    if heredocs.next().is_some() {
        return Err(format!("{keyword} cannot have a heredoc as its destination"));
    }
    Ok(transfer)
}

/// `NAME`, `NAME=default`, several of them.
fn arguments(rest: &str, escape: char) -> Result<Vec<(String, Option<String>)>, String> {
    let argument = |word: &str| match word.split_once('=') {
        Some(("", _)) => Err("ARG names can not be blank".to_owned()),
        Some((name, value)) => Ok((name.to_owned(), Some(value.to_owned()))),
        None => Ok((word.to_owned(), None)),
    };
    raw_words(rest, escape).into_iter().map(argument).collect()
}

/// `key=value key="a value"`, or `key a value`; values with their quotes.
fn pairs(keyword: &str, rest: &str, escape: char) -> Result<Vec<(String, String)>, String> {
    let words = raw_words(rest, escape);
    if !words.first().is_some_and(|word| word.contains('=')) {
        let (key, value) =
            rest.split_once(char::is_whitespace).ok_or_else(|| format!("{keyword} must have two arguments"))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    let pair = |word: &str| match word.split_once('=') {
        Some(("", _)) => Err(format!("{keyword} names can not be blank")),
        Some((key, value)) => Ok((key.to_owned(), value.to_owned())),
        None => Err(format!("Syntax error - can't find = in {word:?}. Must be of the form: name=value")),
    };
    words.into_iter().map(pair).collect()
}

/// An instruction for images built on this one, with its here-documents below.
fn trigger(rest: &str, heredocs: Vec<Heredoc>, escape: char) -> Result<String, String> {
    match parse(rest, heredocs.clone(), escape)? {
        Instruction::OnBuild(_) => return Err("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed".into()),
        Instruction::From(_) => return Err("FROM isn't allowed as an ONBUILD trigger".into()),
        Instruction::Maintainer(_) => return Err("MAINTAINER isn't allowed as an ONBUILD trigger".into()),
        _ => {}
    }
    let mut text = rest.to_owned();
    for heredoc in heredocs {
        text = format!("{text}\n{}{}", heredoc.content, heredoc.name);
    }
    Ok(text)
}
