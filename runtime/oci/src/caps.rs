//! Capability names and sets (capabilities(7)).

use crate::Error;
use crate::spec::Capabilities;

/// Names without `CAP_`, by number (include/uapi/linux/capability.h).
#[rustfmt::skip]
const NAMES: [&str; 41] = [
    "CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER", "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP",
    "LINUX_IMMUTABLE", "NET_BIND_SERVICE", "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER",
    "SYS_MODULE", "SYS_RAWIO", "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE",
    "SYS_RESOURCE", "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON", "BPF",
    "CHECKPOINT_RESTORE",
];

/// Number of `CAP_SYS_ADMIN`.
pub(crate) const SYS_ADMIN: u32 = 21;

/// The five sets as bit masks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Sets {
    pub bounding: u64,
    pub effective: u64,
    pub inheritable: u64,
    pub permitted: u64,
    pub ambient: u64,
}

/// All capability names, `CAP_…`, in the kernel's order.
pub fn all() -> Vec<String> {
    NAMES.iter().map(|n| format!("CAP_{n}")).collect()
}

/// Turns names into masks.
pub(crate) fn sets(capabilities: Option<&Capabilities>) -> Result<Sets, Error> {
    let Some(c) = capabilities else { return Ok(Sets::default()) };
    let sets = Sets {
        bounding: mask(&c.bounding),
        effective: mask(&c.effective),
        inheritable: mask(&c.inheritable),
        permitted: mask(&c.permitted),
        ambient: mask(&c.ambient),
    };
    if sets.effective & !sets.permitted != 0 {
        return Err(refused("the effective set has capabilities that the permitted set lacks".into()));
    }
    if sets.ambient & !(sets.permitted & sets.inheritable) != 0 {
        return Err(refused("the ambient set has capabilities that the permitted or inheritable set lacks".into()));
    }
    Ok(sets)
}

fn mask(names: &[String]) -> u64 {
    names.iter().fold(0, |mask, name| {
        // One that this doesn't know can't be given, which is no error: config.md, "process.capabilities".
        let known = name.strip_prefix("CAP_").and_then(|name| NAMES.iter().position(|known| *known == name));
        mask | known.map_or(0, |number| 1 << number)
    })
}

/// Names among the sets that this doesn't know, for a warning.
pub(crate) fn unknown(c: &Capabilities) -> Vec<&str> {
    let lists = [&c.bounding, &c.effective, &c.inheritable, &c.permitted, &c.ambient];
    let mut names: Vec<&str> =
        lists.into_iter().flatten().map(String::as_str).filter(|name| mask(&[(*name).into()]) == 0).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn refused(reason: String) -> Error {
    Error::Config { field: "process.capabilities".into(), reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_names_give_nothing_and_known_ones_have_the_kernels_numbers() {
        assert_eq!(mask(&["CAP_SYS_ADMIN".into(), "CAP_CHOWN".into()]), 1 << 21 | 1);
        assert_eq!(mask(&["SYS_ADMIN".into(), "CAP_OF_TOMORROW".into()]), 0);
        assert_eq!(mask(&all()), (1 << 41) - 1);
        let bounding = ["CAP_CHOWN", "CAP_X", "CAP_X"].map(String::from).to_vec();
        assert_eq!(unknown(&Capabilities { bounding, ..Capabilities::default() }), ["CAP_X"]);
    }
}
