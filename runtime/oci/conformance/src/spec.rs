//! `config.json` under construction: a default that every case changes as it needs.

use serde_json::{Map, Value, json};

/// A configuration.
#[derive(Clone, Debug)]
pub(crate) struct Spec(Value);

impl Spec {
    /// Everything that an ordinary container has.
    pub(crate) fn ordinary(cgroups_path: &str, marker: &str) -> Self {
        let capabilities = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
        Self(json!({
            "ociVersion": "1.0.2",
            "process": {
                "terminal": false,
                "user": { "uid": 0, "gid": 0 },
                "args": ["/bin/probe", "true"],
                "env": ["PATH=/bin", marker],
                "cwd": "/",
                "capabilities": { "bounding": capabilities, "effective": capabilities, "permitted": capabilities },
                "rlimits": [{ "type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024 }],
                "noNewPrivileges": true
            },
            "root": { "path": "rootfs", "readonly": false },
            "hostname": "conformance",
            "mounts": [
                mount("/proc", "proc", "proc", &[]),
                mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]),
                mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]),
                mount("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
                mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"])
            ],
            "linux": {
                "cgroupsPath": cgroups_path,
                "namespaces": [
                    { "type": "pid" }, { "type": "network" }, { "type": "ipc" }, { "type": "uts" }, { "type": "mount" }
                ],
                "maskedPaths": ["/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
            }
        }))
    }

    /// Sets what the pointer names, making objects on the way; `null` removes it.
    pub(crate) fn set(mut self, pointer: &str, value: Value) -> Self {
        let mut names: Vec<&str> = pointer.trim_start_matches('/').split('/').collect();
        let last = names.pop().unwrap_or_default();
        let mut at = &mut self.0;
        for name in names {
            at = at.as_object_mut().expect("an object").entry(name).or_insert_with(|| Value::Object(Map::new()));
        }
        let object = at.as_object_mut().expect("an object");
        if value.is_null() {
            object.remove(last);
        } else {
            object.insert(last.to_owned(), value);
        }
        self
    }

    /// Adds to the array that the pointer names.
    pub(crate) fn push(self, pointer: &str, value: Value) -> Self {
        let mut list = self.0.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.push(value);
        self.set(pointer, Value::Array(list))
    }

    /// Adds a mount.
    pub(crate) fn mount(self, destination: &str, kind: &str, source: &str, options: &[&str]) -> Self {
        self.push("/mounts", mount(destination, kind, source, options))
    }

    /// Takes the mount on this destination away.
    pub(crate) fn without_mount(self, destination: &str) -> Self {
        self.retain("/mounts", |mount| mount["destination"] != destination)
    }

    /// Takes a namespace away.
    pub(crate) fn without_namespace(self, kind: &str) -> Self {
        self.retain("/linux/namespaces", |namespace| namespace["type"] != kind)
    }

    /// Joins the namespace at this path.
    pub(crate) fn join_namespace(self, kind: &str, path: &str) -> Self {
        self.without_namespace(kind).push("/linux/namespaces", json!({ "type": kind, "path": path }))
    }

    /// Gives it a new namespace of this type.
    pub(crate) fn new_namespace(self, kind: &str) -> Self {
        self.without_namespace(kind).push("/linux/namespaces", json!({ "type": kind }))
    }

    /// A user namespace in which container ID 0 is `first`.
    pub(crate) fn mapped_users(self, first: u32) -> Self {
        let map = json!([{ "containerID": 0, "hostID": first, "size": 65536 }]);
        self.new_namespace("user").set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map)
    }

    /// All of these capabilities in the sets that root needs.
    pub(crate) fn capabilities(self, names: &[&str]) -> Self {
        self.set("/process/capabilities", json!({ "bounding": names, "effective": names, "permitted": names }))
    }

    /// As the runtime gets it.
    pub(crate) fn text(&self) -> String {
        self.0.to_string()
    }

    fn retain(self, pointer: &str, keep: impl Fn(&Value) -> bool) -> Self {
        let mut list = self.0.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
        list.retain(keep);
        self.set(pointer, Value::Array(list))
    }
}

/// One entry of `mounts`.
pub(crate) fn mount(destination: &str, kind: &str, source: &str, options: &[&str]) -> Value {
    json!({ "destination": destination, "type": kind, "source": source, "options": options })
}
