//! Patterns of paths: those of Go's `path.Match`, and with `**` those of `.dockerignore`. Matching takes time in
//! proportion to path times pattern, whatever the pattern.

/// Most parts of a pattern.
const MAX_PARTS: usize = 4096;

/// A pattern that can't be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("syntax error in pattern {0:?}")]
pub struct BadPattern(pub String);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(char),
    /// `?`
    One,
    /// `*`: any characters but slashes.
    Star,
    /// `**` at the end: anything.
    Rest,
    /// `**/`: any folders, or none. Two parts: before it, and in the midst of a folder's name.
    Folders,
    InFolder,
    /// `[a-z]`, `[^a-z]`
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

/// A pattern, ready to be matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(Vec<Part>);

impl Pattern {
    /// As `path.Match` has it: no `*` goes beyond a slash.
    pub fn plain(text: &str) -> Result<Self, BadPattern> {
        Self::parse(text, false)
    }

    /// With `**` for any number of folders.
    pub fn with_folders(text: &str) -> Result<Self, BadPattern> {
        Self::parse(text, true)
    }

    /// Whether a text has characters that make it more than a name.
    pub fn is_needed(text: &str) -> bool {
        text.contains(['*', '?', '[', '\\'])
    }

    fn parse(text: &str, folders: bool) -> Result<Self, BadPattern> {
        let bad = || BadPattern(text.chars().take(200).collect());
        let mut parts = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            match character {
                '*' if folders && rest.next_if_eq(&'*').is_some() => {
                    let slash = rest.next_if_eq(&'/').is_some();
                    if rest.peek().is_none() {
                        parts.push(Part::Rest);
                    } else if slash {
                        parts.extend([Part::Folders, Part::InFolder]);
                    } else {
                        parts.push(Part::Rest);
                    }
                }
                '*' => parts.push(Part::Star),
                '?' => parts.push(Part::One),
                '[' => {
                    let negated = rest.next_if_eq(&'^').is_some();
                    let mut ranges = Vec::new();
                    loop {
                        let bound = |rest: &mut std::iter::Peekable<std::str::Chars<'_>>| match rest.next() {
                            Some('\\') => rest.next().ok_or_else(bad),
                            Some('-' | ']') | None => Err(bad()),
                            Some(other) => Ok(other),
                        };
                        if !ranges.is_empty() && rest.next_if_eq(&']').is_some() {
                            break;
                        }
                        let low = bound(&mut rest)?;
                        let high = if rest.next_if_eq(&'-').is_some() { bound(&mut rest)? } else { low };
                        ranges.push((low, high));
                    }
                    parts.push(Part::Class { negated, ranges });
                }
                '\\' => parts.push(Part::Literal(rest.next().ok_or_else(bad)?)),
                other => parts.push(Part::Literal(other)),
            }
            if parts.len() > MAX_PARTS {
                return Err(bad());
            }
        }
        Ok(Self(parts))
    }

    /// Whether the whole path fits.
    pub fn fits(&self, path: &str) -> bool {
        // All places of the pattern that the path so far may have led to; the last is the end.
        let mut at = vec![false; self.0.len() + 1];
        let mut next = at.clone();
        self.enter(&mut at, 0);
        for character in path.chars() {
            next.fill(false);
            for (place, part) in self.0.iter().enumerate().filter(|(place, _)| at.get(*place) == Some(&true)) {
                match part {
                    Part::Literal(wanted) if *wanted == character => self.enter(&mut next, place + 1),
                    Part::One if character != '/' => self.enter(&mut next, place + 1),
                    Part::Star if character != '/' => self.enter(&mut next, place),
                    Part::Rest => self.enter(&mut next, place),
                    Part::Folders if character == '/' => self.enter(&mut next, place + 2),
                    Part::Folders => self.set(&mut next, place + 1),
                    Part::InFolder => {
                        self.set(&mut next, place);
                        if character == '/' {
                            self.enter(&mut next, place + 1);
                        }
                    }
                    Part::Class { negated, ranges } => {
                        let inside = ranges.iter().any(|(low, high)| (*low..=*high).contains(&character));
                        if inside != *negated && character != '/' {
                            self.enter(&mut next, place + 1);
                        }
                    }
                    _ => {}
                }
            }
            std::mem::swap(&mut at, &mut next);
        }
        at.last() == Some(&true)
    }

    fn set(&self, places: &mut [bool], place: usize) {
        if let Some(slot) = places.get_mut(place) {
            *slot = true;
        }
    }

    /// Marks a place, and those after parts that may stand for nothing.
    fn enter(&self, places: &mut [bool], mut place: usize) {
        loop {
            self.set(places, place);
            place += match self.0.get(place) {
                Some(Part::Star | Part::Rest) => 1,
                Some(Part::Folders) => 2,
                _ => return,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_fit_as_in_go() {
        for (pattern, path, fits) in [
            ("abc", "abc", true),
            ("*", "abc", true),
            ("*c", "abc", true),
            ("a*/b", "abc/b", true),
            ("a*/b", "a/c/b", false),
            ("a*b*c*d*e*/f", "axbxcxdxe/f", true),
            ("ab[b-d]", "abc", true),
            ("ab[^b-d]", "abc", false),
            ("a???b", "a☺☺☺b", true),
            ("a[^a][^a]b", "axb", false),
            ("[\\]a]", "]", true),
            ("[\\-x]", "-", true),
            ("a?b", "a/b", false),
            ("a\\*b", "a*b", true),
            ("", "", true),
            ("*", "", true),
        ] {
            assert_eq!(Pattern::plain(pattern).unwrap().fits(path), fits, "{pattern} {path}");
        }
        for bad in ["[", "[]a]", "[-]", "[x-]", "[a", "a\\", "[^]"] {
            assert!(Pattern::plain(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_stars_go_through_folders() {
        for (pattern, path, fits) in [
            ("**/file", "file", true),
            ("**/file", "a/b/file", true),
            ("**/file", "a/xfile", false),
            ("a/**", "a/b/c", true),
            ("a/**", "a/", true),
            ("a/**", "b/a", false),
            ("**", "a/b", true),
            ("a/**/b", "a/b", true),
            ("a/**/b", "a/x/y/b", true),
            ("a/**/b", "a/x/yb", false),
            ("**/**/x", "a/x", true),
            ("**a", "x/ya", true),
        ] {
            assert_eq!(Pattern::with_folders(pattern).unwrap().fits(path), fits, "{pattern} {path}");
        }
        assert!(!Pattern::with_folders(&"*a".repeat(2000)).unwrap().fits(&"a".repeat(1000)), "and it ends soon");
    }
}
