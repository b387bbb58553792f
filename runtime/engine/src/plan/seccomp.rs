//! System call filters in Docker's own format, which clients send whole: `--security-opt seccomp=FILE`. Its rules have
//! conditions on capabilities, architecture and kernel, which are decided here (moby, `profiles/seccomp`).

use keel_oci::spec::{Action, Arg, Op, Seccomp, SyscallRule};
use serde::Deserialize;

use super::bad;
use crate::error::Error;

/// Longest profile, bytes.
const MAX_BYTES: usize = 1 << 20;
/// Most rules.
const MAX_RULES: usize = 4096;
/// This architecture in conditions (Go's names), and as a filter names it.
const ARCHITECTURE: (&str, &str) = ("amd64", "SCMP_ARCH_X86_64");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Action,
    #[serde(default)]
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Option<Vec<String>>,
    #[serde(default)]
    arch_map: Option<Vec<ArchMap>>,
    #[serde(default)]
    flags: Option<Vec<String>>,
    #[serde(default)]
    listener_path: Option<String>,
    #[serde(default)]
    syscalls: Option<Vec<Rule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ArchMap {
    architecture: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: Action,
    #[serde(default)]
    errno_ret: Option<u32>,
    #[serde(default)]
    args: Option<Vec<Condition>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: Op,
}

/// All of what is named has to hold for `includes`, any of it for `excludes`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// What rules depend on.
pub struct Around<'a> {
    /// The container's capabilities.
    pub capabilities: &'a [String],
    /// The kernel's version.
    pub kernel: (u32, u32),
}

/// The kernel that runs.
pub fn kernel() -> (u32, u32) {
    let release = rustix::system::uname();
    version(&release.release().to_string_lossy()).unwrap_or((0, 0))
}

/// `6.12.1-x`
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().ok());
    Some((numbers.next()??, numbers.next()??))
}

/// Reads a profile and decides its conditions.
pub fn read(text: &str, around: &Around<'_>) -> Result<Seccomp, Error> {
    let decoding = |why: String| bad(format!("Decoding seccomp profile failed: {why}"));
    if text.len() > MAX_BYTES {
        return decoding(format!("it is longer than {MAX_BYTES} bytes"));
    }
    let profile: Profile = match serde_json::from_str(text) {
        Ok(profile) => profile,
        Err(error) => return decoding(error.to_string()),
    };
    if profile.architectures.as_ref().is_some_and(|list| !list.is_empty()) && profile.arch_map.is_some() {
        return decoding("use either 'architectures' or 'archMap'".into());
    }
    let mapped = profile.arch_map.iter().flatten().map(|entry| entry.architecture.clone());
    let architectures: Vec<String> = profile.architectures.iter().flatten().cloned().chain(mapped).collect();
    if !architectures.is_empty() && !architectures.iter().any(|name| name == ARCHITECTURE.1) {
        return decoding(format!("it is not for {}", ARCHITECTURE.1));
    }
    if profile.listener_path.is_some_and(|path| !path.is_empty()) {
        return decoding("agents (listenerPath) aren't supported".into());
    }
    let rules = profile.syscalls.unwrap_or_default();
    if rules.len() > MAX_RULES {
        return decoding(format!("it has more than {MAX_RULES} rules"));
    }
    let mut syscalls = Vec::with_capacity(rules.len());
    for rule in rules {
        if rule.action == Action::Notify {
            return decoding("SCMP_ACT_NOTIFY isn't supported".into());
        }
        let names = match (rule.name, rule.names) {
            (Some(_), Some(names)) if !names.is_empty() => {
                return decoding("use either 'name' or 'names'".into());
            }
            (Some(name), _) => vec![name],
            (None, names) => names.unwrap_or_default(),
        };
        let included = rule.includes.unwrap_or_default().holds_whole(around);
        let excluded = rule.excludes.unwrap_or_default().holds_in_part(around);
        if !included || excluded || names.is_empty() {
            continue;
        }
        let arg = |c: Condition| Arg { index: c.index, value: c.value, value_two: c.value_two, op: c.op };
        let args = rule.args.unwrap_or_default().into_iter().map(arg).collect();
        syscalls.push(SyscallRule { names, action: rule.action, errno_ret: rule.errno_ret, args });
    }
    Ok(Seccomp {
        default_action: profile.default_action,
        default_errno_ret: profile.default_errno_ret,
        architectures: vec![ARCHITECTURE.1.into()],
        flags: profile.flags.unwrap_or_default(),
        syscalls,
        ..Seccomp::default()
    })
}

impl Filter {
    fn holds_whole(&self, around: &Around<'_>) -> bool {
        let caps = self.caps.as_deref().unwrap_or_default();
        let arches = self.arches.as_deref().unwrap_or_default();
        caps.iter().all(|cap| around.capabilities.contains(cap))
            && (arches.is_empty() || arches.iter().any(|arch| arch == ARCHITECTURE.0))
            && self.min_kernel.as_deref().is_none_or(|least| version(least).is_some_and(|least| around.kernel >= least))
    }

    fn holds_in_part(&self, around: &Around<'_>) -> bool {
        let caps = self.caps.as_deref().unwrap_or_default();
        let arches = self.arches.as_deref().unwrap_or_default();
        caps.iter().any(|cap| around.capabilities.contains(cap))
            || arches.iter().any(|arch| arch == ARCHITECTURE.0)
            || self
                .min_kernel
                .as_deref()
                .is_some_and(|least| version(least).is_some_and(|least| around.kernel >= least))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
        "syscalls": [
            {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
            {"name": "mount", "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390"]},
             "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
            {"names": ["arm_fadvise64_64"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.1"}}
        ]}"#;

    fn names(capabilities: &[String]) -> Vec<String> {
        let around = Around { capabilities, kernel: (6, 12) };
        read(PROFILE, &around).unwrap().syscalls.into_iter().flat_map(|rule| rule.names).collect()
    }

    #[test]
    fn rules_are_taken_or_left_by_capability_architecture_and_kernel() {
        assert_eq!(names(&[]), ["read", "write", "clone", "ptrace"]);
        assert_eq!(names(&["CAP_SYS_ADMIN".into()]), ["read", "write", "mount", "ptrace"]);
        let filter = read(PROFILE, &Around { capabilities: &[], kernel: (6, 12) }).unwrap();
        assert_eq!((filter.default_errno_ret, filter.syscalls[1].args[0].op), (Some(38), Op::MaskedEq));
    }

    #[test]
    fn what_can_not_be_read_says_so_in_dockers_words() {
        let around = Around { capabilities: &[], kernel: (6, 12) };
        for text in [
            "",
            "{}",
            r#"{"defaultAction":"SCMP_ACT_FLY"}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["SCMP_ARCH_ARM"]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["x"],"action":"SCMP_ACT_NOTIFY"}]}"#,
            r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"x","names":["y"],"action":"SCMP_ACT_ALLOW"}]}"#,
        ] {
            let error = read(text, &around).unwrap_err().to_string();
            assert!(error.starts_with("Decoding seccomp profile failed"), "{error}");
        }
    }

    #[test]
    fn versions_of_kernels_are_read_however_they_end() {
        assert_eq!((version("6.12.1-amd64"), version("4.8"), version("x")), (Some((6, 12)), Some((4, 8)), None));
        assert!(kernel() > (4, 0));
    }
}
