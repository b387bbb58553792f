//! Durable files of a repository: each appears whole, by a rename.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use ring::digest;

/// Seconds since the Unix epoch, by this workstation's clock.
pub fn now_unix_s() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH).context("this workstation's clock is before 1970")?.as_secs())
}

/// Lower-case hexadecimal of a SHA-256.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads a file of at most `max_bytes`.
pub fn read(path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = File::open(path).with_context(|| format!("read {}", path.display()))?;
    file.take(max_bytes + 1).read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
    ensure!(bytes.len() as u64 <= max_bytes, "{} is longer than {max_bytes} bytes", path.display());
    Ok(bytes)
}

/// Writes a file so that readers see the old content or the new.
pub fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let attempt = || -> std::io::Result<()> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        file.write_all(bytes)?;
        finish(file, path)
    };
    attempt().with_context(|| format!("write {}", path.display()))
}

/// Copies a file into a folder as `<sha256>.<name>`; its digest and length.
pub fn copy_by_digest(from: &Path, folder: &Path, name: &str) -> Result<(String, u64)> {
    let mut source = File::open(from).with_context(|| format!("read {}", from.display()))?;
    let mut attempt = || -> std::io::Result<(String, u64)> {
        let mut file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
        let (mut hash, mut length) = (digest::Context::new(&digest::SHA256), 0);
        let mut buffer = vec![0; 1 << 16];
        loop {
            let count = source.read(&mut buffer)?;
            if count == 0 {
                break;
            }
            hash.update(&buffer[..count]);
            file.write_all(&buffer[..count])?;
            length += count as u64;
        }
        let sha256 = hex(hash.finish().as_ref());
        finish(file, &folder.join(format!("{sha256}.{name}")))?;
        Ok((sha256, length))
    };
    attempt().with_context(|| format!("copy {} into {}", from.display(), folder.display()))
}

/// Gives a temporary file its name, when its content is on the disk.
pub fn finish(file: tempfile::NamedTempFile, path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    // A web server has to be able to read it.
    file.as_file().set_permissions(fs::Permissions::from_mode(0o644))?;
    file.as_file().sync_all()?;
    file.persist(path).map_err(|error| error.error)?;
    File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()
}
