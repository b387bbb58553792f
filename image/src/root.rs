//! The root file system and the initrd: first a plan of every node, then the act.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cpio;
use crate::files::{self, FileError, at};
use crate::inputs::Inputs;

/// Why a root can't be made.
#[derive(Debug, thiserror::Error)]
pub enum RootError {
    /// A file or program failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The initrd can't be packed.
    #[error("cannot pack the initrd")]
    Initrd(#[source] std::io::Error),
    /// Something to be replaced isn't there.
    #[error("cannot replace {0}: the root has no such file")]
    NothingToReplace(String),
    /// Debian's package has no certificates.
    #[error("there are no certificate authorities in {}", .0.display())]
    NoCertificates(PathBuf),
}

/// One node of the root.
#[derive(Clone, Debug)]
enum Node {
    Folder(u32),
    Link(&'static str),
    Copy(PathBuf, u32),
    Text(String, u32),
}

/// Every node of the root but the modules, parents before children.
#[derive(Debug)]
pub struct Plan(Vec<(String, Node)>);

/// The programs of the host, by the names of their files, and where they go.
pub const PROGRAMS: [(&str, &str); 2] = [("init", "usr/lib/keel/init"), ("keel", "usr/lib/keel/keel")];

const FOLDERS: [(&str, u32); 23] = [
    ("proc", 0o555),
    ("sys", 0o555),
    ("dev", 0o755),
    ("run", 0o755),
    ("tmp", 0o1777),
    ("var", 0o755),
    ("etc", 0o755),
    ("etc/ssl", 0o755),
    ("etc/ssl/certs", 0o755),
    ("usr", 0o755),
    ("usr/bin", 0o755),
    ("usr/sbin", 0o755),
    ("usr/lib", 0o755),
    ("usr/lib/keel", 0o755),
    ("usr/lib/modules", 0o755),
    ("usr/share", 0o755),
    ("usr/share/keel", 0o755),
    ("usr/share/keel/tuf", 0o755),
    ("root", 0o700),
    ("home", 0o755),
    ("mnt", 0o755),
    ("opt", 0o755),
    ("srv", 0o755),
];

/// `sbin/modprobe` is what the kernel starts when it wants a module by alias; PID 1's program answers to that name.
const LINKS: [(&str, &str); 11] = [
    ("bin", "usr/bin"),
    ("sbin", "usr/sbin"),
    ("lib", "usr/lib"),
    ("usr/sbin/init", "../lib/keel/init"),
    ("usr/sbin/modprobe", "../lib/keel/init"),
    ("usr/lib/keel/host", "keel"),
    ("usr/lib/keel/updater", "keel"),
    ("usr/lib/keel/runtime", "keel"),
    ("usr/bin/keelctl", "../lib/keel/keel"),
    ("etc/os-release", "../usr/lib/os-release"),
    ("etc/resolv.conf", "/run/keel/resolv.conf"),
];

impl Plan {
    /// The root of a release.
    pub fn new(programs: &Path, inputs: &Inputs, os_release: &str, tuf_root: &Path) -> Result<Self, RootError> {
        let text = |text: &str| Node::Text(text.into(), 0o644);
        let mut nodes: Vec<(String, Node)> = Vec::new();
        nodes.extend(FOLDERS.map(|(path, mode)| (path.into(), Node::Folder(mode))));
        nodes.extend(LINKS.map(|(path, target)| (path.into(), Node::Link(target))));
        nodes.extend(PROGRAMS.map(|(name, path)| (path.into(), Node::Copy(programs.join(name), 0o755))));
        nodes.extend([
            ("usr/lib/os-release".into(), text(os_release)),
            ("etc/passwd".into(), text("root:x:0:0:root:/root:/sbin/nologin\n")),
            ("etc/group".into(), text("root:x:0:\n")),
            ("usr/share/keel/tuf/root.json".into(), Node::Copy(tuf_root.into(), 0o644)),
            ("etc/hosts".into(), text("127.0.0.1 localhost\n::1 localhost\n")),
            ("etc/ssl/certs/ca-certificates.crt".into(), text(&certificate_bundle(&inputs.certificates)?)),
        ]);
        Ok(Self(nodes))
    }

    /// Puts another file in the place of one of the root's: for builds that are to fail in tests.
    pub fn replace(&mut self, path: &str, file: &Path) -> Result<(), RootError> {
        let wanted = path.trim_start_matches('/');
        let node = self.0.iter_mut().find(|(path, _)| path == wanted).map(|(_, node)| node);
        match node {
            Some(Node::Copy(source, _)) => *source = file.into(),
            Some(node @ Node::Text(..)) => *node = Node::Copy(file.into(), 0o644),
            Some(node @ Node::Link(_)) => *node = Node::Copy(file.into(), 0o755),
            _ => return Err(RootError::NothingToReplace(path.into())),
        }
        Ok(())
    }

    /// Makes every node under `target`, which must be empty.
    pub fn stage(&self, target: &Path) -> Result<(), RootError> {
        for (path, node) in &self.0 {
            let path = target.join(path);
            match node {
                Node::Folder(mode) => {
                    files::create_folder(&path)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).map_err(at("set mode of", &path))?;
                }
                Node::Link(to) => symlink(to, &path).map_err(at("link", &path))?,
                Node::Copy(from, mode) => files::copy(from, &path, *mode)?,
                Node::Text(text, mode) => {
                    files::write(&path, text.as_bytes(), *mode)?;
                    fs::set_permissions(&path, fs::Permissions::from_mode(*mode)).map_err(at("set mode of", &path))?;
                }
            }
        }
        Ok(())
    }
}

/// Debian's certificate authorities in one file.
fn certificate_bundle(folder: &Path) -> Result<String, RootError> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(at("list", folder))? {
        paths.push(entry.map_err(at("list", folder))?.path());
    }
    paths.sort();
    let mut bundle = String::new();
    for path in paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "crt")) {
        let text = fs::read_to_string(path).map_err(at("read", path))?;
        bundle.push_str(text.trim_end());
        bundle.push('\n');
    }
    if bundle.is_empty() {
        return Err(RootError::NoCertificates(folder.into()));
    }
    Ok(bundle)
}

/// What of depmod's index is kept: the text files, which init reads.
const INDEX: [&str; 2] = ["modules.dep", "modules.alias"];

/// Puts modules, and an index of just these, under `root/usr/lib/modules/<release>`; returns that folder. Those in
/// `unpacked` lie there as the kernel maps them: unpacking xz is most of a small module's load after its signature.
pub fn stage_modules(
    inputs: &Inputs,
    chosen: &BTreeSet<String>,
    unpacked: &BTreeSet<String>,
    root: &Path,
) -> Result<PathBuf, RootError> {
    let folder = root.join("usr/lib/modules").join(&inputs.kernel_release);
    for file in chosen {
        files::copy(&inputs.modules.join(file), &folder.join(file), 0o644)?;
        if unpacked.contains(file) && file.ends_with(".xz") {
            files::run(Command::new("xz").arg("--decompress").arg(folder.join(file)))?;
        }
    }
    for file in ["modules.order", "modules.builtin", "modules.builtin.modinfo"] {
        files::copy(&inputs.modules.join(file), &folder.join(file), 0o644)?;
    }
    // depmod looks under <base>/lib.
    let lib = root.join("lib");
    if !lib.exists() {
        symlink("usr/lib", &lib).map_err(at("link", &lib))?;
    }
    files::run(Command::new(files::sbin("depmod")).arg("-b").arg(root).arg(&inputs.kernel_release))?;
    for entry in fs::read_dir(&folder).map_err(at("list", &folder))? {
        let path = entry.map_err(at("list", &folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("modules.") && !INDEX.contains(&name) {
            fs::remove_file(&path).map_err(at("remove", &path))?;
        }
    }
    Ok(folder)
}

/// Makes the erofs image. Times, owner and UUID are fixed, so equal content makes equal bytes.
pub fn make_erofs(tree: &Path, image: &Path, built_unix_s: u64) -> Result<(), RootError> {
    let mut command = Command::new("mkfs.erofs");
    command.args(["-zlz4hc,12", "-C16384", "-x-1", "--all-root", "--quiet"]);
    command.arg(format!("-T{built_unix_s}")).arg("-U6b65656c-726f-4f74-a000-000000000001");
    files::run(command.arg(image).arg(tree))?;
    Ok(())
}

/// Level of the initrd's compression: the highest that needs no window larger than the kernel's.
const INITRD_LEVEL: i32 = 19;

/// The initrd: init, the modules it needs to reach the root, and mount points. The whole of it is packed at once, with
/// what the kernel unpacks fastest (kernel: `Documentation/admin-guide/initrd.rst`, `CONFIG_RD_ZSTD`). What
/// changes most comes last, so that the beginning is the same blocks in the next release, which is what deltas need.
pub fn make_initrd(init: &Path, modules: &Path, kernel_release: &str) -> Result<Vec<u8>, RootError> {
    let mut archive = cpio::Archive::default();
    for path in ["dev", "proc", "sys", "run", "sysroot", "usr", "usr/lib", "usr/lib/modules"] {
        archive.folder(path);
    }
    archive.console();
    add_folder(&mut archive, modules, &format!("usr/lib/modules/{kernel_release}"), 0)?;
    archive.file("init", 0o755, &files::read(init)?);
    zstd::bulk::compress(&archive.finish(), INITRD_LEVEL).map_err(RootError::Initrd)
}

/// The deepest that Debian nests modules is seven folders.
const MAX_DEPTH: u32 = 16;

fn add_folder(archive: &mut cpio::Archive, from: &Path, to: &str, depth: u32) -> Result<(), RootError> {
    archive.folder(to);
    let mut paths = Vec::new();
    for entry in fs::read_dir(from).map_err(at("list", from))? {
        paths.push(entry.map_err(at("list", from))?.path());
    }
    paths.sort();
    for path in paths {
        let name = format!("{to}/{}", path.file_name().unwrap_or_default().to_string_lossy());
        if path.is_dir() && depth < MAX_DEPTH {
            add_folder(archive, &path, &name, depth + 1)?;
        } else {
            archive.file(&name, 0o644, &files::read(&path)?);
        }
    }
    Ok(())
}
