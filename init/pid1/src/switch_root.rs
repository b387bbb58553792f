//! From the initramfs to the verified root.
//!
//! `pivot_root` refuses the initramfs, so: move the mounts, empty the initramfs (it stays in memory for ever, with
//! whatever is in it), move the root over `/`, change into it.

use std::ffi::CString;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use rustix::mount::mount_move;

/// Deepest folder of the initramfs that is emptied; modules lie less than ten deep.
const MAX_DEPTH: usize = 32;

/// Makes `root` the root and `/`. Mounts on `moved` go along.
pub fn switch_root(root: &Path, moved: &[&str]) -> io::Result<()> {
    for mount in moved {
        mount_move(*mount, root.join(mount.trim_start_matches('/')))?;
    }
    let device = fs::metadata("/")?.dev();
    std::env::set_current_dir(root)?;
    empty(Path::new("/"), device, MAX_DEPTH);
    mount_move(root, "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Deletes what lies on the given device. What can't be deleted only costs memory.
fn empty(folder: &Path, device: u64, depth: usize) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let Ok(metadata) = fs::symlink_metadata(&path) else { continue };
        if metadata.dev() != device {
            continue;
        }
        if metadata.is_dir() && depth > 0 {
            empty(&path, device, depth - 1);
            let _ = fs::remove_dir(&path);
        } else {
            let _ = fs::remove_file(&path);
        }
    }
}

/// Replaces this program by the root's init. Returns only if that fails.
pub fn exec(program: &str, arguments: &[String]) -> io::Error {
    let text = |text: &str| CString::new(text).map_err(io::Error::from);
    let attempt = || -> io::Result<()> {
        let path = text(program)?;
        let mut argv = vec![path.clone()];
        for argument in arguments {
            argv.push(text(argument)?);
        }
        let environment: [CString; 0] = [];
        nix::unistd::execve(&path, &argv, &environment)?;
        Ok(())
    };
    attempt().err().unwrap_or_else(|| io::ErrorKind::Other.into())
}
