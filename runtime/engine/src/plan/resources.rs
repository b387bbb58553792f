//! cgroup limits.

use bollard_stubs::models::HostConfig;
use keel_oci::spec::{BlockIo, Cpu, DeviceRule, Memory, Pids, Resources};

use super::{bad, devices};
use crate::error::Error;

/// Least memory of a container, bytes, as Docker's daemon asks for.
const MIN_MEMORY_BYTES: i64 = 6 * 1024 * 1024;

/// The limits asked for.
pub fn resources(host: &HostConfig) -> Result<Resources, Error> {
    let privileged = host.privileged == Some(true);
    let all = DeviceRule { allow: true, access: Some("rwm".into()), ..Default::default() };
    Ok(Resources {
        devices: if privileged { vec![all] } else { devices::rules(host)? },
        memory: memory(host)?,
        cpu: cpu(host)?,
        pids: host.pids_limit.filter(|limit| *limit > 0).map(|limit| Pids { limit }),
        block_io: host
            .blkio_weight
            .filter(|weight| *weight > 0)
            .map(|weight| BlockIo { weight: Some(weight), ..BlockIo::default() }),
        ..Default::default()
    })
}

fn memory(host: &HostConfig) -> Result<Option<Memory>, Error> {
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let (limit, reservation) = (given(host.memory), given(host.memory_reservation));
    let mut swap = given(host.memory_swap);
    if limit.is_some_and(|limit| limit < MIN_MEMORY_BYTES) {
        return bad("Minimum memory limit allowed is 6MB");
    }
    if let (Some(limit), Some(total)) = (limit, swap)
        && total > 0
        && total < limit
    {
        return bad("Minimum memoryswap limit should be larger than memory limit, see usage");
    }
    if limit.is_none() && swap.is_some_and(|swap| swap > 0) {
        return bad("You should always set the Memory limit when using Memoryswap limit, see usage");
    }
    if let (Some(limit), Some(reservation)) = (limit, reservation)
        && reservation > limit
    {
        return bad("Minimum memory limit can not be less than memory reservation limit, see usage");
    }
    // As with Docker: as much swap again as memory.
    if swap.is_none() {
        swap = limit.map(|limit| limit.saturating_mul(2));
    }
    Ok((limit.is_some() || reservation.is_some()).then_some(Memory { limit, reservation, swap, ..Memory::default() }))
}

fn cpu(host: &HostConfig) -> Result<Option<Cpu>, Error> {
    /// Microseconds.
    const PERIOD: i64 = 100_000;
    let given = |value: Option<i64>| value.filter(|value| *value != 0);
    let text = |value: &Option<String>| value.clone().filter(|value| !value.is_empty());
    let mut cpu = Cpu { cpus: text(&host.cpuset_cpus), mems: text(&host.cpuset_mems), ..Default::default() };
    for (list, what) in [(&cpu.cpus, "cpus"), (&cpu.mems, "mems")] {
        let Some(list) = list else { continue };
        if !list.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-')) {
            return bad(format!("Invalid value {list} for cpuset {what}"));
        }
    }
    if let Some(shares) = given(host.cpu_shares) {
        cpu.shares = Some(u64::try_from(shares).or_else(|_| bad("CpuShares cannot be negative"))?);
    }
    let (nano, quota, period) = (given(host.nano_cpus), given(host.cpu_quota), given(host.cpu_period));
    if nano.is_some() && (quota.is_some() || period.is_some()) {
        return bad("Conflicting options: Nano CPUs and CPU Quota or Period cannot both be set");
    }
    if let Some(nano) = nano {
        if nano < 10_000_000 {
            return bad("Range of CPUs is from 0.01 up");
        }
        (cpu.period, cpu.quota) = (Some(PERIOD.unsigned_abs()), Some(nano / (1_000_000_000 / PERIOD)));
    }
    if let Some(period) = period {
        if !(1_000..=1_000_000).contains(&period) {
            return bad("CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)");
        }
        cpu.period = Some(period.unsigned_abs());
    }
    if let Some(quota) = quota {
        if quota > 0 && quota < 1_000 {
            return bad("CPU cfs quota can not be less than 1ms (i.e. 1000)");
        }
        cpu.quota = Some(quota);
    }
    Ok((cpu != Cpu::default()).then_some(cpu))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_asked_for_limits_nothing() {
        let host = HostConfig { memory: Some(0), pids_limit: Some(0), ..Default::default() };
        assert_eq!(resources(&host).unwrap(), Resources::default());
    }

    #[test]
    fn half_a_processor_is_half_a_period() {
        let host = HostConfig { nano_cpus: Some(500_000_000), ..Default::default() };
        let cpu = resources(&host).unwrap().cpu.unwrap();
        assert_eq!((cpu.quota, cpu.period), (Some(50_000), Some(100_000)));
    }

    #[test]
    fn contradictions_are_refused() {
        let asked = |host: HostConfig| resources(&host).is_err();
        assert!(asked(HostConfig { memory: Some(4096), ..Default::default() }));
        assert!(asked(HostConfig { memory_swap: Some(1 << 30), ..Default::default() }));
        assert!(asked(HostConfig { nano_cpus: Some(1 << 30), cpu_quota: Some(1000), ..Default::default() }));
        assert!(asked(HostConfig { cpuset_cpus: Some("0;reboot".into()), ..Default::default() }));
    }
}
