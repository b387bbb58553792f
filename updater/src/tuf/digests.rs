//! Lengths and digests that one file promises of another.

use std::collections::BTreeMap;

use ring::digest;

use super::keys::to_hex;

/// Digests of bytes that come piece by piece, held against those promised.
pub struct Check {
    contexts: Vec<(&'static str, digest::Context, String)>,
    left: u64,
}

/// The algorithms that are known.
const ALGORITHMS: [(&str, &digest::Algorithm); 2] = [("sha256", &digest::SHA256), ("sha512", &digest::SHA512)];

impl Check {
    /// `None` if none of the digests is of an algorithm that is known: nothing could be checked.
    pub fn new(hashes: &BTreeMap<String, String>, length: u64) -> Option<Self> {
        let known = ALGORITHMS.iter().filter_map(|(name, algorithm)| {
            Some((*name, digest::Context::new(algorithm), hashes.get(*name)?.to_ascii_lowercase()))
        });
        let contexts: Vec<_> = known.collect();
        (!contexts.is_empty()).then_some(Self { contexts, left: length })
    }

    /// The next bytes; what is wrong if they are too many.
    pub fn update(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or("length")?;
        self.contexts.iter_mut().for_each(|(_, context, _)| context.update(bytes));
        Ok(())
    }

    /// What doesn't fit, after the last byte.
    pub fn finish(self) -> Result<(), &'static str> {
        if self.left != 0 {
            return Err("length");
        }
        match self.contexts.into_iter().find(|(_, context, want)| to_hex(context.clone().finish().as_ref()) != *want) {
            Some((name, ..)) => Err(name),
            None => Ok(()),
        }
    }
}

/// Holds a whole file against what is promised of it, as far as anything is; what doesn't fit.
pub fn check(bytes: &[u8], length: Option<u64>, hashes: &BTreeMap<String, String>) -> Result<(), &'static str> {
    if length.is_some_and(|length| length != bytes.len() as u64) {
        return Err("length");
    }
    if hashes.is_empty() {
        return Ok(());
    }
    let mut check = Check::new(hashes, bytes.len() as u64).ok_or("sha256")?;
    check.update(bytes)?;
    check.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_known_digest_has_to_fit_and_one_has_to_be_known() {
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let of = |pairs: &[(&str, &str)]| pairs.iter().map(|(name, hex)| ((*name).into(), (*hex).into())).collect();
        assert_eq!(check(b"abc", Some(3), &of(&[("sha256", sha256), ("blake9", "00")])), Ok(()));
        assert_eq!(check(b"abc", None, &of(&[])), Ok(()));
        assert_eq!(check(b"abc", Some(2), &of(&[("sha256", sha256)])), Err("length"));
        assert_eq!(check(b"abd", Some(3), &of(&[("sha256", sha256)])), Err("sha256"));
        assert_eq!(check(b"abc", Some(3), &of(&[("sha256", sha256), ("sha512", "00")])), Err("sha512"));
        assert!(check(b"abc", Some(3), &of(&[("blake9", "00")])).is_err());
    }
}
