//! An earlier kernel, from which an update is measured: Debian's before the one that is locked.

use std::cmp::Ordering;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use keel_image::inputs;

use crate::build::{Build, run};

/// Inputs of releases with the kernel package before the locked one, fetched if need be.
pub fn inputs(build: &Build) -> Result<PathBuf> {
    let folder = build.build.join("earlier");
    fs::create_dir_all(&folder)?;
    let (lock_file, out) = (folder.join("inputs.lock"), folder.join("inputs"));
    let mut lock = inputs::read_lock(&build.source.join("image/inputs.lock"))?;
    let locked = lock.package.remove("kernel").context("image/inputs.lock names no kernel")?;
    let known = Command::new("apt-cache").args(["pkgnames", "linux-image-"]).output().context("run apt-cache")?;
    let kernel = before(&locked.name, &String::from_utf8_lossy(&known.stdout))
        .with_context(|| format!("apt knows no kernel package before {}", locked.name))?;
    if !lock_file.exists() {
        inputs::write_lock(&lock_file, &lock)?;
    }
    let mut command = build.keel_image();
    run(command.args(["inputs", "--kernel", &kernel, "--lock"]).arg(&lock_file).arg("--out").arg(&out))?;
    let kernel_release = inputs::locate(&out)?.kernel_release;
    ensure!(!locked.name.ends_with(&kernel_release), "the earlier kernel is the locked one");
    Ok(out)
}

/// The name in the list that stands for the same package one version before.
fn before(name: &str, list: &str) -> Option<String> {
    let (own_version, flavour) = version(name)?;
    let earlier = list.lines().filter_map(|other| Some((version(other)?, other)));
    let earlier = earlier.filter(|((number, kind), _)| *kind == flavour && number.cmp(&own_version) == Ordering::Less);
    earlier.max_by(|((left, _), _), ((right, _), _)| left.cmp(right)).map(|(_, other)| other.to_owned())
}

/// `linux-image-6.12.117+deb12-cloud-amd64` as numbers and the rest: `[6, 12, 117]` and `deb12-cloud-amd64`.
fn version(name: &str) -> Option<(Vec<u32>, &str)> {
    let (number, flavour) = name.strip_prefix("linux-image-")?.split_once('+')?;
    Some((number.split('.').map(|part| part.parse().ok()).collect::<Option<_>>()?, flavour))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_before_is_of_the_same_kind_and_compared_by_number() {
        let list = "linux-image-6.12.9+deb12-cloud-amd64\nlinux-image-6.12.115+deb12-cloud-amd64-unsigned\n\
                    linux-image-6.12.113+deb12-cloud-amd64\nlinux-image-6.12.117+deb12-cloud-amd64\n\
                    linux-image-6.12.116+deb12-amd64\nlinux-image-amd64\n";
        let of = |name: &str| before(name, list);
        assert_eq!(of("linux-image-6.12.117+deb12-cloud-amd64").unwrap(), "linux-image-6.12.113+deb12-cloud-amd64");
        assert_eq!(of("linux-image-6.12.113+deb12-cloud-amd64").unwrap(), "linux-image-6.12.9+deb12-cloud-amd64");
        assert!(of("linux-image-6.12.9+deb12-cloud-amd64").is_none() && of("linux-image-amd64").is_none());
    }
}
