//! Updates without a repository's files: from a disk that is plugged in, then from a host that was updated so, through a proxy.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use keel_spec::gpt::SECTOR_BYTES;

use super::fixture::{BOOT_LIMIT, Fixture, Variant};
use super::update::{reboot, trial_is_over};
use crate::build::{Build, DISK_BYTES, FIRST, SECOND, run};
use crate::clients::Host;
use crate::machine::{Hardware, WORKSTATION_IN_GUEST};
use crate::proxy::{ONLY_HERE, Proxy};

/// Where `update.serve = true` listens.
const PEER_PORT: u16 = 7380;
/// Bytes of the disk that is plugged in, and where its one partition begins.
const STICK_BYTES: u64 = 1 << 30;
const PARTITION_SECTOR: u32 = 2048;
/// Name of the bundle on it, which no short name has room for.
const BUNDLE: &str = "Keel for offline hosts.bundle";
/// More than the metadata and a description have, and less than the smallest part of a release's blocks.
const METADATA_BYTES: u64 = 100 << 10;

pub(super) fn stick_and_peer(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "stick-and-peer")?;
    fixture.publish(SECOND, Variant::Good)?;
    let mut second = Hardware::with_disk(build, &fixture.dir.join("second"), &fixture.hardware.disk(), DISK_BYTES)?;
    let config = fixture.hardware.config.clone();
    fixture.configure("[update]\n", "[update]\nserve = true\n");
    fixture.hardware.guest_ports.push(PEER_PORT);
    fixture.hardware.plugged = Some(stick(&fixture)?);
    let (mut machine, host) = fixture.boot()?;

    let found = host.keelctl_json(&["update", "bundles"])?;
    let (name, version) = (&found["bundles"][0]["name"], &found["bundles"][0]["version"]);
    ensure!(*name == format!("vdb1/{BUNDLE}") && *version == SECOND, "bundles: {found}");
    let refused = host.keelctl_fails(&["update", "install", "--disk", "vdc"], 4)?;
    ensure!(refused.contains(BUNDLE), "what there is isn't said: {refused}");
    host.keelctl_ok(&["update", "install", "--disk"])?;
    ensure!(fixture.server.served_bytes() == 0, "the repository was asked");
    let status = reboot(&mut machine, &host)?;
    ensure!(status["version"] == SECOND, "after the update from the disk: {status}");
    trial_is_over(&host)?;

    let port = machine.port(PEER_PORT)?;
    same_files(&fixture, &host, port)?;
    // The second host knows peer and repository by a name for which it has to go through the proxy.
    let proxy = Proxy::start()?;
    let mirrors = format!("mirrors = [\"http://{ONLY_HERE}:{port}\"]");
    let repository = fixture.server.port();
    second.config = config
        .replace("[update]\n", &format!("[update]\n{mirrors}\n"))
        .replace(&format!("{WORKSTATION_IN_GUEST}:{repository}"), &format!("{ONLY_HERE}:{repository}"));
    second.config += &format!("[proxy]\nhttp = \"http://{WORKSTATION_IN_GUEST}:{}\"\n", proxy.port());
    from_the_peer(&fixture, &second, &host)?;
    // One for the repository at least, and one for the peer.
    ensure!(proxy.requests() >= 2, "the proxy forwarded {} requests", proxy.requests());
    Ok(())
}

/// All files of the release come from the host just as they are in the repository, and nothing else does.
fn same_files(fixture: &Fixture, host: &Host, port: u16) -> Result<()> {
    let targets = fixture.dir.join("repository/targets");
    let mut compared = 0;
    for entry in std::fs::read_dir(&targets)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).context("a target's name")?;
        let there = std::fs::read(&path)?;
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect to the peer")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        write!(stream, "GET /targets/{name} HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let same = answer.starts_with(b"HTTP/1.1 200 ") && answer.ends_with(&there);
        if !same {
            let head = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
            let log = host.keelctl_ok(&["logs", "updater"])?;
            bail!("{name} isn't as in the repository: {} bytes, {head:?}; the updater's log:\n{log}", answer.len());
        }
        compared += 1;
    }
    ensure!(compared == 5, "the repository has {compared} files of the release");
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(stream, "GET /timestamp.json HTTP/1.1\r\nHost: peer\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.take(1 << 10).read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 404 "), "metadata are served: {answer}");
    Ok(())
}

/// The second host takes the release from the first.
fn from_the_peer(fixture: &Fixture, hardware: &Hardware, peer: &Host) -> Result<()> {
    let mut machine = hardware.power_on()?;
    let host = Host::of(&fixture.build, &machine)?;
    let status = host.wait_health(&machine, "good", BOOT_LIMIT)?;
    ensure!(status["version"] == FIRST, "the second host: {status}");
    let before = served(peer)?;
    host.install(None)?.finish()?;
    let from_repository = fixture.server.served_bytes();
    let fetched = host.keelctl_json(&["update", "status"])?["figures"]["fetched_bytes"].as_u64().unwrap_or_default();
    let from_peer = served(peer)? - before;
    println!("fetched {fetched} bytes; the peer served {from_peer}, the repository {from_repository}");
    ensure!((1..METADATA_BYTES).contains(&from_repository), "the repository served {from_repository} bytes");
    ensure!(fetched > METADATA_BYTES && from_peer >= fetched, "the peer served {from_peer} bytes of {fetched}");
    let status = reboot(&mut machine, &host)?;
    ensure!(status["version"] == SECOND, "after the update from the peer: {status}");
    trial_is_over(&host)
}

/// Bytes that a host has served, as its metrics say.
fn served(peer: &Host) -> Result<u64> {
    let metrics = peer.get("/keel/v1/metrics")?;
    let served = metrics.lines().find_map(|line| line.strip_prefix("keel_update_served_bytes_total "));
    Ok(served.context("the peer's metrics")?.parse()?)
}

/// A disk with one FAT32 partition and a bundle on it, as other systems make them.
fn stick(fixture: &Fixture) -> Result<PathBuf> {
    let (bundle, stick) = (fixture.dir.join("keel.bundle"), fixture.dir.join("stick.raw"));
    let mut command = fixture.build.keel_image();
    command.args(["bundle", "--version", SECOND, "--repository"]).arg(fixture.dir.join("repository"));
    run(command.arg("--out").arg(&bundle))?;
    let disk = File::create(&stick).with_context(|| format!("create {}", stick.display()))?;
    disk.set_len(STICK_BYTES)?;
    let sectors = (STICK_BYTES / SECTOR_BYTES as u64) as u32 - PARTITION_SECTOR;
    let blocks = (sectors / 2).to_string();
    let offset = PARTITION_SECTOR.to_string();
    run(Command::new("mkfs.vfat").args(["-F", "32", "--offset", &offset]).arg(&stick).arg(&blocks))?;
    let mut table = [0; SECTOR_BYTES];
    table[446 + 4] = 0x0c;
    table[446 + 8..446 + 12].copy_from_slice(&PARTITION_SECTOR.to_le_bytes());
    table[446 + 12..446 + 16].copy_from_slice(&sectors.to_le_bytes());
    table[510..].copy_from_slice(&[0x55, 0xaa]);
    disk.write_all_at(&table, 0)?;
    let volume = format!("{}@@{}", stick.display(), u64::from(PARTITION_SECTOR) * SECTOR_BYTES as u64);
    run(Command::new("mcopy").args(["-i", &volume]).arg(&bundle).arg(format!("::{BUNDLE}")))?;
    Ok(stick)
}
