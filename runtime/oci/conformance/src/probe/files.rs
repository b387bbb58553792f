//! Steps on paths.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use rustix::fs::{CWD, FileType, Mode, StatVfsMountFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use serde_json::{Value, json};

use super::steps::Step;

/// Most that is read of a file.
const MAX_READ_BYTES: u64 = 1 << 20;

/// Takes the step, if it is one on paths.
pub(super) fn step(s: &Step) -> Option<io::Result<Value>> {
    Some(match s.name {
        "read" => s.text(0).and_then(read),
        "write" => write(s, File::options().write(true).truncate(false)),
        "create" => write(s, File::options().write(true).create(true).truncate(true)),
        "overwrite" => write(s, File::options().write(true).truncate(true)),
        "stat" => s.text(0).and_then(fs::metadata).map(described),
        "lstat" => s.text(0).and_then(fs::symlink_metadata).map(described),
        "list" => s.text(0).and_then(list),
        "readlink" => s.text(0).and_then(fs::read_link).map(|path| json!(path.to_string_lossy())),
        "xattr" => xattr(s),
        "mkdir" => s.text(0).and_then(fs::create_dir).map(|()| Value::Null),
        "remove" => s.text(0).and_then(fs::remove_file).map(|()| Value::Null),
        "rmdir" => s.text(0).and_then(fs::remove_dir).map(|()| Value::Null),
        "symlink" => link(s),
        "chdir" => s.text(0).and_then(std::env::set_current_dir).map(|()| Value::Null),
        "chmod" => chmod(s),
        "chown" => chown(s),
        "mknod" => mknod(s),
        "mount" => mount(s),
        "umount" => {
            s.text(0).and_then(|path| Ok(rustix::mount::unmount(path, UnmountFlags::DETACH)?)).map(|()| Value::Null)
        }
        "statvfs" => s.text(0).and_then(statvfs),
        "mounts" => mounts(),
        "fds" => fds(),
        _ => return None,
    })
}

fn read(path: &str) -> io::Result<Value> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_READ_BYTES).read_to_end(&mut bytes)?;
    Ok(json!(String::from_utf8_lossy(&bytes)))
}

fn write(s: &Step, options: &File2) -> io::Result<Value> {
    let mut file = options.open(s.text(0)?)?;
    file.write_all(s.text(1).unwrap_or_default().as_bytes())?;
    Ok(Value::Null)
}

/// `OpenOptions`, shorter.
type File2 = fs::OpenOptions;

fn described(meta: fs::Metadata) -> Value {
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => "folder",
        () if kind.is_file() => "file",
        () if kind.is_symlink() => "link",
        () if kind.is_char_device() => "character",
        () if kind.is_block_device() => "block",
        () if kind.is_fifo() => "pipe",
        () => "other",
    };
    let rdev = meta.rdev();
    json!({
        "type": kind, "mode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(), "size": meta.len(),
        "major": rustix::fs::major(rdev), "minor": rustix::fs::minor(rdev), "device": meta.dev(), "inode": meta.ino(),
    })
}

fn list(path: &str) -> io::Result<Value> {
    let mut names = Vec::new();
    for entry in fs::read_dir(path)? {
        names.push(entry?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(json!(names))
}

/// An extended attribute of a file, without the NUL byte that ends labels.
fn xattr(s: &Step) -> io::Result<Value> {
    let mut value = [0; 4096];
    let length = rustix::fs::getxattr(s.text(0)?, s.text(1)?, &mut value)?;
    Ok(json!(String::from_utf8_lossy(&value[..length]).trim_end_matches('\0')))
}

fn link(s: &Step) -> io::Result<Value> {
    std::os::unix::fs::symlink(s.text(0)?, s.text(1)?)?;
    Ok(Value::Null)
}

fn chmod(s: &Step) -> io::Result<Value> {
    fs::set_permissions(s.text(0)?, fs::Permissions::from_mode(s.number(1)? as u32))?;
    Ok(Value::Null)
}

fn chown(s: &Step) -> io::Result<Value> {
    std::os::unix::fs::lchown(s.text(0)?, Some(s.number(1)? as u32), Some(s.number(2)? as u32))?;
    Ok(Value::Null)
}

fn mknod(s: &Step) -> io::Result<Value> {
    let kind = if s.text(1)? == "b" { FileType::BlockDevice } else { FileType::CharacterDevice };
    let device = rustix::fs::makedev(s.number(2)? as u32, s.number(3)? as u32);
    rustix::fs::mknodat(CWD, s.text(0)?, kind, Mode::from_raw_mode(0o600), device)?;
    Ok(Value::Null)
}

fn mount(s: &Step) -> io::Result<Value> {
    let flags = MountFlags::from_bits_retain(s.number(3).unwrap_or(0) as u32);
    rustix::mount::mount(s.text(0)?, s.text(1)?, s.text(2)?, flags, c"")?;
    Ok(Value::Null)
}

fn statvfs(path: &str) -> io::Result<Value> {
    let s = rustix::fs::statvfs(path)?;
    let kind = rustix::fs::statfs(path)?.f_type;
    Ok(json!({
        "readonly": s.f_flag.contains(StatVfsMountFlags::RDONLY), "bytes": s.f_blocks * s.f_frsize, "magic": kind,
    }))
}

/// `/proc/self/mountinfo`, in its order.
fn mounts() -> io::Result<Value> {
    let table = fs::read_to_string("/proc/self/mountinfo")?;
    let rows = table.lines().filter_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let left: Vec<&str> = left.split(' ').collect();
        let right: Vec<&str> = right.split(' ').collect();
        let options: Vec<&str> = left.get(5)?.split(',').collect();
        let tags: Vec<&str> = left.iter().skip(6).copied().collect();
        Some(json!({
            "root": left.get(3)?, "point": left.get(4)?, "options": options, "tags": tags,
            "type": right.first()?, "source": right.get(1)?, "super": right.get(2).unwrap_or(&"").split(',').collect::<Vec<_>>(),
        }))
    });
    Ok(Value::Array(rows.collect()))
}

/// Open descriptors and what they are of.
fn fds() -> io::Result<Value> {
    let mut found = serde_json::Map::new();
    let mut names: Vec<_> = fs::read_dir("/proc/self/fd")?.flatten().map(|entry| entry.path()).collect();
    names.sort();
    for path in names {
        // The descriptor of this very listing is closed by now.
        if let (Ok(target), Some(name)) = (fs::read_link(&path), path.file_name()) {
            found.insert(name.to_string_lossy().into_owned(), json!(target.to_string_lossy()));
        }
    }
    Ok(Value::Object(found))
}
