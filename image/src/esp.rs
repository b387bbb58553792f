//! The EFI system partition: FAT32 with the boot loader, one UKI and perhaps a machine config.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use fatfs::{FatType, FileSystem, FormatVolumeOptions, FsOptions};
use fscommon::{BufStream, StreamSlice};

use crate::files::{FileError, at};

/// Why the EFI system partition can't be made.
#[derive(Debug, thiserror::Error)]
pub enum EspError {
    /// The disk image can't be written.
    #[error(transparent)]
    File(#[from] FileError),
    /// The FAT file system can't be made.
    #[error("cannot {doing} on the EFI system partition of {}", image.display())]
    Fat {
        /// What was being done.
        doing: String,
        /// In which image.
        image: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

/// Formats the range of the image and puts these files there: path with `/`, content.
pub fn make(image: &Path, offset_bytes: u64, size_bytes: u64, content: &[(String, Vec<u8>)]) -> Result<(), EspError> {
    let file = File::options().read(true).write(true).open(image).map_err(at("open", image))?;
    let fault = |doing: &str| {
        let doing = doing.to_owned();
        move |source| EspError::Fat { doing, image: image.into(), source }
    };
    let slice = StreamSlice::new(file, offset_bytes, offset_bytes + size_bytes).map_err(at("open", image))?;
    let mut stream = BufStream::new(slice);
    // Clusters of 2 KiB: with the usual 4 KiB this volume would have too few of them for FAT32.
    let options = FormatVolumeOptions::new()
        .fat_type(FatType::Fat32)
        .bytes_per_cluster(2048)
        .volume_id(0x6b65_656c)
        .volume_label(*b"ESP        ");
    fatfs::format_volume(&mut stream, options).map_err(fault("make a file system"))?;
    stream.seek(SeekFrom::Start(0)).map_err(at("write", image))?;
    {
        let volume = FileSystem::new(&mut stream, FsOptions::new()).map_err(fault("open the file system"))?;
        for (path, bytes) in content {
            put(&volume, path, bytes).map_err(fault(&format!("write {path}")))?;
        }
        volume.unmount().map_err(fault("close the file system"))?;
    }
    stream.flush().map_err(at("write", image))?;
    Ok(())
}

fn put<T: Read + Write + Seek>(volume: &FileSystem<T>, path: &str, bytes: &[u8]) -> std::io::Result<()> {
    let root = volume.root_dir();
    for (at, _) in path.match_indices('/') {
        root.create_dir(&path[..at])?;
    }
    let mut file = root.create_file(path)?;
    file.truncate()?;
    file.write_all(bytes)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn mtools_reads_long_names_from_it() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("image");
        File::create(&image).unwrap().set_len(257 << 20).unwrap();
        let content = [("EFI/Linux/keel_1.2.3-rc.1+3.efi".to_string(), vec![5; 3_000_000])];
        make(&image, 1 << 20, 256 << 20, &content).unwrap();
        let output =
            Command::new("mdir").args(["-b", "-i"]).arg(format!("{}@@1M", image.display())).arg("::EFI/Linux").output();
        let listing = String::from_utf8(output.unwrap().stdout).unwrap();
        assert!(listing.contains("::/EFI/Linux/keel_1.2.3-rc.1+3.efi"), "{listing}");
    }
}
