//! Points in time as metadata writes them, and the calendar that this needs.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A point in time, seconds since the Unix epoch; written `2026-01-02T03:04:05Z` (section 4.2.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Time(pub u64);

/// Why text isn't a time.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a time: want YYYY-MM-DDTHH:MM:SSZ, from 1970 to 9999")]
pub struct InvalidTime(pub String);

/// Seconds of a day.
pub const DAY_S: u64 = 86_400;

/// Days of the years before `year` since 1970, by the Gregorian calendar.
pub(crate) fn days_before(year: u64) -> u64 {
    let leap = |year: u64| year / 4 - year / 100 + year / 400;
    (year - 1970) * 365 + leap(year - 1) - leap(1969)
}

/// Days of each month of a year.
pub(crate) fn month_days(year: u64) -> [u64; 12] {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    [31, if leap { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31]
}

impl Time {
    /// Year, month, day, hour, minute, second in UTC.
    pub(crate) fn civil(self) -> (u64, u64, u64, u64, u64, u64) {
        let (days, seconds) = (self.0 / DAY_S, self.0 % DAY_S);
        // The estimate is never above the true year + 1 nor below it - 1, so that both loops end at once.
        let mut year = (1970 + days / 365).min(9999);
        while year > 1970 && days_before(year) > days {
            year -= 1;
        }
        let mut left = days - days_before(year);
        let mut month = 1;
        for length in month_days(year) {
            if left < length || month == 12 {
                break;
            }
            left -= length;
            month += 1;
        }
        (year, month, left + 1, seconds / 3600, seconds / 60 % 60, seconds % 60)
    }

    /// For people: `2026-01-02 03:04 UTC`.
    pub fn for_people(self) -> String {
        let (year, month, day, hour, minute, _) = self.civil();
        format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day, hour, minute, second) = self.civil();
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
    }
}

impl FromStr for Time {
    type Err = InvalidTime;

    fn from_str(text: &str) -> Result<Self, InvalidTime> {
        let parse = || {
            let shape = |(index, byte): (usize, u8)| match index {
                4 | 7 => byte == b'-',
                10 => byte == b'T',
                13 | 16 => byte == b':',
                19 => byte == b'Z',
                _ => byte.is_ascii_digit(),
            };
            if text.len() != 20 || !text.bytes().enumerate().all(shape) {
                return None;
            }
            let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
            let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
            let (hour, minute, second) = (number(11, 13)?, number(14, 16)?, number(17, 19)?);
            if year < 1970 || !(1..=12).contains(&month) || hour > 23 || minute > 59 || second > 59 {
                return None;
            }
            let lengths = month_days(year);
            if day < 1 || day > lengths[month as usize - 1] {
                return None;
            }
            let days = days_before(year) + lengths[..month as usize - 1].iter().sum::<u64>() + day - 1;
            Some(Self(days * DAY_S + hour * 3600 + minute * 60 + second))
        };
        parse().ok_or_else(|| InvalidTime(text.chars().take(40).collect()))
    }
}

impl TryFrom<String> for Time {
    type Error = InvalidTime;

    fn try_from(text: String) -> Result<Self, InvalidTime> {
        text.parse()
    }
}

impl From<Time> for String {
    fn from(time: Time) -> String {
        time.to_string()
    }
}
