//! The entries of a layer read again from its recipe, without the objects: the tree of an image is made of them.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::Path;

use super::archive::Archive;
use super::head::Head;
use super::recipe::{Reader, Record};
use super::walk::{Contents, Failure, walk};
use crate::digest::ObjectId;
use crate::error::Error;
use crate::tree::{Body, Tree};

/// What a recipe holds itself, as a stream; where an object's content belongs, it stops.
struct Replay {
    recipe: Reader<File>,
    raw: io::Cursor<Vec<u8>>,
    object: Option<ObjectId>,
    ended: bool,
}

impl Replay {
    fn open(path: &Path) -> io::Result<Self> {
        let recipe = Reader::new(File::open(path)?)?;
        Ok(Self { recipe, raw: io::Cursor::default(), object: None, ended: false })
    }

    /// Goes to the next record if this one has been read.
    fn advance(&mut self) -> io::Result<()> {
        let is_read = self.raw.position() == self.raw.get_ref().len() as u64;
        if !is_read || self.object.is_some() || self.ended {
            return Ok(());
        }
        match self.recipe.next()? {
            None => self.ended = true,
            Some(Record::Raw(bytes)) => self.raw = io::Cursor::new(bytes),
            Some(Record::Object(object, _)) => self.object = Some(object),
        }
        Ok(())
    }

    /// The object whose content comes next, if one does.
    fn object(&mut self) -> io::Result<Option<ObjectId>> {
        self.advance()?;
        Ok(self.object.take())
    }
}

impl Read for Replay {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.advance()?;
        if self.object.is_some() {
            return Err(unexpected());
        }
        self.raw.read(buffer)
    }
}

/// Where the content of small files waits until its place in the tree's file is known.
pub struct Spool {
    file: File,
    length: u64,
    buffer: io::BufWriter<File>,
}

impl Spool {
    /// A spool in a file, which has to be open for reading and writing.
    pub fn new(file: File) -> io::Result<Self> {
        let buffer = io::BufWriter::new(file.try_clone()?);
        Ok(Self { file, length: 0, buffer })
    }

    /// The file, complete.
    pub fn finish(mut self) -> io::Result<File> {
        self.buffer.flush()?;
        Ok(self.file)
    }
}

impl Contents<Replay, ()> for Spool {
    fn take(&mut self, archive: &mut Archive<Replay, ()>, head: &Head) -> Result<Body, Failure> {
        if let Some(object) = archive.source().object().map_err(Failure::Read)? {
            archive.content_is_elsewhere();
            return Ok(Body::Object(object, head.real_bytes()));
        }
        let too_large = |_| Failure::Refused("the recipe of the layer holds a large file".into());
        let length = u16::try_from(head.size_bytes).map_err(too_large)?;
        let offset = self.length;
        let mut content = Vec::with_capacity(length.into());
        archive.content(true).read_to_end(&mut content).map_err(Failure::Read)?;
        self.buffer.write_all(&content).map_err(Failure::Write)?;
        self.length += u64::from(length);
        Ok(Body::Inline(offset, length))
    }
}

/// Puts the entries of a layer into a tree, on top of those that it has.
pub fn replay(label: &str, recipe: &Path, tree: &mut Tree, spool: &mut Spool) -> Result<(), Error> {
    let replay = Replay::open(recipe).map_err(Error::io("opening", recipe))?;
    tree.next_layer();
    walk(label, &mut Archive::new(replay), tree, spool).map(|_| ())
}

fn unexpected() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the recipe of the layer is damaged")
}
