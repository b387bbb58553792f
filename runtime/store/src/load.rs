//! Archives of `docker save` and of `skopeo copy … docker-archive:` or `oci-archive:`, taken in as they stream by.
//!
//! Layers may come before the file that says which image they belong to. So each file that looks like a layer is
//! unpacked at once, and bound to images at the end by the digest that was computed meanwhile. What no image
//! claims is dropped.

use std::collections::HashMap;
use std::io::{self, Read};

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::archive::Archive;
use crate::layer::codec::Decoder;
use crate::layer::depot::{Depot, Unpacked};
use crate::layer::head::Kind;
use crate::layer::unpack::{self, Measured};
use crate::model::{ArchiveImage, ConfigFile, Descriptor, MAX_CONFIG_BYTES, Manifest, Platform};
use crate::progress::{Progress, Status};

/// JSON files held in memory, all together.
const MAX_JSON_BYTES: u64 = 64 << 20;
/// Files in an archive.
const MAX_FILES: usize = 20_000;
/// Bytes between two reports of progress.
const REPORT_BYTES: u64 = 1 << 20;

/// An image found in an archive, with its layers at hand.
pub struct Found {
    /// The config, as it was.
    pub config: Vec<u8>,
    /// Diff IDs of its layers.
    pub layers: Vec<Digest>,
    /// Names it is to get, as written in the archive.
    pub names: Vec<String>,
}

/// What an archive held.
pub struct Contents {
    /// The images.
    pub images: Vec<Found>,
    /// Layers that aren't in the store yet.
    pub unpacked: Vec<Unpacked>,
}

#[derive(Default)]
struct Files {
    json: HashMap<String, Vec<u8>>,
    layers: HashMap<String, Measured>,
    links: HashMap<String, String>,
    unpacked: HashMap<Digest, Unpacked>,
}

/// Reads an archive to its end. Layers it unpacks aren't committed.
pub fn read(depot: &Depot, stream: &mut dyn Read, progress: &mut dyn FnMut(Progress)) -> Result<Contents, Error> {
    let read_error = |source| Error::Read { what: "the archive of images".into(), source };
    let decoder = Decoder::new(stream).map_err(read_error)?;
    let mut archive = Archive::new(decoder);
    let mut files = Files::default();
    let mut json_bytes: u64 = 0;
    for _ in 0..MAX_FILES {
        let Some(head) = archive.next_head().map_err(read_error)? else { return bind(depot, files) };
        let name = clean(&head.path)?;
        match head.kind {
            Kind::File => {}
            Kind::Symlink | Kind::HardLink => {
                let folder = if head.kind == Kind::Symlink { name.rsplit_once('/').map_or("", |(f, _)| f) } else { "" };
                files.links.insert(name.clone(), join(folder, &String::from_utf8_lossy(&head.link)));
                continue;
            }
            _ => continue,
        }
        let mut content = archive.content(false);
        let mut start = Vec::new();
        content.by_ref().take(512).read_to_end(&mut start).map_err(read_error)?;
        let is_json = matches!(start.first(), Some(b'{' | b'['));
        let mut content = io::Cursor::new(start).chain(content);
        if is_json && head.size_bytes <= MAX_CONFIG_BYTES {
            json_bytes = json_bytes.saturating_add(head.size_bytes);
            if json_bytes > MAX_JSON_BYTES {
                return Err(invalid("it holds too much JSON"));
            }
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes).map_err(read_error)?;
            files.json.insert(name, bytes);
        } else if name.ends_with(".tar") || name.ends_with(".tar.gz") || name.starts_with("blobs/") {
            files.take_layer(depot, name, head.size_bytes, &mut content, progress)?;
        }
    }
    Err(invalid(format!("it holds more than {MAX_FILES} files")))
}

impl Files {
    fn take_layer(
        &mut self,
        depot: &Depot,
        name: String,
        size_bytes: u64,
        content: &mut dyn Read,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<(), Error> {
        let label = format!("layer {name} of the archive");
        // Archives name a layer by a digest: of the layer, or of something else. Only a match saves the unpacking.
        let stem = name.split('/').find_map(|part| Digest::from_hex(part.split('.').next().unwrap_or(part)).ok());
        let id = stem.map_or_else(|| name.chars().take(12).collect(), |digest| digest.short());
        let mut content = Reporting { inner: content, id, current: 0, reported: 0, total: size_bytes, progress };
        let measured = if stem.is_some_and(|digest| depot.has(&digest) || self.unpacked.contains_key(&digest)) {
            let measured = unpack::measure(&label, &mut content)?;
            if !depot.has(&measured.diff_id) && !self.unpacked.contains_key(&measured.diff_id) {
                return Err(invalid(format!("file {name} isn't the layer of that digest")));
            }
            measured
        } else {
            let unpacked = depot.unpack(&label, &mut content)?;
            let measured = unpacked.measured;
            self.unpacked.insert(measured.diff_id, unpacked);
            measured
        };
        self.layers.insert(name, measured);
        Ok(())
    }

    /// Follows links within the archive; their number is capped, so circles end.
    fn resolve<'a>(&'a self, name: &'a str) -> &'a str {
        let mut name = name;
        for _ in 0..8 {
            match self.links.get(name) {
                Some(target) => name = target,
                None => break,
            }
        }
        name
    }

    fn json(&self, name: &str) -> Result<&[u8], Error> {
        let bytes = self.json.get(self.resolve(name));
        bytes.map(Vec::as_slice).ok_or_else(|| invalid(format!("file {name} is missing")))
    }

    fn blob(&self, digest: &Digest) -> Result<&[u8], Error> {
        let name = format!("blobs/sha256/{}", digest.hex());
        let bytes = self.json(&name)?;
        let got = Digest::of(bytes);
        if got == *digest { Ok(bytes) } else { Err(Error::Digest { what: name, expected: *digest, got }) }
    }

    fn image(&self, config: &[u8], layers: &[String], names: Vec<String>) -> Result<Found, Error> {
        let what = format!("image {}", Digest::of(config));
        let diff_ids = ConfigFile::parse(&what, config)?.rootfs.diff_ids;
        if diff_ids.len() != layers.len() {
            return Err(Error::Invalid {
                what,
                reason: format!("its config names {} layers, the archive {}", diff_ids.len(), layers.len()),
            });
        }
        for (diff_id, name) in diff_ids.iter().zip(layers) {
            let measured =
                self.layers.get(self.resolve(name)).ok_or_else(|| invalid(format!("layer {name} is missing")))?;
            if measured.diff_id != *diff_id {
                let what = format!("layer {name} of {what}");
                return Err(Error::Digest { what, expected: *diff_id, got: measured.diff_id });
            }
        }
        Ok(Found { config: config.to_vec(), layers: diff_ids, names })
    }
}

fn bind(depot: &Depot, files: Files) -> Result<Contents, Error> {
    let images = if files.json.contains_key("manifest.json") {
        let list: Vec<ArchiveImage> = serde_json::from_slice(files.json("manifest.json")?)
            .map_err(|error| invalid(format!("its manifest.json isn't one ({error})")))?;
        let images = list.into_iter().map(|image| {
            let names: Vec<_> = image.layers.iter().map(|name| join("", name)).collect();
            files.image(files.json(&join("", &image.config))?, &names, image.repo_tags)
        });
        images.collect::<Result<Vec<_>, _>>()?
    } else if files.json.contains_key("index.json") {
        match Manifest::parse("index.json", files.json("index.json")?)? {
            Manifest::Index(entries) => oci_images(&files, &entries)?,
            Manifest::Image(_) => return Err(invalid("its index.json isn't an index")),
        }
    } else {
        return Err(invalid("it has neither manifest.json nor index.json"));
    };
    let wanted = |digest: &Digest| images.iter().any(|image| image.layers.contains(digest));
    let unpacked = files.unpacked.into_values().filter(|layer| wanted(&layer.measured.diff_id));
    let unpacked = unpacked.filter(|layer| !depot.has(&layer.measured.diff_id)).collect();
    Ok(Contents { images, unpacked })
}

/// The images of an OCI layout (image-layout.md).
fn oci_images(files: &Files, entries: &[Descriptor]) -> Result<Vec<Found>, Error> {
    let mut images = Vec::new();
    for entry in entries {
        let what = format!("manifest {}", entry.digest);
        let mut manifest = Manifest::parse(&what, files.blob(&entry.digest)?)?;
        if let Manifest::Index(list) = &manifest {
            let chosen = Platform::runnable("linux").and_then(|platform| platform.choose(list).cloned());
            let chosen = chosen.ok_or_else(|| Error::NoPlatform(what.clone(), "linux/amd64".into()))?;
            manifest = Manifest::parse(&what, files.blob(&chosen.digest)?)?;
        }
        let Manifest::Image(manifest) = manifest else { return Err(invalid("an index of indexes")) };
        let layers: Vec<_> =
            manifest.layers.iter().map(|layer| format!("blobs/sha256/{}", layer.digest.hex())).collect();
        for (layer, name) in manifest.layers.iter().zip(&layers) {
            let got = files.layers.get(name).map(|measured| measured.blob);
            if let Some(got) = got.filter(|got| *got != layer.digest) {
                return Err(Error::Digest { what: name.clone(), expected: layer.digest, got });
            }
        }
        let names = ["io.containerd.image.name", "org.opencontainers.image.ref.name"]
            .iter()
            .find_map(|key| entry.annotations.get(*key))
            .cloned();
        images.push(files.image(files.blob(&manifest.config.digest)?, &layers, names.into_iter().collect())?);
    }
    Ok(images)
}

/// Reads on and reports every now and then.
struct Reporting<'a> {
    inner: &'a mut dyn Read,
    id: String,
    current: u64,
    reported: u64,
    total: u64,
    progress: &'a mut dyn FnMut(Progress),
}

impl Read for Reporting<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.current += count as u64;
        if self.current - self.reported >= REPORT_BYTES || (count == 0 && self.current != self.reported) {
            self.reported = self.current;
            let status = Status::Loading { current: self.current, total: self.total };
            (self.progress)(Progress { id: Some(self.id.clone()), status });
        }
        Ok(count)
    }
}

fn clean(path: &[u8]) -> Result<String, Error> {
    let path = std::str::from_utf8(path).map_err(|_| invalid("a file name in it isn't UTF-8"))?;
    Ok(join("", path))
}

/// A name within the archive, without `.` and `..`; nothing is ever opened by it.
fn join(folder: &str, name: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in folder.split('/').chain(name.split('/')) {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    parts.join("/")
}

fn invalid(reason: impl Into<String>) -> Error {
    Error::Invalid { what: "the archive of images".into(), reason: reason.into() }
}
