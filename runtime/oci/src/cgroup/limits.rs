//! What is written into a cgroup's files for the limits that a configuration asks for. Its words are mostly version 1's.

use crate::Error;
use crate::plan::refused;
use crate::spec::{BlockIo, Cpu, HugepageLimit, Memory, Resources};

/// `cpu.shares` that everybody has: engines write them down where nothing else is asked for.
pub(crate) const USUAL_SHARES: u64 = 1024;

/// One write to a file of the cgroup.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub file: String,
    pub value: String,
    pub absent: Absent,
}

/// What happens where the kernel has no such file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Absent {
    /// The limit can't be kept.
    Fails,
    /// What is asked for is what there is without it.
    Passed,
    /// Another file says the same.
    Instead { file: &'static str, value: String },
}

impl Limit {
    /// No limit, and everybody's share, is what there is where the kernel lacks the controller.
    fn new(file: impl Into<String>, value: impl ToString) -> Self {
        let (file, value) = (file.into(), value.to_string());
        let usual = file == "cpu.weight" && value == cpu_weight(USUAL_SHARES).to_string();
        let absent = if usual || value == "max" { Absent::Passed } else { Absent::Fails };
        Self { file, value, absent }
    }
}

/// The writes for these limits, in their order.
pub(super) fn plan(r: &Resources) -> Result<Vec<Limit>, Error> {
    let mut out: Vec<Limit> = Vec::new();
    if let Some(m) = &r.memory {
        memory(m, &mut out)?;
    }
    if let Some(c) = &r.cpu {
        cpu(c, &mut out)?;
    }
    if let Some(p) = r.pids.as_ref().filter(|p| p.limit != 0) {
        out.push(Limit::new("pids.max", number(p.limit)));
    }
    if let Some(b) = &r.block_io {
        block_io(b, &mut out)?;
    }
    if r.network.as_ref().is_some_and(|n| n != &Default::default()) {
        return Err(refused("linux.resources.network", "cgroup v2 has no network classes".into()));
    }
    huge_pages(&r.hugepage_limits, &mut out)?;
    for (device, limit) in &r.rdma {
        let number = |n: Option<u32>| n.map_or("max".into(), |n| n.to_string());
        let (handles, objects) = (number(limit.hca_handles), number(limit.hca_objects));
        out.push(Limit::new("rdma.max", format!("{device} hca_handle={handles} hca_object={objects}")));
    }
    for (name, value) in &r.unified {
        if name.is_empty() || name.contains(['/', '\0']) || name.starts_with("cgroup.") || !name.contains('.') {
            return Err(refused("linux.resources.unified", format!("{name:?} isn't a limit")));
        }
        out.push(Limit::new(name, value));
    }
    Ok(out)
}

/// Whether an update that asks for the check leaves room for the `used` bytes.
pub(super) fn check_use(memory: &Memory, used: u64) -> Result<(), Error> {
    for (name, wanted) in [("limit", memory.limit), ("swap", memory.swap)] {
        if let Some(wanted) = wanted.filter(|w| *w > 0 && w.unsigned_abs() <= used) {
            let reason = format!("{wanted} is too little: {used} bytes are in use, and checkBeforeUpdate is set");
            return Err(refused(&format!("linux.resources.memory.{name}"), reason));
        }
    }
    Ok(())
}

/// A number of bytes or processes; less than 0: no limit.
fn number(n: i64) -> String {
    if n < 0 { "max".into() } else { n.to_string() }
}

fn memory(m: &Memory, out: &mut Vec<Limit>) -> Result<(), Error> {
    if m.disable_oom_killer == Some(true) {
        let reason = "cgroup v2 can't keep the kernel from killing where memory runs out: leave it out".into();
        return Err(refused("linux.resources.memory.disableOOMKiller", reason));
    }
    if m.swappiness.is_some() {
        let reason = "cgroup v2 has none: leave it out; `swap` equal to `limit` keeps a container from swapping".into();
        return Err(refused("linux.resources.memory.swappiness", reason));
    }
    let limit = m.limit.filter(|l| *l != 0);
    out.extend(limit.map(|limit| Limit::new("memory.max", number(limit))));
    out.extend(m.reservation.filter(|l| *l != 0).map(|low| Limit::new("memory.low", number(low))));
    match (m.swap, limit) {
        (None | Some(0), Some(limit)) if limit < 0 => out.push(Limit::new("memory.swap.max", "max")),
        (None | Some(0), _) => {}
        (Some(-1), _) => out.push(Limit::new("memory.swap.max", "max")),
        (Some(both), Some(limit)) if limit > 0 && both >= limit => {
            out.push(Limit::new("memory.swap.max", both - limit));
        }
        _ => {
            let reason = "is memory and swap together: it can't be less than the limit, or without one";
            return Err(refused("linux.resources.memory.swap", reason.into()));
        }
    }
    Ok(())
}

fn cpu(c: &Cpu, out: &mut Vec<Limit>) -> Result<(), Error> {
    if c.realtime_runtime.is_some_and(|n| n != 0) || c.realtime_period.is_some_and(|n| n != 0) {
        return Err(refused("linux.resources.cpu", "cgroup v2 has no real-time limits".into()));
    }
    if let Some(shares) = c.shares.filter(|s| *s != 0) {
        out.push(Limit::new("cpu.weight", cpu_weight(shares)));
    }
    if c.quota.is_some_and(|q| q != 0) || c.period.is_some_and(|p| p != 0) {
        let period = c.period.filter(|p| *p != 0).unwrap_or(100_000);
        let quota = c.quota.filter(|q| *q > 0).map_or("max".into(), |q| q.to_string());
        out.push(Limit::new("cpu.max", format!("{quota} {period}")));
    }
    for (name, value) in [("cpuset.cpus", &c.cpus), ("cpuset.mems", &c.mems)] {
        out.extend(value.as_ref().filter(|v| !v.is_empty()).map(|value| Limit::new(name, value)));
    }
    out.extend(c.burst.map(|n| Limit::new("cpu.max.burst", n)));
    out.extend(c.idle.map(|n| Limit::new("cpu.idle", n)));
    Ok(())
}

/// From v1's 2…262144 to v2's 1…10000, linearly, as other runtimes do.
fn cpu_weight(shares: u64) -> u64 {
    1 + (shares.clamp(2, 262_144) - 2) * 9999 / 262_142
}

/// Weights are the BFQ scheduler's own where it is there, otherwise the I/O cost model's.
fn block_io(b: &BlockIo, out: &mut Vec<Limit>) -> Result<(), Error> {
    let mut weigh = |device: &str, weight: Option<u16>| {
        let Some(weight) = weight.filter(|w| *w != 0) else { return Ok(()) };
        if !(10..=1000).contains(&weight) {
            return Err(refused("linux.resources.blockIO", format!("weight {weight} is none of 10 to 1000")));
        }
        // 10 to 1000 becomes 1 to 10000.
        let value = format!("{device}{}", 1 + (u32::from(weight) - 10) * 9999 / 990);
        let absent = Absent::Instead { file: "io.weight", value };
        out.push(Limit { file: "io.bfq.weight".into(), value: format!("{device}{weight}"), absent });
        Ok(())
    };
    weigh("", b.weight)?;
    for d in &b.weight_device {
        weigh(&format!("{}:{} ", d.major, d.minor), d.weight)?;
    }
    let lists = [
        ("rbps", &b.throttle_read_bps_device),
        ("wbps", &b.throttle_write_bps_device),
        ("riops", &b.throttle_read_iops_device),
        ("wiops", &b.throttle_write_iops_device),
    ];
    for (key, list) in lists {
        for d in list {
            let rate = if d.rate == 0 { "max".to_owned() } else { d.rate.to_string() };
            out.push(Limit::new("io.max", format!("{}:{} {key}={rate}", d.major, d.minor)));
        }
    }
    Ok(())
}

/// Of pages in use, and of reserved ones where the kernel counts them (since Linux 5.7): a program that maps more than
/// it may have then sees an error, not SIGBUS.
fn huge_pages(limits: &[HugepageLimit], out: &mut Vec<Limit>) -> Result<(), Error> {
    for HugepageLimit { page_size, limit } in limits {
        if page_size.is_empty() || !page_size.bytes().all(|b| b.is_ascii_alphanumeric()) {
            return Err(refused("linux.resources.hugepageLimits", format!("{page_size:?} is no size")));
        }
        out.push(Limit::new(format!("hugetlb.{page_size}.max"), limit));
        let reserved = Limit::new(format!("hugetlb.{page_size}.rsvd.max"), limit);
        out.push(Limit { absent: Absent::Passed, ..reserved });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::{Pids, WeightDevice};

    #[test]
    fn limits_become_files_of_version_2() {
        let resources = Resources {
            memory: Some(Memory { limit: Some(64 << 20), swap: Some(64 << 20), ..Memory::default() }),
            cpu: Some(Cpu { shares: Some(1024), quota: Some(50_000), ..Cpu::default() }),
            pids: Some(Pids { limit: -1 }),
            unified: [("memory.high".into(), "1M".into())].into(),
            ..Resources::default()
        };
        let expected = [
            ("memory.max", "67108864"),
            ("memory.swap.max", "0"),
            ("cpu.weight", "39"),
            ("cpu.max", "50000 100000"),
            ("pids.max", "max"),
            ("memory.high", "1M"),
        ];
        let planned: Vec<_> = plan(&resources).unwrap().into_iter().map(|l| (l.file, l.value)).collect();
        assert_eq!(planned, expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    }

    #[test]
    fn a_name_that_leads_elsewhere_is_no_limit() {
        for name in ["../memory.max", "cgroup.procs", "x"] {
            let resources = Resources { unified: [(name.into(), "1".into())].into(), ..Resources::default() };
            assert!(plan(&resources).is_err(), "{name}");
        }
    }

    fn memory_of(memory: Memory) -> Result<Vec<Limit>, Error> {
        plan(&Resources { memory: Some(memory), ..Resources::default() })
    }

    #[test]
    fn swap_without_a_memory_limit_is_refused() {
        assert!(memory_of(Memory { swap: Some(1 << 20), ..Memory::default() }).is_err());
    }

    #[test]
    fn what_only_version_1_can_keep_is_refused_by_name() {
        let refused = |memory| memory_of(memory).unwrap_err().to_string();
        let said = refused(Memory { disable_oom_killer: Some(true), ..Memory::default() });
        assert!(said.contains("disableOOMKiller"), "{said}");
        let said = refused(Memory { swappiness: Some(0), ..Memory::default() });
        assert!(said.contains("swappiness"), "{said}");
        let allowed = Memory { disable_oom_killer: Some(false), use_hierarchy: Some(true), ..Memory::default() };
        assert_eq!(memory_of(allowed).unwrap(), []);
    }

    #[test]
    fn an_impossible_weight_is_refused_and_none_is_none() {
        let of = |weight| {
            let list = vec![WeightDevice { major: 8, minor: 0, weight }];
            let block_io = Some(BlockIo { weight_device: list, leaf_weight: Some(10), ..BlockIo::default() });
            plan(&Resources { block_io, ..Resources::default() })
        };
        assert!(of(Some(9)).is_err() && of(Some(1001)).is_err());
        assert_eq!((of(None).unwrap(), of(Some(0)).unwrap()), (vec![], vec![]));
    }
}
