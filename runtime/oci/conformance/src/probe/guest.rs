//! Init of a bare guest: readies the machine, runs one program, reports how it ended, switches off.
//!
//! The initramfs holds `/init` (this program), `/job.json` (`{"command": […], "environment": {…}, "policies": {file: where
//! the kernel takes it}}`) and whatever the program needs. What it prints goes to the virtio port `out`, its exit code to
//! `status`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use rustix::mount::{MountFlags, mount, mount_move};
use rustix::system::RebootCommand;
use serde_json::Value;

/// Where the machine's root goes: `pivot_root` refuses the initramfs itself.
const ROOT: &str = "/newroot";
/// How long the ports may take to appear.
const PORTS: Duration = Duration::from_secs(10);

/// Never returns to the kernel: a PID 1 that ends is a panic.
pub(super) fn main() -> ExitCode {
    let (status, text) = match job() {
        Ok(code) => (code, String::new()),
        Err(error) => (125, format!("guest: {error}\n")),
    };
    print!("{text}");
    if let Ok(mut port) = port("status") {
        let _ = port.write_all(format!("{status}\n").as_bytes());
        let _ = rustix::fs::fsync(&port);
    }
    rustix::fs::sync();
    let _ = rustix::system::reboot(RebootCommand::PowerOff);
    ExitCode::FAILURE
}

fn job() -> io::Result<i32> {
    ready()?;
    let job: Value = serde_json::from_slice(&fs::read("/job.json")?)?;
    let words: Vec<&str> = job["command"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    let program = words.first().ok_or_else(|| io::Error::other("/job.json names no command"))?;
    for (file, entry) in job["policies"].as_object().into_iter().flatten() {
        // In one piece, as the kernel wants it.
        let given = fs::read(file).and_then(|policy| fs::write(entry.as_str().unwrap_or_default(), policy));
        given.map_err(|e| io::Error::other(format!("give {file} to the kernel at {entry}: {e}")))?;
    }
    let out = port("out")?;
    let mut command = Command::new(program);
    command.args(&words[1..]).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
    command.env("PATH", "/bin").current_dir("/");
    for (name, value) in job["environment"].as_object().into_iter().flatten() {
        command.env(name, value.as_str().unwrap_or_default());
    }
    let mut child = command.spawn().map_err(|e| io::Error::other(format!("start {program}: {e}")))?;
    let status = child.wait()?;
    use std::os::unix::process::ExitStatusExt as _;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

/// A root that can be pivoted away from, the kernel's file systems, and all controllers.
fn ready() -> io::Result<()> {
    fs::create_dir_all(ROOT)?;
    let none = MountFlags::empty();
    mount("tmpfs", ROOT, "tmpfs", none, c"mode=755")?;
    move_tree(Path::new("/"), Path::new(ROOT))?;
    std::env::set_current_dir(ROOT)?;
    mount_move(".", "/")?;
    rustix::process::chroot(".")?;
    std::env::set_current_dir("/")?;
    for (kind, point) in
        [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("tmpfs", "/tmp"), ("tmpfs", "/run")]
    {
        fs::create_dir_all(point)?;
        mount(kind, point, kind, none, c"")?;
    }
    for (kind, point) in
        [("devpts", "/dev/pts"), ("tmpfs", "/dev/shm"), ("mqueue", "/dev/mqueue"), ("cgroup2", "/sys/fs/cgroup")]
    {
        fs::create_dir_all(point)?;
        mount(kind, point, kind, none, c"")?;
    }
    // Only one of these modules is in force; the other has no such folder.
    for (kind, point) in [("securityfs", "/sys/kernel/security"), ("selinuxfs", "/sys/fs/selinux")] {
        if Path::new(point).exists() {
            mount(kind, point, kind, none, c"")?;
        }
    }
    let controllers = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")?;
    for name in controllers.split_whitespace() {
        fs::write("/sys/fs/cgroup/cgroup.subtree_control", format!("+{name}"))?;
    }
    modules()?;
    Ok(())
}

/// Files are moved, not copied, one by one: memory holds them once.
fn move_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, kind) = (entry.path(), entry.file_type()?);
        if path == Path::new(ROOT) {
            continue;
        }
        let target = to.join(entry.file_name());
        if kind.is_dir() {
            fs::create_dir_all(&target)?;
            move_tree(&path, &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(&path)?, &target)?;
        } else if kind.is_file() {
            fs::copy(&path, &target)?;
            fs::remove_file(&path)?;
        }
    }
    Ok(())
}

/// Modules in `/modules`, in the order of their names; the kernel unpacks them itself.
fn modules() -> io::Result<()> {
    let mut paths: Vec<PathBuf> = fs::read_dir("/modules").into_iter().flatten().flatten().map(|e| e.path()).collect();
    paths.sort();
    for path in paths {
        let file = File::open(&path)?;
        crate::sys::load_module(&file).map_err(|e| io::Error::other(format!("load {}: {e}", path.display())))?;
    }
    Ok(())
}

/// A virtio port by its name.
fn port(name: &str) -> io::Result<File> {
    let begun = Instant::now();
    loop {
        for entry in fs::read_dir("/sys/class/virtio-ports").into_iter().flatten().flatten() {
            if fs::read_to_string(entry.path().join("name")).is_ok_and(|text| text.trim() == name) {
                return File::options().read(true).write(true).open(Path::new("/dev").join(entry.file_name()));
            }
        }
        if begun.elapsed() > PORTS {
            return Err(io::Error::other(format!("no virtio port is called {name}")));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
