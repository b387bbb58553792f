//! Known deviations of known runtimes: a file for each, a line `case: reason`.

use std::collections::BTreeMap;

/// What is known of runtimes, by the name of their program.
const FILES: [(&str, &str); 3] = [
    ("crun", include_str!("../expectations/crun.txt")),
    ("keel-oci", include_str!("../expectations/keel-oci.txt")),
    ("runc", include_str!("../expectations/runc.txt")),
];

/// Cases that this runtime is known to fail, with the reason.
pub(crate) fn deviations(runtime: &str) -> BTreeMap<&'static str, &'static str> {
    let text = FILES.iter().find(|(name, _)| *name == runtime).map_or("", |(_, text)| *text);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_expectation_is_of_a_case_that_exists() {
        let cases = crate::cases::all();
        for (runtime, text) in FILES {
            for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
                let (name, reason) =
                    line.split_once(": ").unwrap_or_else(|| panic!("{runtime}: {line:?} has no reason"));
                assert!(cases.iter().any(|case| case.name == name), "{runtime}: no case {name}");
                assert!(!reason.trim().is_empty(), "{runtime}: {name} has no reason");
            }
        }
    }
}
