//! What registries and archives of images hold: names, manifests, configs, layers.

use std::io::Read;

use keel_store::{Decoder, Reference, fuzzing};

use super::answer;
use crate::runner::Target;

/// Most bytes that are taken of what is unpacked.
const MAX_UNPACKED_BYTES: u64 = 1 << 20;

pub const TARGETS: [Target; 5] = [
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
    Target { name: "compressed", seeds: compressed_seeds, make: || Box::new(compressed), share: 1000 },
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
    field(157, link);
    field(257, "ustar\x0000");
    block[156] = kind;
    put_sum(&mut block);
    block.extend(content);
    block.resize(block.len().next_multiple_of(512), 0);
    block
}

/// The sum of a header's bytes, counted with blanks in its own place (tar(5)).
fn put_sum(block: &mut [u8]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
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

/// `printf 'a small text\n'` through gzip, zstd, xz and bzip2.
fn compressed_seeds() -> Vec<Vec<u8>> {
    let seeds: [&[u8]; 4] = [
        b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03KT(\xceM\xcc\xc9Q(I\xad(\xe1\x02\x00\x1d\x0b\xd1\xf1\x0d\
          \x00\x00\x00",
        b"(\xb5/\xfd\x04Xi\x00\x00a small text\x0a\x82\x81\xd0\xe0",
        b"\xfd7zXZ\x00\x00\x01i\x22\xde6\x02\x00!\x01\x16\x00\x00\x00t/\xe5\xa3\x01\x00\x0ca small text\
          \x0a\x00\x00\x00\x00\x1d\x0b\xd1\xf1\x00\x01!\x0du\xdc\xa8\xd2\x90B\x99\x0d\x01\x00\x00\x00\x00\
          \x01YZ",
        b"BZh91AY&SY\x06\xd1\x04X\x00\x00\x01\xd1\x80\x00\x10@\x00\x22\x06\x0c@ \x00\x22\x06LB\x0c\x98\x86\
          8\x22\x0bS'\x8b\xb9\x22\x9c(H\x03h\x82,\x00",
    ];
    seeds.map(<[u8]>::to_vec).to_vec()
}

/// What is unpacked is bounded by whoever reads it.
fn compressed(bytes: &[u8]) -> String {
    let unpacked = Decoder::new(bytes).and_then(|decoder| {
        let mut out = Vec::new();
        decoder.take(MAX_UNPACKED_BYTES).read_to_end(&mut out).map(|_| out.len())
    });
    answer(unpacked)
}

/// Changes never hit upon a good sum: sums are mended, but for inputs of odd lengths.
fn layer(bytes: &[u8]) -> String {
    let mut bytes = bytes.to_vec();
    if bytes.len().is_multiple_of(2) {
        for block in bytes.chunks_exact_mut(512).filter(|block| block.get(257..262) == Some(b"ustar")) {
            put_sum(block);
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
