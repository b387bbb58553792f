//! The hash tree over a root image.

use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::{Path, PathBuf};

use keel_spec::verity::{BLOCK_BYTES, Builder, RootHash, TreeError};

use crate::files::{self, FileError, at};

/// Why a hash tree can't be made.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// A file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The image's size is wrong.
    #[error("cannot make a hash tree for {}", .0.display())]
    Tree(PathBuf, #[source] TreeError),
    /// The image isn't made of whole blocks.
    #[error("{} has {} bytes, which is no multiple of {BLOCK_BYTES}", .0.display(), .1)]
    Size(PathBuf, u64),
}

/// Writes the tree of `image` to `tree`; returns the roothash and the number of data blocks.
pub fn make(image: &Path, tree: &Path) -> Result<(RootHash, u64), HashError> {
    let file = File::open(image).map_err(at("read", image))?;
    let bytes = file.metadata().map_err(at("read", image))?.len();
    if bytes % BLOCK_BYTES as u64 != 0 {
        return Err(HashError::Size(image.into(), bytes));
    }
    let blocks = bytes / BLOCK_BYTES as u64;
    let fault = |error| HashError::Tree(image.into(), error);
    let mut builder = Builder::new(blocks, files::sha256).map_err(fault)?;
    let mut reader = BufReader::with_capacity(1 << 20, file);
    let mut block = [0; BLOCK_BYTES];
    for _ in 0..blocks {
        reader.read_exact(&mut block).map_err(at("read", image))?;
        builder.feed(&block).map_err(fault)?;
    }
    let (content, root_hash) = builder.finish().map_err(fault)?;
    files::write(tree, &content, 0o644)?;
    Ok((root_hash, blocks))
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::gpt::Guid;
    use keel_spec::verity::{SALT, SUPERBLOCK_UUID, Tree};
    use std::process::Command;

    #[test]
    fn trees_are_byte_for_byte_what_veritysetup_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        // One level, exactly one full block of hashes, two levels, three levels.
        for blocks in [2u32, 128, 129, 700, 128 * 128 + 3] {
            let content: Vec<u8> =
                (0..blocks).flat_map(|number| number.to_le_bytes().repeat(BLOCK_BYTES / 4)).collect();
            std::fs::write(path("root"), &content).unwrap();
            let (root_hash, counted) = make(&path("root"), &path("ours")).unwrap();
            assert_eq!(counted, u64::from(blocks));
            let _ = std::fs::remove_file(path("theirs"));
            let said = files::run(
                Command::new(files::sbin("veritysetup"))
                    .args(["format", "--hash=sha256", "--salt"])
                    .arg(files::hex(&SALT))
                    .arg(format!("--uuid={}", Guid::from_bytes(SUPERBLOCK_UUID)))
                    .args([path("root"), path("theirs")]),
            )
            .unwrap();
            assert!(said.contains(&root_hash.to_string()), "{blocks}: {said}");
            let ours = std::fs::read(path("ours")).unwrap();
            assert!(ours == std::fs::read(path("theirs")).unwrap(), "trees over {blocks} blocks differ");
            Tree::check(ours, counted, &root_hash, &files::sha256).unwrap();
        }
    }
}
