//! Release descriptions and names, bundles.

use keel_spec::bundle::{BLOCK_BYTES, INFO_NAME, Reader, header, padding};
use keel_spec::release::{Release, UkiName, Version};

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 3] = [
    Target { name: "release", seeds: release_seeds, make: || Box::new(release), share: 1000 },
    Target { name: "uki_name", seeds: name_seeds, make: || Box::new(uki_name), share: 1000 },
    Target { name: "bundle", seeds: bundle_seeds, make: || Box::new(bundle), share: 1000 },
];

fn release_seeds() -> Vec<Vec<u8>> {
    let hash = "0123456789abcdef".repeat(4);
    let text = format!(
        "{{\"version\":\"1.2.3-rc.1\",\"profile\":\"cloud\",\"built_unix_s\":1795311050,\"root_hash\":\"{hash}\",\
         \"root_blocks\":9000,\"tree_bytes\":300000,\"uki_bytes\":14000000,\"follows_at_least\":\"1.0.0\"}}"
    );
    vec![text.into()]
}

fn release(bytes: &[u8]) -> String {
    let outcome = serde_json::from_slice::<Release>(bytes);
    if let Ok(release) = &outcome {
        let again = serde_json::to_vec(release).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        assert_eq!(again.as_ref(), Some(release), "what is written is read");
    }
    answer(outcome)
}

fn name_seeds() -> Vec<Vec<u8>> {
    ["keel_1.2.3.efi", "keel_1.2.3-rc.1+2-1.efi", "keel_0.1.0+0-3.efi"].map(|text| text.as_bytes().to_vec()).to_vec()
}

fn uki_name(bytes: &[u8]) -> String {
    let Ok(text) = std::str::from_utf8(bytes) else { return "no text".into() };
    let outcome = text.parse::<UkiName>();
    if let Ok(name) = &outcome {
        assert!(!text.contains('/') && text.len() < 100, "a name is no path");
        assert_eq!(name.to_string().parse().as_ref(), Ok(name), "what is written is read");
    }
    let _ = text.parse::<Version>().map(|version| assert_eq!(version.to_string(), text));
    answer(outcome)
}

fn bundle_seeds() -> Vec<Vec<u8>> {
    let mut bytes = Vec::new();
    for (name, length) in [(INFO_NAME, 30), ("1.root.json", 600), ("targets/keel-cloud-1.2.3.root", 4096)] {
        let Ok(block) = header(name, length) else { continue };
        bytes.extend(block);
        bytes.resize(bytes.len() + (length + padding(length)) as usize, b'x');
    }
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    vec![bytes]
}

/// Every header with a checksum that is right, so that changed ones are looked at beyond it.
fn bundle(bytes: &[u8]) -> String {
    let mut reader = Reader::default();
    while let Some(at) = reader.next_header() {
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        let Some(mut block) = rest.first_chunk::<BLOCK_BYTES>().copied() else { return "cut off".into() };
        if block[0] != 0 {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        if let Err(error) = reader.take(&block) {
            // Of what is wrong the kind, not the name.
            return error.to_string().chars().take(12).collect();
        }
    }
    let outcome = reader.finish(Some(bytes.len() as u64));
    if let Ok(files) = &outcome {
        let within = |range: &std::ops::Range<u64>| range.start <= range.end && range.end <= bytes.len() as u64;
        assert!(files.values().all(within), "a file lies beyond the end");
        let plain = |name: &String| name.split('/').all(|part| !part.is_empty() && part != "..");
        assert!(files.keys().all(plain), "a name leads elsewhere");
    }
    answer(outcome)
}
