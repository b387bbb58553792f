//! Installs a release into a disk image, with the updater's own code: what `make bench` measures.
//!
//! `install_to_image --image DISK --running DESCRIPTION --repository URL --root ROOT VERSION`: the image has the running
//! release in one of its slots; its other slot and its EFI system partition are written. Prints what it fetched, how
//! long it took without metadata, and the peak of its memory, as JSON.

use std::collections::HashMap;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use keel_spec::disk::{ESP_LABEL, Slot};
use keel_spec::release::{Release, ReleaseFile, Version};
use keel_spec::tuf::Time;
use keel_updater::disk::{self, Device as _, Fenced, FileDevice};
use keel_updater::esp::Esp;
use keel_updater::install::Installer;
use keel_updater::mirrors::Mirrors;
use keel_updater::pace::Pace;
use keel_updater::plan::{self, Facts, Target};
use keel_updater::source::Http;
use keel_updater::{host, transfer, tuf};

const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<()> {
    let mut options = HashMap::new();
    let mut words = std::env::args().skip(1);
    let mut version = None;
    while let Some(word) = words.next() {
        match word.strip_prefix("--") {
            Some(name) => {
                options.insert(name.to_owned(), words.next().with_context(|| format!("--{name} wants a value"))?);
            }
            None => version = Some(word.parse::<Version>()?),
        }
    }
    let option = |name: &str| options.get(name).with_context(|| format!("--{name} is missing"));
    let version = version.context("which version?")?;
    let running: Release = serde_json::from_slice(&std::fs::read(option("running")?)?)?;
    let source = Http::new(option("repository")?, None)?;

    let root = std::fs::read(option("root")?)?;
    let trusted = std::env::temp_dir().join(format!("keel-install-{}", std::process::id()));
    let store = tuf::store::Store::open(&trusted)?;
    let client = tuf::Client { source: &source, store: &store, trusted_root: &root, patience: PATIENCE };
    let set = client.refresh(Time(host::now_unix_s()))?;
    std::fs::remove_dir_all(&trusted)?;
    let targets = set.targets().cloned().unwrap_or_default();
    let mirrors = Mirrors::new([&source as &dyn keel_updater::source::Source], Pace::default());
    let name = ReleaseFile::Description.target_name(&running.profile, &version);
    let release: Release = serde_json::from_slice(&transfer::small(&mirrors, &Target::of(&targets, name)?)?)?;

    let begin = Instant::now();
    let device = FileDevice::open(Path::new(option("image")?))?;
    let (table, _) = disk::read_table(&device)?;
    let slot = Slot::holding(&table, &running.root_hash).context("no slot has the running release")?;
    let place = table.by_name(ESP_LABEL).context("the image has no partition esp")?;
    let mut esp = Esp::open(&device, place.offset_bytes(), place.size_bytes())?;
    let plan = plan::decide(&Facts {
        release: &release,
        targets: &targets,
        table: &table,
        running_root: &running.root_hash,
        running: &running.version,
        on_trial: false,
        ukis: &esp.ukis()?,
        esp_free_bytes: esp.free_bytes(),
        tries: 3,
        resume: false,
        disk_bytes: device.size_bytes()?,
        battery_percent: None,
    })?;
    let fenced = Fenced::new(&device, &table, slot);
    Installer { mirrors: &mirrors, disk: &fenced, esp: &mut esp }.run(&plan, &mut |_, _, _| ())?;
    let seconds = begin.elapsed().as_secs_f64();

    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse()?;
    ensure!(mirrors.fetched_bytes() > 0, "nothing was fetched: the release is there already");
    let fetched = mirrors.fetched_bytes();
    println!("{{\"fetched_bytes\": {fetched}, \"seconds\": {seconds:.3}, \"peak_kib\": {peak}}}");
    Ok(())
}
