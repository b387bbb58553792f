//! `pause`, `resume`, `update`.

use std::io::Read;
use std::path::Path;

use super::Result;
use super::args::Args;
use super::bundle;
use super::record::{self, Status};
use super::report::{Doing, Failure};
use crate::cgroup;
use crate::spec::{BlockIo, Resources};

/// Longest file of resources.
const MAX_BYTES: u64 = 1 << 20;

/// `pause` and `resume`.
pub(super) fn freeze(args: &Args, frozen: bool) -> Result<u8> {
    args.at_most(1)?;
    let container = record::open(args, true)?;
    let id = &container.record.id;
    let status = container.status()?;
    let (verb, wanted): (_, &[Status]) =
        if frozen { ("pause", &[Status::Running, Status::Created]) } else { ("resume", &[Status::Paused]) };
    // A created one may be frozen, too; its status doesn't show that.
    let thawed = !frozen && container.record.cgroup.as_ref().is_some_and(|c| cgroup::is_frozen(c));
    if !(wanted.contains(&status) || thawed && status == Status::Created) {
        let why = if frozen { format!("not running or created: {}", status.word()) } else { "not paused".into() };
        return Err(Failure::new(format!("cannot {verb} container {id}: container {why}")));
    }
    let cgroup = container.record.cgroup.as_ref();
    let cgroup = cgroup.ok_or_else(|| Failure::new(format!("cannot {verb} container {id}: it has no cgroup")))?;
    cgroup::freeze(cgroup, frozen)?;
    Ok(0)
}

/// `update`: limits from a file (`-`: standard input), changed by options.
pub(super) fn update(args: &Args) -> Result<u8> {
    args.at_most(1)?;
    let container = record::open(args, true)?;
    let id = &container.record.id;
    if container.status()? == Status::Stopped {
        return Err(Failure::new(format!("cannot update container {id}: it isn't running")));
    }
    let mut resources = match args.path("resources") {
        Some(path) if path.as_os_str() == "-" => read(&mut std::io::stdin(), "standard input")?,
        Some(path) => {
            let mut file = std::fs::File::open(&path).doing(|| format!("open {}", path.display()))?;
            read(&mut file, &path.display().to_string())?
        }
        None => Resources::default(),
    };
    change(args, &mut resources)?;
    let cgroup = container.record.cgroup.as_ref();
    let cgroup = cgroup.ok_or_else(|| Failure::new(format!("cannot update container {id}: it has no cgroup")))?;
    complete(cgroup, &mut resources);
    cgroup::update(cgroup, &resources).doing(|| format!("update container {id}"))?;
    Ok(0)
}

/// Limits that go together, in one file or as a sum, keep the half that isn't changed.
fn complete(cgroup: &Path, r: &mut Resources) {
    let current = |name: &str| std::fs::read_to_string(cgroup.join(name)).unwrap_or_default();
    if let Some(cpu) = &mut r.cpu
        && cpu.quota.is_some() != cpu.period.is_some()
    {
        let text = current("cpu.max");
        let mut words = text.split_ascii_whitespace();
        let (quota, period) = (words.next(), words.next());
        cpu.quota = cpu.quota.or_else(|| quota?.parse().ok());
        cpu.period = cpu.period.or_else(|| period?.parse().ok());
    }
    if let Some(memory) = &mut r.memory
        && memory.swap.is_some_and(|swap| swap > 0)
        && memory.limit.is_none()
    {
        memory.limit = current("memory.max").trim().parse().ok();
    }
}

fn read(from: &mut dyn Read, name: &str) -> Result<Resources> {
    let mut bytes = Vec::new();
    from.take(MAX_BYTES).read_to_end(&mut bytes).doing(|| format!("read {name}"))?;
    bundle::parse(&bytes, name)
}

fn change(args: &Args, r: &mut Resources) -> Result<()> {
    let memory = [("memory", 0), ("memory-reservation", 1), ("memory-swap", 2)];
    for (name, which) in memory {
        if let Some(bytes) = args.text(name)?.map(|t| bytes(name, t)).transpose()? {
            let memory = r.memory.get_or_insert_default();
            *[&mut memory.limit, &mut memory.reservation, &mut memory.swap][which] = Some(bytes);
        }
    }
    let shares = args.number("cpu-share")?.or(args.number("cpu-shares")?);
    let (period, burst) = (args.number("cpu-period")?, args.number("cpu-burst")?);
    let (quota, idle) = (args.number("cpu-quota")?, args.number("cpu-idle")?);
    let (cpus, mems) = (args.text("cpuset-cpus")?, args.text("cpuset-mems")?);
    let (rt_period, rt_runtime) = (args.number("cpu-rt-period")?, args.number("cpu-rt-runtime")?);
    let any = shares.is_some() || period.is_some() || burst.is_some() || quota.is_some() || idle.is_some();
    if any || cpus.is_some() || mems.is_some() || rt_period.is_some() || rt_runtime.is_some() {
        let cpu = r.cpu.get_or_insert_default();
        cpu.shares = shares.or(cpu.shares);
        cpu.period = period.or(cpu.period);
        cpu.burst = burst.or(cpu.burst);
        cpu.quota = quota.or(cpu.quota);
        cpu.idle = idle.or(cpu.idle);
        cpu.cpus = cpus.map(str::to_owned).or(cpu.cpus.take());
        cpu.mems = mems.map(str::to_owned).or(cpu.mems.take());
        cpu.realtime_period = rt_period.or(cpu.realtime_period);
        cpu.realtime_runtime = rt_runtime.or(cpu.realtime_runtime);
    }
    if let Some(limit) = args.number("pids-limit")? {
        r.pids.get_or_insert_default().limit = limit;
    }
    if let Some(weight) = args.number("blkio-weight")? {
        r.block_io = Some(BlockIo { weight: Some(weight), ..r.block_io.take().unwrap_or_default() });
    }
    Ok(())
}

/// A number of bytes, with `k`, `m`, `g` or `t` behind it or not; -1: no limit.
fn bytes(name: &str, text: &str) -> Result<i64> {
    let lower = text.trim().to_ascii_lowercase();
    let plain = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, shift) = match plain.as_bytes().last() {
        Some(b'k') => (&plain[..plain.len() - 1], 10),
        Some(b'm') => (&plain[..plain.len() - 1], 20),
        Some(b'g') => (&plain[..plain.len() - 1], 30),
        Some(b't') => (&plain[..plain.len() - 1], 40),
        _ => (plain, 0),
    };
    let number = digits.parse::<i64>().ok().and_then(|n| n.checked_mul(1 << shift));
    number.ok_or_else(|| Failure::new(format!("--{name}: {text:?} isn't a number of bytes")))
}

#[cfg(test)]
mod tests {
    use super::{Resources, complete};

    #[test]
    fn what_is_not_changed_of_a_pair_stays() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("cpu.max"), "500000 900000\n").unwrap();
        std::fs::write(dir.path().join("memory.max"), "1000\n").unwrap();
        let mut r = Resources::default();
        r.cpu.get_or_insert_default().quota = Some(-1);
        r.memory.get_or_insert_default().swap = Some(3000);
        complete(dir.path(), &mut r);
        assert_eq!(r.cpu.unwrap().period, Some(900_000));
        assert_eq!(r.memory.unwrap().limit, Some(1000));
    }

    #[test]
    fn sizes_have_the_usual_units() {
        for (text, expected) in [("-1", -1), ("64m", 64 << 20), ("1GiB", 1 << 30), ("7", 7), ("2Kb", 2048)] {
            assert_eq!(super::bytes("memory", text).unwrap(), expected);
        }
        assert!(super::bytes("memory", "x").is_err() && super::bytes("memory", "9999999999t").is_err());
    }
}
