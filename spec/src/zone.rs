//! Time zones by their IANA names, for times to come.
//!
//! A host asks what its clock on the wall shows now and in the next days, never what it showed in 1943. For that a
//! zone is the rule that its TZif file ends with, a POSIX `TZ` string (RFC 9636, section 3.3): 600 names share about a
//! hundred rules, all of them 11 KB of text. The few zones whose next years don't follow a rule (Gaza, by the moon; a
//! country that changes its mind) list their changes before it. `image/examples/zones.rs` makes the table from tzdata, and checks it.
//!
//! - `rule`: POSIX `TZ` strings

mod rule;

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

pub use rule::Rule;

/// A line for each rule, then the names that follow it; made by `image/examples/zones.rs`.
const TABLE: &str = include_str!("zone/zones.txt");
/// Longest name of a zone.
const MAX_NAME_BYTES: usize = 40;
/// Most changes that stand before a rule.
const MAX_CHANGES: usize = 64;
/// Seconds of a day, signed as offsets are.
const DAY_S: i64 = 86_400;
/// Longer than any offset from UTC, so that a time this far from another is so in every zone.
const APART_S: i64 = 2 * DAY_S;

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Zone {
    name: String,
    schedule: Schedule,
}

/// What a zone's clocks do: changes that no rule gives, then a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Offset before the first change.
    first_s: i32,
    /// Seconds since the Unix epoch, and the offset from then on, ascending.
    changes: Vec<(i64, i32)>,
    /// What holds after the last change, or always if there is none.
    rule: Rule,
}

/// Why text isn't the name of a time zone.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time zone: want an IANA name such as Europe/Berlin or UTC")]
pub struct InvalidZone(pub String);

impl FromStr for Zone {
    type Err = InvalidZone;

    fn from_str(name: &str) -> Result<Self, InvalidZone> {
        let find = || {
            if name.is_empty() || name.len() > MAX_NAME_BYTES {
                return None;
            }
            let mut lines = TABLE.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once(' '));
            let (schedule, _) = lines.find(|(_, names)| names.split(' ').any(|known| known == name))?;
            Some(Self { name: name.into(), schedule: Schedule::parse(schedule)? })
        };
        find().ok_or_else(|| InvalidZone(name.chars().take(MAX_NAME_BYTES).collect()))
    }
}

impl TryFrom<String> for Zone {
    type Error = InvalidZone;

    fn try_from(name: String) -> Result<Self, InvalidZone> {
        name.parse()
    }
}

impl From<Zone> for String {
    fn from(zone: Zone) -> String {
        zone.name
    }
}

impl fmt::Display for Zone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Schedule {
    /// `[FIRST,AT=OFFSET,AT=OFFSET;]RULE`; `None`: it isn't one.
    pub fn parse(text: &str) -> Option<Self> {
        let Some((changes, rule)) = text.split_once(';') else {
            let rule = Rule::parse(text)?;
            return Some(Self { first_s: rule.standard_s(), changes: Vec::new(), rule });
        };
        let mut parts = changes.split(',');
        let first_s = parts.next()?.parse().ok()?;
        let change = |part: &str| {
            let (at, offset) = part.split_once('=')?;
            Some((at.parse().ok()?, offset.parse().ok()?))
        };
        let changes: Vec<(i64, i32)> = parts.take(MAX_CHANGES).map(change).collect::<Option<_>>()?;
        Some(Self { first_s, changes, rule: Rule::parse(rule)? })
    }

    /// Seconds east of UTC at a point in time, seconds since the Unix epoch.
    pub fn offset_s(&self, unix_s: i64) -> i32 {
        match self.changes.last() {
            Some((last, _)) if unix_s < *last => {
                let before = self.changes.iter().rev().find(|(at, _)| *at <= unix_s);
                before.map_or(self.first_s, |(_, offset)| *offset)
            }
            _ => self.rule.offset_s(unix_s),
        }
    }
}

impl Zone {
    /// Coordinated Universal Time.
    pub fn utc() -> Self {
        let schedule = Schedule { first_s: 0, changes: Vec::new(), rule: Rule::utc() };
        Self { name: "UTC".into(), schedule }
    }

    /// Seconds east of UTC at a point in time.
    pub fn offset_s(&self, unix_s: u64) -> i32 {
        self.schedule.offset_s(signed(unix_s))
    }

    /// Days since 1 January 1970 on the wall's calendar.
    pub fn day(&self, unix_s: u64) -> i64 {
        signed(unix_s).saturating_add(i64::from(self.offset_s(unix_s))).div_euclid(DAY_S)
    }

    /// The first moment at which the wall shows that day and time or later: where clocks go back, the first time it
    /// shows it; where they go forward over it, the moment they do.
    pub fn first_moment(&self, day: i64, second_of_day: u32) -> u64 {
        let wall = day.saturating_mul(DAY_S).saturating_add(i64::from(second_of_day));
        let offset = |at: i64| i64::from(self.schedule.offset_s(at));
        let (mut low, mut high) = (wall.saturating_sub(APART_S), wall.saturating_add(APART_S));
        let (before, after) = (offset(low), offset(high));
        let early = wall.saturating_sub(before);
        let moment = if before == after && offset(early) == before {
            early
        } else {
            // The last moment of `low` that shows an earlier time, the first of `high` that doesn't: 18 halvings.
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if self.shown_by(middle) >= wall { high = middle } else { low = middle }
            }
            high
        };
        u64::try_from(moment).unwrap_or(0)
    }

    /// The latest time that the wall has shown up to a moment, as far as it matters within [`APART_S`]: clocks that
    /// went back have shown later times than they show.
    fn shown_by(&self, unix_s: i64) -> i64 {
        let now = unix_s.saturating_add(i64::from(self.schedule.offset_s(unix_s)));
        // Clocks go back by three hours at most, and never twice within a day.
        let mut latest = now;
        let (mut low, mut high) = (unix_s.saturating_sub(DAY_S), unix_s);
        let before = self.schedule.offset_s(low);
        if before > self.schedule.offset_s(high) {
            while high - low > 1 {
                let middle = low + (high - low) / 2;
                if self.schedule.offset_s(middle) == before { low = middle } else { high = middle }
            }
            latest = latest.max(low.saturating_add(i64::from(before)));
        }
        latest
    }
}

fn signed(unix_s: u64) -> i64 {
    i64::try_from(unix_s).unwrap_or(i64::MAX / 2)
}

/// Day of the week of a day since 1 January 1970: 0 is Monday.
pub fn weekday(day: i64) -> u8 {
    // 1 January 1970 was a Thursday. The remainder is below 7.
    u8::try_from(day.saturating_add(3).rem_euclid(7)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuf::Time;

    fn zone(name: &str) -> Zone {
        name.parse().unwrap()
    }

    fn at(text: &str) -> u64 {
        text.parse::<Time>().unwrap().0
    }

    fn day(text: &str) -> i64 {
        i64::try_from(at(&format!("{text}T00:00:00Z")) / 86_400).unwrap()
    }

    #[test]
    fn offsets_are_those_that_date_tells() {
        for (name, when, hours) in [
            ("UTC", "2027-07-01T00:00:00Z", 0.0),
            ("Europe/Berlin", "2027-01-15T12:00:00Z", 1.0),
            ("Europe/Berlin", "2027-03-28T00:59:59Z", 1.0),
            ("Europe/Berlin", "2027-03-28T01:00:00Z", 2.0),
            ("Europe/Berlin", "2027-10-31T00:59:59Z", 2.0),
            ("Europe/Berlin", "2027-10-31T01:00:00Z", 1.0),
            ("America/New_York", "2027-03-14T06:59:59Z", -5.0),
            ("America/New_York", "2027-03-14T07:00:00Z", -4.0),
            ("Australia/Lord_Howe", "2027-01-01T00:00:00Z", 11.0),
            ("Australia/Lord_Howe", "2027-07-01T00:00:00Z", 10.5),
            ("Asia/Kolkata", "2027-07-01T00:00:00Z", 5.5),
            ("America/Nuuk", "2027-07-01T00:00:00Z", -1.0),
            ("Europe/Dublin", "2027-07-01T00:00:00Z", 1.0),
            ("Europe/Dublin", "2027-01-01T00:00:00Z", 0.0),
            // No rule gives these: Morocco's Ramadan of 2026, and the end of its summer time for good.
            ("Africa/Casablanca", "2026-02-20T00:00:00Z", 0.0),
            ("Africa/Casablanca", "2026-04-01T00:00:00Z", 1.0),
            ("Africa/Casablanca", "2027-01-15T00:00:00Z", 0.0),
        ] {
            assert_eq!(f64::from(zone(name).offset_s(at(when))) / 3600.0, hours, "{name} at {when}");
        }
    }

    #[test]
    fn every_line_of_the_table_is_read_and_every_name_is_there_once() {
        let mut names = std::collections::BTreeSet::new();
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let (schedule, list) = line.split_once(' ').unwrap();
            assert!(Schedule::parse(schedule).is_some(), "{line}");
            for name in list.split(' ') {
                assert!(name.len() <= MAX_NAME_BYTES && names.insert(name), "{name}");
            }
        }
        assert!(names.len() > 500 && names.contains("UTC") && names.contains("Pacific/Chatham"));
    }

    #[test]
    fn a_time_that_clocks_jump_over_is_the_moment_they_jump() {
        let berlin = zone("Europe/Berlin");
        assert_eq!(berlin.first_moment(day("2027-03-28"), 2 * 3600 + 1800), at("2027-03-28T01:00:00Z"));
        assert_eq!(berlin.first_moment(day("2027-03-28"), 3600), at("2027-03-28T00:00:00Z"));
        assert_eq!(berlin.first_moment(day("2027-03-28"), 4 * 3600), at("2027-03-28T02:00:00Z"));
    }

    #[test]
    fn a_time_that_clocks_show_twice_is_the_first_of_both() {
        let berlin = zone("Europe/Berlin");
        assert_eq!(berlin.first_moment(day("2027-10-31"), 2 * 3600 + 1800), at("2027-10-31T00:30:00Z"));
        assert_eq!(berlin.first_moment(day("2027-10-31"), 3 * 3600), at("2027-10-31T02:00:00Z"));
        assert_eq!(berlin.first_moment(day("2027-10-31"), 3600), at("2027-10-30T23:00:00Z"));
    }

    #[test]
    fn days_and_weekdays_are_those_of_the_wall() {
        let auckland = zone("Pacific/Auckland");
        assert_eq!(auckland.day(at("2027-06-30T11:59:59Z")), day("2027-06-30"));
        assert_eq!(auckland.day(at("2027-06-30T12:00:00Z")), day("2027-07-01"));
        // 5 July 2027 is a Monday.
        assert_eq!([weekday(day("2027-07-05")), weekday(day("2027-07-11"))], [0, 6]);
    }

    #[test]
    fn what_is_not_a_zone_is_refused() {
        for name in ["", "Berlin", "europe/berlin", "Europe/Berlin ", "CET-1CEST", "#", &"x".repeat(99)] {
            assert!(name.parse::<Zone>().is_err(), "{name}");
        }
        assert_eq!(Zone::utc().offset_s(1 << 40), 0);
    }
}
