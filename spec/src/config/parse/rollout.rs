//! The part of `[update]` that says what a host does by itself.

use super::super::rollout::{ALL_DAYS, Auto, Automatic, DAYS, FleetLock, Reboot, Window};
use super::super::{ConfigError, check, fragment};
use super::{MAX_LIST, Merge};

/// Minutes of a week: most between two looks for a release.
const WEEK_MIN: u32 = 7 * 24 * 60;
/// Minutes of a day: longest window.
const DAY_MIN: u32 = 24 * 60;
/// Shortest window: shorter than an install and a shutdown take, none would ever be of use.
const SHORTEST_MIN: u32 = 5;

impl Merge<'_> {
    pub(super) fn automatic(&self, automatic: &mut Automatic, written: &fragment::Update) -> Result<(), ConfigError> {
        self.one(&mut automatic.auto, "update.auto", &written.auto, auto)?;
        self.one(&mut automatic.channel, "update.channel", &written.channel, |text| {
            text.parse().map_err(|_| "is not a channel: want lower-case letters, digits and hyphens".to_owned())
        })?;
        self.option(&mut automatic.pin, "update.pin", &written.pin, |text| {
            text.parse().map_err(|error: crate::rollout::InvalidPin| error.to_string())
        })?;
        let check = &mut automatic.check;
        self.number(&mut check.every_min, "update.check_every_min", &written.check_every_min, 1, WEEK_MIN)?;
        self.number(&mut check.jitter_min, "update.check_jitter_min", &written.check_jitter_min, 0, WEEK_MIN)?;
        self.one(&mut automatic.reboot, "update.reboot", &written.reboot, reboot)?;
        if let Some(over) = written.window.get(MAX_LIST) {
            return Err(self.refuse("update.window", over, &format!("has more than {MAX_LIST} entries")));
        }
        for entry in &written.window {
            automatic.windows.push(self.window(entry.get_ref())?);
        }
        self.option(&mut automatic.report_url, "update.report_url", &written.report_url, check::url)?;
        self.fleetlock(automatic, written)?;
        self.makes_sense(automatic, written)
    }

    fn window(&self, written: &fragment::Window) -> Result<Window, ConfigError> {
        let mut days = Vec::new();
        self.list(&mut days, "update.window.days", &written.days, day)?;
        let mut window = Window {
            days: if written.days.is_none() { ALL_DAYS } else { days.iter().fold(0, |all, day| all | day) },
            start_min: self.checked("update.window.start", &written.start, clock)?,
            length_min: 0,
            zone: crate::zone::Zone::utc(),
        };
        if let (0, Some(place)) = (window.days, &written.days) {
            return Err(self.refuse("update.window.days", place, "is empty: leave it out for all days"));
        }
        let length = Some(written.length_min.clone());
        self.number(&mut window.length_min, "update.window.length_min", &length, SHORTEST_MIN, DAY_MIN)?;
        self.one(&mut window.zone, "update.window.time_zone", &written.time_zone, |text| {
            text.parse().map_err(|_| "is not a time zone: want an IANA name such as Europe/Berlin".to_owned())
        })?;
        Ok(window)
    }

    fn fleetlock(&self, automatic: &mut Automatic, written: &fragment::Update) -> Result<(), ConfigError> {
        let (mut url, mut name) = (None, "default".to_owned());
        self.option(&mut url, "update.fleetlock_url", &written.fleetlock_url, check::url)?;
        self.one(&mut name, "update.fleetlock_group", &written.fleetlock_group, group)?;
        if let (None, Some(place)) = (&url, &written.fleetlock_group) {
            return Err(self.refuse("update.fleetlock_group", place, "stands without update.fleetlock_url"));
        }
        automatic.fleetlock = url.map(|url| FleetLock { url: url.trim_end_matches('/').into(), group: name });
        Ok(())
    }

    /// Settings that would quietly do nothing are refused.
    fn makes_sense(&self, automatic: &Automatic, written: &fragment::Update) -> Result<(), ConfigError> {
        if let (Some(place), true, None) = (&written.auto, automatic.auto != Auto::Off, &written.url) {
            return Err(self.refuse("update.auto", place, "stands without update.url"));
        }
        if let (Some(place), Reboot::Window, []) = (&written.reboot, automatic.reboot, automatic.windows.as_slice()) {
            return Err(self.refuse("update.reboot", place, "= \"window\" wants at least one [[update.window]]"));
        }
        Ok(())
    }
}

fn auto(text: &str) -> Result<Auto, String> {
    let found = Auto::ALL.into_iter().find(|auto| auto.name() == text);
    found.ok_or_else(|| "is none of off, check, download, install".into())
}

fn reboot(text: &str) -> Result<Reboot, String> {
    let found = Reboot::ALL.into_iter().find(|reboot| reboot.name() == text);
    found.ok_or_else(|| "is none of on-demand, window, now".into())
}

/// The bit of a day.
fn day(text: &str) -> Result<u8, String> {
    let found = DAYS.iter().position(|day| *day == text);
    found.map(|index| 1 << index).ok_or_else(|| "is none of mon, tue, wed, thu, fri, sat, sun".into())
}

/// `02:30`, in minutes after midnight.
fn clock(text: &str) -> Result<u32, String> {
    let parse = || {
        let (hours, minutes) = text.split_once(':').filter(|_| text.len() == 5)?;
        let number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u32>().ok())?;
        let (hours, minutes) = (number(hours)?, number(minutes)?);
        (hours < 24 && minutes < 60).then_some(hours * 60 + minutes)
    };
    parse().ok_or_else(|| "is not a time of day: want one like 02:30".into())
}

/// A group of the FleetLock protocol.
fn group(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    match text.is_empty() || text.len() > 64 || !text.bytes().all(fits) {
        true => Err("is not a group: want at most 64 letters, digits, dots and hyphens".into()),
        false => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;

    #[test]
    fn everything_written_is_in_force() {
        let text = r#"
            [update]
            url = "https://updates.example"
            auto = "install"
            channel = "beta"
            pin = ">=1.4, <2"
            check_every_min = 30
            check_jitter_min = 5
            reboot = "window"
            fleetlock_url = "https://lock.example/"
            fleetlock_group = "web.1"
            report_url = "https://collector.example/keel"
            [[update.window]]
            days = ["sat", "sun"]
            start = "02:30"
            length_min = 90
            time_zone = "Europe/Berlin"
            [[update.window]]
            start = "00:00"
            length_min = 5
        "#;
        let automatic = parse(text).unwrap().update.automatic;
        assert_eq!((automatic.auto, automatic.reboot), (Auto::Install, Reboot::Window));
        assert_eq!(
            (automatic.channel.to_string(), automatic.pin.unwrap().to_string()),
            ("beta".into(), ">=1.4, <2".into())
        );
        assert_eq!((automatic.check.every_min, automatic.check.jitter_min), (30, 5));
        let [first, second] = automatic.windows.as_slice() else { panic!() };
        assert_eq!((first.days, first.start_min, first.length_min), (0b110_0000, 150, 90));
        assert_eq!(
            (first.zone.to_string(), second.zone.to_string(), second.days),
            ("Europe/Berlin".into(), "UTC".into(), ALL_DAYS)
        );
        let lock = automatic.fleetlock.unwrap();
        assert_eq!((&*lock.url, &*lock.group), ("https://lock.example", "web.1"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_place() {
        let window = |rest: &str| format!("[[update.window]]\nstart = \"02:00\"\nlength_min = 60\n{rest}");
        for (text, line, key) in [
            ("[update]\nauto = \"yes\"".to_owned(), 2, "update.auto"),
            ("[update]\nauto = \"check\"".into(), 2, "update.auto"),
            ("[update]\nchannel = \"A B\"".into(), 2, "update.channel"),
            ("[update]\npin = \"1.4\"".into(), 2, "update.pin"),
            ("[update]\ncheck_every_min = 0".into(), 2, "update.check_every_min"),
            ("[update]\ncheck_jitter_min = -1".into(), 2, "update.check_jitter_min"),
            ("[update]\nreboot = \"window\"".into(), 2, "update.reboot"),
            ("[update]\nreboot = \"never\"".into(), 2, "update.reboot"),
            ("[update]\nreport_url = \"collector\"".into(), 2, "update.report_url"),
            ("[update]\nfleetlock_url = \"lock\"".into(), 2, "update.fleetlock_url"),
            ("[update]\nfleetlock_group = \"a\"".into(), 2, "update.fleetlock_group"),
            ("[update]\nfleetlock_url = \"http://l\"\nfleetlock_group = \"a/b\"".into(), 3, "update.fleetlock_group"),
            (window("days = []"), 4, "update.window.days"),
            (window("days = [\"monday\"]"), 4, "update.window.days"),
            (window("time_zone = \"Berlin\""), 4, "update.window.time_zone"),
            ("[[update.window]]\nstart = \"24:00\"\nlength_min = 60".into(), 2, "update.window.start"),
            ("[[update.window]]\nstart = \"2:00\"\nlength_min = 60".into(), 2, "update.window.start"),
            ("[[update.window]]\nstart = \"+2:00\"\nlength_min = 60".into(), 2, "update.window.start"),
            ("[[update.window]]\nstart = \"02:00\"\nlength_min = 4".into(), 3, "update.window.length_min"),
            ("[[update.window]]\nstart = \"02:00\"\nlength_min = 1441".into(), 3, "update.window.length_min"),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!((error.line, error.key.as_deref()), (line, Some(key)), "{text}: {error}");
        }
        assert!(parse("[[update.window]]\nstart = \"02:00\"").is_err(), "a window has a length");
    }
}
