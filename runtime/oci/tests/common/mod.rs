//! What the tests share: busybox as the image, and the engine's usual configuration.
#![allow(dead_code)]

pub mod bench;

use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use keel_oci::spec::{Capabilities, IdMapping, NamespaceKind, Root, Spec};
use keel_oci::{Create, Created, Error, Parent, create, defaults, seccomp};
use rustix::fs::CWD;
use rustix::mount::OpenTreeFlags;
use rustix::process::{WaitId, WaitIdOptions};

/// First host ID of the containers' users.
pub const HOST_BASE: u32 = 100_000;

pub struct Image(pub tempfile::TempDir);

impl Image {
    /// A root with busybox, owned by the containers' root.
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let image = Image(dir);
        for folder in ["bin", "tmp", "etc"] {
            std::fs::create_dir(image.path(folder)).unwrap();
        }
        std::fs::copy("/usr/bin/busybox", image.path("bin/busybox")).expect("these tests need busybox-static");
        for name in [
            "sh", "cat", "id", "ls", "mount", "touch", "hostname", "grep", "stat", "keyctl", "unshare", "stty",
            "readlink", "tty", "sleep",
        ] {
            symlink("busybox", image.path(&format!("bin/{name}"))).unwrap();
        }
        image.give("", HOST_BASE);
        image.give("tmp", HOST_BASE);
        image.give("etc", HOST_BASE);
        image
    }

    pub fn path(&self, inside: &str) -> std::path::PathBuf {
        self.0.path().join(inside)
    }

    pub fn give(&self, inside: &str, uid: u32) {
        std::os::unix::fs::chown(self.path(inside), Some(uid), Some(uid)).unwrap();
    }

    pub fn mount(&self) -> OwnedFd {
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        rustix::mount::open_tree(CWD, self.0.path(), flags).unwrap()
    }
}

/// What the engine asks for by default, running `sh -c script`.
pub fn spec(script: &str) -> Spec {
    let capabilities: Vec<String> = defaults::CAPABILITIES.map(String::from).to_vec();
    let map = vec![IdMapping { container_id: 0, host_id: HOST_BASE, size: 65536 }];
    let mut spec = Spec {
        root: Some(Root::default()),
        hostname: Some("box".into()),
        mounts: defaults::mounts(),
        ..Spec::default()
    };
    spec.process.args = ["sh", "-c", script].map(String::from).to_vec();
    spec.process.env = vec!["PATH=/nowhere:/bin".into()];
    spec.process.cwd = "/".into();
    spec.linux.seccomp = Some(seccomp::default_profile(&capabilities));
    spec.process.capabilities = Some(Capabilities {
        bounding: capabilities.clone(),
        effective: capabilities.clone(),
        permitted: capabilities,
        ..Capabilities::default()
    });
    spec.linux.namespaces = defaults::namespaces();
    spec.linux.uid_mappings = map.clone();
    spec.linux.gid_mappings = map;
    spec.linux.masked_paths = defaults::MASKED_PATHS.map(String::from).to_vec();
    spec.linux.readonly_paths = defaults::READONLY_PATHS.map(String::from).to_vec();
    spec
}

/// Without a user namespace.
pub fn host_users(mut spec: Spec) -> Spec {
    spec.linux.namespaces.retain(|n| n.kind != NamespaceKind::User);
    spec.linux.uid_mappings.clear();
    spec.linux.gid_mappings.clear();
    spec
}

pub fn try_create(image: &Image, spec: &Spec) -> Result<(Created, std::io::PipeReader), Error> {
    let (reader, writer) = std::io::pipe().unwrap();
    let created = create(Create {
        id: "test",
        spec,
        rootfs: image.mount().as_fd(),
        stdin: std::fs::File::open("/dev/null").unwrap().into(),
        stdout: writer.try_clone().unwrap().into(),
        stderr: writer.into(),
        cgroup: None,
        parent: Parent::Caller,
        init: Some(Path::new(env!("CARGO_BIN_EXE_keel-oci"))),
    })?;
    Ok((created, reader))
}

/// Exit code and output.
pub fn run(image: &Image, spec: &Spec) -> (i32, String) {
    let (created, mut reader) = try_create(image, spec).unwrap();
    let pidfd = created.pidfd().try_clone_to_owned().unwrap();
    created.start().unwrap();
    let mut out = String::new();
    reader.read_to_string(&mut out).unwrap();
    (wait(pidfd.as_fd()), out)
}

/// Reaps a child; its exit code, -1 if a signal ended it.
pub fn wait(pidfd: BorrowedFd<'_>) -> i32 {
    let status = rustix::process::waitid(WaitId::PidFd(pidfd), WaitIdOptions::EXITED).unwrap().unwrap();
    status.exit_status().unwrap_or(-1)
}

pub fn output(script: &str) -> String {
    run(&Image::new(), &spec(script)).1
}
