//! Which objects a layer has: `objects` in its folder, 40 bytes for each (digest, length in bytes as a little-endian
//! number), sorted, each once. Read as a stream: a large layer has some ten thousand.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::Path;

use crate::digest::ObjectId;

/// An object, as a layer names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its name.
    pub id: ObjectId,
    /// Its length in bytes, holes included.
    pub size_bytes: u64,
}

/// Writes a list.
pub fn write_list(path: &Path, objects: &[Object]) -> io::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    for object in objects {
        out.write_all(&object.id.bytes())?;
        out.write_all(&object.size_bytes.to_le_bytes())?;
    }
    out.flush()
}

/// Reads a list and hands on each object.
pub fn read_list(path: &Path, mut each: impl FnMut(Object)) -> io::Result<()> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    if length % 40 != 0 {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the list of the layer's objects is damaged"));
    }
    let mut input = BufReader::new(file);
    for _ in 0..length / 40 {
        let (mut id, mut size) = ([0; 32], [0; 8]);
        input.read_exact(&mut id)?;
        input.read_exact(&mut size)?;
        each(Object { id: ObjectId::from_bytes(id), size_bytes: u64::from_le_bytes(size) });
    }
    Ok(())
}
