//! Makes the table of time zones that hosts carry, from the TZif files of tzdata (RFC 9636).
//!
//! ```text
//! cargo run -p keel-image --example zones -- /usr/share/zoneinfo 2026 > spec/src/zone/zones.txt
//! ```
//!
//! The year is the one from which on the table has to be right. Each zone is checked against all changes that its file
//! lists from then on; where the rule at the file's end doesn't give them, those of the next [`YEARS`] years stand
//! before it.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use keel_spec::zone::{Rule, Schedule};

/// Years for which changes that follow no rule are listed.
const YEARS: i64 = 12;
const YEAR_S: i64 = 31_556_952;
/// Folders and files of tzdata that aren't zones.
const NOT_ZONES: [&str; 5] = ["posix", "right", "posixrules", "localtime", "Factory"];

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let (Some(folder), Some(year)) = (arguments.next(), arguments.next()) else { bail!("want FOLDER YEAR") };
    let from = (year.parse::<i64>().context("read the year")? - 1970) * YEAR_S;
    let mut lines: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, path) in zones(Path::new(&folder))? {
        let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        if let Some(file) = TzFile::parse(&bytes) {
            let schedule = schedule(&file, from).with_context(|| format!("read {name}"))?;
            lines.entry(schedule).or_default().push(name);
        }
    }
    ensure!(!lines.is_empty(), "{folder}: no TZif file there: install tzdata");
    let release = std::fs::read_to_string(Path::new(&folder).join("tzdata.zi")).unwrap_or_default();
    let release = release.lines().next().and_then(|line| line.strip_prefix("# version ")).unwrap_or("unknown");
    println!("# Made by image/examples/zones.rs from tzdata {release}: what clocks do from {year} on, and whose.");
    for (schedule, mut names) in lines {
        names.sort();
        println!("{schedule} {}", names.join(" "));
    }
    Ok(())
}

/// All zones below a folder, by their names.
fn zones(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let (mut found, mut folders) = (Vec::new(), vec![(String::new(), folder.to_owned())]);
    while let Some((prefix, folder)) = folders.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            if NOT_ZONES.contains(&name.as_str()) {
                continue;
            }
            match path.is_dir() {
                true => folders.push((format!("{prefix}{name}/"), path)),
                false => found.push((format!("{prefix}{name}"), path)),
            }
        }
    }
    Ok(found)
}

fn schedule(file: &TzFile, from: i64) -> Result<String> {
    let rule = Rule::parse(&file.footer).with_context(|| format!("it ends in {:?}", file.footer))?;
    let later: Vec<(i64, i32)> = file.changes.iter().copied().filter(|(at, _)| *at >= from).collect();
    let first = file.changes.iter().rev().find(|(at, _)| *at < from).map_or(file.first_s, |(_, offset)| *offset);
    let by_rule = |(at, offset): &(i64, i32)| rule.offset_s(*at) == *offset;
    let before = |index: usize| if index == 0 { first } else { later[index - 1].1 };
    let agrees = later.iter().enumerate().all(|(index, it)| by_rule(it) && rule.offset_s(it.0 - 1) == before(index));
    if agrees && rule.offset_s(from) == first {
        return Ok(file.footer.clone());
    }
    let mut listed: Vec<_> = later.iter().filter(|(at, _)| *at < from + YEARS * YEAR_S).collect();
    // From the last one on the rule holds, so that is one that the rule gives as well.
    while listed.last().is_some_and(|last| !by_rule(last)) {
        listed.pop();
    }
    let mut text = first.to_string();
    for (at, offset) in &listed {
        text.push_str(&format!(",{at}={offset}"));
    }
    text.push_str(&format!(";{}", file.footer));
    let schedule = Schedule::parse(&text).context("what was made can't be read")?;
    for (at, offset) in listed {
        ensure!(schedule.offset_s(*at) == *offset, "at {at} it isn't {offset}");
    }
    Ok(text)
}

/// What is of interest in a TZif file of version 2 or later.
struct TzFile {
    first_s: i32,
    changes: Vec<(i64, i32)>,
    footer: String,
}

impl TzFile {
    fn parse(bytes: &[u8]) -> Option<Self> {
        let counts = |at: usize| -> Option<[usize; 6]> {
            let header = bytes.get(at..at + 44)?.strip_prefix(b"TZif")?;
            let number = |index: usize| Some(u32::from_be_bytes(header.get(16 + index * 4..)?.first_chunk().copied()?));
            let mut counts = [0; 6];
            for (index, count) in counts.iter_mut().enumerate() {
                *count = number(index)? as usize;
            }
            Some(counts)
        };
        let [isut, isstd, leap, times, types, chars] = counts(0)?;
        let second = 44 + times * 5 + types * 6 + chars + leap * 8 + isstd + isut;
        let [isut, isstd, leap, times, types, chars] = counts(second)?;
        let data = bytes.get(second + 44..)?;
        let (at, indices, infos) = (data.get(..times * 8)?, data.get(times * 8..times * 9)?, data.get(times * 9..)?);
        let offset = |index: usize| Some(i32::from_be_bytes(infos.get(index * 6..)?.first_chunk().copied()?));
        let mut changes = Vec::new();
        for (at, index) in at.chunks_exact(8).zip(indices) {
            changes.push((i64::from_be_bytes(at.first_chunk().copied()?), offset(usize::from(*index))?));
        }
        let end = times * 9 + types * 6 + chars + leap * 12 + isstd + isut;
        let footer = std::str::from_utf8(data.get(end..)?).ok()?.trim_matches('\n').to_owned();
        Some(Self { first_s: offset(0)?, changes, footer })
    }
}
