//! The power fails during an update.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::fixture::{BOOT_LIMIT, Fixture, Variant};
use crate::build::{Build, DISK_BYTES, FIRST, SECOND};
use crate::clients::Host;
use crate::machine::{Hardware, Machine};

/// Stages of an install, in order.
const STAGES: [&str; 6] = ["metadata", "tree", "root", "verify", "uki", "commit"];

/// Points at which the power is cut: the stage, and the share of it that is done, in percent.
const POINTS: [(&str, u64); 10] = [
    ("metadata", 0),
    ("tree", 0),
    ("root", 0),
    ("root", 30),
    ("root", 80),
    ("verify", 10),
    ("verify", 90),
    ("uki", 0),
    ("uki", 60),
    ("commit", 0),
];

/// Cuts the power at each point of an update in turn; after each cut the machine boots, whole, and is healthy.
pub(super) fn ten_points(build: &Build) -> Result<()> {
    let mut fixture = Fixture::new(build, "power-cut")?;
    fixture.publish(SECOND, Variant::Good)?;
    for (index, point) in POINTS.iter().enumerate() {
        let (machine, host) = fixture.boot()?;
        let version = running(&host)?;
        if version == SECOND {
            // The cut before came after the commit: the next one needs the first release again.
            drop(machine);
            let image = build.build.join("tests/releases").join(format!("{FIRST}.raw"));
            let config = std::mem::take(&mut fixture.hardware.config);
            fixture.hardware =
                Hardware::with_disk(build, &fixture.dir.join(format!("machine-{index}")), &image, DISK_BYTES)?;
            fixture.hardware.config = config;
            let (machine, host) = fixture.boot()?;
            cut_at(machine, &host, *point)?;
        } else {
            ensure!(version == FIRST, "after cut {index} the machine runs {version}");
            cut_at(machine, &host, *point)?;
        }
    }
    let (machine, host) = fixture.boot().context("after the last cut")?;
    let version = running(&host)?;
    ensure!(version == FIRST || version == SECOND, "after the last cut the machine runs {version}");
    if version == FIRST {
        // Nothing of the ten torn updates stands in the way of a whole one.
        host.install(None)?.finish()?;
        host.keelctl_ok(&["reboot"])?;
        std::thread::sleep(Duration::from_secs(1));
        let begun = std::time::Instant::now();
        while running(&host).ok().as_deref() != Some(SECOND) {
            ensure!(
                begun.elapsed() < BOOT_LIMIT,
                "the whole update after the cuts didn't boot; the processor is at:\n{}",
                machine.whereabouts()
            );
            std::thread::sleep(Duration::from_millis(500));
        }
    }
    host.wait_health(&machine, "good", BOOT_LIMIT)?;
    Ok(())
}

fn running(host: &Host) -> Result<String> {
    Ok(host.keelctl_json(&["status"])?["version"].as_str().unwrap_or_default().to_owned())
}

/// Starts an install and cuts the power once it has got to a point, or past it. It is an error if it gets to its end
/// first, because then nothing was cut.
fn cut_at(machine: Machine, host: &Host, point: (&str, u64)) -> Result<()> {
    let mut install = host.install(None)?;
    while let Some(event) = install.next_event()? {
        let progress = &event["progress"];
        let bytes = |key: &str| progress[key].as_u64().unwrap_or(0);
        let (done, total) = (bytes("done_bytes"), bytes("total_bytes").max(1));
        let stage = progress["stage"].as_str().unwrap_or_default();
        if is_at(stage, done * 100 / total, point) {
            println!("        power cut at {stage}, {done} of {total} bytes (wanted {} {} %)", point.0, point.1);
            return machine.cut_power();
        }
    }
    bail!("the install got to its end before {} {} %", point.0, point.1)
}

/// Whether an install that is at `percent` of `stage` has got to `point`. Progress is told a few times a second, so a
/// short stage may not be told of at all.
fn is_at(stage: &str, percent: u64, point: (&str, u64)) -> bool {
    let order = |name: &str| STAGES.iter().position(|stage| *stage == name);
    match (order(stage), order(point.0)) {
        (Some(now), Some(wanted)) => now > wanted || now == wanted && percent >= point.1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::is_at;

    #[test]
    fn a_later_stage_is_past_every_point_of_an_earlier_one() {
        assert!(is_at("verify", 0, ("root", 80)));
        assert!(is_at("root", 80, ("root", 80)));
        assert!(!is_at("root", 79, ("root", 80)));
        assert!(!is_at("tree", 100, ("root", 0)));
        assert!(!is_at("unheard-of", 100, ("root", 0)));
    }
}
