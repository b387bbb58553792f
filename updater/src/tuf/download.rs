//! Whole targets into a folder: for tools. A release's files go their own way, block by block ([`crate::install`]).

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use keel_spec::tuf::{TargetFile, encode};

use super::digests::Check;
use super::error::{Error, Problem};
use super::keys::sha256_hex;
use crate::source::Source;
use keel_durable as durable;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 64 << 10;

/// Where a target is in the repository: with consistent snapshots its name begins with its digest (section 6.2).
pub fn path(name: &str, file: &TargetFile, consistent_snapshot: bool) -> Result<String, Error> {
    if !consistent_snapshot {
        return Ok(encode::path(name));
    }
    let digest = ["sha256", "sha512"].into_iter().find_map(|algorithm| file.hashes.get(algorithm));
    let digest = digest.ok_or_else(|| Error::new(name, unchecked()))?;
    let (folder, base) = name.rsplit_once('/').map_or(("", name), |(folder, base)| (folder, base));
    let slash = if name.contains('/') { "/" } else { "" };
    Ok(encode::path(&format!("{folder}{slash}{digest}.{base}")))
}

fn unchecked() -> Problem {
    Problem::Digest { what: "sha256", by: "the repository".into() }
}

/// The file in a folder that a target of this name has.
pub fn place(folder: &Path, name: &str) -> PathBuf {
    folder.join(encode::file_name(name).unwrap_or_else(|| sha256_hex(name.as_bytes())))
}

/// Fetches a target into a folder, unless it is there already; where it is. A file that doesn't fit is never there, not
/// even for a moment, and what was there before stays.
pub fn fetch(
    source: &dyn Source,
    name: &str,
    file: &TargetFile,
    consistent_snapshot: bool,
    folder: &Path,
) -> Result<PathBuf, Error> {
    let place = place(folder, name);
    if File::open(&place).is_ok_and(|mut kept| copy(&mut kept, &mut io::sink(), name, file).is_ok()) {
        return Ok(place);
    }
    let stored = |error: io::Error| Error::new(name, Problem::Store(error.to_string()));
    let opened = source.open(&path(name, file, consistent_snapshot)?, &[], file.length);
    let opened = opened.map_err(|error| Error::new(name, Problem::Fetch(crate::failure::chain(&error))))?;
    let mut body = opened.ok_or_else(|| Error::new(name, Problem::Missing))?.body;
    // Its name begins with a dot, which no place does.
    let temporary = folder.join(format!(".{}.part", sha256_hex(name.as_bytes())));
    let mut attempt = || -> Result<(), Error> {
        let mut part = File::create(&temporary).map_err(stored)?;
        copy(&mut body, &mut part, name, file)?;
        part.sync_all().map_err(stored)?;
        std::fs::rename(&temporary, &place).and_then(|()| durable::sync_folder(folder)).map_err(stored)
    };
    let outcome = attempt();
    if outcome.is_err() {
        // Left over from this attempt, or it was never made.
        let _ = std::fs::remove_file(&temporary);
    }
    outcome.map(|()| place)
}

/// Copies a target and checks it on the way; never more than its length and one piece.
fn copy(from: &mut dyn Read, to: &mut dyn Write, name: &str, file: &TargetFile) -> Result<(), Error> {
    let wrong = |what| Error::new(name, Problem::Digest { what, by: "the repository".into() });
    let mut check = Check::new(&file.hashes, file.length).ok_or_else(|| Error::new(name, unchecked()))?;
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => return check.finish().map_err(wrong),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::new(name, Problem::Fetch(crate::failure::chain(&error)))),
        };
        check.update(&buffer[..count]).map_err(wrong)?;
        to.write_all(&buffer[..count]).map_err(|error| Error::new(name, Problem::Store(error.to_string())))?;
    }
}
