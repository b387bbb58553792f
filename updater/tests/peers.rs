//! A host's disk in the place of a mirror: over real connections, from a disk image, into another one.

mod support;

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use keel_spec::disk::Slot;
use keel_spec::release::ReleaseFile;
use keel_spec::tuf::TargetFile;
use keel_spec::verity::BLOCK_BYTES;
use keel_updater::blocks::sha256;
use keel_updater::disk::{self, Device as _, Fenced};
use keel_updater::failure::Result;
use keel_updater::install::Installer;
use keel_updater::mirrors::Mirrors;
use keel_updater::pace::Pace;
use keel_updater::peers::offer::Running;
use keel_updater::peers::server::Patience;
use keel_updater::peers::{Offer, Opened, Peers, Server};
use keel_updater::source::{Http, Source};
use keel_updater::tuf::keys::to_hex;
use support::checker::Disk;
use support::{Made, Memory, Recorder, as_firmware, image, make, open_esp, plan};

const BLOCKS: u64 = 300;
const BLOCK: u64 = BLOCK_BYTES as u64;
const DESCRIPTION: &[u8] = b"{\"version\":\"1.1.0\"}";

/// Shares 100 of its 300 blocks with 1.0.0, at other places.
fn new_release() -> Made {
    make("1.1.0", BLOCKS, 2, |block| if block < 100 { block + 50 } else { block + 9000 })
}

fn old_release() -> Made {
    make("1.0.0", BLOCKS, 2, |block| block)
}

/// What a disk offers that runs `made`.
fn offer(disk: &Arc<Recorder>, made: &Made) -> Result<Offer> {
    let mut targets = Memory::of(made).targets;
    let hashes = [("sha256".to_owned(), to_hex(&sha256(&[DESCRIPTION])))].into();
    let name = ReleaseFile::Description.target_name("cloud", &made.release.version);
    targets.insert(name, TargetFile { length: DESCRIPTION.len() as u64, hashes, custom: None });
    Offer::make(
        Arc::clone(disk) as Arc<dyn disk::Device>,
        Running {
            version: &made.release.version,
            profile: "cloud",
            root_hash: made.release.root_hash,
            targets: &targets,
            description: Some(DESCRIPTION.to_vec()),
        },
    )
}

struct Host {
    offer: Offer,
    asked: AtomicU64,
    served: AtomicU64,
}

impl Peers for Host {
    fn open(&self, path: &str) -> Option<Opened> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.offer.open(path).unwrap()
    }
    fn served(&self, bytes: u64) {
        self.served.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// A host that serves, and its address. Its threads end with the test's process.
fn serve_with(offer: Offer, patience: Patience) -> (Arc<Host>, String) {
    let host = Arc::new(Host { offer, asked: 0.into(), served: 0.into() });
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::new(Arc::clone(&host) as Arc<dyn Peers>, patience);
    std::thread::spawn(move || server.serve(&listener));
    (host, address)
}

fn serve(made: &Made) -> (Arc<Host>, String) {
    let disk = Arc::new(Recorder::new(image(made, None)));
    serve_with(offer(&disk, made).unwrap(), Patience::default())
}

/// Installs 1.1.0 on a machine that runs 1.0.0, from a peer first; the repository's requests are counted in `repository`.
fn install(peer: &str, repository: &Memory) -> Result<u64> {
    let (running, new) = (old_release(), new_release());
    let recorder = Recorder::new(image(&running, None));
    let plan = plan(&recorder, &running, repository, &new.release, false)?;
    let peer = Http::new(&format!("http://{peer}"), None).unwrap();
    let mirrors = Mirrors::new([&peer as &dyn Source, repository], Pace::default());
    let table = disk::read_table(&recorder)?.0;
    let fenced = Fenced::new(&recorder, &table, Slot::A);
    let mut esp = open_esp(&recorder);
    Installer { mirrors: &mirrors, disk: &fenced, esp: &mut esp }.run(&plan, &mut |_, _, _| ())?;
    let mut disk = Disk::new(recorder.image.lock().unwrap().clone(), &[&running, &new]);
    assert_eq!(disk.boots().unwrap().to_string(), "1.1.0");
    Ok(mirrors.fetched_bytes())
}

#[test]
fn an_install_takes_every_block_from_a_peer_and_nothing_from_the_repository() {
    let new = new_release();
    let (host, address) = serve(&new);
    let repository = Memory::of(&new);
    let fetched = install(&address, &repository).unwrap();
    let wanted = 201 * BLOCK + (new.tree.len() + new.list.len()) as u64;
    assert_eq!((fetched, host.served.load(Ordering::Relaxed)), (wanted, wanted));
    assert_eq!(repository.requests.load(Ordering::Relaxed), 0);
}

#[test]
fn a_peer_that_runs_another_release_or_is_away_is_passed_over() {
    let new = new_release();
    let (host, address) = serve(&old_release());
    let repository = Memory::of(&new);
    let fetched = install(&address, &repository).unwrap();
    assert_eq!((host.served.load(Ordering::Relaxed), repository.served()), (0, fetched));
    // Once for each of four files, by each of three that fetch at once.
    assert!((4..=8).contains(&host.asked.load(Ordering::Relaxed)), "it was asked again");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    assert_eq!(install(&nobody, &Memory::of(&new)).unwrap(), fetched);
}

#[test]
fn a_peer_without_one_file_is_asked_for_the_others() {
    let new = new_release();
    let (host, address) = serve(&new);
    let mut repository = Memory::of(&new);
    // The repository alone has this list: the peer makes one of its own UKI, and finds that it isn't the one signed.
    let mut targets = repository.targets.clone();
    let name = ReleaseFile::UkiBlocks.target_name("cloud", &new.release.version);
    targets.remove(&name);
    let disk = Arc::new(Recorder::new(image(&new, None)));
    let running = Running {
        version: &new.release.version,
        profile: "cloud",
        root_hash: new.release.root_hash,
        targets: &targets,
        description: None,
    };
    let offer = Offer::make(disk, running).unwrap();
    assert_eq!(offer.size().0, 3);
    drop((host, address));
    let (host, address) = serve_with(offer, Patience::default());
    repository.files.retain(|path, _| path.ends_with(&name));
    let fetched = install(&address, &repository).unwrap();
    assert_eq!(repository.served(), new.list.len() as u64);
    assert_eq!(host.served.load(Ordering::Relaxed), fetched - repository.served());
}

#[test]
fn a_peer_whose_root_has_rotten_is_left_for_the_repository() {
    let new = new_release();
    let disk = Arc::new(Recorder::new(image(&new, None)));
    let offer = offer(&disk, &new).unwrap();
    let root = disk::read_table(&*disk).unwrap().0.by_name("root-a").unwrap().offset_bytes();
    disk.write_at(&[1], root + 150 * BLOCK + 77).unwrap();
    let (_, address) = serve_with(offer, Patience::default());
    let repository = Memory::of(&new);
    install(&address, &repository).unwrap();
    assert!(repository.served() > 0);
}

#[test]
fn what_is_not_as_it_was_signed_is_not_offered() {
    let new = new_release();
    let changed = |change: &dyn Fn(&Recorder)| {
        let disk = Arc::new(Recorder::new(image(&new, None)));
        change(&disk);
        offer(&disk, &new).map(|offer| offer.size().0)
    };
    assert_eq!(changed(&|_| ()).unwrap(), 5);
    let at = |disk: &Recorder, label: &str| disk::read_table(disk).unwrap().0.by_name(label).unwrap().offset_bytes();
    let tree = changed(&|disk| disk.write_at(&[9], at(disk, "verity-a") + 5000).unwrap()).unwrap_err();
    assert!(tree.message.contains("1.1.0.verity"), "{tree}");
    let uki = changed(&|disk| {
        let file = open_esp(disk).file("keel_1.1.0.efi").unwrap();
        file.write_at(&[9], 20_000).unwrap();
    });
    assert!(uki.unwrap_err().message.contains("1.1.0.efi"));
    let gone = changed(&|disk| {
        as_firmware(&mut disk.image.lock().unwrap(), |folder| folder.remove("keel_1.1.0.efi").unwrap());
    });
    assert!(gone.unwrap_err().message.contains("no UKI"));
    let elsewhere = Arc::new(Recorder::new(image(&old_release(), None)));
    assert!(offer(&elsewhere, &new).is_err(), "another release runs");
}

#[test]
fn files_are_found_where_the_table_says_that_they_are_now() {
    let new = new_release();
    let disk = Arc::new(Recorder::new(image(&new, None)));
    let offer = offer(&disk, &new).unwrap();
    let (mut table, _) = disk::read_table(&*disk).unwrap();
    let (a, b) = (table.by_name("root-a").unwrap().clone(), table.by_name("root-b").unwrap().clone());
    disk.write_at(&new.root, b.offset_bytes()).unwrap();
    disk.write_at(&vec![0; new.root.len()], a.offset_bytes()).unwrap();
    for entry in &mut table.entries {
        match entry.name.as_str() {
            "root-a" => (entry.first_lba, entry.last_lba) = (b.first_lba, b.last_lba),
            "root-b" => (entry.first_lba, entry.last_lba) = (a.first_lba, a.last_lba),
            _ => {}
        }
    }
    disk.write_at(&table.primary(), 0).unwrap();
    let (_, address) = serve_with(offer, Patience::default());
    let repository = Memory::of(&new);
    install(&address, &repository).unwrap();
    assert_eq!(repository.requests.load(Ordering::Relaxed), 0);
}

/// Sends bytes, and returns all that comes until the other side closes.
fn talk(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    answer
}

#[test]
fn every_file_comes_whole_in_pieces_and_by_its_head_on_one_connection() {
    let new = new_release();
    let (host, address) = serve(&new);
    for (path, bytes) in Memory::of(&new).files {
        let close = "Host: x\r\nConnection: close\r\n\r\n";
        let asked = format!(
            "HEAD /{path} HTTP/1.1\r\nHost: x\r\n\r\nGET /{path} HTTP/1.1\r\nHost: x\r\nRange: bytes=10-19\r\n\r\n\
             GET /{path} HTTP/1.1\r\nRange: bytes=9999999999-\r\nHost: x\r\n\r\n\
             GET /{path} HTTP/1.1\r\nRange: bytes=0-9\r\nIf-Range: \"other\"\r\n{close}"
        );
        let answer = talk(&address, asked.as_bytes());
        let heads = String::from_utf8_lossy(&answer);
        let statuses: Vec<&str> = heads.split("HTTP/1.1 ").skip(1).map(|head| &head[..3]).collect();
        assert_eq!(statuses, ["200", "206", "416", "200"], "{path}");
        assert!(heads.contains(&format!("Content-Length: {}\r\n", bytes.len())), "{path}");
        assert!(heads.contains(&format!("Content-Range: bytes 10-19/{}\r\n", bytes.len())), "{path}");
        assert!(answer.ends_with(&bytes) && answer.windows(10).any(|ten| *ten == bytes[10..20]), "{path}");
        let several = Http::new(&format!("http://{address}"), None).unwrap();
        let ranges = [0..7, 100..299, 300..301];
        let mut got = Vec::new();
        let opened = several.open(&path, &ranges, 1 << 20).unwrap().unwrap();
        assert!(opened.ranged);
        { opened.body }.read_to_end(&mut got).unwrap();
        let wanted = ranges.into_iter().flat_map(|it| bytes[it.start as usize..it.end as usize].to_vec());
        let wanted: Vec<u8> = wanted.collect();
        assert!(got == wanted, "{path}");
    }
    assert!(host.served.load(Ordering::Relaxed) > 0);
    for other in ["", "targets/", "timestamp.json", "1.root.json", "targets/../x", "targets/keel-cloud-1.1.0.root"] {
        let answer =
            talk(&address, format!("GET /{other} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
        assert!(answer.starts_with(b"HTTP/1.1 404 "), "{other}");
    }
    assert!(talk(&address, b"POST / HTTP/1.1\r\nHost: x\r\n\r\n").starts_with(b"HTTP/1.1 501 "));
    assert!(talk(&address, &[b'x'; 9000]).starts_with(b"HTTP/1.1 431 "));
}

#[test]
fn too_many_and_too_slow_ones_are_sent_away_and_the_others_served() {
    let new = new_release();
    let disk = Arc::new(Recorder::new(image(&new, None)));
    let short = Duration::from_millis(100);
    let patience = Patience { idle: Duration::from_secs(60), head: short, ..Patience::default() };
    let (_, address) = serve_with(offer(&disk, &new).unwrap(), patience);
    // Half a request isn't waited for.
    assert!(talk(&address, b"GET /x HTTP/1.1\r\n").starts_with(b"HTTP/1.1 408 "));
    // One address doesn't get all the places, and a place that is left is free again.
    let ask = |mut stream: &TcpStream| {
        let mut first = [0; 12];
        let asked = stream.write_all(b"GET /x HTTP/1.1\r\nHost: x\r\n\r\n");
        asked.and_then(|()| stream.read_exact(&mut first)).map(|()| first)
    };
    let held: Vec<TcpStream> = (0..8).map(|_| TcpStream::connect(&address).unwrap()).collect();
    // Each place is taken once its answer has come.
    let answers: Vec<_> = held.iter().map(|stream| ask(stream).unwrap()).collect();
    assert!(answers.iter().all(|answer| answer == b"HTTP/1.1 404"), "{answers:?}");
    let mut busy = Vec::new();
    let mut ninth = TcpStream::connect(&address).unwrap();
    // It may be closed with what was never read, so it is asked nothing.
    ninth.read_to_end(&mut busy).unwrap();
    assert!(busy.starts_with(b"HTTP/1.1 503 "));
    drop(held);
    let served = || ask(&TcpStream::connect(&address).unwrap()).is_ok_and(|first| &first == b"HTTP/1.1 404");
    let pause = || std::thread::sleep(Duration::from_millis(1));
    assert!(
        (0..10_000).any(|_| served() || {
            pause();
            false
        }),
        "no place became free"
    );
}
