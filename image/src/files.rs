//! Files and programs of the workstation: every failure names what was being done to what.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why a file or a program of the workstation failed.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A file can't be read or written.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program can't be started.
    #[error("cannot start {program}: is it installed? `make deps` installs what is missing")]
    Start {
        /// The program.
        program: String,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A program failed.
    #[error("{command} failed ({status}): {stderr}")]
    Failed {
        /// The whole command.
        command: String,
        /// How it ended.
        status: std::process::ExitStatus,
        /// The end of what it said.
        stderr: String,
    },
}

/// Turns an I/O error into one that says what was being done to which file.
pub fn at<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(std::io::Error) -> FileError + 'a {
    move |source| FileError::File { doing, path: path.into(), source }
}

/// Reads a whole file.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    fs::read(path).map_err(at("read", path))
}

/// Makes a folder and those above it.
pub fn create_folder(path: &Path) -> Result<(), FileError> {
    fs::create_dir_all(path).map_err(at("create folder", path))
}

/// Removes a folder and all that is in it, if it is there.
pub fn remove_folder(path: &Path) -> Result<(), FileError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a file whole or not at all: temporary file, fsync, rename.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), FileError> {
    let folder = path.parent().unwrap_or(Path::new("."));
    create_folder(folder)?;
    let mut name = path.file_name().unwrap_or(OsStr::new("file")).to_owned();
    name.push(format!(".{}.tmp", std::process::id()));
    let temporary = folder.join(name);
    let put = || {
        let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        File::open(folder)?.sync_all()
    };
    put().map_err(at("write", path))
}

/// Copies a file's content, giving the copy this mode.
pub fn copy(from: &Path, to: &Path, mode: u32) -> Result<(), FileError> {
    use std::os::unix::fs::PermissionsExt as _;
    create_folder(to.parent().unwrap_or(Path::new(".")))?;
    fs::copy(from, to).map_err(at("copy", from))?;
    fs::set_permissions(to, fs::Permissions::from_mode(mode)).map_err(at("set the mode of", to))
}

/// SHA-256 of bytes given in parts.
pub fn sha256(parts: &[&[u8]]) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    parts.iter().for_each(|part| context.update(part));
    let mut digest = [0; 32];
    digest.copy_from_slice(context.finish().as_ref());
    digest
}

/// SHA-256 of a file, in hexadecimal.
pub fn sha256_of_file(path: &Path) -> Result<String, FileError> {
    let mut file = File::open(path).map_err(at("read", path))?;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let mut buffer = vec![0; 1 << 20];
    // Ends with the file.
    loop {
        let count = file.read(&mut buffer).map_err(at("read", path))?;
        if count == 0 {
            return Ok(hex(context.finish().as_ref()));
        }
        context.update(&buffer[..count]);
    }
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Runs a program to its end and returns what it printed; what it says on stderr becomes part of the error.
pub fn run(command: &mut Command) -> Result<String, FileError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| FileError::Start { program: program.clone(), source })?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let arguments: Vec<_> = command.get_args().map(OsStr::to_string_lossy).collect();
    let said = String::from_utf8_lossy(if output.stderr.is_empty() { &output.stdout } else { &output.stderr });
    let lines: Vec<&str> = said.trim().lines().collect();
    Err(FileError::Failed {
        command: format!("{program} {}", arguments.join(" ")),
        status: output.status,
        stderr: lines[lines.len().saturating_sub(10)..].join("; "),
    })
}

/// A system administrator's program, found also where `PATH` leaves its folder out, as Debian's does for users.
pub fn sbin(program: &str) -> PathBuf {
    let folders = ["/usr/sbin", "/sbin"].map(|folder| Path::new(folder).join(program));
    folders.into_iter().find(|path| path.exists()).unwrap_or_else(|| program.into())
}
