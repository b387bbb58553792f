//! A layer's archive, put together again from its recipe and the objects, or its folder where an older release
//! unpacked it.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};

use super::recipe::{Reader, Record, Segment};
use crate::digest::ObjectId;

/// The bytes of a layer's archive.
pub struct Assembled {
    layer: OwnedFd,
    objects: OwnedFd,
    recipe: Reader<File>,
    /// Which paths have been moved, with the number of the record that says so.
    moved: Vec<(u64, Vec<u8>, u32)>,
    count: u64,
    state: State,
}

enum State {
    Raw(io::Cursor<Vec<u8>>),
    File(File, std::vec::IntoIter<Segment>, u64),
    End,
}

impl Assembled {
    /// The archive of the layer in a folder, which holds `recipe` and, where an older release made it, `fs` and perhaps
    /// `moved`.
    pub fn open(folder: &Path, objects: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let layer = rustix::fs::open(folder, flags, Mode::empty())?;
        let objects = rustix::fs::open(objects, flags, Mode::empty())?;
        let recipe = || Reader::new(File::open(folder.join("recipe"))?);
        let moved = if folder.join("moved").exists() { all_moved(&mut recipe()?)? } else { Vec::new() };
        let recipe = recipe()?;
        Ok(Self { layer, objects, recipe, moved, count: 0, state: State::Raw(io::Cursor::default()) })
    }

    fn object(&self, object: &ObjectId) -> io::Result<File> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.objects, object.hex(), flags, Mode::empty())?.into())
    }

    fn file(&self, path: &[u8]) -> io::Result<File> {
        let later = self.moved.iter().filter(|(count, ..)| *count > self.count);
        let place = later.filter_map(|(_, old, number)| Some((below(path, old)?, number))).next();
        let path = match place {
            Some((rest, number)) => [format!("moved/{number}").as_bytes(), rest].concat(),
            None => [b"fs/", path].concat(),
        };
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        Ok(openat2(&self.layer, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty(), resolve)?.into())
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
            Some(Record::File(path, segments)) => State::File(self.file(&path)?, segments.into_iter(), 0),
            Some(Record::Moved(..)) => State::Raw(io::Cursor::default()),
        };
        self.count += 1;
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

fn all_moved(recipe: &mut Reader<File>) -> io::Result<Vec<(u64, Vec<u8>, u32)>> {
    let mut moved = Vec::new();
    let mut count = 0;
    while let Some(record) = recipe.next()? {
        if let Record::Moved(path, number) = record {
            moved.push((count, path, number));
        }
        count += 1;
    }
    Ok(moved)
}

/// What is left of a path below another, with its leading slash; empty for that path itself.
fn below<'a>(path: &'a [u8], top: &[u8]) -> Option<&'a [u8]> {
    path.strip_prefix(top).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}
