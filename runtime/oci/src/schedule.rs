//! How a process is scheduled, and the priority of its input and output. Set from the outside: a user namespace gives
//! no right to it.

use crate::Error;
use crate::error::Step;
use crate::plan::refused;
use crate::spec::{IoPriority, Process, Scheduler};
use crate::sys;

/// Names and numbers of policies (sched(7)).
const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];
/// Flags of sched_setattr(2).
const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x1),
    ("SCHED_FLAG_RECLAIM", 0x2),
    ("SCHED_FLAG_DL_OVERRUN", 0x4),
    ("SCHED_FLAG_KEEP_POLICY", 0x8),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];
/// Classes of ioprio_set(2).
const CLASSES: [(&str, i32); 3] = [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// Checks and applies both, if they are asked for.
pub(crate) fn apply(pid: u32, process: &Process) -> Result<(), Error> {
    if let Some(scheduler) = &process.scheduler {
        let attr = scheduling(scheduler)?;
        sys::sched_setattr(pid, &attr).host(|| format!("set scheduler {}", scheduler.policy))?;
    }
    if let Some(priority) = &process.io_priority {
        let value = io_priority(priority)?;
        sys::ioprio_set(pid, value).host(|| format!("set I/O priority {} {}", priority.class, priority.priority))?;
    }
    Ok(())
}

/// Checks what [`apply`] will need.
pub(crate) fn check(process: &Process) -> Result<(), Error> {
    process.scheduler.as_ref().map(scheduling).transpose()?;
    process.io_priority.as_ref().map(io_priority).transpose()?;
    Ok(())
}

fn scheduling(s: &Scheduler) -> Result<sys::SchedAttr, Error> {
    let policy = POLICIES.iter().find(|(name, _)| *name == s.policy).map(|(_, number)| *number);
    let policy = policy.ok_or_else(|| refused("process.scheduler.policy", format!("{:?} is no policy", s.policy)))?;
    let flag = |flags: u64, name: &String| {
        let found = FLAGS.iter().find(|(known, _)| known == name).map(|(_, bit)| flags | bit);
        found.ok_or_else(|| refused("process.scheduler.flags", format!("{name:?} is no flag")))
    };
    if s.priority != 0 && !matches!(policy, 1 | 2) {
        return Err(refused("process.scheduler.priority", "is for SCHED_FIFO and SCHED_RR".into()));
    }
    Ok(sys::SchedAttr {
        size: size_of::<sys::SchedAttr>() as u32,
        policy,
        flags: s.flags.iter().try_fold(0, flag)?,
        nice: s.nice,
        priority: u32::try_from(s.priority).map_err(|_| refused("process.scheduler.priority", "is negative".into()))?,
        runtime: s.runtime,
        deadline: s.deadline,
        period: s.period,
    })
}

fn io_priority(p: &IoPriority) -> Result<i32, Error> {
    let class = CLASSES.iter().find(|(name, _)| *name == p.class).map(|(_, number)| *number);
    let class = class.ok_or_else(|| refused("process.ioPriority.class", format!("{:?} is no class", p.class)))?;
    if !(0..8).contains(&p.priority) {
        return Err(refused("process.ioPriority.priority", format!("{} isn't between 0 and 7", p.priority)));
    }
    Ok(class << 13 | p.priority)
}
