//! Container images made of Debian's `busybox-static`, as `docker save` archives.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::build::sha256_hex;

/// Programs that the image has, as links to busybox.
const APPLETS: &[&str] = &[
    "sh", "cat", "echo", "false", "head", "hostname", "httpd", "id", "kill", "ls", "mount", "nc", "ps", "seq", "sleep",
    "test", "touch", "true", "wget", "dd", "grep", "ip", "mkdir", "nslookup", "stat", "tail", "trap", "uname", "yes",
];

/// Writes `<dir>/<name>.tar`: an image `<name>:1` with busybox and `/www/index.html` holding `page`.
/// Its command serves that page on port 80.
pub fn busybox(dir: &Path, name: &str, page: &str) -> Result<PathBuf> {
    let work = dir.join(format!("{name}.d"));
    let _ = fs::remove_dir_all(&work);
    let root = work.join("root");
    for folder in ["bin", "www", "etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("copy /bin/busybox: is busybox-static installed?")?;
    for applet in APPLETS {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("www/index.html"), page)?;
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\nweb:x:33:33:web:/www:/bin/sh\n")?;
    fs::write(root.join("etc/group"), "root:x:0:\nweb:x:33:\n")?;
    let config = json!({ "Env": ["PATH=/bin"], "Cmd": ["httpd", "-f", "-p", "80", "-h", "/www"],
                         "ExposedPorts": {"80/tcp": {}}, "Labels": {"org.keel.test": name} });
    let archive = pack(dir, name, &root, &config)?;
    fs::remove_dir_all(&work)?;
    Ok(archive)
}

/// Writes `<dir>/<name>.tar`: an image `<name>:1` of one layer, with what is below `root`.
pub fn pack(dir: &Path, name: &str, root: &Path, config: &Value) -> Result<PathBuf> {
    pack_layers(dir, name, &[root.to_owned()], config)
}

/// Writes `<dir>/<name>.tar`: an image `<name>:1` with a layer for what is below each of `roots`, the lowest first.
pub fn pack_layers(dir: &Path, name: &str, roots: &[PathBuf], config: &Value) -> Result<PathBuf> {
    let work = dir.join(format!("{name}.pack"));
    fs::create_dir_all(&work)?;
    let (mut layers, mut diff_ids, mut history) = (Vec::new(), Vec::new(), Vec::new());
    for (number, root) in roots.iter().enumerate() {
        let layer = format!("layer-{number}.tar");
        tar(root, &work.join(&layer), &["."])?;
        diff_ids.push(format!("sha256:{}", sha256_hex(&fs::read(work.join(&layer))?)));
        history.push(json!({ "created": "2026-01-01T00:00:00Z", "created_by": layer }));
        layers.push(layer);
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "created": "2026-01-01T00:00:00Z", "config": config,
        "rootfs": { "type": "layers", "diff_ids": diff_ids }, "history": history,
    })
    .to_string();
    let config_name = format!("{}.json", sha256_hex(config.as_bytes()));
    fs::write(work.join(&config_name), config)?;
    let manifest = json!([{"Config": config_name, "RepoTags": [format!("{name}:1")], "Layers": layers}]);
    fs::write(work.join("manifest.json"), manifest.to_string())?;
    let archive = dir.join(format!("{name}.tar"));
    let members: Vec<&str> =
        ["manifest.json", &config_name].into_iter().chain(layers.iter().map(String::as_str)).collect();
    tar(&work, &archive, &members)?;
    fs::remove_dir_all(&work)?;
    Ok(archive)
}

/// Writes a tar archive of `members` of `dir`; all belongs to root.
pub fn tar(dir: &Path, archive: &Path, members: &[&str]) -> Result<()> {
    let status = Command::new("tar")
        .args(["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0", "-cf"])
        .arg(archive)
        .arg("-C")
        .arg(dir)
        .args(members)
        .status()
        .context("run tar")?;
    if !status.success() {
        bail!("tar of {} failed: {status}", dir.display());
    }
    Ok(())
}
