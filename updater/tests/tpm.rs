//! The least version against a whole TPM 2.0, swtpm's.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use keel_spec::release::Version;
use keel_updater::minimum::Minimum;
use keel_updater::state::{File, State};
use keel_updater::tpm::wire::Public;
use keel_updater::tpm::{Error, Held, Keeping, Transport, nv};

/// A running swtpm, which keeps what it holds in its folder.
struct Tpm {
    process: Child,
    folder: PathBuf,
}

impl Tpm {
    fn start(folder: &Path) -> Self {
        fs::create_dir_all(folder.join("tpm")).unwrap();
        let socket = folder.join("socket");
        let _ = fs::remove_file(&socket);
        let process = Command::new("swtpm")
            .args(["socket", "--tpm2", "--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.join("tpm").display()))
            .arg("--server")
            .arg(format!("type=unixio,path={}", socket.display()))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start swtpm: is the package swtpm installed?");
        let begun = Instant::now();
        while UnixStream::connect(&socket).is_err() {
            assert!(begun.elapsed() < Duration::from_secs(20), "swtpm doesn't listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        Self { process, folder: folder.into() }
    }

    fn connect(&self) -> io::Result<Connection> {
        connect(&self.folder)
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

struct Connection(UnixStream);

impl Transport for Connection {
    fn exchange(&mut self, command: &[u8]) -> io::Result<Vec<u8>> {
        self.0.write_all(command)?;
        let mut head = [0; 6];
        self.0.read_exact(&mut head)?;
        let mut answer = vec![0; u32::from_be_bytes(head[2..].try_into().unwrap()) as usize];
        answer[..6].copy_from_slice(&head);
        self.0.read_exact(&mut answer[6..])?;
        Ok(answer)
    }
}

fn connect(folder: &Path) -> io::Result<Connection> {
    let stream = UnixStream::connect(folder.join("socket"))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    Ok(Connection(stream))
}

fn folder(name: &str) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("keel-updater-tpm-{name}-{}", std::process::id()));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(folder.join("state")).unwrap();
    folder
}

/// The least version as one start of the updater sees it.
fn start(folder: &Path) -> (Minimum, File) {
    let of = folder.to_owned();
    let open = move || Ok(Some(Box::new(connect(&of)?) as Box<dyn Transport>));
    (Minimum::new(Box::new(open)), File::new(&folder.join("state")))
}

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn held(tpm: &Tpm) -> Held {
    Keeping(&mut tpm.connect().unwrap()).read().unwrap()
}

#[test]
fn a_state_partition_that_is_put_back_does_not_lower_what_the_tpm_holds() {
    let folder = folder("rewound");
    let tpm = Tpm::start(&folder);
    assert_eq!(held(&tpm), Held::default());
    let (minimum, file) = start(&folder);
    assert_eq!(minimum.version(&file), None);
    minimum.raise(&file, &version("0.1.0")).unwrap();
    let earlier = file.read();
    let before = held(&tpm);
    minimum.raise(&file, &version("0.2.0")).unwrap();
    assert_eq!(held(&tpm).counter, before.counter.map(|counter| counter + 1));
    // Neither the same release nor, after a fallback, an older one costs the TPM a write.
    for text in ["0.2.0", "0.1.0"] {
        minimum.raise(&file, &version(text)).unwrap();
        assert_eq!(minimum.version(&file), Some(version("0.2.0")));
        assert_eq!(held(&tpm).counter, before.counter.map(|counter| counter + 1));
    }
    drop(tpm);

    // The machine is off; what the state partition says is replaced.
    let _tpm = Tpm::start(&folder);
    for old in [earlier, State::default()] {
        file.write(&old).unwrap();
        let (minimum, file) = start(&folder);
        assert_eq!(minimum.version(&file), Some(version("0.2.0")));
        let status = minimum.status().unwrap();
        assert!(status.in_tpm && status.rewound.is_some_and(|(_, why)| why.contains("earlier copy")));
        // What was found out stays, and isn't found out anew.
        minimum.raise(&file, &version("0.1.0")).unwrap();
        let (minimum, file) = start(&folder);
        assert_eq!(minimum.version(&file), Some(version("0.2.0")));
        assert!(file.read().minimum.unwrap().rewound.is_some());
    }
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_tpm_that_is_cleared_away_or_used_by_others_leaves_the_file() {
    let folder = folder("cleared");
    let tpm = Tpm::start(&folder);
    let (minimum, file) = start(&folder);
    minimum.raise(&file, &version("0.2.0")).unwrap();
    drop(tpm);

    let (minimum, _) = start(&folder);
    assert_eq!(minimum.version(&file), Some(version("0.2.0")));
    minimum.raise(&file, &version("0.3.0")).unwrap();
    let status = minimum.status().unwrap();
    assert!(!status.in_tpm && status.tpm_problem.is_some() && status.rewound.is_none(), "{status:?}");

    // Another TPM, or this one cleared: it takes what the file has.
    fs::remove_dir_all(folder.join("tpm")).unwrap();
    let tpm = Tpm::start(&folder);
    let (minimum, _) = start(&folder);
    assert_eq!(minimum.version(&file), Some(version("0.3.0")));
    minimum.raise(&file, &version("0.3.0")).unwrap();
    assert_eq!(held(&tpm).record.unwrap().version, version("0.3.0"));
    assert!(minimum.status().unwrap().in_tpm);
    drop(tpm);

    // Somebody else's index in the place of the record.
    fs::remove_dir_all(folder.join("tpm")).unwrap();
    let tpm = Tpm::start(&folder);
    let foreign = Public { index: 0x0180_4B45, attributes: 0x0002_0002, size_bytes: 4 };
    nv::define(&mut tpm.connect().unwrap(), &foreign).unwrap();
    let (minimum, _) = start(&folder);
    minimum.raise(&file, &version("0.4.0")).unwrap();
    assert_eq!(minimum.version(&file), Some(version("0.4.0")));
    let status = minimum.status().unwrap();
    assert!(status.tpm_problem.is_some_and(|why| why.contains("something else")));
    fs::remove_dir_all(folder).unwrap();
}

#[test]
fn a_full_tpm_says_so() {
    let folder = folder("full");
    let tpm = Tpm::start(&folder);
    let mut connection = tpm.connect().unwrap();
    let mut full = None;
    for number in 0..200 {
        let filler = Public { index: 0x0180_0000 + number, attributes: 0x0002_0002, size_bytes: 1500 };
        if let Err(error) = nv::define(&mut connection, &filler) {
            full = Some(error);
            break;
        }
    }
    assert!(matches!(full, Some(Error::Refused { code: 0x14B })), "{full:?}");
    drop(connection);
    let mut small = 1400;
    // Down to the last bytes, so that not even a counter has room.
    while small >= 8 {
        let filler = Public { index: 0x0181_0000 + u32::from(small), attributes: 0x0002_0002, size_bytes: small };
        match nv::define(&mut tpm.connect().unwrap(), &filler) {
            Ok(()) => {}
            Err(_) => small /= 2,
        }
        small = small.saturating_sub(1);
    }
    let (minimum, file) = start(&folder);
    minimum.raise(&file, &version("0.2.0")).unwrap();
    assert_eq!(minimum.version(&file), Some(version("0.2.0")));
    let problem = minimum.status().unwrap().tpm_problem.unwrap();
    assert!(problem.contains("full"), "{problem}");
    fs::remove_dir_all(folder).unwrap();
}
