//! The clock follows NTP servers: asked one after the other, every 64 s at first, every 1024 s once the clock is right.
//!
//! - [`dns`]: which addresses a server's name has
//! - [`sntp`]: question and answer

pub mod dns;
pub mod sntp;

use std::fs;
use std::io::Read as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail};
use keel_link::{bus, control};
use keel_spec::paths;
use rustix::time::{ClockId, Timespec, clock_settime};

use crate::sys;
use sntp::Sample;

const NTP_PORT: u16 = 123;
const DNS_PORT: u16 = 53;
/// Longest wait for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// Pauses between two rounds: while no server answers, and once the clock is right.
const FIRST_PAUSE: Duration = Duration::from_secs(4);
const RIGHT_PAUSE: Duration = Duration::from_secs(64);
const LONGEST_PAUSE: Duration = Duration::from_secs(1024);
/// A clock that is further off is stepped; a closer one is slewed.
const STEP_US: i64 = 500_000;
/// Most name servers that are asked, and most foreign packets passed over for one answer.
const MAX_SERVERS: usize = 8;
const MAX_PACKETS: usize = 16;

/// Keeps the clock right for as long as the host runs.
pub fn run() -> anyhow::Result<()> {
    let settings = bus::settings().context("cannot learn the settings")?;
    let mut control = control::Client::connect()?;
    if settings.ntp_servers.is_empty() {
        control.status("no NTP servers configured: the clock is left to the hardware")?;
        control.ready()?;
        drop(control);
        loop {
            std::thread::park();
        }
    }
    control.status("clock not synchronised yet")?;
    control.ready()?;
    let floor_us = built_unix_us();
    let mut pause = FIRST_PAUSE;
    loop {
        match round(&settings.ntp_servers) {
            Ok((server, sample)) => {
                let outcome = set_clock(sample, floor_us);
                let settled = outcome.is_ok() && sample.offset_us.abs() < STEP_US / 10;
                let text = match outcome {
                    Ok(how) => format!("{how} by {} us after {server}", sample.offset_us),
                    Err(error) => format!("{server}: {error:#}"),
                };
                log::info!("{text}");
                control.status(&text)?;
                pause = if settled { (pause * 2).clamp(RIGHT_PAUSE, LONGEST_PAUSE) } else { RIGHT_PAUSE };
            }
            Err(error) => {
                control.status(&format!("no time from any server: {error:#}"))?;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        std::thread::sleep(pause);
    }
}

/// Asks the servers in turn; the first useful answer counts.
fn round(servers: &[String]) -> anyhow::Result<(String, Sample)> {
    let mut last = anyhow::anyhow!("no server");
    for server in servers.iter().take(MAX_SERVERS) {
        let addresses = match server.parse::<IpAddr>() {
            Ok(address) => Ok(vec![address]),
            Err(_) => resolve(server),
        };
        let asked = addresses.and_then(|addresses| {
            let address = addresses.first().with_context(|| format!("{server} has no IPv4 address"))?;
            ask(SocketAddr::new(*address, NTP_PORT))
        });
        match asked {
            Ok(sample) => return Ok((server.clone(), sample)),
            Err(error) => last = error.context(format!("NTP server {server}")),
        }
    }
    Err(last)
}

/// One question to one server.
fn ask(server: SocketAddr) -> anyhow::Result<Sample> {
    let cookie = random()?;
    let mut result = Err(sntp::Unusable::Foreign);
    let sent_us = std::cell::Cell::new(0);
    exchange(
        server,
        &sntp::question(cookie),
        || sent_us.set(now_us()),
        |packet| {
            result = sntp::answer(packet, cookie, sent_us.get(), now_us());
            result != Err(sntp::Unusable::Foreign)
        },
    )?;
    Ok(result?)
}

/// The IPv4 addresses of a name, from the first name server that answers.
fn resolve(name: &str) -> anyhow::Result<Vec<IpAddr>> {
    let configuration =
        fs::read_to_string(paths::RESOLV_CONF).with_context(|| format!("reading {}", paths::RESOLV_CONF))?;
    let servers =
        configuration.lines().filter_map(|line| line.strip_prefix("nameserver ")?.trim().parse::<IpAddr>().ok());
    for server in servers.take(MAX_SERVERS) {
        let question = dns::question(random()? as u16, name).with_context(|| format!("{name} is not a name"))?;
        let mut found = None;
        let asked = exchange(
            SocketAddr::new(server, DNS_PORT),
            &question,
            || (),
            |packet| {
                found = dns::addresses(packet, &question);
                found.is_some()
            },
        );
        if let (Ok(()), Some(addresses)) = (asked, found) {
            return Ok(addresses.into_iter().map(IpAddr::V4).collect());
        }
    }
    bail!("no name server knows {name}")
}

/// Sends a packet and hands what comes back to `take`, until it says that this was it.
fn exchange(
    server: SocketAddr,
    packet: &[u8],
    sending: impl Fn(),
    mut take: impl FnMut(&[u8]) -> bool,
) -> anyhow::Result<()> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    // Connected: packets of other senders don't arrive, and a closed port is told at once.
    socket.connect(server)?;
    sending();
    socket.send(packet)?;
    let deadline = Instant::now() + ANSWER_TIMEOUT;
    let mut answer = [0; dns::MAX_ANSWER_BYTES];
    for _ in 0..MAX_PACKETS {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        socket.set_read_timeout(Some(left))?;
        let length = socket.recv(&mut answer).with_context(|| format!("no answer from {server}"))?;
        if take(&answer[..length]) {
            return Ok(());
        }
    }
    bail!("no answer from {server} that makes sense")
}

/// Steps or slews; never below the release's build time.
fn set_clock(sample: Sample, floor_us: i64) -> anyhow::Result<&'static str> {
    let right_us = now_us() + sample.offset_us;
    if right_us < floor_us {
        bail!("its time lies before this release was built: not believed");
    }
    let stepped = sample.offset_us.abs() > STEP_US;
    if stepped {
        let right_us = now_us() + sample.offset_us;
        let time = Timespec { tv_sec: right_us.div_euclid(1_000_000), tv_nsec: right_us.rem_euclid(1_000_000) * 1_000 };
        clock_settime(ClockId::Realtime, time).context("cannot set the clock")?;
    }
    // Also after a step: the kernel must know that the clock is right, so that it sets the hardware clock.
    let slew_us = if stepped { 0 } else { sample.offset_us };
    sys::slew_clock(slew_us, sample.delay_us.max(1_000)).context("cannot adjust the clock")?;
    Ok(if stepped { "clock stepped" } else { "clock slewed" })
}

/// When this release was built, from `BUILD_UNIX_S=` of its os-release; 0 where that isn't told.
fn built_unix_us() -> i64 {
    let text = fs::read_to_string(paths::OS_RELEASE).unwrap_or_default();
    let value = text.lines().find_map(|line| line.strip_prefix("BUILD_UNIX_S="));
    value.and_then(|value| value.trim_matches('"').parse::<i64>().ok()).unwrap_or(0).saturating_mul(1_000_000)
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

fn random() -> anyhow::Result<u64> {
    let mut bytes = [0; 8];
    fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes)).context("reading /dev/urandom")?;
    Ok(u64::from_ne_bytes(bytes))
}
