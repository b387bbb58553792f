//! What `ADD` fetches.

use std::fs::File;
use std::io::{self, Read};

use keel_fetch::Request;
use keel_store::Digest;

use crate::build::Build;
use crate::error::Error;
use crate::room::Room;

/// Most bytes of one file.
const MAX_BYTES: u64 = 16 << 30;

/// Whether a source of `ADD` is an address.
pub fn is_address(source: &str) -> bool {
    source.starts_with("http://") || source.starts_with("https://")
}

/// Whether a source of `ADD` is a repository of Git, which isn't fetched.
pub fn is_git(source: &str) -> bool {
    let path = source.split(['#', '?']).next().unwrap_or(source);
    source.starts_with("git@") || source.starts_with("git://") || (is_address(source) && path.ends_with(".git"))
}

impl Build<'_> {
    /// Fetches a file, by way of the machine config's proxies, as `file` in a folder of its own; held against `checksum`
    /// if given.
    pub fn fetch(&mut self, address: &str, checksum: Option<&str>) -> Result<Room, Error> {
        let expected = checksum
            .map(|text| text.parse::<Digest>().map_err(|error| Error::Bad(format!("--checksum={text}: {error}"))))
            .transpose()?;
        let room = self.room.within()?;
        let path = room.path().join("file");
        let response = self.store.http().get(&Request::new(address, MAX_BYTES))?.success()?;
        let mut body = keel_store::digest::HashRead::new(self.interrupt.watch(response.body));
        let mut file = File::create(&path).map_err(Error::io("making a file for what is fetched"))?;
        let copied = io::copy(&mut body.by_ref(), &mut file);
        self.interrupt.check()?;
        copied.map_err(Error::io(format!("fetching {address}")))?;
        let (got, _) = body.finish();
        match expected {
            Some(expected) if expected != got => {
                Err(Error::Bad(format!("{address} has the digest {got}, not {expected}")))
            }
            _ => Ok(room),
        }
    }
}

/// The last word of an address's path, if it has one that can be a file's name.
pub fn name(address: &str) -> Option<String> {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let path = rest.split(['?', '#']).next().unwrap_or(rest);
    let (_, last) = path.rsplit_once('/')?;
    (!last.is_empty() && last != "." && last != "..").then(|| last.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_and_named() {
        assert!(is_address("https://a/b") && !is_address("a/https://b"));
        assert!(is_git("https://a/b.git#main") && is_git("git@a:b") && !is_git("https://a/b.git.tar"));
        assert_eq!(name("https://a.example/b/c.tar?x=/y#z").as_deref(), Some("c.tar"));
        for nameless in ["https://a.example", "https://a.example/b/", "https://a.example/.."] {
            assert_eq!(name(nameless), None, "{nameless}");
        }
    }
}
