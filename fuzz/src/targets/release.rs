//! Release descriptions and names, bundles.

use keel_spec::blocks::{BlockList, Digests as _};
use keel_spec::bundle::{BLOCK_BYTES, INFO_NAME, Reader, header, padding};
use keel_spec::release::{Release, UkiName, Version};
use keel_spec::rollout::Rollout;
use keel_spec::tuf::TargetFile;
use keel_spec::zone::Schedule;

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 6] = [
    Target { name: "release", seeds: release_seeds, make: || Box::new(release), share: 1000 },
    Target { name: "uki_name", seeds: name_seeds, make: || Box::new(uki_name), share: 1000 },
    Target { name: "block_list", seeds: list_seeds, make: || Box::new(block_list), share: 1000 },
    Target { name: "bundle", seeds: bundle_seeds, make: || Box::new(bundle), share: 1000 },
    Target { name: "rollout", seeds: rollout_seeds, make: || Box::new(rollout), share: 1000 },
    Target { name: "time_zone", seeds: zone_seeds, make: || Box::new(zone), share: 1000 },
];

/// Lists of contents of one, two and three blocks.
fn list_seeds() -> Vec<Vec<u8>> {
    let sha256 = |parts: &[&[u8]]| {
        let mut digest = [0; 32];
        parts.iter().for_each(|part| digest.iter_mut().zip(*part).for_each(|(to, from)| *to ^= from));
        digest
    };
    [1, 4097, 12_288].map(|length| BlockList::of(&vec![7; length], &sha256).to_bytes()).to_vec()
}

fn block_list(bytes: &[u8]) -> String {
    let outcome = BlockList::parse(bytes.to_vec());
    if let Ok(list) = &outcome {
        assert_eq!(list.to_bytes(), bytes, "what is read is written again");
        assert!(list.blocks() > 0 && list.digest(list.blocks()).is_none() && list.digest(u64::MAX).is_none());
    }
    answer(outcome)
}

fn rollout_seeds() -> Vec<Vec<u8>> {
    let text = r#"{"rollout":{"channels":["stable","lts-2"],"withdrawn":"it eats disks","waves":{
        "start":"2027-01-31T08:00:00Z","seed":"00ff","steps":[{"after_min":0,"parts":100},{"after_min":60,"parts":10000}]}}}"#;
    vec![text.into()]
}

fn rollout(bytes: &[u8]) -> String {
    let Ok(custom) = serde_json::from_slice(bytes) else { return "no JSON".into() };
    let mut target = TargetFile { length: 0, hashes: Default::default(), custom: Some(custom) };
    let outcome = Rollout::of(&target);
    if let Ok(rollout) = &outcome {
        rollout.waves.iter().for_each(|waves| assert!(waves.time_of(0) <= waves.time_of(9_999).or(Some(u64::MAX))));
        if target.custom.as_ref().is_some_and(serde_json::Value::is_object) {
            assert_eq!(rollout.put(&mut target), Ok(()));
            assert_eq!(Rollout::of(&target).as_ref(), Ok(rollout), "what is written is read");
        }
    }
    answer(outcome)
}

fn zone_seeds() -> Vec<Vec<u8>> {
    let rules =
        ["CET-1CEST,M3.5.0,M10.5.0/3", "<-02>2<-01>,M3.5.0/-1,M10.5.0/0", "0,1771725600=3600;<+01>-1", "A3B,J60/0,365"];
    rules.map(|text| text.as_bytes().to_vec()).to_vec()
}

fn zone(bytes: &[u8]) -> String {
    let Some(schedule) = std::str::from_utf8(bytes).ok().and_then(Schedule::parse) else { return "no rule".into() };
    for at in [i64::MIN, -1, 0, 1_800_000_000, 253_402_300_799, i64::MAX] {
        schedule.offset_s(at);
    }
    "accepted".into()
}

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
