use super::*;
use keel_spec::tuf::{Envelope, Root};

fn release(folder: &Path, version: &str) {
    let description = serde_json::json!({
        "version": version, "profile": "cloud", "built_unix_s": 1, "root_hash": "0".repeat(64),
        "root_blocks": 1, "tree_bytes": 3, "uki_bytes": 2,
    });
    let write = |suffix: &str, bytes: &[u8]| {
        std::fs::write(folder.join(format!("keel-cloud-{version}.{suffix}")), bytes).unwrap();
    };
    write("json", &serde_json::to_vec(&description).unwrap());
    write("root", &[7; 4096]);
    write("verity", b"abc");
    write("efi", b"MZ");
}

fn arguments(folder: &Path) -> PublishArguments {
    PublishArguments {
        release: Some(folder.join("release")),
        repository: folder.join("repository"),
        keys: folder.join("keys"),
        timestamp_only: false,
        expires_days: 365,
        timestamp_expires_days: 30,
        rollout: Default::default(),
    }
}

fn setup() -> (tempfile::TempDir, PublishArguments) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("release")).unwrap();
    keys::ensure(&folder.path().join("keys"), &BTreeMap::new(), &BTreeMap::new()).unwrap();
    let arguments = arguments(folder.path());
    (folder, arguments)
}

#[test]
fn a_second_publication_keeps_the_first_and_counts_up() {
    let (folder, arguments) = setup();
    release(&folder.path().join("release"), "0.1.0");
    assert_eq!(publish(&arguments).unwrap().versions, (1, 1, 1));
    release(&folder.path().join("release"), "0.2.0");
    assert_eq!(publish(&arguments).unwrap().versions, (2, 2, 2));
    let only = PublishArguments { release: None, timestamp_only: true, ..arguments.clone() };
    assert_eq!(publish(&only).unwrap().versions, (2, 2, 3));
    let keys = Keys::load(&arguments.keys).unwrap();
    let published = Published::read(&arguments.repository, &keys).unwrap();
    assert_eq!(published.targets.unwrap().1.targets.len(), 8);
}

#[test]
fn a_list_that_somebody_changed_in_the_repository_is_not_signed_again() {
    let (folder, arguments) = setup();
    release(&folder.path().join("release"), "0.1.0");
    publish(&arguments).unwrap();
    let path = arguments.repository.join("1.targets.json");
    let text = std::fs::read_to_string(&path).unwrap().replace("\"length\":3", "\"length\":4");
    std::fs::write(&path, text).unwrap();
    assert!(publish(&arguments).unwrap_err().to_string().contains("1.targets.json"));
}

#[test]
fn keys_are_made_once_and_are_private() {
    use std::os::unix::fs::PermissionsExt;
    let (_folder, arguments) = setup();
    assert!(keys::ensure(&arguments.keys, &BTreeMap::new(), &BTreeMap::new()).unwrap().is_empty());
    let mode = std::fs::metadata(arguments.keys.join("tuf-root.pem")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let root = std::fs::read(arguments.keys.join("root.json")).unwrap();
    let root: Root = Envelope::parse(Role::Root, &root).unwrap().read().unwrap();
    assert_eq!((root.version, root.keys.len(), root.consistent_snapshot), (1, 4, true));
}

#[test]
fn a_release_whose_files_do_not_fit_its_description_is_refused() {
    let (folder, arguments) = setup();
    release(&folder.path().join("release"), "0.1.0");
    std::fs::write(folder.path().join("release/keel-cloud-0.1.0.efi"), "longer").unwrap();
    assert!(publish(&arguments).unwrap_err().to_string().contains("keel-cloud-0.1.0.efi"));
    assert!(!arguments.repository.join("timestamp.json").exists());
}

fn roots(arguments: &PublishArguments) -> RootArguments {
    RootArguments {
        keys: arguments.keys.clone(),
        repository: Some(arguments.repository.clone()),
        replace: Vec::new(),
        threshold: Vec::new(),
        root_expires_days: 10,
        expires_days: 10,
        timestamp_expires_days: 10,
    }
}

#[test]
fn replaced_keys_sign_nothing_but_the_root_that_replaces_them() {
    let (folder, arguments) = setup();
    release(&folder.path().join("release"), "0.1.0");
    publish(&arguments).unwrap();
    let everyone = RootArguments { replace: Role::ALL.to_vec(), ..roots(&arguments) };
    assert_eq!(tuf_root(&everyone).unwrap(), 2);
    assert_eq!(tuf_root(&everyone).unwrap(), 3);
    release(&folder.path().join("release"), "0.2.0");
    assert_eq!(publish(&arguments).unwrap().versions, (4, 4, 4));
    let read = |version: u64| {
        let bytes = std::fs::read(arguments.repository.join(format!("{version}.root.json"))).unwrap();
        let envelope = Envelope::parse(Role::Root, &bytes).unwrap();
        (envelope.read::<Root>().unwrap(), envelope)
    };
    for version in 2..=3 {
        let ((before, _), (root, envelope)) = (read(version - 1), read(version));
        assert_eq!(root::threshold_met(&before, Role::Root, &envelope), Ok(()));
        assert_eq!(root::threshold_met(&root, Role::Root, &envelope), Ok(()));
        let timestamp = std::fs::read(arguments.repository.join("timestamp.json")).unwrap();
        let timestamp = Envelope::parse(Role::Timestamp, &timestamp).unwrap();
        assert_eq!(root::threshold_met(&before, Role::Timestamp, &timestamp), Err(0));
    }
}

#[test]
fn thresholds_need_as_many_keys_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys");
    let three_of = |threshold| KeysArguments {
        keys: keys.clone(),
        count: vec![(Role::Root, 3), (Role::Targets, 2)],
        threshold: vec![(Role::Root, threshold), (Role::Targets, 2)],
    };
    assert!(tuf_keys(&three_of(4)).is_err());
    tuf_keys(&three_of(2)).unwrap();
    std::fs::create_dir(folder.path().join("release")).unwrap();
    release(&folder.path().join("release"), "0.1.0");
    let arguments = arguments(folder.path());
    publish(&arguments).unwrap();
    std::fs::rename(keys.join("tuf-targets-2.pem"), folder.path().join("elsewhere")).unwrap();
    let message = format!("{:#}", publish(&arguments).unwrap_err());
    assert!(message.contains("1 of the 2 keys"), "{message}");
    std::fs::rename(folder.path().join("elsewhere"), keys.join("tuf-targets-2.pem")).unwrap();
    // Two of three root keys are enough for the next root, which knows the two alone.
    std::fs::remove_file(keys.join("tuf-root-2.pem")).unwrap();
    assert_eq!(tuf_root(&roots(&arguments)).unwrap(), 2);
    std::fs::remove_file(keys.join("tuf-root.pem")).unwrap();
    assert!(tuf_root(&RootArguments { threshold: vec![(Role::Root, 1)], ..roots(&arguments) }).is_err());
}

#[test]
fn a_program_signs_where_the_key_is_elsewhere() {
    let (folder, arguments) = setup();
    release(&folder.path().join("release"), "0.1.0");
    publish(&arguments).unwrap();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let openssl = |words: &[&str]| {
        let output = std::process::Command::new("openssl").args(words).output().expect("install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let rsa = ["rsassa-pss-sha256", "rsa", "-sigopt rsa_padding_mode:pss -sigopt rsa_pss_saltlen:32"];
    let ecdsa = ["ecdsa-sha2-nistp256", "ecdsa", ""];
    for (role, [scheme, keytype, options]) in [("targets", rsa), ("timestamp", ecdsa)] {
        let key = at(&format!("{role}.key"));
        match keytype {
            "rsa" => openssl(&["genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", &key]),
            _ => openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &key]),
        };
        let public = openssl(&["pkey", "-in", &key, "-pubout"]);
        let sign = format!(
            "test $KEEL_TUF_ROLE = {role} && openssl dgst -sha256 -sign {key} {options} | od -An -v -tx1 | tr -d ' \\n'"
        );
        let text = format!(
            "keytype = {keytype:?}\nscheme = {scheme:?}\npublic = {public:?}\ncommand = [\"sh\", \"-c\", {sign:?}]\n"
        );
        std::fs::write(arguments.keys.join(format!("tuf-{role}.signer")), text).unwrap();
        std::fs::remove_file(arguments.keys.join(format!("tuf-{role}.pem"))).unwrap();
    }
    assert_eq!(tuf_root(&roots(&arguments)).unwrap(), 2);
    assert_eq!(
        publish(&PublishArguments { release: None, timestamp_only: true, ..arguments.clone() }).unwrap().versions,
        (2, 2, 3)
    );
    // A token with another key than it says.
    openssl(&["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &at("timestamp.key")]);
    let error = publish(&PublishArguments { release: None, timestamp_only: true, ..arguments.clone() }).unwrap_err();
    assert!(format!("{error:#}").contains("isn't verified by the public key"), "{error:#}");
}

#[test]
fn who_gets_a_release_is_changed_without_building_it_again() {
    let (folder, arguments) = setup();
    release(&folder.path().join("release"), "0.1.0");
    let step = keel_spec::rollout::Step { after_min: 0, parts: 100 };
    let change = rollout::Change { waves: vec![step], ..rollout::Change::default() };
    publish(&PublishArguments { rollout: change, ..arguments.clone() }).unwrap();
    let place = rollout::Place {
        repository: arguments.repository.clone(),
        keys: arguments.keys.clone(),
        expires_days: 10,
        timestamp_expires_days: 10,
    };
    let said = || {
        let keys = Keys::load(&arguments.keys).unwrap();
        let listed = Published::read(&arguments.repository, &keys).unwrap().targets.unwrap().1;
        keel_spec::rollout::Rollout::of(&listed.targets["keel-cloud-0.1.0.json"]).unwrap()
    };
    assert_eq!(said().waves.unwrap().steps, [step]);
    let version: keel_spec::release::Version = "0.1.0".parse().unwrap();
    let withdraw = |undo| {
        let (version, place) = (version.clone(), place.clone());
        rollout::withdraw(&rollout::WithdrawArguments { version, place, reason: "it eats disks".into(), undo })
    };
    withdraw(false).unwrap();
    assert_eq!(said().withdrawn.as_deref(), Some("it eats disks"));
    // Publishing the same release again doesn't put it back by accident, nor lose its waves.
    publish(&arguments).unwrap();
    assert!(said().withdrawn.is_some() && said().waves.is_some());
    withdraw(true).unwrap();
    assert!(said().withdrawn.is_none() && said().waves.is_some());
    let unknown = rollout::RolloutArguments {
        version: "9.9.9".parse().unwrap(),
        place: place.clone(),
        change: rollout::Change::default(),
    };
    assert!(rollout::rollout(&unknown).unwrap_err().to_string().contains("9.9.9"));
}
