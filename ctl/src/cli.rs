//! The command line as data: parsed whole before anything is done.

use std::ffi::OsString;
use std::path::PathBuf;

use keel_spec::release::Version;
use lexopt::prelude::*;

/// What was typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invocation {
    /// `--host`
    pub host: Option<String>,
    /// `--cert-path`
    pub cert_path: Option<PathBuf>,
    /// `--json`: what the API answered, for programs.
    pub json: bool,
    /// What to do.
    pub verb: Verb,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verb {
    /// The host at a glance.
    Status,
    /// All services.
    Services,
    /// A service's log.
    Logs {
        /// Its name; `init` for PID 1's own.
        service: String,
        /// Go on with what comes.
        follow: bool,
    },
    /// The history of boots, or one of them with its last log lines.
    Boots(Option<WhichBoot>),
    /// What is installed.
    UpdateStatus,
    /// What the repository offers.
    UpdateCheck,
    /// What an install would do.
    UpdatePlan(Option<Version>),
    /// Install a release.
    UpdateInstall(Option<Version>),
    /// Install the release in a bundle that is sent.
    UpdateBundle(PathBuf),
    /// Install the release in a bundle that the host fetches.
    UpdateFrom(String),
    /// Boot the other release next.
    UpdateRollback,
    /// Install from a bundle on a disk that is plugged into the host; empty: the only one.
    UpdateDisk(String),
    /// Which bundles are on disks that are plugged in.
    UpdateBundles,
    /// Update nothing by itself.
    UpdatePause,
    /// Go on with it.
    UpdateResume,
    /// Restart the machine.
    Reboot {
        /// Without the firmware, or through it; `None`: as the machine config says.
        kexec: Option<bool>,
    },
    /// Switch it off.
    Poweroff,
    /// List containers.
    Ps {
        /// Stopped ones, too.
        all: bool,
    },
    /// Run a container.
    Run(Run),
    /// The program on the host's console.
    Console,
    /// Versions of this program and of the host.
    Version,
    /// `--help`, of a verb or of all.
    Help(Option<String>),
}

/// One boot of the host's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhichBoot {
    /// By its number.
    Number(u64),
    /// The last one that ended.
    Last,
}

/// A container to be run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Don't wait for it, print its ID.
    pub detach: bool,
    /// Remove it when it has ended.
    pub remove: bool,
    /// `-p`
    pub ports: Vec<Port>,
    /// `--name`
    pub name: Option<String>,
    /// `--restart`: policy and most retries.
    pub restart: Option<(String, i64)>,
    /// `-e`
    pub env: Vec<String>,
    /// Image.
    pub image: String,
    /// Command, instead of the image's.
    pub command: Vec<String>,
}

/// A published port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port {
    /// Address on the host; empty: all.
    pub host_ip: String,
    /// Port on the host; empty: any.
    pub host_port: String,
    /// `80/tcp`
    pub container: String,
}

/// Most words of a command line that came from a console.
pub const MAX_WORDS: usize = 256;

/// Reads a command line without its first word.
pub fn parse(words: impl IntoIterator<Item = OsString>) -> Result<Invocation, lexopt::Error> {
    let mut parser = lexopt::Parser::from_args(words);
    let mut options = Options::default();
    let mut verb: Option<String> = None;
    while verb.is_none() {
        match parser.next()? {
            None => break,
            Some(Value(word)) => verb = Some(word.string()?),
            Some(argument) if options.take(&argument)? => options.value(&mut parser)?,
            Some(argument) => return Err(argument.unexpected()),
        }
    }
    let verb = match verb.as_deref() {
        None if options.version => Verb::Version,
        None => Verb::Help(None),
        Some(name) => parse_verb(name, &mut parser, &mut options)?,
    };
    let verb = if options.help { Verb::Help(help_topic(&verb)) } else { verb };
    Ok(Invocation { host: options.host, cert_path: options.cert_path, json: options.json, verb })
}

/// Options that every verb takes, before or after it.
#[derive(Default)]
struct Options {
    host: Option<String>,
    cert_path: Option<PathBuf>,
    json: bool,
    help: bool,
    version: bool,
    pending: Option<&'static str>,
}

impl Options {
    /// Takes note of an option that every verb has; false: it is none. [`Options::value`] reads its value.
    fn take(&mut self, argument: &lexopt::Arg<'_>) -> Result<bool, lexopt::Error> {
        match argument {
            Long("host") => self.pending = Some("host"),
            Long("cert-path") => self.pending = Some("cert-path"),
            Long("json") => self.json = true,
            Long("help") | Short('h') => self.help = true,
            Long("version") | Short('V') => self.version = true,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn value(&mut self, parser: &mut lexopt::Parser) -> Result<(), lexopt::Error> {
        match self.pending.take() {
            Some("host") => self.host = Some(parser.value()?.string()?),
            Some(_) => self.cert_path = Some(parser.value()?.into()),
            None => {}
        }
        Ok(())
    }
}

fn parse_verb(name: &str, parser: &mut lexopt::Parser, options: &mut Options) -> Result<Verb, lexopt::Error> {
    match name {
        "status" => plain(parser, options, Verb::Status),
        "services" => plain(parser, options, Verb::Services),
        "logs" => parse_logs(parser, options),
        "boots" => parse_boots(parser, options),
        "update" => parse_update(parser, options),
        "reboot" => parse_reboot(parser, options),
        "poweroff" => plain(parser, options, Verb::Poweroff),
        "ps" => parse_ps(parser, options),
        "run" => parse_run(parser, options),
        "console" => plain(parser, options, Verb::Console),
        "version" => plain(parser, options, Verb::Version),
        "help" => {
            let words = rest(parser, options, 1)?;
            Ok(Verb::Help(words.into_iter().next()))
        }
        other => Err(format!("there is no verb {other:?}").into()),
    }
}

fn plain(parser: &mut lexopt::Parser, options: &mut Options, verb: Verb) -> Result<Verb, lexopt::Error> {
    rest(parser, options, 0)?;
    Ok(verb)
}

/// At most `most` words, and the options that every verb takes.
fn rest(parser: &mut lexopt::Parser, options: &mut Options, most: usize) -> Result<Vec<String>, lexopt::Error> {
    let mut words = Vec::new();
    while let Some(argument) = parser.next()? {
        match argument {
            Value(word) if words.len() < most => words.push(word.string()?),
            argument if options.take(&argument)? => options.value(parser)?,
            argument => return Err(argument.unexpected()),
        }
    }
    Ok(words)
}

fn parse_logs(parser: &mut lexopt::Parser, options: &mut Options) -> Result<Verb, lexopt::Error> {
    let (mut service, mut follow) = (None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Short('f') | Long("follow") => follow = true,
            Value(word) if service.is_none() => service = Some(word.string()?),
            argument if options.take(&argument)? => options.value(parser)?,
            argument => return Err(argument.unexpected()),
        }
    }
    match service {
        Some(service) => Ok(Verb::Logs { service, follow }),
        None if options.help => Ok(Verb::Help(Some("logs".into()))),
        None => Err("logs wants the name of a service: see `keelctl services`, or take `init`".into()),
    }
}

fn parse_boots(parser: &mut lexopt::Parser, options: &mut Options) -> Result<Verb, lexopt::Error> {
    let which = match rest(parser, options, 1)?.first().map(String::as_str) {
        None => None,
        Some("last") => Some(WhichBoot::Last),
        Some(text) => match text.parse() {
            Ok(number) => Some(WhichBoot::Number(number)),
            Err(_) => return Err(format!("boots {text:?}: want the number of a boot, or last").into()),
        },
    };
    Ok(Verb::Boots(which))
}

fn parse_update(parser: &mut lexopt::Parser, options: &mut Options) -> Result<Verb, lexopt::Error> {
    let (mut words, mut bundle, mut from, mut disk) = (Vec::new(), None, None, false);
    while let Some(argument) = parser.next()? {
        match argument {
            Long("bundle") => bundle = Some(PathBuf::from(parser.value()?)),
            Long("from") => from = Some(parser.value()?.string()?),
            Long("disk") => disk = true,
            Value(word) if words.len() < 2 => words.push(word.string()?),
            argument if options.take(&argument)? => options.value(parser)?,
            argument => return Err(argument.unexpected()),
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match (words.as_slice(), bundle, from, disk) {
        (["install"], Some(path), None, false) => return Ok(Verb::UpdateBundle(path)),
        (["install"], None, Some(url), false) => return Ok(Verb::UpdateFrom(url)),
        (["install"], None, None, true) => return Ok(Verb::UpdateDisk(String::new())),
        (["install", name], None, None, true) => return Ok(Verb::UpdateDisk((*name).to_owned())),
        (_, None, None, false) => {}
        _ => return Err("--bundle, --from and --disk go with `update install`, one of them, without a version".into()),
    }
    match words.as_slice() {
        ["status"] => Ok(Verb::UpdateStatus),
        ["check"] => Ok(Verb::UpdateCheck),
        ["rollback"] => Ok(Verb::UpdateRollback),
        ["plan"] => Ok(Verb::UpdatePlan(None)),
        ["plan", version] => Ok(Verb::UpdatePlan(Some(parse_version(version)?))),
        ["bundles"] => Ok(Verb::UpdateBundles),
        ["pause"] => Ok(Verb::UpdatePause),
        ["resume"] => Ok(Verb::UpdateResume),
        ["install"] => Ok(Verb::UpdateInstall(None)),
        ["install", version] => Ok(Verb::UpdateInstall(Some(parse_version(version)?))),
        [] if options.help => Ok(Verb::Help(Some("update".into()))),
        _ => Err("update wants one of: status, check, plan [VERSION], install [VERSION | --bundle FILE | --from URL | --disk [NAME]], bundles, rollback, pause, resume".into()),
    }
}

fn parse_version(text: &str) -> Result<Version, lexopt::Error> {
    text.parse().map_err(|error| format!("{error}").into())
}

fn parse_reboot(parser: &mut lexopt::Parser, options: &mut Options) -> Result<Verb, lexopt::Error> {
    let mut kexec = None;
    while let Some(argument) = parser.next()? {
        match argument {
            Long("kexec") if kexec.is_none() => kexec = Some(true),
            Long("firmware") if kexec.is_none() => kexec = Some(false),
            argument if options.take(&argument)? => options.value(parser)?,
            argument => return Err(argument.unexpected()),
        }
    }
    Ok(Verb::Reboot { kexec })
}

fn parse_ps(parser: &mut lexopt::Parser, options: &mut Options) -> Result<Verb, lexopt::Error> {
    let mut all = false;
    while let Some(argument) = parser.next()? {
        match argument {
            Short('a') | Long("all") => all = true,
            argument if options.take(&argument)? => options.value(parser)?,
            argument => return Err(argument.unexpected()),
        }
    }
    Ok(Verb::Ps { all })
}

fn parse_run(parser: &mut lexopt::Parser, options: &mut Options) -> Result<Verb, lexopt::Error> {
    let mut run = Run::default();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('d') | Long("detach") => run.detach = true,
            Long("rm") => run.remove = true,
            Short('p') | Long("publish") => run.ports.push(parse_port(&parser.value()?.string()?)?),
            Long("name") => run.name = Some(parser.value()?.string()?),
            Long("restart") => run.restart = Some(parse_restart(&parser.value()?.string()?)?),
            Short('e') | Long("env") => run.env.push(parser.value()?.string()?),
            Value(image) => {
                run.image = image.string()?;
                // All that follows the image is the container's.
                for word in parser.raw_args()? {
                    run.command.push(word.string()?);
                }
            }
            argument if options.take(&argument)? => options.value(parser)?,
            argument => return Err(argument.unexpected()),
        }
    }
    if run.image.is_empty() && !options.help {
        return Err("run wants the name of an image".into());
    }
    Ok(Verb::Run(run))
}

/// `[ADDRESS:]HOSTPORT:CONTAINERPORT[/PROTOCOL]`, or the container's port alone.
fn parse_port(text: &str) -> Result<Port, lexopt::Error> {
    let refuse = || format!("-p {text:?}: want [ADDRESS:][HOSTPORT:]PORT[/tcp|udp]");
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let (host, container) = ports.rsplit_once(':').unwrap_or(("", ports));
    let (host_ip, host_port) = host.rsplit_once(':').unwrap_or(("", host));
    let is_port = |text: &str| text.parse::<u16>().is_ok_and(|port| port != 0);
    let valid = matches!(protocol, "tcp" | "udp") && is_port(container) && (host_port.is_empty() || is_port(host_port));
    let host_ip = host_ip.trim_start_matches('[').trim_end_matches(']');
    if !valid || !(host_ip.is_empty() || host_ip.parse::<std::net::IpAddr>().is_ok()) {
        return Err(refuse().into());
    }
    Ok(Port { host_ip: host_ip.into(), host_port: host_port.into(), container: format!("{container}/{protocol}") })
}

fn parse_restart(text: &str) -> Result<(String, i64), lexopt::Error> {
    let (policy, retries) = text.split_once(':').unwrap_or((text, "0"));
    match (policy, retries.parse()) {
        ("no" | "always" | "unless-stopped", Ok(0)) => Ok((policy.into(), 0)),
        ("on-failure", Ok(retries @ 0..)) => Ok((policy.into(), retries)),
        _ => Err(format!("--restart {text:?}: want no, always, unless-stopped or on-failure[:RETRIES]").into()),
    }
}

/// Which help belongs to a verb.
fn help_topic(verb: &Verb) -> Option<String> {
    let topic = match verb {
        Verb::Status => "status",
        Verb::Services => "services",
        Verb::Logs { .. } => "logs",
        Verb::Boots(_) => "boots",
        Verb::UpdateStatus | Verb::UpdateCheck | Verb::UpdateInstall(_) | Verb::UpdateRollback => "update",
        Verb::UpdatePlan(_) | Verb::UpdateBundle(_) | Verb::UpdateFrom(_) | Verb::UpdateDisk(_) => "update",
        Verb::UpdatePause | Verb::UpdateResume | Verb::UpdateBundles => "update",
        Verb::Reboot { .. } => "reboot",
        Verb::Poweroff => "poweroff",
        Verb::Ps { .. } => "ps",
        Verb::Run(_) => "run",
        Verb::Console => "console",
        Verb::Version => "version",
        Verb::Help(topic) => return topic.clone(),
    };
    Some(topic.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_line(line: &str) -> Result<Invocation, String> {
        parse(line.split_whitespace().map(OsString::from)).map_err(|error| error.to_string())
    }

    fn verb(line: &str) -> Verb {
        parse_line(line).unwrap().verb
    }

    #[test]
    fn every_verb_is_read() {
        assert_eq!(verb("status"), Verb::Status);
        assert_eq!(verb("logs -f runtime"), Verb::Logs { service: "runtime".into(), follow: true });
        assert_eq!(verb("boots last"), Verb::Boots(Some(WhichBoot::Last)));
        assert_eq!(verb("boots 7"), Verb::Boots(Some(WhichBoot::Number(7))));
        assert_eq!(verb("update install 1.2.3"), Verb::UpdateInstall(Some("1.2.3".parse().unwrap())));
        assert_eq!(verb("update install"), Verb::UpdateInstall(None));
        assert_eq!(verb("update plan 1.2.3"), Verb::UpdatePlan(Some("1.2.3".parse().unwrap())));
        assert_eq!(verb("update install --bundle a/b"), Verb::UpdateBundle("a/b".into()));
        assert_eq!(verb("update install --from http://h/f"), Verb::UpdateFrom("http://h/f".into()));
        assert_eq!(verb("update install --disk"), Verb::UpdateDisk(String::new()));
        for line in ["update install --disk sdb1", "update install sdb1 --disk"] {
            assert_eq!(verb(line), Verb::UpdateDisk("sdb1".into()), "{line}");
        }
        assert_eq!(verb("update bundles"), Verb::UpdateBundles);
        assert_eq!((verb("update pause"), verb("update resume")), (Verb::UpdatePause, Verb::UpdateResume));
        assert_eq!(verb("ps -a"), Verb::Ps { all: true });
        assert_eq!(verb("reboot"), Verb::Reboot { kexec: None });
        assert_eq!(verb("reboot --kexec"), Verb::Reboot { kexec: Some(true) });
        assert_eq!(verb("reboot --firmware"), Verb::Reboot { kexec: Some(false) });
        assert_eq!(verb(""), Verb::Help(None));
        assert_eq!(verb("--version"), Verb::Version);
    }

    #[test]
    fn options_go_before_or_after_the_verb() {
        for line in ["--json --host tcp://h status", "status --json --host tcp://h"] {
            let invocation = parse_line(line).unwrap();
            assert_eq!((invocation.json, invocation.host.as_deref()), (true, Some("tcp://h")));
        }
    }

    #[test]
    fn what_follows_the_image_is_the_containers() {
        let Verb::Run(run) = verb("run -d -p 8080:80 --name web -e A=b --restart on-failure:3 nginx -g x --json")
        else {
            panic!()
        };
        assert!(run.detach);
        assert_eq!(run.image, "nginx");
        assert_eq!(run.command, ["-g", "x", "--json"]);
        assert_eq!(run.restart, Some(("on-failure".into(), 3)));
        let port = Port { host_ip: String::new(), host_port: "8080".into(), container: "80/tcp".into() };
        assert_eq!(run.ports, [port]);
    }

    #[test]
    fn ports_are_checked() {
        assert_eq!(parse_port("127.0.0.1:53:53/udp").unwrap().container, "53/udp");
        assert_eq!(parse_port("[::1]:1:2").unwrap().host_ip, "::1");
        assert_eq!(parse_port("80").unwrap().host_port, "");
        for text in ["", "0", "a:80", "80:0", "80:70000", "80/sctp", "x:80:80"] {
            assert!(parse_port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn help_is_given_for_the_verb_it_was_asked_of() {
        for line in ["run --help", "update --help", "logs -h", "help run", "update check --help"] {
            assert!(matches!(verb(line), Verb::Help(Some(_))), "{line}");
        }
        assert_eq!(verb("--help"), Verb::Help(None));
    }

    #[test]
    fn wrong_lines_are_refused() {
        for line in [
            "frobnicate",
            "status x",
            "logs",
            "update",
            "update install x",
            "boots x",
            "update check --bundle x",
            "update install --disk x --from y",
            "update bundles --disk",
            "run",
            "run --restart maybe i",
            "reboot --kexec --firmware",
        ] {
            assert!(parse_line(line).is_err(), "{line}");
        }
    }
}
