//! `.dockerignore`: which files of a context are as good as absent.

use crate::glob::{BadPattern, Pattern};

/// Longest `.dockerignore` in bytes.
pub const MAX_BYTES: usize = 256 << 10;
/// Most patterns.
const MAX_PATTERNS: usize = 2000;

/// The patterns of a `.dockerignore`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ignore(Vec<Rule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    pattern: Pattern,
    /// `!pattern`: such files are taken all the same.
    takes: bool,
}

impl Ignore {
    /// Reads the file's lines.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut rules = Vec::new();
        for line in text.strip_prefix('\u{feff}').unwrap_or(text).lines().filter(|line| !line.starts_with('#')) {
            let line = line.trim();
            let (takes, pattern) = line.strip_prefix('!').map_or((false, line), |rest| (true, rest.trim()));
            if line.is_empty() {
                continue;
            }
            if pattern.is_empty() || rules.len() == MAX_PATTERNS {
                return Err(BadPattern(line.chars().take(200).collect()));
            }
            rules.push(Rule { pattern: Pattern::with_folders(&clean(pattern))?, takes });
        }
        Ok(Self(rules))
    }

    /// Whether a path of the context, without a slash at its beginning, is left out: the last rule that fits it or a
    /// folder above it decides.
    pub fn leaves_out(&self, path: &str) -> bool {
        let mut out = false;
        for rule in &self.0 {
            // A rule that wouldn't change anything needn't be looked at.
            if rule.takes == out && fits(&rule.pattern, path) {
                out = !rule.takes;
            }
        }
        out
    }
}

fn fits(pattern: &Pattern, path: &str) -> bool {
    let above = path.match_indices('/').filter_map(|(at, _)| path.get(..at));
    pattern.fits(path) || above.into_iter().any(|folder| pattern.fits(folder))
}

/// Without `.`, `..`, doubled slashes, and one at the beginning.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_rule_that_fits_decides() {
        let text =
            "\u{feff}# comment\n*.log\n/build/\n!build/keep\nsecret/**\n!secret/**/*.pub\n  **/tmp  \n\n./a//b\n*/deep";
        let ignore = Ignore::parse(text).unwrap();
        for (path, out) in [
            ("x.log", true),
            ("sub/x.log", false),
            ("build", true),
            ("build/x/y", true),
            ("build/keep", false),
            ("build/keep/below", false),
            ("secret/key", true),
            ("secret/a/b.pub", false),
            ("tmp", true),
            ("a/tmp/x", true),
            ("a/b", true),
            ("a/c", false),
            ("one/deep/er", true),
            ("deep", false),
            ("# comment", false),
        ] {
            assert_eq!(ignore.leaves_out(path), out, "{path}");
        }
    }

    #[test]
    fn everything_but_some_is_a_common_wish() {
        let ignore = Ignore::parse("*\n!src\n!Dockerfile\nsrc/*.o\n").unwrap();
        for (path, out) in [("x", true), ("src", false), ("src/a.c", false), ("src/a.o", true), ("Dockerfile", false)] {
            assert_eq!(ignore.leaves_out(path), out, "{path}");
        }
        assert!(Ignore::parse("!").is_err() && Ignore::parse("[").is_err());
    }
}
