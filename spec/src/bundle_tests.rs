use super::*;
use proptest::prelude::*;

const FILES: [(&str, u64); 7] = [
    (INFO_NAME, 40),
    ("1.root.json", 1000),
    ("2.root.json", 512),
    ("timestamp.json", 1),
    ("7.snapshot.json", 0),
    ("9.targets.json", 513),
    ("targets/keel-cloud-1.2.3.root", 5000),
];

/// A bundle of these files, in this order, whether that is right or not.
fn bundle(files: &[(&str, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, length) in files {
        bytes.extend(header(name, *length).unwrap());
        bytes.resize(bytes.len() + (length + padding(*length)) as usize, b'x');
    }
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    bytes
}

fn read(bytes: &[u8]) -> Result<BTreeMap<String, Range<u64>>, BundleError> {
    let mut reader = Reader::default();
    while let Some(at) = reader.next_header() {
        let size = bytes.len() as u64;
        let cut = BundleError::Size { size, want: reader.size() };
        let rest = usize::try_from(at).ok().and_then(|at| bytes.get(at..)).unwrap_or_default();
        reader.take(rest.first_chunk().ok_or(cut)?)?;
    }
    reader.finish(Some(bytes.len() as u64))
}

/// A header with something changed and its checksum put right.
fn forged(change: impl Fn(&mut [u8; BLOCK_BYTES])) -> Vec<u8> {
    let mut bytes = bundle(&FILES[..1]);
    let block: &mut [u8; BLOCK_BYTES] = bytes.first_chunk_mut().unwrap();
    change(block);
    let sum = format!("{:06o}\0 ", checksum(block));
    block[148..156].copy_from_slice(sum.as_bytes());
    bytes
}

#[test]
fn what_is_written_is_found_and_tar_finds_it_too() {
    let bytes = bundle(&FILES);
    let found = read(&bytes).unwrap();
    assert_eq!(found.len(), FILES.len());
    for (name, length) in FILES {
        let range = &found[name];
        assert_eq!(range.end - range.start, length, "{name}");
        assert!(bytes[range.start as usize..range.end as usize].iter().all(|byte| *byte == b'x'));
    }
    let path = std::env::temp_dir().join(format!("keel-spec-bundle-{}.tar", std::process::id()));
    std::fs::write(&path, &bytes).unwrap();
    let listed = std::process::Command::new("tar").arg("-tf").arg(&path).output().expect("run tar");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(String::from_utf8(listed.stdout).unwrap().lines().collect::<Vec<_>>(), FILES.map(|(name, _)| name));
}

#[test]
fn a_bundle_that_is_cut_or_goes_on_is_refused() {
    let bytes = bundle(&FILES);
    for cut in [0, 1, 511, 512, 3000, bytes.len() - 513, bytes.len() - 512, bytes.len() - 1] {
        let error = read(&bytes[..cut]).unwrap_err();
        assert!(matches!(error, BundleError::Size { .. }), "{cut}: {error}");
    }
    let more = [&bytes[..], &[0]].concat();
    assert!(matches!(read(&more), Err(BundleError::Size { .. })));
}

#[test]
fn another_order_and_names_twice_are_refused_by_name() {
    let with = |files: &[(&str, u64)]| read(&bundle(files)).unwrap_err().to_string();
    let [info, one, two, timestamp, snapshot, targets, root] = FILES;
    assert!(with(&[one, info]).contains("does not begin with keel-bundle.json"));
    assert!(with(&[info, timestamp, one]).contains("1.root.json comes after timestamp.json"));
    assert!(with(&[info, two, one]).contains("1.root.json comes after 2.root.json"));
    assert!(with(&[info, one, ("3.root.json", 1)]).contains("3.root.json comes after 1.root.json"));
    assert!(with(&[info, info]).contains("keel-bundle.json comes after"));
    assert!(with(&[info, snapshot, ("8.snapshot.json", 1)]).contains("8.snapshot.json"));
    assert!(with(&[info, targets, root, root]).contains("targets/keel-cloud-1.2.3.root comes after"));
    assert!(with(&[info, root, ("targets/keel-cloud-1.2.3.json", 1)]).contains(".json comes after"));
}

#[test]
fn names_that_lead_elsewhere_are_refused_by_name() {
    for name in
        ["../etc/passwd", "/etc/passwd", "targets/../x", "targets/keel-../../x", "targets/other", "x", "01.root.json"]
    {
        assert_eq!(header(name, 1), Err(BundleError::Name(name.into())));
        let bytes = forged(|block| {
            block[..100].fill(0);
            block[..name.len()].copy_from_slice(name.as_bytes());
        });
        assert_eq!(read(&bytes), Err(BundleError::Name(name.into())));
    }
    let long = format!("targets/keel-{}", "a".repeat(200));
    assert_eq!(header(&long, 1), Err(BundleError::Name(long)));
    let prefix = forged(|block| block[345..350].copy_from_slice(b"/etc\0"));
    assert_eq!(read(&prefix), Err(BundleError::Unusual(0)));
}

#[test]
fn links_devices_and_lengths_beyond_reason_are_refused() {
    for kind in [b'1', b'2', b'3', b'5', b'L', b'x', 0] {
        assert_eq!(read(&forged(|block| block[156] = kind)), Err(BundleError::Unusual(0)));
    }
    for length in [&b"77777777777\0"[..], b"00000010001\0"] {
        let error = read(&forged(|block| block[124..136].copy_from_slice(length))).unwrap_err();
        assert!(matches!(error, BundleError::Length { .. }), "{error}");
    }
    // GNU tar's base 256.
    assert_eq!(read(&forged(|block| block[124] = 0x80)), Err(BundleError::Unusual(0)));
    let mut damaged = bundle(&FILES);
    damaged[3] ^= 1;
    assert_eq!(read(&damaged), Err(BundleError::Checksum(0)));
    assert_eq!(read(&vec![b'<'; 4096]), Err(BundleError::NoHeader(0)));
    assert_eq!(read(&vec![0; 4096]), Err(BundleError::NoHeader(0)));
}

#[test]
fn endless_files_are_refused() {
    let mut files = vec![(INFO_NAME.to_owned(), 1)];
    files.extend((1..=MAX_FILES).map(|number| (format!("{number}.root.json"), 1)));
    let files: Vec<(&str, u64)> = files.iter().map(|(name, length)| (name.as_str(), *length)).collect();
    assert_eq!(read(&bundle(&files)), Err(BundleError::TooMany));
    assert!(read(&bundle(&files[..MAX_FILES])).is_ok());
}

#[test]
fn a_repositorys_paths_are_names_in_the_bundle() {
    let digest = "0123456789abcdef".repeat(4);
    assert_eq!(name_of(&format!("targets/{digest}.keel-cloud-1.2.3.root")), "targets/keel-cloud-1.2.3.root");
    for path in ["3.root.json", "timestamp.json", "targets/short.keel-x"] {
        assert_eq!(name_of(path), path);
    }
}

proptest! {
    #[test]
    fn changed_bundles_never_panic_and_lie_within_their_bytes(at in 0_usize..4096, with in any::<u8>()) {
        let mut bytes = bundle(&FILES);
        let place = at % bytes.len();
        bytes[place] = with;
        if let Ok(files) = read(&bytes) {
            prop_assert!(files.values().all(|range| range.start <= range.end && range.end <= bytes.len() as u64));
        }
    }
}
