//! mount(8)'s words, sorted: what is the mount's, what is the file system's, and what is ours to do.

use std::io;

use crate::labels::MOUNT_OPTIONS;

/// `MOUNT_ATTR_…` (mount_setattr(2)).
pub(crate) mod attr {
    pub(crate) const RDONLY: u64 = 0x1;
    pub(crate) const NOSUID: u64 = 0x2;
    pub(crate) const NODEV: u64 = 0x4;
    pub(crate) const NOEXEC: u64 = 0x8;
    pub(crate) const ATIME: u64 = 0x70;
    pub(crate) const NOATIME: u64 = 0x10;
    pub(crate) const STRICTATIME: u64 = 0x20;
    pub(crate) const NODIRATIME: u64 = 0x80;
    pub(crate) const IDMAP: u64 = 0x10_0000;
    pub(crate) const NOSYMFOLLOW: u64 = 0x20_0000;
}

/// Words that set or clear an attribute; each has a recursive twin with `r` before it.
const ATTRIBUTES: [(&str, u64, u64); 17] = [
    ("ro", attr::RDONLY, 0),
    ("rw", 0, attr::RDONLY),
    ("nosuid", attr::NOSUID, 0),
    ("suid", 0, attr::NOSUID),
    ("nodev", attr::NODEV, 0),
    ("dev", 0, attr::NODEV),
    ("noexec", attr::NOEXEC, 0),
    ("exec", 0, attr::NOEXEC),
    ("noatime", attr::NOATIME, attr::ATIME),
    ("atime", 0, attr::ATIME),
    ("strictatime", attr::STRICTATIME, attr::ATIME),
    ("nostrictatime", 0, attr::ATIME),
    ("relatime", 0, attr::ATIME),
    ("norelatime", attr::STRICTATIME, attr::ATIME),
    ("nodiratime", attr::NODIRATIME, 0),
    ("diratime", 0, attr::NODIRATIME),
    ("nosymfollow", attr::NOSYMFOLLOW, 0),
];
/// Not in the table above because there would be no twin of that name.
const SYMFOLLOW: (&str, u64, u64) = ("symfollow", 0, attr::NOSYMFOLLOW);
/// Propagation, each with a recursive twin.
const PROPAGATION: [(&str, u64); 4] = [
    ("private", libc::MS_PRIVATE),
    ("slave", libc::MS_SLAVE),
    ("shared", libc::MS_SHARED),
    ("unbindable", libc::MS_UNBINDABLE),
];
/// Flags of the file system that the kernel's `fsconfig` knows by these words, with those that undo them.
const FLAGS: [&str; 7] = ["sync", "async", "dirsync", "mand", "nomand", "lazytime", "nolazytime"];
/// Words that mean what is anyway.
const DEFAULTS: [&str; 7] = ["defaults", "nofail", "silent", "loud", "noiversion", "newinstance", ""];

/// Attributes to set and to clear.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Change {
    pub set: u64,
    pub clear: u64,
}

impl Change {
    fn add(&mut self, set: u64, clear: u64) {
        self.set = (self.set & !clear) | set;
        self.clear = (self.clear | clear) & !set;
    }

    /// Whether there is nothing to change.
    pub(crate) fn is_none(self) -> bool {
        self == Self::default()
    }

    /// As mount_setattr(2) wants it: a new way of keeping access times clears all others.
    pub(crate) fn arguments(self) -> (u64, u64) {
        let times = if (self.set | self.clear) & attr::ATIME != 0 { attr::ATIME } else { 0 };
        (self.set, (self.clear & !self.set & !attr::ATIME) | times)
    }
}

/// Propagation of a mount.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Propagation {
    /// `MS_PRIVATE`, `MS_SLAVE` ….
    pub kind: u64,
    pub recursive: bool,
}

/// mount(8)'s words, sorted.
#[derive(Debug, Default)]
pub(crate) struct Options {
    pub bind: bool,
    pub recursive: bool,
    pub remount: bool,
    /// Of the mount itself.
    pub change: Change,
    /// Of all mounts below, too.
    pub recursive_change: Change,
    pub idmap: bool,
    pub recursive_idmap: bool,
    pub copy_up: bool,
    pub propagation: Vec<Propagation>,
    /// The file system's own.
    pub data: Data,
}

/// Options of a file system, with their values.
pub(crate) type Data = Vec<(String, Option<String>)>;

impl Options {
    /// The first option of a file system, which a bind mount hasn't: as the kernel would, it passes over the flags that any
    /// file system may have, and what is left nobody would apply.
    pub(crate) fn not_for_a_bind(&self) -> Option<&str> {
        self.data.iter().map(|(key, _)| key.as_str()).find(|key| !FLAGS.contains(key))
    }
}

/// Sorts words; what isn't known is the file system's.
pub(crate) fn options(words: &[String]) -> Options {
    let mut o = Options::default();
    for word in words {
        let word = word.as_str();
        if let Some((_, set, clear)) = ATTRIBUTES.iter().chain([&SYMFOLLOW]).find(|(n, ..)| *n == word) {
            o.change.add(*set, *clear);
            continue;
        }
        if let Some(propagation) = propagation(word) {
            o.propagation.push(propagation);
            continue;
        }
        let twin = word.strip_prefix('r').unwrap_or("");
        if let Some((_, set, clear)) = ATTRIBUTES.iter().chain([&SYMFOLLOW]).find(|(n, ..)| *n == twin) {
            o.recursive_change.add(*set, *clear);
            continue;
        }
        match word {
            "bind" => o.bind = true,
            "rbind" => (o.bind, o.recursive) = (true, true),
            "remount" => o.remount = true,
            "idmap" => o.idmap = true,
            "ridmap" => (o.idmap, o.recursive_idmap) = (true, true),
            "tmpcopyup" => o.copy_up = true,
            word if DEFAULTS.contains(&word) => {}
            other => {
                let (key, value) = other.split_once('=').map_or((other, None), |(k, v)| (k, Some(v)));
                o.data.push((key.into(), value.map(|value| unquoted(key, value).into())));
            }
        }
    }
    o
}

/// Engines put a SELinux label in quotes, because of its commas; where each option is handed over by itself, they would
/// be part of it.
fn unquoted<'a>(key: &str, value: &'a str) -> &'a str {
    let inner = value.strip_prefix('"').and_then(|rest| rest.strip_suffix('"'));
    inner.filter(|_| MOUNT_OPTIONS.contains(&key)).unwrap_or(value)
}

/// Such as `rslave`.
pub(crate) fn propagation(word: &str) -> Option<Propagation> {
    let find = |name: &str| PROPAGATION.iter().find(|(n, _)| *n == name).map(|(_, kind)| *kind);
    match find(word) {
        Some(kind) => Some(Propagation { kind, recursive: false }),
        None => find(word.strip_prefix('r')?).map(|kind| Propagation { kind, recursive: true }),
    }
}

/// The words that are understood, for `features`.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    for name in ATTRIBUTES.iter().chain([&SYMFOLLOW]).map(|(n, ..)| *n).chain(PROPAGATION.map(|(n, _)| n)) {
        names.extend([name.into(), format!("r{name}")]);
    }
    let others = ["bind", "rbind", "remount", "idmap", "ridmap", "tmpcopyup"];
    names.extend(others.iter().chain(&FLAGS).chain(&DEFAULTS).filter(|n| !n.is_empty()).map(|n| (*n).into()));
    names.sort();
    names.dedup();
    names
}

/// Applies attributes to a mount, and to those below.
pub(crate) fn apply(mount: std::os::fd::BorrowedFd<'_>, change: Change, below: Change) -> io::Result<()> {
    for (change, recursive) in [(below, true), (change, false)] {
        if !change.is_none() {
            let (set, clear) = change.arguments();
            crate::sys::mount_setattr(mount, recursive, set, clear, 0, None)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_the_mounts_the_file_systems_or_ours() {
        let words = ["ro", "rnosuid", "rbind", "size=64k", "rslave", "noatime", "exec", "rro", "tmpcopyup", "rw"];
        let o = options(&words.map(String::from));
        assert!(o.bind && o.recursive && o.copy_up && !o.remount);
        assert_eq!(o.change, Change { set: attr::NOATIME, clear: attr::NOEXEC | attr::RDONLY | 0x60 });
        assert_eq!(o.change.arguments(), (attr::NOATIME, attr::NOEXEC | attr::RDONLY | attr::ATIME));
        assert_eq!(o.recursive_change.set, attr::NOSUID | attr::RDONLY);
        assert_eq!(o.propagation, [Propagation { kind: libc::MS_SLAVE, recursive: true }]);
        assert_eq!(o.data, [("size".to_owned(), Some("64k".to_owned()))]);
    }

    #[test]
    fn a_label_is_taken_out_of_its_quotes() {
        let words = ["context=\"u:r:t:s0:c1,c2\"", "fscontext=u:r:t:s0", "other=\"x\""];
        let values: Vec<_> =
            options(&words.map(String::from)).data.into_iter().filter_map(|(_, value)| value).collect();
        assert_eq!(values, ["u:r:t:s0:c1,c2", "u:r:t:s0", "\"x\""]);
    }

    #[test]
    fn relatime_is_no_recursive_twin() {
        assert!(options(&["relatime".into()]).recursive_change.is_none());
        assert_eq!(options(&["rrelatime".into()]).recursive_change.clear, attr::ATIME);
    }
}
