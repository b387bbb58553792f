//! What is asked for of a volume, validated, and what is kept of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Error;

/// Label of a volume that was made for one container without a name.
pub const ANONYMOUS: &str = "com.docker.volume.anonymous";
/// Longest name: it is a folder's.
const MAX_NAME_BYTES: usize = 255;
/// Most labels and options, each.
const MAX_ENTRIES: usize = 256;

/// A volume asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// Its name.
    pub name: String,
    /// Its driver; empty: `local`, the only one.
    pub driver: String,
    /// Options of the driver: `type`, `device`, `o`, as mount(8) has them.
    pub options: BTreeMap<String, String>,
    /// Kept for clients.
    pub labels: BTreeMap<String, String>,
}

/// A volume. Fields are only ever added, each with a default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Its name, which is its folder's.
    #[serde(skip)]
    pub name: String,
    /// When it was created, milliseconds since the Unix epoch.
    pub created_unix_ms: u64,
    /// See [`Spec::options`].
    pub options: BTreeMap<String, String>,
    /// See [`Spec::labels`].
    pub labels: BTreeMap<String, String>,
}

/// What a volume's options come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Its own folder.
    Folder,
    /// A folder of the host.
    Bind(String),
    /// Memory, with mount options.
    Memory(Vec<(String, Option<String>)>),
}

impl Volume {
    /// Whether it was made without a name.
    pub fn is_anonymous(&self) -> bool {
        self.labels.contains_key(ANONYMOUS)
    }

    pub(crate) fn kind(&self) -> Result<Kind, Error> {
        kind(&self.options)
    }
}

/// Checks what was asked for.
pub(crate) fn check(spec: &Spec) -> Result<(), Error> {
    check_name(&spec.name)?;
    if !matches!(spec.driver.as_str(), "" | "local") {
        return Err(Error::NoDriver { name: spec.name.clone(), driver: spec.driver.clone() });
    }
    if spec.options.len() > MAX_ENTRIES || spec.labels.len() > MAX_ENTRIES {
        return Err(Error::Invalid(format!("volume {}: more than {MAX_ENTRIES} options or labels", spec.name)));
    }
    kind(&spec.options).map(drop).map_err(|error| match error {
        Error::Invalid(reason) => Error::Invalid(format!("create {}: {reason}", spec.name)),
        other => other,
    })
}

/// Letters, digits, `_`, `.` and `-`, of which the first two begin it: nothing that leads elsewhere as a path.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let mut bytes = name.bytes();
    let first = bytes.next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    let rest = bytes.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-'));
    if first && rest && (2..=MAX_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    if name.len() == 1 {
        let reason = "volume name is too short, names should be at least two alphanumeric characters";
        return Err(Error::Invalid(format!("create {name}: {reason}")));
    }
    Err(Error::Invalid(format!(
        "create {name:.80}: \"{name:.80}\" includes invalid characters for a local volume name, only \
         \"[a-zA-Z0-9][a-zA-Z0-9_.-]\" are allowed. If you intended to pass a host directory, use absolute path"
    )))
}

fn kind(options: &BTreeMap<String, String>) -> Result<Kind, Error> {
    let invalid = |reason: String| Err(Error::Invalid(reason));
    if let Some(unknown) = options.keys().find(|key| !matches!(key.as_str(), "type" | "device" | "o")) {
        return invalid(format!("invalid option: \"{unknown:.60}\": the local driver has type, device and o"));
    }
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let words: Vec<&str> = option("o").split(',').filter(|word| !word.is_empty()).collect();
    let device = option("device");
    match option("type") {
        _ if words.contains(&"bind") || words.contains(&"rbind") => {
            let plain = device.starts_with('/') && !device.contains('\0') && !device.split('/').any(|p| p == "..");
            if let Some(word) = words.iter().find(|word| !matches!(**word, "bind" | "rbind" | "rw")) {
                return invalid(format!("option o={word:.60} of a volume that is bound isn't supported"));
            }
            if plain { Ok(Kind::Bind(device.into())) } else { invalid(format!("invalid device {device:.60}")) }
        }
        "" | "none" if device.is_empty() && words.is_empty() => Ok(Kind::Folder),
        "tmpfs" => {
            let split = |word: &&str| match word.split_once('=') {
                Some((key, value)) => ((*key).to_owned(), Some(value.to_owned())),
                None => ((*word).to_owned(), None),
            };
            let known = ["size", "mode", "uid", "gid", "nr_inodes", "nr_blocks"];
            let list: Vec<_> = words.iter().map(split).collect();
            match list.iter().find(|(key, value)| !known.contains(&key.as_str()) || value.is_none()) {
                Some((key, _)) => invalid(format!("option o={key:.60} of a tmpfs volume isn't supported")),
                None => Ok(Kind::Memory(list)),
            }
        }
        "" => invalid("missing required option: \"type\"".into()),
        other => invalid(format!(
            "volumes of type {other:.40} aren't supported: nothing on the host mounts file systems of others (nfs, cifs); \
             use tmpfs, or bind a folder (o=bind)"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Kind, Error> {
        kind(&pairs.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect())
    }

    #[test]
    fn options_are_as_mounts() {
        assert_eq!(of(&[]).unwrap(), Kind::Folder);
        assert_eq!(of(&[("type", "none"), ("o", "bind"), ("device", "/srv")]).unwrap(), Kind::Bind("/srv".into()));
        let memory = of(&[("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m,uid=5")]).unwrap();
        let words = vec![("size".into(), Some("1m".into())), ("uid".into(), Some("5".into()))];
        assert_eq!(memory, Kind::Memory(words));
    }

    #[test]
    fn what_is_not_served_is_refused() {
        for pairs in [
            &[("type", "nfs"), ("o", "addr=1.2.3.4"), ("device", ":/x")][..],
            &[("type", "none"), ("o", "bind"), ("device", "../x")],
            &[("device", "/x")],
            &[("size", "5")],
            &[("type", "tmpfs"), ("o", "exec")],
        ] {
            assert!(matches!(of(pairs), Err(Error::Invalid(_))), "{pairs:?}");
        }
        for name in ["", "a", "../x", "a/b", ".x", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
