//! Several places that have a repository's files, of which the best is asked.
//!
//! Metadata come from the first one, the repository itself, alone: a mirror that is behind must not look like an
//! attack. Targets come from wherever they are; what they hold is known from their digests.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use keel_spec::api::ErrorCode;

use crate::failure::Failure;
use crate::pace::Pace;
use crate::plan::Target;
use crate::source::Source;

/// Failures of a mirror without a success in between, after which it isn't asked any more.
const MAX_STRIKES: u32 = 4;

/// What a mirror can do about ranges.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranges {
    /// None: it sends whole files.
    None,
    /// One in a request.
    One,
    /// Several in a request; supposed until it shows that it can't.
    Several,
}

/// One place.
pub struct Mirror<'a> {
    /// Where it is.
    pub source: &'a dyn Source,
    ranges: AtomicU8,
    strikes: AtomicU32,
    /// Why it isn't asked any more.
    out: Mutex<Option<Failure>>,
    /// Files that it hasn't got, and isn't asked for again: as many as a release has at most.
    lacks: Mutex<BTreeMap<String, Failure>>,
}

impl<'a> Mirror<'a> {
    fn new(source: &'a dyn Source) -> Self {
        Self { source, ranges: 2.into(), strikes: 0.into(), out: Mutex::default(), lacks: Mutex::default() }
    }

    /// What it can do about ranges.
    pub fn ranges(&self) -> Ranges {
        match self.ranges.load(Ordering::Relaxed) {
            0 => Ranges::None,
            1 => Ranges::One,
            _ => Ranges::Several,
        }
    }

    /// It answered otherwise than asked: with several ranges one is tried, with one none.
    pub fn cannot(&self, what: Ranges) {
        self.ranges.fetch_min(if what == Ranges::Several { 1 } else { 0 }, Ordering::Relaxed);
    }

    /// Something that it sent was right.
    pub fn well(&self) {
        self.strikes.store(0, Ordering::Relaxed);
    }

    /// It failed. What isn't the network's fault won't be better the next time.
    pub fn failed(&self, failure: &Failure) {
        let strikes = self.strikes.fetch_add(1, Ordering::Relaxed) + 1;
        if failure.code != ErrorCode::Network || strikes >= MAX_STRIKES {
            log::warn!("{failure}; {} isn't asked any more", self.source.name());
            *self.out.lock().unwrap_or_else(PoisonError::into_inner) = Some(failure.clone());
        } else {
            log::warn!("{failure}; trying again");
        }
    }

    /// It hasn't got a file. It may have the others: a peer has those of the release that it runs, some servers only
    /// the large ones.
    pub fn lacks(&self, target: &Target, failure: Failure) {
        log::info!("{failure}; it isn't asked for it again");
        self.lacks.lock().unwrap_or_else(PoisonError::into_inner).insert(target.path(), failure);
    }

    /// Why it isn't asked for a file.
    fn why_not(&self, target: &Target) -> Option<Failure> {
        let lacks = || self.lacks.lock().unwrap_or_else(PoisonError::into_inner).get(&target.path()).cloned();
        self.out.lock().unwrap_or_else(PoisonError::into_inner).clone().or_else(lacks)
    }
}

/// All places, and what they share.
pub struct Mirrors<'a> {
    /// In the order in which they are asked; never empty.
    mirrors: Vec<Mirror<'a>>,
    /// The bandwidth limit.
    pub pace: Pace,
    fetched: AtomicU64,
    found: AtomicU64,
}

impl<'a> Mirrors<'a> {
    /// Mirrors in the order in which they are to be asked, the repository itself last.
    pub fn new(sources: impl IntoIterator<Item = &'a dyn Source>, pace: Pace) -> Self {
        Self { mirrors: sources.into_iter().map(Mirror::new).collect(), pace, fetched: 0.into(), found: 0.into() }
    }

    /// The one to ask for a file next; one that has ranges before one that hasn't. Otherwise why there is none.
    pub fn pick(&self, target: &Target) -> Result<&Mirror<'a>, Failure> {
        let left = || self.mirrors.iter().filter(|mirror| mirror.why_not(target).is_none());
        let ranged = left().filter(|mirror| mirror.ranges() != Ranges::None);
        let best = ranged.min_by_key(|mirror| mirror.strikes.load(Ordering::Relaxed)).or_else(|| left().next());
        best.ok_or_else(|| {
            let mut reasons: Vec<Failure> = self.mirrors.iter().filter_map(|mirror| mirror.why_not(target)).collect();
            // A file that was changed is worth more words than a server that doesn't answer, and that more than a mirror
            // that hasn't got it.
            reasons.sort_by_key(|failure| match failure.code {
                ErrorCode::Network => 1,
                ErrorCode::NotFound => 2,
                _ => 0,
            });
            let nothing = || Failure::new(ErrorCode::Config, "fetch: no repository and no mirror is named");
            reasons.into_iter().next().unwrap_or_else(nothing)
        })
    }

    /// Takes note of bytes that came, and waits as long as the bandwidth limit wants.
    pub fn count(&self, bytes: u64) {
        self.fetched.fetch_add(bytes, Ordering::Relaxed);
        self.pace.wait(bytes);
    }

    /// Bytes of files that came so far.
    pub fn fetched_bytes(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Takes note of bytes that needn't be fetched.
    pub fn found(&self, bytes: u64) {
        self.found.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes of files that were on the disk so far.
    pub fn found_bytes(&self) -> u64 {
        self.found.load(Ordering::Relaxed)
    }

    /// A failure of a mirror that concerns a file.
    pub fn failure(mirror: &Mirror, target: &Target, code: ErrorCode, why: &str) -> Failure {
        Failure::new(code, format!("update repository {}: {}: {why}", mirror.source.name(), target.name))
    }
}
