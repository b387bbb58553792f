//! Who gets a release and when: signed with the list of releases, so that it can be changed without building anything.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow, ensure};
use keel_spec::release::Version;
use keel_spec::rollout::{ALL, Channel, Rollout, Step, Waves};
use keel_spec::tuf::{TargetFile, Time};
use ring::rand::{SecureRandom as _, SystemRandom};

use super::files;
use super::keys::Keys;
use super::metadata::{Expiry, Published};

/// What is to be said of a release; what is left out stays as it was.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Change {
    /// Channel that the release is in; may repeat (without any: stable)
    #[arg(long = "channel", value_name = "NAME")]
    pub channels: Vec<Channel>,
    /// From so long after the start on, so many of the hosts get it; may repeat: 0h=1%, 24h=10%, 3d=100%
    #[arg(long = "wave", value_name = "AFTER=PERCENT", value_parser = step)]
    pub waves: Vec<Step>,
    /// All hosts get it at once, whatever waves there were
    #[arg(long, conflicts_with_all = ["waves", "start", "seed"])]
    pub all_at_once: bool,
    /// When the waves begin, 2027-01-31T08:00:00Z (now, unless they began already)
    #[arg(long, value_name = "TIME", requires = "waves")]
    pub start: Option<Time>,
    /// Which hosts come first (at random, unless waves were published already)
    #[arg(long, value_name = "TEXT", requires = "waves")]
    pub seed: Option<String>,
}

/// Where a release is published, and how long the lists hold that say so.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Folder of the repository
    #[arg(long)]
    pub repository: PathBuf,
    /// Folder of the workstation's keys
    #[arg(long, default_value = "build/keys")]
    pub keys: PathBuf,
    /// Days for which the list of releases is valid
    #[arg(long, default_value_t = 365, allow_negative_numbers = true)]
    pub expires_days: i64,
    /// Days for which hosts believe that this is the newest publication
    #[arg(long, default_value_t = 30, allow_negative_numbers = true)]
    pub timestamp_expires_days: i64,
}

/// `keel-image rollout`: changes who gets a release that is published, and when.
#[derive(Clone, Debug, clap::Args)]
pub struct RolloutArguments {
    /// The release
    pub version: Version,
    /// Where it is published
    #[command(flatten)]
    pub place: Place,
    /// What is to be said of it
    #[command(flatten)]
    pub change: Change,
}

/// `keel-image withdraw`: no host installs a release or restarts into it any more.
#[derive(Clone, Debug, clap::Args)]
pub struct WithdrawArguments {
    /// The release
    pub version: Version,
    /// Where it is published
    #[command(flatten)]
    pub place: Place,
    /// Why, for those who operate hosts
    #[arg(long, default_value = "its publisher took it back")]
    pub reason: String,
    /// Offer it again
    #[arg(long)]
    pub undo: bool,
}

/// `24h=10%`, `0.5%` at the least.
fn step(text: &str) -> Result<Step, String> {
    let want = "want a time after the start and a part of the hosts: 0h=1%, 90m=2.5%, 3d=100%";
    let (after, part) = text.split_once('=').ok_or(want)?;
    let unit = after.chars().last().ok_or(want)?;
    let units = [('m', 1), ('h', 60), ('d', 24 * 60)];
    let minutes = units.into_iter().find(|(name, _)| *name == unit).map(|(_, minutes)| minutes).ok_or(want)?;
    let count: u32 = after.get(..after.len() - 1).and_then(|count| count.parse().ok()).ok_or(want)?;
    let percent = part.strip_suffix('%').ok_or(want)?;
    let (whole, fraction) = percent.split_once('.').unwrap_or((percent, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > 2 || !digits(whole) || !digits(fraction) {
        return Err(want.into());
    }
    let parts: u32 = format!("{whole}{fraction:0<2}").parse().map_err(|_| want)?;
    if parts == 0 || parts > ALL {
        return Err("want a part between 0.01% and 100%".into());
    }
    Ok(Step { after_min: count.checked_mul(minutes).ok_or(want)?, parts })
}

impl Change {
    /// Puts it beside the description of a release.
    pub fn put(&self, name: &str, target: &mut TargetFile) -> Result<()> {
        let wrong = |why: String| anyhow!("{name}: who gets it: {why}");
        let mut rollout = Rollout::of(target).map_err(wrong)?;
        if !self.channels.is_empty() {
            rollout.channels.clone_from(&self.channels);
        }
        if self.all_at_once {
            rollout.waves = None;
        } else if !self.waves.is_empty() {
            let before = rollout.waves.take();
            let start = match (self.start, &before) {
                (Some(start), _) => start,
                (None, Some(before)) => before.start,
                (None, None) => Time(files::now_unix_s()?),
            };
            let seed = match (&self.seed, before) {
                (Some(seed), _) => seed.clone(),
                (None, Some(before)) => before.seed,
                (None, None) => random_seed()?,
            };
            rollout.waves = Some(Waves { start, seed, steps: self.waves.clone() });
        }
        // Nothing said, and nothing to say: the target stays as plain as it was.
        if rollout == Rollout::default() && target.custom.is_none() {
            return Ok(());
        }
        rollout.put(target).map_err(wrong)
    }
}

fn random_seed() -> Result<String> {
    let mut bytes = [0; 8];
    SystemRandom::new().fill(&mut bytes).map_err(|_| anyhow!("make a seed"))?;
    Ok(files::hex(&bytes))
}

/// Carries out `keel-image rollout`.
pub fn rollout(arguments: &RolloutArguments) -> Result<()> {
    for (name, rollout) in
        change(&arguments.place, &arguments.version, |name, target| arguments.change.put(name, target))?
    {
        println!("{name}: {}", words(&rollout));
    }
    Ok(())
}

/// Carries out `keel-image withdraw`.
pub fn withdraw(arguments: &WithdrawArguments) -> Result<()> {
    let reason: String = arguments.reason.chars().filter(|c| !c.is_control()).take(200).collect();
    let changed = change(&arguments.place, &arguments.version, |name, target| {
        // One that can't be understood can be withdrawn, too.
        let mut rollout = Rollout::of(target).unwrap_or_default();
        rollout.withdrawn = (!arguments.undo).then(|| reason.clone());
        rollout.put(target).map_err(|why| anyhow!("{name}: {why}"))
    })?;
    for (name, rollout) in changed {
        println!("{name}: {}", words(&rollout));
    }
    Ok(())
}

/// Changes what is said of a release, of all its profiles, and signs all lists afresh.
fn change(
    place: &Place,
    version: &Version,
    put: impl Fn(&str, &mut TargetFile) -> Result<()>,
) -> Result<Vec<(String, Rollout)>> {
    let expiry = Expiry::from_days(files::now_unix_s()?, place.expires_days, place.timestamp_expires_days);
    let keys = Keys::load(&place.keys)?;
    let before = Published::read(&place.repository, &keys)?;
    let suffix = format!("-{version}.json");
    let listed = before.targets.iter().flat_map(|(_, listed)| &listed.targets);
    let descriptions = listed.filter(|(name, _)| {
        name.strip_prefix("keel-")
            .is_some_and(|name| name.strip_suffix(&suffix).is_some_and(|profile| !profile.contains('-')))
    });
    let mut changed: BTreeMap<String, TargetFile> =
        descriptions.map(|(name, target)| (name.clone(), target.clone())).collect();
    ensure!(!changed.is_empty(), "{}: no release {version} is published there", place.repository.display());
    let mut said = Vec::new();
    for (name, target) in &mut changed {
        put(name, target)?;
        let rollout = Rollout::of(target).map_err(|why| anyhow!(why)).with_context(|| format!("read back {name}"))?;
        said.push((name.clone(), rollout));
    }
    super::list(&place.repository, &keys, before, changed, expiry)?;
    Ok(said)
}

/// For people.
fn words(rollout: &Rollout) -> String {
    if let Some(why) = &rollout.withdrawn {
        return format!("withdrawn: {why}");
    }
    let channels: Vec<String> = rollout.channels.iter().map(ToString::to_string).collect();
    let channels = channels.join(", ");
    let Some(waves) = &rollout.waves else { return format!("{channels}, for all hosts at once") };
    let step = |step: &Step| {
        let part = f64::from(step.parts) / 100.0;
        format!("{part} % from {}", Time(waves.start.0 + u64::from(step.after_min) * 60).for_people())
    };
    let steps: Vec<String> = waves.steps.iter().map(step).collect();
    format!("{channels}, {}", steps.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_read_as_they_are_written() {
        let read = |text: &str| step(text).map(|step| (step.after_min, step.parts));
        assert_eq!(read("0h=1%"), Ok((0, 100)));
        assert_eq!(read("90m=2.5%"), Ok((90, 250)));
        assert_eq!(read("3d=100%"), Ok((3 * 1440, 10_000)));
        assert_eq!(read("1h=0.01%"), Ok((60, 1)));
        for bad in
            ["", "1h", "1h=", "1h=1", "h=1%", "1w=1%", "1h=0%", "1h=101%", "1h=1.234%", "1h=-1%", "1h=.5%", "ü=1%"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name() {
        let mut target = TargetFile { length: 1, hashes: BTreeMap::new(), custom: None };
        Change::default().put("x", &mut target).unwrap();
        assert_eq!(target.custom, None);
        let waves = vec![step("0h=1%").unwrap(), step("1d=100%").unwrap()];
        let first = Change { channels: vec!["beta".parse().unwrap()], waves, ..Change::default() };
        first.put("x", &mut target).unwrap();
        let seed = |target: &TargetFile| Rollout::of(target).unwrap().waves.unwrap().seed;
        let before = seed(&target);
        let wider = Change { waves: vec![step("0h=50%").unwrap()], ..Change::default() };
        wider.put("x", &mut target).unwrap();
        assert_eq!(seed(&target), before, "hosts that had it still are the first");
        assert_eq!(Rollout::of(&target).unwrap().channels[0].to_string(), "beta");
        Change { all_at_once: true, ..Change::default() }.put("x", &mut target).unwrap();
        assert_eq!(Rollout::of(&target).unwrap().waves, None);
    }
}
