//! What runs: the release as os-release(5) on the verified root tells it.

use std::io::Read as _;

use keel_spec::paths;

/// Longest os-release file that is read.
const MAX_BYTES: u64 = 16 << 10;

/// The running release.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its version; this program's own where the file doesn't tell, as on a workstation.
    pub version: String,
    /// Its profile, `cloud` or `metal`; empty where the file doesn't tell.
    pub profile: String,
    /// When it was built, seconds since the Unix epoch; 0 where the file doesn't tell.
    pub built_unix_s: u64,
}

impl Release {
    /// What os-release tells.
    pub fn running() -> Self {
        let mut text = String::new();
        let read =
            std::fs::File::open(paths::OS_RELEASE).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
        if let Err(error) = read {
            log::debug!("cannot read {}: {error}", paths::OS_RELEASE);
        }
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let get = |name| value(text, name);
        let ours = get("ID").is_some_and(|id| id == "keel");
        let version = get("VERSION_ID").filter(|_| ours).unwrap_or_else(|| env!("CARGO_PKG_VERSION").into());
        let profile = get("VARIANT_ID").filter(|_| ours).unwrap_or_default();
        let built_unix_s = get("BUILD_UNIX_S").filter(|_| ours).and_then(|text| text.parse().ok()).unwrap_or(0);
        Self { version, profile, built_unix_s }
    }
}

fn value(text: &str, name: &str) -> Option<String> {
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='))?;
    Some(value.trim().trim_matches(['"', '\'']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_profile_and_build_time_are_found() {
        let text = "NAME=\"Keel\"\nID=keel\nVERSION_ID=1.2.3\nVARIANT_ID=\"metal\"\nBUILD_UNIX_S=7\n";
        let found = Release { version: "1.2.3".into(), profile: "metal".into(), built_unix_s: 7 };
        assert_eq!(Release::parse(text), found);
    }

    #[test]
    fn other_systems_versions_are_not_taken_for_ours() {
        assert_eq!(Release::parse("ID=debian\nVERSION_ID=\"12\"\n").version, env!("CARGO_PKG_VERSION"));
    }
}
