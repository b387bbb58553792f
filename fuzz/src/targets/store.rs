//! What registries and archives of images hold: names, manifests, configs, layers.

use keel_store::{Reference, fuzzing};

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 4] = [
    Target { name: "reference", seeds: reference_seeds, make: || Box::new(reference), share: 1000 },
    Target {
        name: "manifest",
        seeds: manifest_seeds,
        make: || Box::new(|bytes| answer(fuzzing::manifest(bytes))),
        share: 1000,
    },
    Target {
        name: "image_config",
        seeds: config_seeds,
        make: || Box::new(|bytes| answer(fuzzing::config(bytes))),
        share: 1000,
    },
    Target { name: "layer", seeds: layer_seeds, make: || Box::new(layer), share: 1000 },
];

const DIGEST: &str = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

fn reference_seeds() -> Vec<Vec<u8>> {
    let by_digest = format!("a/b__c--d:1.0-x@{DIGEST}");
    ["alpine", "r.example:5000/a/b.c:V_1", "[::1]:80/x", "localhost/x", by_digest.as_str()]
        .map(|text| text.as_bytes().to_vec())
        .to_vec()
}

fn reference(bytes: &[u8]) -> String {
    let parsed = String::from_utf8_lossy(bytes).parse::<Reference>();
    if let Ok(reference) = &parsed {
        let shown = reference.to_string();
        assert_eq!(shown.parse().as_ref(), Ok(reference), "what is shown names the same image: {shown:?}");
        assert!(!reference.repository().split('/').any(|part| matches!(part, "" | "." | "..")), "a path in a name");
        assert!(reference.tag().is_some() || reference.digest().is_some(), "a name has a tag or a digest");
    }
    answer(parsed)
}

fn manifest_seeds() -> Vec<Vec<u8>> {
    let points = |more: &str| format!(r#"{{"mediaType":"x/y+gzip","digest":"{DIGEST}","size":12{more}}}"#);
    let (plain, platform) = (points(""), points(r#","platform":{"os":"linux","architecture":"amd64","variant":"v1"}"#));
    [
        format!(
            r#"{{"schemaVersion":2,"mediaType":"m","config":{plain},"layers":[{plain},{plain}],"annotations":null}}"#
        ),
        format!(r#"{{"schemaVersion":2,"manifests":[{platform},{plain}]}}"#),
        r#"{"schemaVersion":1,"name":"a"}"#.into(),
    ]
    .map(String::into_bytes)
    .to_vec()
}

fn config_seeds() -> Vec<Vec<u8>> {
    let config = r#"{"Env":["A=1"],"Cmd":["x"],"Entrypoint":null,"User":"0","WorkingDir":"/a","Labels":{"l":"x"},
        "ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"StopSignal":"9","Shell":["sh"],"OnBuild":["RUN x"],
        "Healthcheck":{"Test":["CMD","x"],"Interval":1000,"Retries":3}}"#;
    let history = r#"[{"created":"2020-01-01T00:00:00Z","created_by":"x","empty_layer":true},{}]"#;
    let whole = format!(
        r#"{{"created":"2020-01-01T00:00:00Z","architecture":"amd64","os":"linux","config":{config},
        "rootfs":{{"type":"layers","diff_ids":["{DIGEST}"]}},"history":{history}}}"#
    );
    vec![whole.into_bytes(), b"{}".to_vec()]
}

/// An entry of an archive, with a good sum.
fn entry(kind: u8, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut block = vec![0_u8; 512];
    let mut field = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    field(0, name);
    field(100, "0000644");
    field(124, &format!("{:011o}", content.len()));
    field(148, "        ");
    field(157, link);
    field(257, "ustar\x0000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block.extend(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

fn layer_seeds() -> Vec<Vec<u8>> {
    let archive = |entries: &[Vec<u8>]| [entries.concat(), vec![0; 1024]].concat();
    let pax = entry(b'x', "p", "", b"12 path=a/b\n29 SCHILY.xattr.user.x=value\n15 mtime=-1.25\n");
    let map = entry(b'x', "p", "", b"22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n28 GNU.sparse.realsize=9999\n");
    vec![
        archive(&[entry(b'5', "d/", "", b""), entry(b'0', "d/f", "", b"text"), entry(b'1', "h", "d/f", b"")]),
        archive(&[
            entry(b'2', "s", "/etc", b""),
            entry(b'0', "d/.wh.f", "", b""),
            entry(b'0', "d/.wh..wh..opq", "", b""),
        ]),
        archive(&[pax, entry(b'0', "x", "", b"y"), entry(b'L', "l", "", b"long/name\0"), entry(b'6', "x", "", b"")]),
        archive(&[map, entry(b'0', "sparse", "", &[&b"1\n512\n4\n"[..], &[0; 504], b"data"].concat())]),
    ]
}

/// Changes never hit upon a good sum: sums are mended, but for inputs of odd lengths.
fn layer(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    if bytes.len().is_multiple_of(2) {
        for block in bytes.chunks_exact_mut(512).filter(|block| block.get(257..262) == Some(b"ustar")) {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    let outcome = fuzzing::layer(&bytes);
    for path in outcome.iter().flatten() {
        let parts: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        let (_, parts) = parts.split_last().unwrap_or((&&[][..], &[]));
        assert!(parts.len() <= 256, "deeper than is allowed");
        let odd = |part: &&[u8]| matches!(*part, b"" | b"." | b"..");
        assert!(!parts.iter().any(odd), "a file that can't be: {}", String::from_utf8_lossy(path));
    }
    answer(outcome)
}
