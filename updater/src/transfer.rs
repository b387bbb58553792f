//! Fetches what isn't on the disk: several requests at once, from several mirrors, each block checked before it is
//! written. What failed is asked for again from where it stopped.

use std::collections::VecDeque;
use std::io::{self, Read};
use std::ops::Range;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

use keel_spec::api::ErrorCode;
use keel_spec::verity::BLOCK_BYTES;

use crate::area::Area;
use crate::blocks::{CHUNK_BLOCKS, Image, sha256};
use crate::delta;
use crate::failure::{Failure, Result, chain};
use crate::mirrors::{Mirror, Mirrors, Ranges};
use crate::plan::Target;

/// Requests that run at once.
const WORKERS: usize = 3;
/// Stack of a worker: TLS handshakes run on it.
const STACK_BYTES: usize = 512 << 10;
const BLOCK: u64 = BLOCK_BYTES as u64;

/// Blocks that one request asks for.
type Job = Vec<Range<u64>>;

struct Work<'a> {
    mirrors: &'a Mirrors<'a>,
    image: &'a Image<'a>,
    jobs: Mutex<VecDeque<Job>>,
    /// Why it can't go on.
    over: Mutex<Option<Failure>>,
    /// Whoever streams a whole file does it alone.
    whole: Mutex<()>,
}

fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Fetches blocks and puts them into their place. `done` is told how many blocks more are there.
pub fn fetch(mirrors: &Mirrors, image: &Image, missing: Vec<Range<u64>>, done: &mut dyn FnMut(u64)) -> Result<()> {
    let jobs: VecDeque<Job> = delta::requests(missing).into();
    let workers = WORKERS.min(jobs.len());
    let work = Work { mirrors, image, jobs: jobs.into(), over: Mutex::default(), whole: Mutex::default() };
    let (tell, told): (SyncSender<u64>, Receiver<u64>) = sync_channel(64);
    std::thread::scope(|scope| -> Result<()> {
        for _ in 0..workers {
            let (work, tell) = (&work, tell.clone());
            let builder = std::thread::Builder::new().name("fetch".into()).stack_size(STACK_BYTES);
            builder.spawn_scoped(scope, move || work.run(&tell)).map_err(Failure::io("start a thread that fetches"))?;
        }
        drop(tell);
        told.iter().for_each(&mut *done);
        Ok(())
    })?;
    match work.over.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

impl Work<'_> {
    /// Ends when no job is left, or when one can't be done. Bounded: every round without progress is a strike against
    /// a mirror or takes an ability from it.
    fn run(&self, tell: &SyncSender<u64>) {
        while locked(&self.over).is_none() {
            let outcome = match self.mirrors.pick(self.image.target) {
                Err(failure) => Err(failure),
                Ok(mirror) if mirror.ranges() == Ranges::None => self.whole(mirror, tell),
                Ok(mirror) => self.one(mirror, tell),
            };
            match outcome {
                Ok(true) => {}
                Ok(false) => return,
                Err(failure) => {
                    locked(&self.over).get_or_insert(failure);
                }
            }
        }
    }

    /// Does one job; `false`: there was none.
    fn one(&self, mirror: &Mirror, tell: &SyncSender<u64>) -> Result<bool> {
        let Some(mut job) = locked(&self.jobs).pop_front() else { return Ok(false) };
        let ability = mirror.ranges();
        if ability == Ranges::One && job.len() > 1 {
            let mut jobs = locked(&self.jobs);
            job.drain(1..).rev().for_each(|run| jobs.push_front(vec![run]));
        }
        let asked: Vec<Range<u64>> = job.iter().map(|run| self.bytes(run)).collect();
        let most = asked.iter().map(|range| range.end - range.start + 1024).sum();
        let opened = self.open(mirror, &asked, most);
        let outcome = match opened {
            Ok(Some(body)) => self.receive(mirror, body, &mut job, tell),
            Ok(None) => {
                mirror.cannot(if asked.len() > 1 { Ranges::Several } else { Ranges::One });
                Ok(())
            }
            Err(failure) => Err(failure),
        };
        if !job.is_empty() {
            locked(&self.jobs).push_front(job);
        }
        self.judge(mirror, outcome)
    }

    /// A failure of this machine ends everything; one of a mirror counts against it.
    fn judge(&self, mirror: &Mirror, outcome: Result<()>) -> Result<bool> {
        match outcome {
            Err(failure) if failure.code == ErrorCode::Internal => Err(failure),
            Err(failure) => {
                blame(mirror, self.image.target, failure);
                Ok(true)
            }
            Ok(()) => Ok(true),
        }
    }

    fn bytes(&self, run: &Range<u64>) -> Range<u64> {
        let first = run.start * BLOCK;
        first..first + self.image.bytes_of(run.start, run.end - run.start)
    }

    /// `None`: the server answered, but not with these ranges.
    fn open(&self, mirror: &Mirror, asked: &[Range<u64>], most: u64) -> Result<Option<Box<dyn Read>>> {
        let target = self.image.target;
        let opened = mirror.source.open(&target.path(), asked, most.max(target.length));
        let opened = opened.map_err(|error| unreachable(mirror, target, &error))?;
        let opened = opened.ok_or_else(|| missing(mirror, target))?;
        Ok(opened.ranged.then_some(opened.body))
    }

    /// Takes the bytes of a job's ranges; what was written is taken off the job.
    fn receive(&self, mirror: &Mirror, mut body: Box<dyn Read>, job: &mut Job, tell: &SyncSender<u64>) -> Result<()> {
        let mut buffer = vec![0; (CHUNK_BLOCKS * BLOCK) as usize];
        while let Some(run) = job.first_mut() {
            let count = CHUNK_BLOCKS.min(run.end - run.start);
            let piece = &mut buffer[..self.image.bytes_of(run.start, count) as usize];
            self.take(mirror, &mut body, run.start, piece)?;
            run.start += count;
            if run.is_empty() {
                job.remove(0);
            }
            // The other end waits until all senders are gone.
            let _ = tell.send(count);
        }
        Ok(())
    }

    /// Reads, checks and writes blocks.
    fn take(&self, mirror: &Mirror, body: &mut dyn Read, first: u64, buffer: &mut [u8]) -> Result<()> {
        body.read_exact(buffer).map_err(|error| unreachable(mirror, self.image.target, &error))?;
        self.mirrors.count(buffer.len() as u64);
        if let Some(wrong) = self.image.first_wrong(first, buffer) {
            let why = format!("block {wrong} doesn't have the digest that it has to have");
            return Err(Mirrors::failure(mirror, self.image.target, ErrorCode::Digest, &why));
        }
        mirror.well();
        self.image.put(first, buffer)
    }

    /// No mirror that is left has ranges: the whole file is streamed, and what is wanted is taken out of it.
    fn whole(&self, mirror: &Mirror, tell: &SyncSender<u64>) -> Result<bool> {
        let _alone = locked(&self.whole);
        let mut wanted: Job = locked(&self.jobs).drain(..).flatten().collect();
        if wanted.is_empty() {
            return Ok(false);
        }
        wanted.sort_by_key(|run| run.start);
        let mut wanted = VecDeque::from(wanted);
        let outcome = self.stream(mirror, &mut wanted, tell);
        if !wanted.is_empty() {
            locked(&self.jobs).push_front(wanted.into());
        }
        self.judge(mirror, outcome)
    }

    fn stream(&self, mirror: &Mirror, wanted: &mut VecDeque<Range<u64>>, tell: &SyncSender<u64>) -> Result<()> {
        let target = self.image.target;
        let opened = mirror.source.open(&target.path(), &[], target.length);
        let opened = opened.map_err(|error| unreachable(mirror, target, &error))?;
        let mut body = opened.ok_or_else(|| missing(mirror, target))?.body;
        let mut buffer = vec![0; (CHUNK_BLOCKS * BLOCK) as usize];
        let mut at = 0;
        while let Some(run) = wanted.front_mut() {
            let skip = (run.start - at).min(CHUNK_BLOCKS);
            if skip > 0 {
                let piece = &mut buffer[..self.image.bytes_of(at, skip) as usize];
                body.read_exact(piece).map_err(|error| unreachable(mirror, target, &error))?;
                self.mirrors.count(piece.len() as u64);
                at += skip;
                continue;
            }
            let count = CHUNK_BLOCKS.min(run.end - run.start);
            let piece = &mut buffer[..self.image.bytes_of(run.start, count) as usize];
            self.take(mirror, &mut body, run.start, piece)?;
            run.start += count;
            at += count;
            if run.is_empty() {
                wanted.pop_front();
            }
            let _ = tell.send(count);
        }
        Ok(())
    }
}

/// Fetches a small file whole and checks it.
pub fn small(mirrors: &Mirrors, target: &Target) -> Result<Vec<u8>> {
    // Bounded: every round is a strike against a mirror, or one less that may have it.
    loop {
        let mirror = mirrors.pick(target)?;
        match attempt(mirrors, mirror, target) {
            Ok(bytes) => return Ok(bytes),
            Err(failure) => blame(mirror, target, failure),
        }
    }
}

fn attempt(mirrors: &Mirrors, mirror: &Mirror, target: &Target) -> Result<Vec<u8>> {
    let opened = mirror.source.open(&target.path(), &[], target.length);
    let opened = opened.map_err(|error| unreachable(mirror, target, &error))?;
    let body = opened.ok_or_else(|| missing(mirror, target))?.body;
    let mut bytes = Vec::new();
    body.take(target.length.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| unreachable(mirror, target, &error))?;
    mirrors.count(bytes.len() as u64);
    let refused = |why: &str| Err(Mirrors::failure(mirror, target, ErrorCode::Digest, why));
    if bytes.len() as u64 != target.length {
        return refused("doesn't have the length that targets.json promises");
    }
    if crate::tuf::keys::to_hex(&sha256(&[&bytes])) != target.sha256 {
        return refused("doesn't have the digest that targets.json promises");
    }
    mirror.well();
    Ok(bytes)
}

/// Streams a whole file to its place and checks its digest there and then. What fails begins anew.
pub fn whole(mirrors: &Mirrors, target: &Target, area: &Area, done: &mut dyn FnMut(u64)) -> Result<()> {
    // Bounded: every round is a strike against a mirror, or one less that may have it.
    loop {
        let mirror = mirrors.pick(target)?;
        match stream_whole(mirrors, mirror, target, area, done) {
            Err(failure) if failure.code != ErrorCode::Internal => blame(mirror, target, failure),
            outcome => return outcome,
        }
    }
}

fn stream_whole(
    mirrors: &Mirrors,
    mirror: &Mirror,
    target: &Target,
    area: &Area,
    done: &mut dyn FnMut(u64),
) -> Result<()> {
    let opened = mirror.source.open(&target.path(), &[], target.length);
    let opened = opened.map_err(|error| unreachable(mirror, target, &error))?;
    let mut body = opened.ok_or_else(|| missing(mirror, target))?.body;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; (CHUNK_BLOCKS * BLOCK) as usize];
    let mut at = 0;
    while at < target.length {
        let piece = &mut buffer[..(target.length - at).min(CHUNK_BLOCKS * BLOCK) as usize];
        body.read_exact(piece).map_err(|error| unreachable(mirror, target, &error))?;
        mirrors.count(piece.len() as u64);
        context.update(piece);
        area.write_at(piece, at).map_err(Failure::io(format!("write {} to the disk", target.name)))?;
        at += piece.len() as u64;
        done(at);
    }
    match crate::tuf::keys::to_hex(context.finish().as_ref()) == target.sha256 {
        true => Ok(()),
        false => {
            let why = "doesn't have the digest that targets.json promises";
            Err(Mirrors::failure(mirror, target, ErrorCode::Digest, why))
        }
    }
}

/// A failure counts against a mirror; a file that it hasn't got is no failure of the others.
fn blame(mirror: &Mirror, target: &Target, failure: Failure) {
    match failure.code {
        ErrorCode::NotFound => mirror.lacks(target, failure),
        _ => mirror.failed(&failure),
    }
}

fn missing(mirror: &Mirror, target: &Target) -> Failure {
    let path = target.path();
    let message = format!("update repository {}: {path} is listed, but isn't there", mirror.source.name());
    Failure::new(ErrorCode::NotFound, message)
}

fn unreachable(mirror: &Mirror, target: &Target, error: &io::Error) -> Failure {
    let code = match error.kind() {
        // More than was promised, however long it goes on.
        io::ErrorKind::FileTooLarge => ErrorCode::Digest,
        _ => ErrorCode::Network,
    };
    Mirrors::failure(mirror, target, code, &chain(error))
}
