//! Release descriptions and names.

use keel_spec::release::{Release, UkiName, Version};

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 2] = [
    Target { name: "release", seeds: release_seeds, make: || Box::new(release), share: 1000 },
    Target { name: "uki_name", seeds: name_seeds, make: || Box::new(uki_name), share: 1000 },
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
