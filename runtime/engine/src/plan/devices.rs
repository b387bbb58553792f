//! Devices of the host that a container is given: nodes in its `/dev`, and rules that let it use them.

use std::os::unix::fs::{FileTypeExt, MetadataExt};

use bollard_stubs::models::{DeviceMapping, HostConfig};
use keel_oci::spec::{Device, DeviceRule};

use super::bad;
use crate::error::Error;

/// Most devices of one container.
const MAX_DEVICES: usize = 256;

/// Checks what can be checked before the start, when the devices themselves are looked at.
pub fn check(host: &HostConfig) -> Result<(), Error> {
    let devices = host.devices.as_deref().unwrap_or_default();
    if devices.len() > MAX_DEVICES {
        return bad(format!("more than {MAX_DEVICES} devices"));
    }
    for device in devices {
        let inside = inside(device);
        if !inside.starts_with("/dev/") || inside.split('/').any(|part| part == "..") {
            return bad(format!("device {inside:?} isn't a path under /dev"));
        }
        access(device)?;
    }
    host.device_cgroup_rules.iter().flatten().try_for_each(|text| rule(text).map(drop))
}

/// The rules that were asked for by themselves.
pub fn rules(host: &HostConfig) -> Result<Vec<DeviceRule>, Error> {
    host.device_cgroup_rules.iter().flatten().map(|text| rule(text)).collect()
}

/// The devices, as they are on the host now, with the rules that let them be used.
pub fn find(host: &HostConfig) -> Result<Vec<(Device, DeviceRule)>, Error> {
    host.devices.iter().flatten().map(one).collect()
}

fn one(device: &DeviceMapping) -> Result<(Device, DeviceRule), Error> {
    let path = device.path_on_host.as_deref().unwrap_or_default();
    let gathering =
        |why: String| bad(format!("error gathering device information while adding custom device {path:?}: {why}"));
    let meta = match std::fs::metadata(path) {
        Ok(meta) => meta,
        Err(error) => return gathering(error.to_string().to_lowercase()),
    };
    let kind = match meta.file_type() {
        kind if kind.is_char_device() => "c",
        kind if kind.is_block_device() => "b",
        _ => return gathering("not a device node".into()),
    };
    let major = i64::from(rustix::fs::major(meta.rdev()));
    let minor = i64::from(rustix::fs::minor(meta.rdev()));
    let node = Device {
        path: inside(device).into(),
        kind: kind.into(),
        major,
        minor,
        file_mode: Some(meta.mode() & 0o777),
        ..Default::default()
    };
    let access = Some(access(device)?.to_owned());
    let rule = DeviceRule { allow: true, kind: Some(kind.into()), major: Some(major), minor: Some(minor), access };
    Ok((node, rule))
}

fn inside(device: &DeviceMapping) -> &str {
    let given = device.path_in_container.as_deref().filter(|path| !path.is_empty());
    given.or(device.path_on_host.as_deref()).unwrap_or_default()
}

fn access(device: &DeviceMapping) -> Result<&str, Error> {
    let text = device.cgroup_permissions.as_deref().filter(|text| !text.is_empty()).unwrap_or("rwm");
    match text.bytes().all(|byte| b"rwm".contains(&byte)) {
        true => Ok(text),
        false => bad(format!("invalid device mode: {text:.20}")),
    }
}

/// `c 1:3 rwm`, `a *:* r`
fn rule(text: &str) -> Result<DeviceRule, Error> {
    let parse = || {
        let mut words = text.split_ascii_whitespace();
        let kind = words.next().filter(|kind| matches!(*kind, "a" | "b" | "c"))?;
        let (major, minor) = words.next()?.split_once(':')?;
        let access = words.next().filter(|access| access.bytes().all(|byte| b"rwm".contains(&byte)))?;
        let number = |text: &str| match text {
            "*" => Some(None),
            text => text.parse::<u32>().ok().map(|number| Some(i64::from(number))),
        };
        let (major, minor) = (number(major)?, number(minor)?);
        let kind = Some(kind.to_owned());
        words.next().is_none().then_some(DeviceRule { allow: true, kind, major, minor, access: Some(access.into()) })
    };
    parse().map_or_else(|| bad(format!("invalid device cgroup rule format: '{text:.60}'")), Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_found_with_their_numbers() {
        let json = r#"{"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/dev/x","CgroupPermissions":"r"}]}"#;
        let host = serde_json::from_str(json).unwrap();
        check(&host).unwrap();
        let (node, rule) = find(&host).unwrap().remove(0);
        assert_eq!((node.path.as_str(), node.kind.as_str(), node.major, node.minor), ("/dev/x", "c", 1, 3));
        assert_eq!((rule.access.as_deref(), rule.major), (Some("r"), Some(1)));
    }

    #[test]
    fn what_is_no_device_is_refused() {
        let of = |json: &str| serde_json::from_str::<HostConfig>(json).unwrap();
        assert!(find(&of(r#"{"Devices":[{"PathOnHost":"/etc"}]}"#)).is_err());
        assert!(check(&of(r#"{"Devices":[{"PathOnHost":"/dev/null","PathInContainer":"/etc/x"}]}"#)).is_err());
        assert!(check(&of(r#"{"Devices":[{"PathOnHost":"/dev/null","CgroupPermissions":"x"}]}"#)).is_err());
        assert_eq!(rule("c *:3 rw").unwrap().minor, Some(3));
        for text in ["", "c 1:3", "x 1:3 r", "c 1 r", "c 1:3 rq", "c 1:3 r x"] {
            assert!(rule(text).is_err(), "{text}");
        }
    }
}
