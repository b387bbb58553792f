//! The whole pull: manifest, config, then the layers, a few at a time, then one commit.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;

use super::blob::BlobStream;
use super::client::Registry;
use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::layer::depot::Unpacked;
use crate::model::{ConfigFile, Descriptor, ImageManifest, MAX_CONFIG_BYTES, Manifest, for_this_machine};
use crate::progress::{Progress, Status};
use crate::reference::Reference;
use crate::store::{Auth, Store};

/// Layers unpacked at the same time.
const MAX_WORKERS: usize = 3;
/// Stack of a worker, which holds no large values.
const WORKER_STACK_BYTES: usize = 512 * 1024;
/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 512 * 1024;
/// Reports waiting to be passed on.
const REPORTS: usize = 64;

/// One layer to be fetched.
struct Job {
    blob: Descriptor,
    diff_id: Digest,
}

/// Pulls an image into a store.
pub fn pull(
    store: &Store,
    reference: &Reference,
    auth: Option<&Auth>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImageId, Error> {
    let registry = Registry::new(store, reference, auth);
    let id = reference.tag().map(str::to_owned).or(reference.digest().map(Digest::short));
    progress(Progress { id, status: Status::PullingFrom(reference.repository().to_owned()) });
    let (top, top_bytes) = registry.manifest(&reference.manifest(), reference.digest())?;
    let (manifest, manifest_bytes) = choose(&registry, reference, top_bytes)?;
    let config = registry.small_blob(&manifest.config.digest, MAX_CONFIG_BYTES)?;
    let diff_ids = ConfigFile::parse(&reference.to_string(), &config)?.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        return Err(registry.broken(format!(
            "the manifest has {} layers, the config {}",
            manifest.layers.len(),
            diff_ids.len()
        )));
    }
    let _pins = store.pin(diff_ids.clone());
    let is_known = store.records().images().get(&manifest.config.digest).is_some();
    let jobs = plan(store, manifest.layers, &diff_ids, progress);
    let unpacked = fetch(store, &registry, reference, &jobs, progress)?;
    store.depot.commit(unpacked)?;
    for job in &jobs {
        progress(Progress { id: Some(job.blob.digest.short()), status: Status::PullComplete });
    }
    let manifest = store.write_blob(&manifest_bytes)?;
    let mut names = vec![reference.with_digest(top)];
    if let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) {
        names.push(reference.with_tag(tag)?);
    }
    let id = store.record(&config, diff_ids, Some(manifest), &names)?;
    progress(Progress { id: None, status: Status::Digest(top.to_string()) });
    let shown = reference.to_string();
    let status = if is_known && jobs.is_empty() { Status::UpToDate(shown) } else { Status::Downloaded(shown) };
    progress(Progress { id: None, status });
    Ok(id)
}

/// The manifest for this machine.
fn choose(registry: &Registry<'_>, reference: &Reference, bytes: Vec<u8>) -> Result<(ImageManifest, Vec<u8>), Error> {
    let what = format!("manifest of {reference}");
    let entries = match Manifest::parse(&what, &bytes)? {
        Manifest::Image(manifest) => return Ok((manifest, bytes)),
        Manifest::Index(entries) => entries,
    };
    let entry = for_this_machine(&entries).ok_or_else(|| Error::NoPlatform(reference.to_string()))?;
    let (_, bytes) = registry.manifest(&entry.digest.to_string(), Some(&entry.digest))?;
    match Manifest::parse(&what, &bytes)? {
        Manifest::Image(manifest) => Ok((manifest, bytes)),
        Manifest::Index(_) => Err(registry.broken("an index that names an index".into())),
    }
}

/// What must be fetched: each layer once, and none that is here.
fn plan(store: &Store, blobs: Vec<Descriptor>, diff_ids: &[Digest], progress: &mut dyn FnMut(Progress)) -> Vec<Job> {
    let mut seen = HashSet::new();
    let mut jobs = Vec::new();
    for (blob, diff_id) in blobs.into_iter().zip(diff_ids) {
        let id = Some(blob.digest.short());
        if store.depot.has(diff_id) {
            progress(Progress { id, status: Status::AlreadyExists });
        } else if seen.insert(*diff_id) {
            progress(Progress { id, status: Status::PullingLayer });
            jobs.push(Job { blob, diff_id: *diff_id });
        }
    }
    jobs
}

/// Fetches and unpacks layers in a few threads; reports come out of this one. After a failure the others stop.
fn fetch(
    store: &Store,
    registry: &Registry<'_>,
    reference: &Reference,
    jobs: &[Job],
    progress: &mut dyn FnMut(Progress),
) -> Result<Vec<Unpacked>, Error> {
    let next = AtomicUsize::new(0);
    let failed = AtomicBool::new(false);
    let work = |sender: SyncSender<Progress>| {
        let mut done = Vec::new();
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            if failed.load(Ordering::Relaxed) {
                break;
            }
            match layer(store, registry, reference, job, &sender, &failed) {
                Ok(unpacked) => done.push(unpacked),
                Err(error) => {
                    // Only the first failure counts: the others follow from it.
                    let is_first = !failed.swap(true, Ordering::Relaxed);
                    return if is_first { Err(Some(error)) } else { Err(None) };
                }
            }
        }
        Ok(done)
    };
    thread::scope(|scope| {
        let (sender, reports) = sync_channel(REPORTS);
        let workers = (0..jobs.len().min(MAX_WORKERS)).map(|number| {
            let (sender, work) = (sender.clone(), &work);
            thread::Builder::new()
                .name(format!("pull-{number}"))
                .stack_size(WORKER_STACK_BYTES)
                .spawn_scoped(scope, move || work(sender))
                .map_err(Error::io("starting a thread for", reference.to_string()))
        });
        let workers: Vec<_> = workers.collect();
        drop(sender);
        reports.iter().for_each(progress);
        let mut unpacked = Vec::new();
        let mut failure = None;
        for worker in workers {
            match worker?.join() {
                Ok(Ok(done)) => unpacked.extend(done),
                Ok(Err(error)) => failure = error.or(failure),
                Err(_) => failure = Some(registry.broken("a worker died".into())),
            }
        }
        failure.map_or(Ok(unpacked), Err)
    })
}

/// One layer: what comes is unpacked at once, and thrown away if it wasn't what it should be.
fn layer(
    store: &Store,
    registry: &Registry<'_>,
    reference: &Reference,
    job: &Job,
    sender: &SyncSender<Progress>,
    failed: &AtomicBool,
) -> Result<Unpacked, Error> {
    let label = format!("layer {} of {reference} from {}", job.blob.digest, reference.registry());
    let reported = std::cell::Cell::new(0);
    let report = |current: u64, retry: Option<u64>| {
        let id = Some(job.blob.digest.short());
        if let Some(seconds) = retry {
            // A caller that is gone doesn't stop the pull.
            let _ = sender.send(Progress { id, status: Status::Retrying { seconds } });
        } else if current - reported.get() >= REPORT_BYTES || current == job.blob.size {
            reported.set(current);
            let _ = sender.send(Progress { id, status: Status::Downloading { current, total: job.blob.size } });
        }
        !failed.load(Ordering::Relaxed)
    };
    let mut stream = BlobStream::new(registry, &job.blob, &report);
    let unpacked = match store.depot.unpack(&label, &mut stream) {
        Err(Error::Junk { what, got, .. }) if got != job.blob.digest => {
            return Err(Error::Digest { what, expected: job.blob.digest, got });
        }
        other => other?,
    };
    let measured = unpacked.measured;
    if measured.blob != job.blob.digest {
        return Err(Error::Digest { what: label, expected: job.blob.digest, got: measured.blob });
    }
    if measured.diff_id != job.diff_id {
        return Err(Error::Digest { what: format!("{label}, unpacked"), expected: job.diff_id, got: measured.diff_id });
    }
    Ok(unpacked)
}
