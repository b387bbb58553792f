//! Mounts and device nodes of a container as data: who makes each, from what, with which attributes.

use serde::{Deserialize, Serialize};

use crate::Error;
use crate::labels::{self, Way};
use crate::options::{self, Change, Data, Options, Propagation, attr};
use crate::plan::{clean, refused};
use crate::spec::{Device, IdMapping, Mount, NamespaceKind, Spec};

/// What the child mounts and makes.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Mounts {
    /// In this order.
    pub list: Vec<PlannedMount>,
    /// Device nodes that aren't in a `/dev` of the parent's making.
    pub devices: Vec<Device>,
    /// Whether `/dev` gets its links.
    pub links: bool,
    /// Read-only at the very end, because something is made inside before.
    pub sealed: Vec<String>,
}

/// One mount of the child's.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct PlannedMount {
    pub destination: String,
    pub what: What,
    pub propagation: Vec<Propagation>,
    /// Whether what the mount covers is copied into it.
    pub copy_up: bool,
}

/// What is mounted.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum What {
    /// A new file system, of a namespace of the container or of a device.
    FileSystem {
        kind: String,
        source: Option<String>,
        options: Data,
        attributes: u64,
        /// SELinux label that its root gets.
        label: Option<String>,
    },
    /// A mount that the parent made: its place among the descriptors, and whether it is a file.
    Passed { index: usize, file: bool },
    /// What is there already, with other attributes, and its file system with other options.
    Remount { change: Change, below: Change, options: Data },
}

/// A mount that the parent makes, for [`What::Passed`].
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum HostMount {
    /// A part of the host's tree.
    Bind(Bind),
    /// `/dev`, with device nodes.
    Dev { options: Data, attributes: u64 },
}

/// A part of the host's tree.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Bind {
    pub source: String,
    pub recursive: bool,
    pub change: Change,
    pub below: Change,
    pub idmap: Option<Idmap>,
    pub propagation: Vec<Propagation>,
}

/// A user mapping of a mount.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Idmap {
    pub recursive: bool,
    /// Users and groups; empty: the container's.
    pub uids: Vec<IdMapping>,
    pub gids: Vec<IdMapping>,
}

/// Sorts a configuration's mounts and devices. `label`: what new file systems are labelled with; `confined`: the parent
/// itself is in a user namespace.
pub(crate) fn mounts(
    spec: &Spec,
    label: Option<&str>,
    confined: bool,
    host: &mut Vec<HostMount>,
) -> Result<Mounts, Error> {
    let mut out = Mounts::default();
    for mount in &spec.mounts {
        out.list.push(one(spec, mount, label, confined, host, &mut out.sealed)?);
    }
    let at_dev = |m: &&PlannedMount| m.destination == "/dev";
    let made = host.iter().any(|h| matches!(h, HostMount::Dev { .. }));
    // Over a part of the host's tree, nothing is made.
    let bound = !made && out.list.iter().filter(at_dev).any(|m| matches!(m.what, What::Passed { .. }));
    if bound {
        return Ok(out);
    }
    let inside = |d: &&Device| made && under_dev(d).is_some();
    let others: Vec<Device> = spec.linux.devices.iter().filter(|d| !inside(d)).cloned().collect();
    let usual = if made { Vec::new() } else { crate::host::usual_devices() };
    let mut devices = others;
    devices.extend(usual.into_iter().filter(|d| !spec.linux.devices.iter().any(|other| other.path == d.path)));
    out.links = !made;
    for device in devices {
        let destination = clean("linux.devices", &device.path)?;
        if !spec.uses_user_namespace() && !confined {
            out.devices.push(Device { path: destination, ..device });
            continue;
        }
        // In a user namespace no device can be made: the host's own is mounted in its place.
        host.push(HostMount::Bind(Bind { source: device.path.clone(), ..Bind::default() }));
        let what = What::Passed { index: host.len(), file: true };
        out.list.push(PlannedMount { destination, what, propagation: Vec::new(), copy_up: false });
    }
    Ok(out)
}

/// The name of a device below `/dev`.
pub(crate) fn under_dev(device: &Device) -> Option<&str> {
    let name = device.path.strip_prefix("/dev/").filter(|n| !n.is_empty() && !n.contains('\0'))?;
    name.split('/').all(|c| !matches!(c, "" | "." | "..")).then_some(name)
}

fn one(
    spec: &Spec,
    m: &Mount,
    label: Option<&str>,
    confined: bool,
    host: &mut Vec<HostMount>,
    sealed: &mut Vec<String>,
) -> Result<PlannedMount, Error> {
    let field = |reason: String| refused(&format!("mounts: {:?}", m.destination), reason);
    let destination = clean("mounts", &m.destination)?;
    let o = options::options(&m.options);
    let kind = m.kind.as_deref().filter(|k| !k.is_empty()).unwrap_or(if o.bind { "bind" } else { "none" });
    let own = |ns| spec.has_new(ns) || !(spec.uses_user_namespace() || confined);
    // One that is joined together with a user namespace is that one's: what is mounted over it shows its own processes,
    // where the host's proc would show the host's.
    let is_joined = |kind| spec.linux.namespaces.iter().any(|n| n.kind == kind && n.path.is_some());
    let joined = |kind| is_joined(kind) && is_joined(NamespaceKind::User);
    let mut passed = |mount: HostMount| {
        host.push(mount);
        // Descriptor 0 is the root; whether it is a file is known when it is open.
        What::Passed { index: host.len(), file: false }
    };
    let hosts = |source: &str, read_only: bool| {
        let mut change = o.change;
        change.set |= if read_only { attr::RDONLY } else { 0 };
        HostMount::Bind(Bind { source: source.into(), recursive: true, change, below: change, ..Bind::default() })
    };
    let mut propagation = o.propagation.clone();
    let copy_up = o.copy_up && kind == "tmpfs";
    let is_bind = o.bind || kind == "bind";
    if let Some(option) = o.not_for_a_bind().filter(|_| is_bind) {
        let reason =
            format!("{option:?} is a file system's option, and a bind mount has none of its own: leave it out");
        return Err(field(reason));
    }
    let what = match kind {
        _ if o.remount => {
            let options = if is_bind { Data::new() } else { o.data };
            What::Remount { change: o.change, below: o.recursive_change, options }
        }
        _ if is_bind => {
            propagation.clear();
            passed(HostMount::Bind(bind(m, o).map_err(field)?))
        }
        // With a user namespace, the kernel lets these be mounted only over namespaces that belong to it.
        "sysfs" if !own(NamespaceKind::Network) => passed(hosts("/sys", true)),
        "proc" if !own(NamespaceKind::Pid) && !joined(NamespaceKind::Pid) => passed(hosts("/proc", false)),
        "mqueue" if !own(NamespaceKind::Ipc) && !joined(NamespaceKind::Ipc) => passed(hosts("/dev/mqueue", false)),
        "cgroup" | "cgroup2" if !own(NamespaceKind::Cgroup) => passed(hosts("/sys/fs/cgroup", false)),
        "tmpfs" if destination == "/dev" => {
            if o.change.set & attr::RDONLY != 0 {
                sealed.push(destination.clone());
            }
            let (options, label) = labelled(label, kind, o.data);
            let attributes = o.change.set & !(attr::NODEV | attr::RDONLY);
            match confined {
                // The nodes are bound there, one by one.
                true => What::FileSystem { kind: kind.into(), source: m.source.clone(), options, attributes, label },
                false => passed(HostMount::Dev { options, attributes }),
            }
        }
        "cgroup" | "cgroup2" => {
            let (kind, attributes) = ("cgroup2".into(), o.change.set);
            What::FileSystem { kind, source: None, options: vec![], attributes, label: None }
        }
        "none" => return Err(field("has neither a type nor bind among its options".into())),
        _ => {
            let (options, label) = labelled(label, kind, o.data);
            let (kind, attributes) = (kind.into(), o.change.set);
            What::FileSystem { kind, source: m.source.clone(), options, attributes, label }
        }
    };
    Ok(PlannedMount { destination, what, propagation, copy_up })
}

fn bind(m: &Mount, o: Options) -> Result<Bind, String> {
    let source = m.source.as_deref().filter(|s| s.starts_with('/') && !s.contains('\0'));
    let source = source.ok_or_else(|| "the source of a bind mount must be an absolute path".to_owned())?;
    if m.uid_mappings.is_empty() != m.gid_mappings.is_empty() {
        return Err("uidMappings and gidMappings are for each other".into());
    }
    // Mappings without the word are meant so: older engines leave it out.
    let idmap = (o.idmap || !m.uid_mappings.is_empty()).then(|| Idmap {
        recursive: o.recursive_idmap,
        uids: m.uid_mappings.clone(),
        gids: m.gid_mappings.clone(),
    });
    Ok(Bind {
        source: source.into(),
        recursive: o.recursive,
        change: o.change,
        below: o.recursive_change,
        idmap,
        propagation: o.propagation,
    })
}

/// The options with the label among them, or the label that the root gets later. A mount's own goes before the container's.
fn labelled(label: Option<&str>, kind: &str, mut data: Data) -> (Data, Option<String>) {
    let Some(label) = label else { return (data, None) };
    match labels::way(kind) {
        Way::Option if !data.iter().any(|(key, _)| labels::MOUNT_OPTIONS.contains(&key.as_str())) => {
            data.push(("context".into(), Some(label.into())));
            (data, None)
        }
        Way::Attribute => (data, Some(label.into())),
        Way::Option | Way::Policy => (data, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn planned(kind: &str, options: &[&str]) -> Result<PlannedMount, Error> {
        let mount = Mount {
            destination: "/work".into(),
            kind: Some(kind.into()),
            source: Some("/tmp".into()),
            options: options.iter().map(|word| (*word).to_owned()).collect(),
            ..Mount::default()
        };
        one(&Spec::default(), &mount, None, false, &mut Vec::new(), &mut Vec::new())
    }

    #[test]
    fn a_bind_has_no_options_of_a_file_system() {
        for options in [["bind", "size=64k"], ["rbind", "z"], ["bind", "mode"]] {
            let error = planned("bind", &options).unwrap_err().to_string();
            assert!(error.contains(options[1].split('=').next().unwrap()) && error.contains("/work"), "{error}");
        }
        planned("none", &["remount", "bind", "size=64k"]).unwrap_err();
        planned("bind", &["sync", "dirsync", "mand", "lazytime", "async", "nomand", "nolazytime", "nofail"]).unwrap();
    }

    #[test]
    fn a_remount_hands_options_on_unless_it_is_the_binds() {
        let options = |words: &[&str]| match planned("tmpfs", words).unwrap().what {
            What::Remount { options, .. } => options,
            other => panic!("{other:?}"),
        };
        let size = ("size".to_owned(), Some("64k".to_owned()));
        assert_eq!(options(&["remount", "size=64k", "async"]), [size, ("async".to_owned(), None)]);
        assert_eq!(options(&["remount", "bind", "sync"]), []);
    }

    #[test]
    fn a_file_system_is_labelled_the_way_that_the_kernel_takes() {
        let label = "u:r:t:s0:c1,c2";
        let context = || vec![("context".to_owned(), Some(label.to_owned()))];
        for kind in ["tmpfs", "devpts"] {
            assert_eq!(labelled(Some(label), kind, vec![]), (context(), None), "{kind}");
        }
        for kind in ["proc", "sysfs", "cgroup2"] {
            assert_eq!(labelled(Some(label), kind, vec![]), (vec![], None), "{kind}");
        }
        assert_eq!(labelled(Some(label), "mqueue", vec![]), (vec![], Some(label.to_owned())));
        assert_eq!(labelled(None, "tmpfs", vec![]), (vec![], None));
    }

    #[test]
    fn a_mounts_own_label_goes_before_the_containers() {
        for key in labels::MOUNT_OPTIONS {
            let own = vec![(key.to_owned(), Some("u:r:own:s0".to_owned()))];
            assert_eq!(labelled(Some("u:r:t:s0"), "tmpfs", own.clone()), (own, None));
        }
    }
}
