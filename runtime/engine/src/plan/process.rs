//! Words, environment, capabilities and limits of the process.

use bollard_stubs::models::ContainerCreateBody;
use keel_oci::spec::{Capabilities, Process, Rlimit};

use super::bad;
use super::security::Security;
use super::users::Found;
use crate::error::Error;

/// Most words and variables together (the kernel's own limit is on bytes).
const MAX_WORDS: usize = 65_536;

/// The process of a container with this host name, run as `found`.
pub fn process(
    body: &ContainerCreateBody,
    hostname: &str,
    found: &Found,
    security: &Security,
) -> Result<Process, Error> {
    let args: Vec<String> = body.entrypoint.iter().chain(&body.cmd).flatten().cloned().collect();
    if args.first().is_none_or(String::is_empty) {
        return bad("no command specified");
    }
    let mut env = body.env.clone().unwrap_or_default();
    let has = |env: &[String], name: &str| env.iter().any(|variable| variable.starts_with(name));
    if !has(&env, "HOSTNAME=") {
        env.insert(1.min(env.len()), format!("HOSTNAME={hostname}"));
    }
    if !has(&env, "HOME=") {
        env.push(format!("HOME={}", found.home));
    }
    if body.tty == Some(true) && !has(&env, "TERM=") {
        env.push("TERM=xterm".into());
    }
    if args.len() + env.len() > MAX_WORDS {
        return bad(format!("more than {MAX_WORDS} words and variables"));
    }
    if args.iter().chain(&env).any(|word| word.contains('\0')) {
        return bad("a word of the command or a variable has a NUL byte");
    }
    let cwd = body.working_dir.as_deref().filter(|path| !path.is_empty()).unwrap_or("/");
    if !cwd.starts_with('/') {
        return bad(format!("the working directory '{cwd}' is invalid, it needs to be an absolute path"));
    }
    let host = body.host_config.as_ref();
    let oom_score_adj = host.and_then(|host| host.oom_score_adj).filter(|adj| *adj != 0).map(i32::try_from);
    Ok(Process {
        terminal: body.tty == Some(true),
        user: found.user.clone(),
        args,
        env,
        cwd: cwd.into(),
        capabilities: Some(capabilities(&security.capabilities, found.user.uid)),
        rlimits: rlimits(body)?,
        no_new_privileges: security.no_new_privileges,
        apparmor_profile: security.apparmor.clone(),
        oom_score_adj: match oom_score_adj {
            None => None,
            Some(Ok(adj)) if (-1000..=1000).contains(&adj) => Some(adj),
            Some(_) => {
                let asked = host.and_then(|host| host.oom_score_adj).unwrap_or(0);
                return bad(format!("Invalid value {asked}, range for oom score adj is [-1000, 1000]"));
            }
        },
        ..Process::default()
    })
}

/// As Docker: in the bounding set for everybody, and held by root alone.
fn capabilities(names: &[String], uid: u32) -> Capabilities {
    let held = if uid == 0 { names.to_vec() } else { Vec::new() };
    Capabilities { bounding: names.to_vec(), effective: held.clone(), permitted: held, ..Default::default() }
}

fn rlimits(body: &ContainerCreateBody) -> Result<Vec<Rlimit>, Error> {
    const KNOWN: [&str; 16] = [
        "AS",
        "CORE",
        "CPU",
        "DATA",
        "FSIZE",
        "LOCKS",
        "MEMLOCK",
        "MSGQUEUE",
        "NICE",
        "NOFILE",
        "NPROC",
        "RSS",
        "RTPRIO",
        "RTTIME",
        "SIGPENDING",
        "STACK",
    ];
    let mut limits = Vec::new();
    for limit in body.host_config.iter().filter_map(|host| host.ulimits.as_ref()).flatten() {
        let name = limit.name.as_deref().unwrap_or_default().to_ascii_uppercase();
        if !KNOWN.contains(&name.as_str()) {
            return bad(format!("invalid ulimit type: {name:.40}"));
        }
        // -1 is "no limit".
        let value = |value: Option<i64>| value.map_or(0, |value| u64::try_from(value).unwrap_or(u64::MAX));
        let (soft, hard) = (value(limit.soft), value(limit.hard));
        if soft > hard {
            return bad(format!("ulimit soft limit must be less than or equal to hard limit: {soft} > {hard}"));
        }
        limits.push(Rlimit { kind: format!("RLIMIT_{name}"), hard, soft });
    }
    Ok(limits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{security, users};

    fn of(json: &str) -> Result<Process, Error> {
        let body = serde_json::from_str(json).unwrap();
        let found = users::find("", &[], b"", b"").unwrap();
        process(&body, "box", &found, &security::security(&body).unwrap())
    }

    #[test]
    fn host_name_and_home_are_in_the_environment() {
        let process = of(r#"{"Cmd":["sh"],"Env":["PATH=/bin"]}"#).unwrap();
        assert_eq!(process.env, ["PATH=/bin", "HOSTNAME=box", "HOME=/"]);
        assert_eq!(process.cwd, "/");
    }

    #[test]
    fn what_cannot_run_is_refused() {
        assert!(of("{}").unwrap_err().to_string().contains("no command specified"));
        assert!(of(r#"{"Cmd":["sh"],"WorkingDir":"x"}"#).is_err());
        assert!(of(r#"{"Cmd":["a\u0000b"]}"#).is_err());
        assert!(of(r#"{"Cmd":["sh"],"HostConfig":{"Ulimits":[{"Name":"nofile","Soft":2,"Hard":1}]}}"#).is_err());
    }
}
