//! A layer's archive, put together again from its recipe and the objects.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, openat};

use super::recipe::{Reader, Record, Segment};
use crate::digest::ObjectId;

/// The bytes of a layer's archive.
pub struct Assembled {
    objects: OwnedFd,
    recipe: Reader<File>,
    state: State,
}

enum State {
    Raw(io::Cursor<Vec<u8>>),
    File(File, std::vec::IntoIter<Segment>, u64),
    End,
}

impl Assembled {
    /// The archive of a recipe, whose objects are in a folder.
    pub fn open(recipe: &Path, objects: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let objects = rustix::fs::open(objects, flags, Mode::empty())?;
        Ok(Self { objects, recipe: Reader::new(File::open(recipe)?)?, state: State::Raw(io::Cursor::default()) })
    }

    fn object(&self, object: &ObjectId) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.objects, object.hex(), flags, Mode::empty())?.into())
    }

    fn advance(&mut self) -> io::Result<()> {
        if let State::File(file, segments, left) = &mut self.state
            && let Some((offset, length)) = segments.next()
        {
            file.seek(SeekFrom::Start(offset))?;
            *left = length;
            return Ok(());
        }
        self.state = match self.recipe.next()? {
            None => State::End,
            Some(Record::Raw(bytes)) => State::Raw(io::Cursor::new(bytes)),
            Some(Record::Object(object, segments)) => State::File(self.object(&object)?, segments.into_iter(), 0),
        };
        Ok(())
    }
}

impl Read for Assembled {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        loop {
            let count = match &mut self.state {
                State::End => return Ok(0),
                State::Raw(bytes) => bytes.read(buffer)?,
                State::File(_, _, 0) => 0,
                State::File(file, _, left) => {
                    let count = file.by_ref().take(*left).read(buffer)?;
                    if count == 0 {
                        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "a file of the layer was cut short"));
                    }
                    *left -= count as u64;
                    count
                }
            };
            if count > 0 {
                return Ok(count);
            }
            self.advance()?;
        }
    }
}
