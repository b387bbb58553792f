//! Bytes of a release.

use anyhow::{Context, Result};

use super::Figure;
use crate::build::Build;

/// What an update of everything would fetch: UKI, root image and hash tree.
pub fn release(build: &Build) -> Result<Vec<Figure>> {
    let folder = build.build.join("cloud/release");
    let mut bytes = 0;
    for entry in std::fs::read_dir(&folder).with_context(|| format!("read {}: run `make image`", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name();
        if [".efi", ".root", ".verity"].iter().any(|suffix| name.to_string_lossy().ends_with(suffix)) {
            bytes += entry.metadata()?.len();
        }
    }
    let how = "UKI (kernel, initrd) + erofs root + hash tree, cloud profile, sum of file sizes";
    Ok(vec![Figure::new("release_cloud_bytes", "bytes", Some(27e6), how, vec![bytes as f64])])
}
