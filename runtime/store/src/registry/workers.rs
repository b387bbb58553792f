//! A few layers at a time: threads that each take the next job, and whose reports come out of one.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use crate::error::Error;
use crate::progress::Progress;

/// Layers under way at the same time.
const MAX_WORKERS: usize = 3;
/// Stack of a worker, which holds no large values.
const STACK_BYTES: usize = 512 * 1024;
/// Reports waiting to be passed on.
const REPORTS: usize = 64;

/// What a job needs to know of the others.
pub struct Crew {
    sender: SyncSender<Progress>,
    failed: std::sync::Arc<AtomicBool>,
}

impl Crew {
    /// Passes a report on. A caller that is gone doesn't stop the job.
    pub fn report(&self, progress: Progress) {
        let _ = self.sender.send(progress);
    }

    /// Whether to go on: no other job has failed.
    pub fn goes_on(&self) -> bool {
        !self.failed.load(Ordering::Relaxed)
    }
}

/// Does all jobs, a few at a time; results come in no order. After a failure the others stop, and it is returned.
pub fn run<J: Sync, T: Send>(
    what: &str,
    jobs: &[J],
    progress: &mut dyn FnMut(Progress),
    work: impl Fn(&J, &Crew) -> Result<T, Error> + Sync,
) -> Result<Vec<T>, Error> {
    let next = AtomicUsize::new(0);
    let failed = std::sync::Arc::new(AtomicBool::new(false));
    let one = |crew: Crew| {
        let mut done = Vec::new();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)).filter(|_| crew.goes_on()) {
            match work(job, &crew) {
                Ok(result) => done.push(result),
                // Only the first failure counts: the others follow from it.
                Err(error) => return Err((!crew.failed.swap(true, Ordering::Relaxed)).then_some(error)),
            }
        }
        Ok(done)
    };
    thread::scope(|scope| {
        let (sender, reports) = sync_channel(REPORTS);
        let workers = (0..jobs.len().min(MAX_WORKERS)).map(|number| {
            let (crew, one) = (Crew { sender: sender.clone(), failed: failed.clone() }, &one);
            thread::Builder::new()
                .name(format!("layer-{number}"))
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, move || one(crew))
                .map_err(Error::io("starting a thread for", what))
        });
        let workers: Vec<_> = workers.collect();
        drop(sender);
        reports.iter().for_each(progress);
        let mut results = Vec::new();
        let mut failure = None;
        for worker in workers {
            match worker?.join() {
                Ok(Ok(done)) => results.extend(done),
                Ok(Err(error)) => failure = error.or(failure),
                Err(_) => failure = Some(Error::Invalid { what: what.into(), reason: "a worker died".into() }),
            }
        }
        failure.map_or(Ok(results), Err)
    })
}
