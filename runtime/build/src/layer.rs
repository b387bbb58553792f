//! What a step changes becomes a layer: the image so far is mounted with a writable folder above it, files are put there
//! as any program would put them, and what that folder holds then is the layer.

use std::path::Path;

use keel_engine::inside::changes;
use keel_engine::inside::root::Root;
use keel_engine::inside::stream::piped;
use keel_engine::inside::unpack::{UnpackError, UnpackOptions, unpack};
use keel_store::{Digest, Draft, Held};
use rustix::fs::OFlags;

use crate::build::Build;
use crate::context::open_folder;
use crate::error::Error;
use crate::room::Room;

/// An image's files.
pub struct View {
    /// The tree.
    pub root: Root,
    /// What it is mounted with; goes after it.
    room: Room,
}

impl<'a> Build<'a> {
    /// The files of an image as they are so far.
    pub fn view(&mut self, draft: &Draft) -> Result<View, Error> {
        let room = self.room.within()?;
        let path = room.path().join("tree");
        let fd = if draft.layers().is_empty() {
            // Nothing can't be mounted.
            std::fs::create_dir_all(path.join("upper")).map_err(Error::io("making an empty tree"))?;
            open_folder(&path.join("upper"))?
        } else {
            let image = self.image(draft)?;
            self.store.mount(&image, &path, None)?
        };
        Ok(View { root: Root::new(fd, 0), room })
    }

    /// A layer of what `fill` does to an image's files; `None`: nothing.
    pub fn layer(
        &mut self,
        draft: &Draft,
        fill: impl FnOnce(&Root) -> Result<(), Error>,
    ) -> Result<Option<Digest>, Error> {
        let (target, below) = (self.view(draft)?, self.view(draft)?);
        fill(&target.root)?;
        self.interrupt.check()?;
        let upper = Root::new(open_folder(&target.room.path().join("tree/upper"))?, 0);
        let found = changes::changes(&upper, &below.root, &target.root, false);
        let found = found.map_err(Error::io("looking through what the step changed"))?;
        if found.is_empty() {
            return Ok(None);
        }
        let store = self.store;
        let taken = piped(
            |out| changes::layer(&target.root, &found, out),
            |diff| store.add_layer("what the step changed", &mut self.interrupt.watch(diff)),
        );
        let held = taken.map_err(Error::io("making a layer"))??;
        Ok(Some(self.keep_layer(held)))
    }

    /// Holds a layer until the build is over.
    pub fn keep_layer(&mut self, held: Held<'a>) -> Digest {
        let layer = held.layer;
        self.hold(held.into_pins());
        layer
    }

    /// A layer with a folder that commands and files may count on; `None`: it is there.
    pub fn make_folder(&mut self, draft: &Draft, path: &str) -> Result<Option<Digest>, Error> {
        self.layer(draft, |root| {
            let inside = path.trim_start_matches('/');
            if inside.is_empty() || root.open(Path::new(inside), OFlags::PATH | OFlags::DIRECTORY).is_ok() {
                return Ok(());
            }
            let mut archive = tar::Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(now_unix_s());
            let made = archive.append_data(&mut header, inside, std::io::empty()).and_then(|()| archive.into_inner());
            let made = made.map_err(|error| Error::Bad(format!("{path:?} can't be a folder: {error}")))?;
            put(root, Path::new("/"), &mut made.as_slice(), UnpackOptions::default())
        })
    }
}

/// Unpacks an archive into a tree.
pub fn put(root: &Root, into: &Path, archive: &mut dyn std::io::Read, options: UnpackOptions) -> Result<(), Error> {
    unpack(root, into, archive, options).map_err(|error| match error {
        UnpackError::Refused(reason) => Error::Bad(reason),
        UnpackError::Read(source) => Error::io("reading the files")(source),
        UnpackError::Make { path, source } => Error::io(format!("making /{path}"))(source),
    })
}

fn now_unix_s() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
