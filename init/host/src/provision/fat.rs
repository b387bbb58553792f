//! One file from a FAT volume, read without mounting it: the kernel's four modules for that would cost a boot more
//! than all the rest of this program.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::Path;

use fatfs::{FileSystem, FsOptions};
use fscommon::BufStream;

/// All of a device.
pub(super) const WHOLE: Range<u64> = 0..u64::MAX;

/// Most bytes that are read from a device while looking for a file: where a volume's chains lead in circles, the
/// search ends here.
const MAX_READ_BYTES: u64 = 16 << 20;

/// At most `max_bytes` of a file in the top folder of the FAT volume that has these bytes of `device`; `None` if it isn't
/// there.
pub(super) fn read(device: &Path, place: Range<u64>, name: &str, max_bytes: u64) -> io::Result<Option<Vec<u8>>> {
    let mut device = ReadOnly { file: File::open(device)?, place, at: 0, left: MAX_READ_BYTES };
    device.rewind()?;
    let volume = FileSystem::new(BufStream::new(device), FsOptions::new())?;
    let file = match volume.root_dir().open_file(name) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut content = Vec::new();
    file.take(max_bytes).read_to_end(&mut content)?;
    Ok(Some(content))
}

/// A stretch of a device of which a bounded number of bytes is read and nothing is written.
struct ReadOnly {
    file: File,
    place: Range<u64>,
    /// Offset in the stretch.
    at: u64,
    left: u64,
}

impl Read for ReadOnly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let there = (self.place.end - self.place.start).saturating_sub(self.at).min(buffer.len() as u64) as usize;
        let count = self.file.read(&mut buffer[..there])?;
        let spent = self.left.checked_sub(count as u64);
        self.left = spent.ok_or_else(|| io::Error::other("the volume's chains of clusters don't end"))?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Write for ReadOnly {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::ReadOnlyFilesystem.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for ReadOnly {
    fn seek(&mut self, position: SeekFrom) -> io::Result<u64> {
        let at = match position {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            // Nothing here looks for the end, which a device alone knows.
            SeekFrom::End(_) => None,
        };
        let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
        self.at = at.ok_or_else(invalid)?;
        self.file.seek(SeekFrom::Start(self.place.start.checked_add(self.at).ok_or_else(invalid)?))?;
        Ok(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    const VOLUME_BYTES: u64 = 40 << 20;

    fn volume(kind: &str) -> tempfile::NamedTempFile {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(VOLUME_BYTES).unwrap();
        let made = Command::new("/usr/sbin/mkfs.vfat").args(["-F", kind]).arg(image.path()).output();
        assert!(made.expect("mkfs.vfat: install dosfstools").status.success());
        image
    }

    fn put(image: &tempfile::NamedTempFile, name: &str, content: &str) {
        let source = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(source.path(), content).unwrap();
        let mut copy = Command::new("mcopy");
        copy.arg("-i").arg(image.path()).arg(source.path()).arg(format!("::{name}"));
        assert!(copy.output().expect("mcopy: install mtools").status.success());
    }

    #[test]
    fn a_file_with_a_long_name_is_found_and_another_is_not() {
        for kind in ["16", "32"] {
            let image = volume(kind);
            assert_eq!(read(image.path(), WHOLE, "keel.toml", 100).unwrap(), None);
            put(&image, "other.toml", "x");
            put(&image, "keel.toml", "hostname = \"x\"\n");
            assert_eq!(read(image.path(), WHOLE, "keel.toml", 100).unwrap().unwrap(), b"hostname = \"x\"\n");
            assert_eq!(read(image.path(), WHOLE, "keel.toml", 4).unwrap().unwrap(), b"host");
        }
    }

    #[test]
    fn a_volume_in_the_midst_of_a_disk_is_read_and_nothing_beyond_its_end() {
        let image = volume("32");
        put(&image, "keel.toml", "hostname = \"x\"\n");
        let bytes = std::fs::read(image.path()).unwrap();
        std::fs::write(image.path(), [vec![7; 1 << 20], bytes, vec![7; 4096]].concat()).unwrap();
        let place = 1 << 20..(1 << 20) + VOLUME_BYTES;
        assert_eq!(read(image.path(), place, "keel.toml", 100).unwrap().unwrap(), b"hostname = \"x\"\n");
        assert!(read(image.path(), 1 << 20..(1 << 20) + 100, "keel.toml", 100).is_err());
        assert!(read(image.path(), WHOLE, "keel.toml", 100).is_err());
    }

    #[test]
    fn chains_that_lead_in_circles_end() {
        let image = volume("32");
        put(&image, "some.file", "x");
        let mut bytes = std::fs::read(image.path()).unwrap();
        let reserved_sectors = usize::from(u16::from_le_bytes([bytes[14], bytes[15]]));
        let cluster_bytes = usize::from(bytes[13]) * 512;
        let table_sectors = u32::from_le_bytes([bytes[36], bytes[37], bytes[38], bytes[39]]) as usize;
        let tables = usize::from(bytes[16]);
        // The top folder, cluster 2, follows itself, and none of its entries is the last.
        for table in 0..tables {
            let entry = (reserved_sectors + table * table_sectors) * 512 + 8;
            bytes[entry..entry + 4].copy_from_slice(&2u32.to_le_bytes());
        }
        let folder = (reserved_sectors + tables * table_sectors) * 512;
        bytes[folder..folder + cluster_bytes].fill(0xe5);
        std::fs::write(image.path(), &bytes).unwrap();
        assert!(read(image.path(), WHOLE, "keel.toml", 100).is_err());
    }

    #[test]
    fn what_is_no_volume_is_refused() {
        let image = tempfile::NamedTempFile::new().unwrap();
        for bytes in [&[0; 0][..], &[0; 4096], &[0xff; 65_536]] {
            std::fs::write(image.path(), bytes).unwrap();
            assert!(read(image.path(), WHOLE, "keel.toml", 100).is_err());
        }
    }
}
