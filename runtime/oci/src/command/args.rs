//! Words into options, by a table of what each verb takes. Options may come before or after the container's ID; behind
//! the first word of a command that is to be executed, all words are the command's.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use lexopt::Arg;

use super::Result;
use super::report::Failure;

/// A verb: name, operands, options (`name=` takes a value, `x:name` has a letter).
type Verb = (&'static str, &'static str, &'static str);

/// Options that come before the verb, and after it, too, where it has none of that name.
const GLOBAL: &str = "root= log= log-format= debug systemd-cgroup cgroup-manager= rootless= criu= h:help v:version";
const CREATING: &str =
    "b:bundle= f:config= console-socket= pid-file= no-pivot no-new-keyring preserve-fds= no-subreaper";

#[rustfmt::skip]
const VERBS: &[Verb] = &[
    ("create", "ID", ""),
    ("run", "ID", "d:detach keep"),
    ("start", "ID", ""),
    ("state", "ID", ""),
    ("kill", "ID [SIGNAL]", "a:all"),
    ("delete", "ID", "f:force"),
    ("exec", "ID [COMMAND [ARGUMENT...]]", "p:process= t:tty console-socket= d:detach pid-file= u:user= c:cap= e:env= \
        cwd= cgroup= preserve-fds= no-new-privs g:additional-gids= apparmor= process-label= ignore-paused"),
    ("ps", "ID [OPTION OF PS...]", "f:format="),
    ("list", "", "f:format= q:quiet"),
    ("pause", "ID", ""),
    ("resume", "ID", ""),
    ("update", "ID", "r:resources= blkio-weight= cpu-period= cpu-quota= cpu-burst= cpu-share= cpu-shares= cpu-idle= \
        cpu-rt-period= cpu-rt-runtime= cpuset-cpus= cpuset-mems= kernel-memory= kernel-memory-tcp= memory= \
        memory-reservation= memory-swap= pids-limit="),
    ("events", "ID", "stats interval="),
    ("features", "", ""),
    ("spec", "", "rootless b:bundle="),
];

/// A command line.
#[derive(Debug, Default)]
pub(super) struct Args {
    pub verb: String,
    options: BTreeMap<&'static str, Vec<OsString>>,
    pub operands: Vec<OsString>,
}

/// One option of the table.
#[derive(Clone, Copy)]
struct Known {
    letter: Option<char>,
    name: &'static str,
    valued: bool,
}

fn table(words: &'static str) -> impl Iterator<Item = Known> {
    words.split_ascii_whitespace().map(|word| {
        let (letter, rest) = word.split_once(':').map_or((None, word), |(l, rest)| (l.chars().next(), rest));
        Known { letter, name: rest.trim_end_matches('='), valued: rest.ends_with('=') }
    })
}

fn options_of(verb: &str) -> Vec<Known> {
    let creating = if matches!(verb, "create" | "run") { CREATING } else { "" };
    let own = VERBS.iter().find(|v| v.0 == verb).map_or("", |v| v.2);
    table(own).chain(table(creating)).chain(table(GLOBAL)).collect()
}

/// Parses words.
pub(super) fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Args> {
    let mut args = Args::default();
    let mut parser = lexopt::Parser::from_args(words);
    let mut known = options_of("");
    loop {
        // Once there is a command to execute, its words are its own.
        if args.verb == "exec" && args.operands.len() == 2 {
            args.operands.extend(parser.raw_args()?);
            break;
        }
        // Options of ps(1) come behind the ID, and `--format` may, too.
        if args.verb == "ps" && args.operands.len() == 1 && !is_own_option(&mut parser, &known) {
            args.operands.extend(parser.raw_args()?);
            break;
        }
        let Some(arg) = parser.next()? else { break };
        let found = match &arg {
            Arg::Long(name) => known.iter().find(|k| k.name == *name).copied(),
            Arg::Short(letter) => known.iter().find(|k| k.letter == Some(*letter)).copied(),
            Arg::Value(_) => None,
        };
        match (arg, found) {
            (Arg::Value(word), _) if args.verb.is_empty() => {
                args.verb = word.string()?;
                known = options_of(&args.verb);
            }
            (Arg::Value(word), _) => args.operands.push(word),
            (_, Some(option)) => {
                let value = if option.valued { parser.value()? } else { parser.optional_value().unwrap_or_default() };
                if option.valued || value != "false" {
                    args.options.entry(option.name).or_default().push(value);
                }
            }
            (other, None) => return Err(other.unexpected().into()),
        }
    }
    Ok(args)
}

/// Whether the next word is an option that this program knows, by its long name or its letter; or there is none.
fn is_own_option(parser: &mut lexopt::Parser, known: &[Known]) -> bool {
    let next = parser.try_raw_args().and_then(|words| words.peek().map(|word| word.to_string_lossy().into_owned()));
    let Some(word) = next else { return true };
    match word.strip_prefix("--").map(|name| name.split('=').next().unwrap_or_default()) {
        Some(name) => known.iter().any(|option| option.name == name),
        None => word.strip_prefix('-').is_some_and(|letters| {
            let mut letters = letters.chars();
            let first = letters.next();
            letters.next().is_none() && known.iter().any(|option| option.letter.is_some() && option.letter == first)
        }),
    }
}

use lexopt::ValueExt;

impl Args {
    /// Whether an option was given.
    pub(super) fn has(&self, name: &str) -> bool {
        self.options.contains_key(name)
    }

    /// Its last value.
    pub(super) fn value(&self, name: &str) -> Option<&OsStr> {
        self.options.get(name)?.last().map(OsString::as_os_str)
    }

    /// Its last value as text.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        let value = self.value(name);
        value.map(|v| v.to_str().ok_or_else(|| Failure::new(format!("--{name}: {v:?} isn't UTF-8")))).transpose()
    }

    /// All its values as text.
    pub(super) fn texts(&self, name: &str) -> Result<Vec<String>> {
        let values = self.options.get(name).into_iter().flatten();
        values
            .map(|v| v.to_str().map(str::to_owned).ok_or_else(|| Failure::new(format!("--{name}: {v:?} isn't UTF-8"))))
            .collect()
    }

    /// Its last value as a number.
    pub(super) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>> {
        let text = self.text(name)?;
        text.map(|t| t.trim().parse().map_err(|_| Failure::new(format!("--{name}: {t:?} isn't a number")))).transpose()
    }

    /// Its last value as a path.
    pub(super) fn path(&self, name: &str) -> Option<PathBuf> {
        self.value(name).map(PathBuf::from)
    }

    /// The container's ID, the first operand.
    pub(super) fn id(&self) -> Result<&str> {
        let id = self
            .operands
            .first()
            .ok_or_else(|| Failure::new(format!("{}: the container's ID is missing", self.verb)))?;
        let id = id.to_str().ok_or_else(|| Failure::new(format!("container ID {id:?} isn't UTF-8")))?;
        let letters = id.bytes().all(|b| b.is_ascii_alphanumeric() || b"_+-.".contains(&b));
        if id.is_empty() || id.len() > 1024 || !letters || matches!(id, "." | "..") {
            return Err(Failure::new(format!("invalid container ID {id:?}: letters, digits and _+-. make one")));
        }
        Ok(id)
    }

    /// Refuses operands beyond this many.
    pub(super) fn at_most(&self, count: usize) -> Result<()> {
        match self.operands.get(count) {
            Some(word) => Err(Failure::new(format!("{}: unexpected argument {word:?}", self.verb))),
            None => Ok(()),
        }
    }
}

/// What is printed for `--help`.
pub(super) fn usage(verb: &str) -> String {
    let list = |known: &[Known]| {
        let one = |k: &Known| {
            let letter = k.letter.map_or_else(|| "    ".into(), |l| format!("-{l}, "));
            format!("  {letter}--{}{}\n", k.name, if k.valued { " VALUE" } else { "" })
        };
        known.iter().map(one).collect::<String>()
    };
    match VERBS.iter().find(|v| v.0 == verb) {
        Some((name, operands, _)) => {
            format!("usage: keel-oci [OPTION...] {name} [OPTION...] {operands}\n\n{}", list(&options_of(verb)))
        }
        None => {
            let verbs: String = VERBS.iter().map(|(name, operands, _)| format!("  {name} {operands}\n")).collect();
            let options = list(&options_of(""));
            format!(
                "usage: keel-oci [OPTION...] COMMAND [OPTION...] [ID]\n\nAn OCI container runtime.\n\n{verbs}\n{options}"
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(words: &str) -> Result<Args> {
        parse(words.split(' ').map(OsString::from))
    }

    #[test]
    fn options_come_before_or_after_the_id() {
        for line in ["--root /r create --bundle /b c1", "--root=/r create c1 -b /b", "create c1 --bundle=/b --root /r"]
        {
            let args = args(line).unwrap();
            assert_eq!((args.verb.as_str(), args.id().unwrap()), ("create", "c1"));
            assert_eq!(
                (args.value("bundle").unwrap(), args.value("root").unwrap()),
                (OsStr::new("/b"), OsStr::new("/r"))
            );
        }
    }

    #[test]
    fn a_command_keeps_its_options() {
        let args = args("exec -t c1 --cwd /x ls -l --all -- y").unwrap();
        assert!(args.has("tty") && !args.has("all"));
        assert_eq!(args.operands, ["c1", "ls", "-l", "--all", "--", "y"]);
    }

    #[test]
    fn what_a_verb_does_not_know_is_refused() {
        let ps = args("ps c1 --format json -o pid,args --forest").unwrap();
        assert!(ps.text("format").unwrap() == Some("json") && ps.operands == ["c1", "-o", "pid,args", "--forest"]);
        assert_eq!(args("ps c1 -ef -f").unwrap().operands, ["c1", "-ef", "-f"], "those of ps(1) are left to it");
        assert!(args("ps -e c1").is_err());
        assert!(args("state --bundle /b c1").is_err());
        assert!(args("kill --al c1").is_err());
        assert!(args("delete c1 c2").unwrap().at_most(1).is_err());
        for id in ["", "..", "a/b", "a b"] {
            let args = Args { operands: vec![id.into()], ..Args::default() };
            assert!(args.id().is_err(), "{id:?}");
        }
    }
}
