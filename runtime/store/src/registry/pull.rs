//! The whole pull: manifest, config, then the layers, a few at a time, then one commit.

use std::collections::HashSet;

use super::blob::BlobStream;
use super::client::Registry;
use super::signature;
use super::workers::{self, Crew};
use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::layer::depot::Unpacked;
use crate::model::{ConfigFile, Descriptor, ImageManifest, MAX_CONFIG_BYTES, Manifest, Platform};
use crate::progress::{Progress, Status};
use crate::reference::Reference;
use crate::remote::Pull;
use crate::store::Store;

/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 512 * 1024;

/// One layer to be fetched.
struct Job {
    blob: Descriptor,
    diff_id: Digest,
}

/// Pulls an image into a store: from a mirror if one has it, otherwise from its registry.
pub fn pull(
    store: &Store,
    reference: &Reference,
    pull: &Pull<'_>,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImageId, Error> {
    let platform = Platform::runnable(pull.platform.unwrap_or("linux/amd64"))
        .ok_or_else(|| Error::NoPlatform(reference.to_string(), pull.platform.unwrap_or_default().to_owned()))?;
    let id = reference.tag().map(str::to_owned).or(reference.digest().map(Digest::short));
    let mut registries = Registry::with_mirrors(store, reference, pull.auth);
    let last = registries.pop().ok_or_else(|| Error::NoSuchImage(reference.to_string()))?;
    progress(Progress { id, status: Status::PullingFrom(reference.repository().to_owned()) });
    for mirror in registries {
        match pull_from(store, &mirror, reference, &platform, progress) {
            Err(error) if error.is_of_registry() => {
                log::warn!("mirror {} can't be used for {reference}: {error}", mirror.host());
            }
            other => return other,
        }
    }
    pull_from(store, &last, reference, &platform, progress)
}

fn pull_from(
    store: &Store,
    registry: &Registry<'_>,
    reference: &Reference,
    platform: &Platform,
    progress: &mut dyn FnMut(Progress),
) -> Result<ImageId, Error> {
    let (top, top_bytes, _) = registry.manifest(&reference.manifest(), reference.digest())?;
    let keys = &store.options.signature_keys;
    let signed = if keys.is_empty() { None } else { Some(signature::fetch(registry, reference, &top, keys)?) };
    let (manifest, manifest_bytes) = choose(registry, reference, platform, top_bytes.clone())?;
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
    let unpacked = workers::run(&reference.to_string(), &jobs, progress, |job, crew| {
        layer(store, registry, reference, job, crew)
    })?;
    store.depot.commit(unpacked)?;
    for job in &jobs {
        progress(Progress { id: Some(job.blob.digest.short()), status: Status::PullComplete });
    }
    let mut names = vec![reference.with_digest(top)];
    if let Some(tag) = reference.tag().filter(|_| reference.digest().is_none()) {
        names.push(reference.with_tag(tag)?);
    }
    let id = store.record(&config, diff_ids, Some(&manifest_bytes), &names)?;
    if let Some(signed) = signed {
        let index = (top_bytes != manifest_bytes).then_some(top_bytes.as_slice());
        store.note_signature(&id, signed, index)?;
    }
    progress(Progress { id: None, status: Status::Digest(top.to_string()) });
    let shown = reference.to_string();
    let status = if is_known && jobs.is_empty() { Status::UpToDate(shown) } else { Status::Downloaded(shown) };
    progress(Progress { id: None, status });
    Ok(id)
}

/// The manifest for a platform.
fn choose(
    registry: &Registry<'_>,
    reference: &Reference,
    platform: &Platform,
    bytes: Vec<u8>,
) -> Result<(ImageManifest, Vec<u8>), Error> {
    let what = format!("manifest of {reference}");
    let entries = match Manifest::parse(&what, &bytes)? {
        Manifest::Image(manifest) => return Ok((manifest, bytes)),
        Manifest::Index(entries) => entries,
    };
    let entry =
        platform.choose(&entries).ok_or_else(|| Error::NoPlatform(reference.to_string(), platform.to_string()))?;
    let (_, bytes, _) = registry.manifest(&entry.digest.to_string(), Some(&entry.digest))?;
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

/// One layer: what comes is unpacked at once, and thrown away if it wasn't what it should be.
fn layer(
    store: &Store,
    registry: &Registry<'_>,
    reference: &Reference,
    job: &Job,
    crew: &Crew,
) -> Result<Unpacked, Error> {
    let label = format!("layer {} of {reference} from {}", job.blob.digest, registry.host());
    let reported = std::cell::Cell::new(0);
    let report = |current: u64, retry: Option<u64>| {
        let id = Some(job.blob.digest.short());
        if let Some(seconds) = retry {
            crew.report(Progress { id, status: Status::Retrying { seconds } });
        } else if current - reported.get() >= REPORT_BYTES || current == job.blob.size {
            reported.set(current);
            crew.report(Progress { id, status: Status::Downloading { current, total: job.blob.size } });
        }
        crew.goes_on()
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
