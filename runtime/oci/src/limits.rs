//! Resource limits (setrlimit(2)). Only the host may raise hard limits, so the parent does that beforehand; the child
//! sets what is asked for at the very end, so that limits don't get in the way of its own work.

use rustix::process::{Pid, Resource, Rlimit};

use crate::Error;
use crate::error::Step;
use crate::init::Failure;
use crate::plan::refused;
use crate::spec;

fn value(limit: &spec::Rlimit) -> Rlimit {
    let number = |n: u64| (n != u64::MAX).then_some(n);
    Rlimit { current: number(limit.soft), maximum: number(limit.hard) }
}

/// Checks names and order.
pub(crate) fn check(limits: &[spec::Rlimit]) -> Result<(), Error> {
    for (at, limit) in limits.iter().enumerate() {
        let problem = match () {
            () if resource(&limit.kind).is_none() => "is no limit",
            () if limits[..at].iter().any(|l| l.kind == limit.kind) => "is there twice",
            () if limit.soft > limit.hard => "has a soft limit above the hard one",
            () => continue,
        };
        return Err(refused("process.rlimits", format!("{:?} {problem}", limit.kind)));
    }
    Ok(())
}

/// From the outside: makes room for hard limits above this process's own.
pub(crate) fn raise(pid: u32, limits: &[spec::Rlimit]) -> Result<(), Error> {
    for limit in limits {
        let Some(resource) = resource(&limit.kind) else { continue };
        let (own, wanted) = (rustix::process::getrlimit(resource), value(limit));
        if own.maximum.is_some_and(|own| wanted.maximum.is_none_or(|wanted| wanted > own)) {
            let room = Rlimit { current: own.current, maximum: wanted.maximum };
            rustix::process::prlimit(Pid::from_raw(pid as i32), resource, room)
                .host(|| format!("raise {}", limit.kind))?;
        }
    }
    Ok(())
}

/// From the inside.
pub(crate) fn set(limits: &[spec::Rlimit]) -> Result<(), Failure> {
    for limit in limits {
        let Some(resource) = resource(&limit.kind) else { continue };
        rustix::process::setrlimit(resource, value(limit)).map_err(Failure::at(format!("set {}", limit.kind)))?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name {
        "RLIMIT_CPU" => Resource::Cpu,
        "RLIMIT_FSIZE" => Resource::Fsize,
        "RLIMIT_DATA" => Resource::Data,
        "RLIMIT_STACK" => Resource::Stack,
        "RLIMIT_CORE" => Resource::Core,
        "RLIMIT_RSS" => Resource::Rss,
        "RLIMIT_NPROC" => Resource::Nproc,
        "RLIMIT_NOFILE" => Resource::Nofile,
        "RLIMIT_MEMLOCK" => Resource::Memlock,
        "RLIMIT_AS" => Resource::As,
        "RLIMIT_LOCKS" => Resource::Locks,
        "RLIMIT_SIGPENDING" => Resource::Sigpending,
        "RLIMIT_MSGQUEUE" => Resource::Msgqueue,
        "RLIMIT_NICE" => Resource::Nice,
        "RLIMIT_RTPRIO" => Resource::Rtprio,
        "RLIMIT_RTTIME" => Resource::Rttime,
        _ => return None,
    })
}
