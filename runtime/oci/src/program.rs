//! What is executed: found before the container is started, so that a missing program fails its creation.

use std::ffi::CString;
use std::io::Read;
use std::path::Path;

use rustix::fs::{Access, AtFlags, CWD, FileType, Mode, OFlags};

use crate::init::Failure;
use crate::plan::ProcessPlan;
use crate::sys;
use crate::wire::Reply;

/// Most that is read of `/etc/passwd`.
const MAX_PASSWD_BYTES: u64 = 1 << 20;

/// Where programs are looked for when the environment doesn't say.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Most folders of `PATH` that are looked through.
const MAX_PATH_FOLDERS: usize = 256;

/// Arguments in the shape that execve wants, made before the filter is in force.
pub(crate) struct Program {
    path: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Looks the program up as the process's user, in its working folder. `Err(Ok(_))`: it isn't there.
    pub(crate) fn find(process: &ProcessPlan) -> Result<Self, Result<Reply, Failure>> {
        let c_string =
            |s: &String| CString::new(s.as_bytes()).map_err(|_| Err(Failure::new("read words", libc::EINVAL)));
        let name = process.args.first().ok_or_else(|| Err(Failure::new("find the program", libc::EINVAL)))?;
        let home = process.env.iter().all(|e| !e.starts_with("HOME=")).then(|| format!("HOME={}", home(process.uid)));
        Ok(Self {
            path: c_string(&look_up(name, &process.env).map_err(Ok)?)?,
            args: process.args.iter().map(c_string).collect::<Result<_, _>>()?,
            env: process.env.iter().chain(&home).map(c_string).collect::<Result<_, _>>()?,
        })
    }

    /// Returns only why it failed.
    pub(crate) fn execute(self) -> Reply {
        let errno = sys::execute(&self.path, &self.args, &self.env).raw_os_error().unwrap_or(libc::EIO);
        Reply::Exec { hint: String::new(), errno }
    }
}

/// The user's folder by the container's `/etc/passwd`, else `/`: what other runtimes set `HOME` to where the configuration
/// doesn't. The file is the image's: it is read if it is one, and without waiting.
fn home(uid: u32) -> String {
    let read = || -> std::io::Result<String> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, "/etc/passwd", flags, Mode::empty())?;
        if !FileType::from_raw_mode(rustix::fs::fstat(&file)?.st_mode).is_file() {
            return Err(std::io::ErrorKind::InvalidInput.into());
        }
        let mut text = Vec::new();
        std::fs::File::from(file).take(MAX_PASSWD_BYTES).read_to_end(&mut text)?;
        Ok(String::from_utf8_lossy(&text).into_owned())
    };
    read().ok().and_then(|text| home_in(&text, uid)).unwrap_or_else(|| "/".into())
}

/// passwd(5): name, password, user, group, comment, folder, shell.
fn home_in(passwd: &str, uid: u32) -> Option<String> {
    let fields = |line: &'_ str| -> Option<String> {
        let mut fields = line.split(':').skip(2);
        let is_it = fields.next()?.parse() == Ok(uid);
        let home = fields.nth(2).filter(|home| is_it && home.starts_with('/'))?;
        Some(home.to_owned())
    };
    passwd.lines().find_map(fields)
}

/// As execvp(3) does: one that may not be executed is remembered, one that is missing isn't.
fn look_up(name: &str, env: &[String]) -> Result<String, Reply> {
    if name.contains('/') {
        return match executable(name) {
            Ok(()) => Ok(name.into()),
            Err(errno) => Err(Reply::Exec { hint: String::new(), errno }),
        };
    }
    let path = env.iter().rev().find_map(|e| e.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    let mut errno = libc::ENOENT;
    // An empty folder would be the working one, which an image's author may not have meant: passed over.
    for folder in path.split(':').filter(|f| !f.is_empty()).take(MAX_PATH_FOLDERS) {
        let candidate = format!("{folder}/{name}");
        match executable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(libc::EACCES) => errno = libc::EACCES,
            Err(_) => {}
        }
    }
    let hint = if errno == libc::ENOENT { ": executable file not found in $PATH" } else { "" };
    Err(Reply::Exec { hint: format!("{hint} (looked for in PATH={path})"), errno })
}

fn executable(path: &str) -> Result<(), i32> {
    let path = Path::new(path);
    let stat = rustix::fs::statat(CWD, path, AtFlags::empty()).map_err(|e| e.raw_os_error())?;
    if !FileType::from_raw_mode(stat.st_mode).is_file() {
        return Err(libc::EACCES);
    }
    rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).map_err(|e| e.raw_os_error())
}

#[cfg(test)]
mod tests {
    use super::home_in;

    #[test]
    fn a_users_folder_is_found_in_any_passwd() {
        let text = "root:x:0:0:root:/root:/bin/sh\ntorn:x:7\n\nme:x:1000:1000:,,,:/home/me:/bin/sh\nodd:x:5:5::rel:\n";
        assert_eq!(home_in(text, 1000).as_deref(), Some("/home/me"));
        assert_eq!(home_in(text, 0).as_deref(), Some("/root"));
        assert_eq!((home_in(text, 7), home_in(text, 5), home_in("", 0)), (None, None, None));
    }
}
