//! Path patterns of delegations: shell-style wildcards (section 4.5).
//!
//! `*`, `?`, `[abc]`, `[a-z]` and `[!abc]`, within one part between slashes: `*` matches `a` but not `a/b`, as in file
//! names of a shell. Time is bounded by the product of both lengths.

/// Whether a path fits a pattern.
pub fn matches(pattern: &str, path: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), path.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) if part_matches(pattern, part) => {}
            _ => return false,
        }
    }
}

/// Goes on greedily, and returns to the last star alone: earlier ones can't do better than they did.
fn part_matches(pattern: &str, part: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let part: Vec<char> = part.chars().collect();
    let (mut at, mut done) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while done < part.len() {
        if pattern.get(at) == Some(&'*') {
            star = Some((at, done));
            at += 1;
        } else if let Some(length) = one(&pattern[at..], part[done]) {
            (at, done) = (at + length, done + 1);
        } else if let Some((star_at, star_done)) = star {
            star = Some((star_at, star_done + 1));
            (at, done) = (star_at + 1, star_done + 1);
        } else {
            return false;
        }
    }
    pattern[at..].iter().all(|&left| left == '*')
}

/// How many characters of the pattern match this one character; `None`: it doesn't fit.
fn one(pattern: &[char], wanted: char) -> Option<usize> {
    match pattern.first()? {
        '?' => Some(1),
        '[' => match class(pattern, wanted) {
            Some((fits, length)) => fits.then_some(length),
            // Without its end it is a bracket like any other character.
            None => (wanted == '[').then_some(1),
        },
        &literal => (literal == wanted).then_some(1),
    }
}

/// Whether a character is in the class that begins here, and the length of the class.
fn class(pattern: &[char], wanted: char) -> Option<(bool, usize)> {
    let negated = pattern.get(1) == Some(&'!');
    let first = if negated { 2 } else { 1 };
    // A closing bracket right at the beginning is a member.
    let end = first + 1 + pattern.get(first + 1..)?.iter().position(|&member| member == ']')?;
    let members = &pattern[first..end];
    let (mut at, mut found) = (0, false);
    while at < members.len() {
        if at + 2 < members.len() && members[at + 1] == '-' {
            found |= (members[at]..=members[at + 2]).contains(&wanted);
            at += 3;
        } else {
            found |= members[at] == wanted;
            at += 1;
        }
    }
    Some((found != negated, end + 1))
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn wildcards_stay_between_slashes() {
        for (pattern, path) in [
            ("*", "a"),
            ("*.md", "README.md"),
            ("targets/*.tgz", "targets/foo.tgz"),
            ("foo-version-?.tgz", "foo-version-a.tgz"),
            ("releases/*/*", "releases/x/x_v1"),
            ("a*b*c", "aXbYbZc"),
            ("[a-c]x[!0-9]", "bxz"),
            ("[]]", "]"),
            ("[", "["),
            ("a[b", "a[b"),
            ("*", ""),
            ("ü?", "üß"),
        ] {
            assert!(matches(pattern, path), "{pattern} {path}");
        }
        for (pattern, path) in [
            ("*", "a/b"),
            ("*.md", "a/README.md"),
            ("targets/*.tgz", "targets/foo.txt"),
            ("foo-version-?.tgz", "foo-version-alpha.tgz"),
            ("[a-c]", "d"),
            ("[!a]", "a"),
            ("?", ""),
            ("A", "a"),
            ("a/*", "a"),
            ("", "a"),
        ] {
            assert!(!matches(pattern, path), "{pattern} {path}");
        }
    }

    #[test]
    fn a_hostile_pattern_takes_no_longer_than_the_product_of_both_lengths() {
        let started = std::time::Instant::now();
        assert!(!matches(&"a*".repeat(2000), &format!("{}b", "a".repeat(4000)).replace("aab", "b/")));
        assert!(!matches(&format!("{}b", "a*".repeat(500)), &"a".repeat(4000)));
        assert!(started.elapsed().as_secs() < 10);
    }
}
