//! Limits on single block devices. What they are asked for by path is looked up at the start, when their numbers are
//! known.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use bollard_stubs::models::{HostConfig, ThrottleDevice as Asked};
use keel_oci::spec::{BlockIo, ThrottleDevice, WeightDevice};

use super::bad;
use crate::error::Error;

/// Most devices of one kind of limit.
const MAX_DEVICES: usize = 64;

/// Checks what can be checked without the devices.
pub fn check(host: &HostConfig) -> Result<(), Error> {
    if let Some(weight) = host.blkio_weight.filter(|weight| *weight != 0)
        && !(10..=1000).contains(&weight)
    {
        return bad("Range of blkio weight is from 10 to 1000");
    }
    for list in throttles(host) {
        if list.len() > MAX_DEVICES {
            return bad(format!("more than {MAX_DEVICES} limits on block devices"));
        }
        for asked in list {
            path(asked.path.as_deref())?;
            rate(asked)?;
        }
    }
    for asked in host.blkio_weight_device.iter().flatten() {
        path(asked.path.as_deref())?;
        weight(asked.weight)?;
    }
    Ok(())
}

fn throttles(host: &HostConfig) -> [&[Asked]; 4] {
    [
        &host.blkio_device_read_bps,
        &host.blkio_device_write_bps,
        &host.blkio_device_read_iops,
        &host.blkio_device_write_iops,
    ]
    .map(|list| list.as_deref().unwrap_or_default())
}

/// Adds limits on the devices, as they are on the host now, to `limits`. `None`: there are none.
pub fn find(host: &HostConfig, limits: Option<BlockIo>) -> Result<Option<BlockIo>, Error> {
    let weights = host.blkio_weight_device.as_deref().unwrap_or_default();
    let [read_bps, write_bps, read_iops, write_iops] = throttles(host);
    if weights.is_empty() && throttles(host).iter().all(|list| list.is_empty()) {
        return Ok(limits);
    }
    let throttle = |list: &[Asked]| -> Result<Vec<ThrottleDevice>, Error> {
        let one = |asked: &Asked| {
            let (major, minor) = numbers(path(asked.path.as_deref())?)?;
            Ok(ThrottleDevice { major, minor, rate: rate(asked)? })
        };
        list.iter().map(one).collect()
    };
    let mut limits = limits.unwrap_or_default();
    for asked in weights {
        let (major, minor) = numbers(path(asked.path.as_deref())?)?;
        let weight = Some(weight(asked.weight)?);
        limits.weight_device.push(WeightDevice { major, minor, weight });
    }
    limits.throttle_read_bps_device = throttle(read_bps)?;
    limits.throttle_write_bps_device = throttle(write_bps)?;
    limits.throttle_read_iops_device = throttle(read_iops)?;
    limits.throttle_write_iops_device = throttle(write_iops)?;
    Ok(Some(limits))
}

fn path(asked: Option<&str>) -> Result<&str, Error> {
    match asked.unwrap_or_default() {
        path if path.starts_with("/dev/") && !path.contains("/../") => Ok(path),
        other => bad(format!("bad format for device path: {other:.80}")),
    }
}

fn rate(asked: &Asked) -> Result<u64, Error> {
    let path = asked.path.as_deref().unwrap_or_default();
    match asked.rate.map(u64::try_from) {
        Some(Ok(rate)) if rate > 0 => Ok(rate),
        _ => bad(format!("invalid rate for device {path:.80}: it must be a positive number")),
    }
}

fn weight(asked: Option<usize>) -> Result<u16, Error> {
    match asked.map(u16::try_from) {
        Some(Ok(weight @ 10..=1000)) => Ok(weight),
        _ => bad(format!("invalid weight for device: {}: it must be between 10 and 1000", asked.unwrap_or(0))),
    }
}

/// Major and minor number of a block device.
fn numbers(path: &str) -> Result<(i64, i64), Error> {
    match std::fs::metadata(path) {
        Ok(found) if found.file_type().is_block_device() => {
            let device = found.rdev();
            Ok((rustix::fs::major(device).into(), rustix::fs::minor(device).into()))
        }
        Ok(_) => bad(format!("{path} is no block device")),
        Err(error) => bad(format!("block device {path}: {}", error.to_string().to_lowercase())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> HostConfig {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn wrong_rates_weights_and_paths_are_refused_before_the_start() {
        for json in [
            r#"{"BlkioWeight":5}"#,
            r#"{"BlkioDeviceReadBps":[{"Path":"/etc/passwd","Rate":1}]}"#,
            r#"{"BlkioDeviceReadBps":[{"Path":"/dev/vda","Rate":0}]}"#,
            r#"{"BlkioDeviceWriteIOps":[{"Path":"/dev/vda"}]}"#,
            r#"{"BlkioWeightDevice":[{"Path":"/dev/vda","Weight":1001}]}"#,
        ] {
            assert!(check(&of(json)).is_err(), "{json}");
        }
        check(&of(r#"{"BlkioWeight":500,"BlkioDeviceReadBps":[{"Path":"/dev/vda","Rate":1048576}]}"#)).unwrap();
    }

    #[test]
    fn nothing_asked_for_looks_nothing_up_and_what_is_no_block_device_is_told() {
        assert_eq!(find(&of("{}"), None).unwrap(), None);
        let host = of(r#"{"BlkioDeviceReadBps":[{"Path":"/dev/null","Rate":1}]}"#);
        assert!(find(&host, None).unwrap_err().to_string().contains("no block device"));
        let host = of(r#"{"BlkioDeviceReadBps":[{"Path":"/dev/none-such","Rate":1}]}"#);
        assert!(find(&host, None).unwrap_err().to_string().contains("/dev/none-such"));
    }
}
