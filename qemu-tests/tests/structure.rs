//! The project's shape, checked: dependencies point one way, licences are permissive, files stay readable.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate has a parent folder").to_owned()
}

fn metadata() -> Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(source())
        .output()
        .expect("run cargo metadata");
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo metadata prints JSON")
}

/// Which room may know of which others; see docs/architecture.md.
const MAY_KNOW: &[(&str, &[&str])] = &[
    ("keel-spec", &[]),
    ("keel-durable", &[]),
    ("keel-link", &["keel-spec"]),
    ("keel-fetch", &["keel-spec"]),
    ("keel-init", &["keel-spec"]),
    ("keel-host", &["keel-spec", "keel-durable", "keel-link"]),
    ("keel-updater", &["keel-spec", "keel-durable", "keel-link", "keel-fetch"]),
    ("keel-oci", &["keel-spec", "keel-durable"]),
    ("keel-store", &["keel-spec", "keel-durable", "keel-fetch"]),
    ("keel-net", &["keel-spec", "keel-durable"]),
    ("keel-volumes", &["keel-durable"]),
    ("keel-engine", &["keel-spec", "keel-durable", "keel-link", "keel-oci", "keel-store", "keel-net", "keel-volumes"]),
    ("keel-build", &["keel-durable", "keel-engine", "keel-fetch", "keel-store"]),
    ("keel-runtime", &["keel-spec", "keel-link", "keel-build", "keel-engine", "keel-oci", "keel-store"]),
    ("keelctl", &["keel-spec"]),
    ("keel", &["keel-host", "keel-runtime", "keel-updater", "keelctl"]),
    ("keel-image", &["keel-spec"]),
    ("keel-fuzz", &["keel-spec", "keel-build", "keel-fetch", "keel-store", "keel-updater"]),
    ("keel-qemu-tests", &["keel-spec", "keel-image", "keel-other-clients"]),
    ("keel-faults", &[]),
    ("keel-load", &[]),
    ("keel-other-clients", &[]),
    ("keel-oci-conformance", &[]),
];

#[test]
fn dependencies_point_one_way() {
    let allowed: BTreeMap<&str, &[&str]> = MAY_KNOW.iter().copied().collect();
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        if !package["source"].is_null() {
            continue;
        }
        let may_know = allowed.get(name).unwrap_or_else(|| panic!("{name} has no line in MAY_KNOW"));
        // What only tests use may point anywhere.
        for dependency in package["dependencies"].as_array().into_iter().flatten().filter(|d| d["kind"].is_null()) {
            let dependency = dependency["name"].as_str().unwrap_or_default();
            if dependency.starts_with("keel") {
                assert!(may_know.contains(&dependency), "{name} may not know of {dependency}");
            }
        }
    }
}

#[test]
fn pid_1_imports_nothing_that_reads_the_network() {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "-p", "keel-init", "-e", "normal", "--prefix", "none", "--format", "{p}"])
        .current_dir(source())
        .output()
        .expect("run cargo tree");
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let tree = String::from_utf8_lossy(&output.stdout);
    for banned in ["tokio", "zbus", "rustls", "hyper", "ureq", "rtnetlink", "dhcproto"] {
        assert!(!tree.lines().any(|line| line.split(' ').next() == Some(banned)), "PID 1 imports {banned}");
    }
}

#[test]
fn every_dependency_has_a_permissive_licence() {
    const PERMISSIVE: &[&str] = &[
        "Apache-2.0",
        "MIT",
        "ISC",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "Zlib",
        "Unicode-3.0",
        "0BSD",
        "Unlicense",
        "CC0-1.0",
        "BSL-1.0",
        "CDLA-Permissive-2.0",
        "Apache-2.0 WITH LLVM-exception",
        "MIT-0",
        // Of the kind of BSD-3-Clause: libbz2.
        "bzip2-1.0.6",
    ];
    let metadata = metadata();
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let licence = package["license"].as_str().unwrap_or_default().replace('/', " OR ");
        // All of the parts joined by AND are needed, one of those joined by OR suffices.
        let permissive = licence
            .split(" AND ")
            .all(|part| part.split(" OR ").any(|choice| PERMISSIVE.contains(&choice.trim().trim_matches(['(', ')']))));
        assert!(permissive, "{name} has the licence {licence:?}");
        assert!(!name.starts_with("openssl") && !name.starts_with("aws-lc"), "{name}: ring is the one crypto provider");
    }
}

#[test]
fn no_source_file_grows_past_500_lines() {
    let listed = Command::new("git").args(["ls-files", "*.rs"]).current_dir(source()).output().expect("run git");
    let files: BTreeSet<String> = String::from_utf8_lossy(&listed.stdout).lines().map(str::to_owned).collect();
    for file in files {
        let Ok(text) = std::fs::read_to_string(source().join(&file)) else { continue };
        let lines = text.lines().count();
        assert!(lines <= 500, "{file} has {lines} lines: split it");
    }
}
