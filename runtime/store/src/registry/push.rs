//! The whole push: layers, a few at a time, then config and manifest.

use std::collections::{BTreeMap, BTreeSet};

use super::client::{Ask, Registry};
use super::upload;
use super::workers::{self, Crew};
use crate::digest::{Digest, ImageId};
use crate::error::Error;
use crate::model::{
    CONFIG_TYPE, Descriptor, GZIP_LAYER_TYPE, ImageManifest, MANIFEST_TYPE, MAX_CONFIG_BYTES, MAX_MANIFEST_BYTES,
    Manifest,
};
use crate::progress::{Progress, Status};
use crate::reference::Reference;
use crate::remote::Auth;
use crate::store::Store;
use keel_fetch::Method;

/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 512 * 1024;
/// Other repositories that a layer is looked for in.
const MAX_SOURCES: usize = 4;

/// A blob that a registry is known to have had for a layer.
#[derive(Clone)]
struct Known {
    blob: Descriptor,
    /// Repositories of the target's registry in which it was.
    repositories: BTreeSet<String>,
}

struct Job {
    diff_id: Digest,
    known: Vec<Known>,
}

/// Pushes an image under a name with a tag.
pub fn push(
    store: &Store,
    reference: &Reference,
    auth: Option<&Auth>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Digest, Error> {
    let tag = reference.tag().unwrap_or_default().to_owned();
    let (id, layers, manifest) = {
        let records = store.records();
        let id = records.images().find(&reference.to_string())?;
        let record = records.images().get(&id).cloned().unwrap_or_default();
        (id, record.layers, record.manifest)
    };
    let _pins = store.pin(layers.iter().copied());
    let known = known(store, reference)?;
    let repository = format!("{}/{}", reference.registry(), reference.repository());
    progress(Progress { id: None, status: Status::PushingTo(repository) });
    let mut jobs: Vec<Job> = Vec::new();
    for diff_id in &layers {
        if !jobs.iter().any(|job| job.diff_id == *diff_id) {
            progress(Progress { id: Some(diff_id.short()), status: Status::Preparing });
            jobs.push(Job { diff_id: *diff_id, known: known.get(diff_id).cloned().unwrap_or_default() });
        }
    }
    let others: BTreeSet<String> = jobs.iter().flat_map(|job| &job.known).flat_map(sources).cloned().collect();
    let registry = Registry::new(store, reference, auth).for_push(others.into_iter().take(MAX_SOURCES));
    let pushed: BTreeMap<Digest, Descriptor> =
        workers::run(&reference.to_string(), &jobs, progress, |job, crew| layer(store, &registry, job, crew))?
            .into_iter()
            .collect();
    let config = store.blob(&id, MAX_CONFIG_BYTES)?;
    upload::small(&registry, &config)?;
    let blobs: Option<Vec<_>> = layers.iter().map(|diff_id| pushed.get(diff_id).cloned()).collect();
    let blobs = blobs.ok_or_else(|| registry.broken("a layer was not pushed".into()))?;
    let (bytes, media_type) = manifest_of(store, manifest, &config, blobs)?;
    let headers = [("Content-Type", media_type.as_str())];
    let ask = Ask { method: Method::Put, headers: &headers, body: &bytes, max_bytes: 64 * 1024, range: None };
    registry.retried(|| registry.send(&registry.url(&format!("manifests/{tag}")), &ask))?;
    let digest = Digest::of(&bytes);
    remember(store, id, &layers, &config, &bytes, &reference.with_digest(digest))?;
    let status = Status::PushDone { tag, digest: digest.to_string(), size: bytes.len() as u64 };
    progress(Progress { id: None, status });
    Ok(digest)
}

/// The blobs of layers, from the manifests that images were pulled or pushed by.
fn known(store: &Store, target: &Reference) -> Result<BTreeMap<Digest, Vec<Known>>, Error> {
    let records: Vec<_> = store.records().images().iter().map(|(_, record)| record.clone()).collect();
    let mut known: BTreeMap<Digest, Vec<Known>> = BTreeMap::new();
    for record in records {
        let Some(manifest) = record.manifest else { continue };
        let Ok(bytes) = store.blob(&manifest, MAX_MANIFEST_BYTES) else { continue };
        let Ok(Manifest::Image(manifest)) = Manifest::parse("a manifest", &bytes) else { continue };
        let references = record.digests.iter().filter_map(|name| name.parse::<Reference>().ok());
        let of_registry = references.filter(|name| name.registry() == target.registry());
        let repositories: BTreeSet<_> = of_registry.map(|name| name.repository().to_owned()).collect();
        for (diff_id, blob) in record.layers.iter().zip(manifest.layers) {
            known.entry(*diff_id).or_default().push(Known { blob, repositories: repositories.clone() });
        }
    }
    Ok(known)
}

fn sources(known: &Known) -> impl Iterator<Item = &String> {
    known.repositories.iter().take(MAX_SOURCES)
}

/// One layer: there already, or taken from another repository, or sent.
fn layer(store: &Store, registry: &Registry<'_>, job: &Job, crew: &Crew) -> Result<(Digest, Descriptor), Error> {
    let id = Some(job.diff_id.short());
    let report = |status| crew.report(Progress { id: id.clone(), status });
    for known in &job.known {
        if upload::exists(registry, &known.blob.digest)? {
            report(Status::LayerExists);
            return Ok((job.diff_id, typed(&known.blob)));
        }
    }
    for (known, source) in job.known.iter().flat_map(|known| sources(known).map(move |source| (known, source))) {
        if source != registry.reference.repository() && upload::mount(registry, &known.blob.digest, source)? {
            report(Status::MountedFrom(source.clone()));
            return Ok((job.diff_id, typed(&known.blob)));
        }
    }
    let (mut archive, total) = store.depot.archive(&job.diff_id)?;
    let reported = std::cell::Cell::new(0);
    let watch = |current: u64| {
        if current - reported.get() >= REPORT_BYTES || current == total {
            reported.set(current);
            report(Status::Pushing { current, total });
        }
        crew.goes_on()
    };
    let (blob, got) = upload::layer(registry, &mut archive, GZIP_LAYER_TYPE, &watch)?;
    if got != job.diff_id {
        let what = format!("layer {} on disk", job.diff_id);
        return Err(Error::Digest { what, expected: job.diff_id, got });
    }
    report(Status::Pushed);
    Ok((job.diff_id, blob))
}

/// A layer as an OCI manifest names it, whatever it was called where it came from.
fn typed(blob: &Descriptor) -> Descriptor {
    let compression = if blob.media_type.ends_with("zstd") {
        "+zstd"
    } else if blob.media_type.ends_with("gzip") {
        "+gzip"
    } else {
        ""
    };
    Descriptor::new(&format!("application/vnd.oci.image.layer.v1.tar{compression}"), blob.digest, blob.size)
}

/// The manifest and its media type: the one that the image came by where all its blobs are the same, so that it keeps
/// its digest; otherwise a new one.
fn manifest_of(
    store: &Store,
    old: Option<Digest>,
    config: &[u8],
    layers: Vec<Descriptor>,
) -> Result<(Vec<u8>, String), Error> {
    let old = old.and_then(|digest| store.blob(&digest, MAX_MANIFEST_BYTES).ok());
    if let Some(bytes) = old
        && let Ok(Manifest::Image(manifest)) = Manifest::parse("a manifest", &bytes)
        && !manifest.media_type.is_empty()
        && manifest.config.digest == Digest::of(config)
        && manifest.layers.iter().map(|layer| layer.digest).eq(layers.iter().map(|layer| layer.digest))
    {
        return Ok((bytes, manifest.media_type));
    }
    let manifest = ImageManifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE.into(),
        config: Descriptor::of(CONFIG_TYPE, config),
        layers,
    };
    let bytes = serde_json::to_vec(&manifest)
        .map_err(|error| Error::Invalid { what: "the manifest".into(), reason: error.to_string() })?;
    Ok((bytes, MANIFEST_TYPE.into()))
}

/// Notes under which digest the image can be had now. An image that is gone meanwhile stays gone.
fn remember(
    store: &Store,
    id: ImageId,
    layers: &[Digest],
    config: &[u8],
    manifest: &[u8],
    name: &Reference,
) -> Result<(), Error> {
    if store.records().images().get(&id).is_none() {
        return Ok(());
    }
    store.record(config, layers.to_vec(), Some(manifest), std::slice::from_ref(name)).map(|_| ())
}
