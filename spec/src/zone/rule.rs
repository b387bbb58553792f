//! POSIX `TZ` strings (POSIX.1-2024, section 8.3, with the wider hours of RFC 9636, section 3.3.1).

use crate::tuf::Time;
use crate::tuf::time::{DAY_S, days_before, month_days};

/// A zone without exceptions: a standard time, and perhaps a summer time every year.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    standard_s: i32,
    summer: Option<Summer>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Summer {
    offset_s: i32,
    begins: Change,
    ends: Change,
}

/// When clocks change each year.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Change {
    day: Day,
    /// Seconds of the wall's clock since that day began; may be before it or after it.
    at_s: i32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Day {
    /// The `week`-th (5: the last) `weekday` (0: Sunday) of a month (1: January).
    Month { month: u8, week: u8, weekday: u8 },
    /// Day of the year, from 1; 29 February isn't counted.
    Julian(u16),
    /// Day of the year, from 0; 29 February is counted.
    Zero(u16),
}

impl Rule {
    /// Coordinated Universal Time.
    pub fn utc() -> Self {
        Self { standard_s: 0, summer: None }
    }

    /// Reads one; `None`: it isn't one.
    pub fn parse(text: &str) -> Option<Self> {
        let mut reader = Reader(text);
        reader.name()?;
        let standard_s = -reader.time(24)?;
        if reader.0.is_empty() {
            return Some(Self { standard_s, summer: None });
        }
        reader.name()?;
        let offset_s = match reader.0.starts_with(',') {
            true => standard_s + 3600,
            false => -reader.time(24)?,
        };
        let (begins, ends) = (reader.change()?, reader.change()?);
        reader.0.is_empty().then_some(Self { standard_s, summer: Some(Summer { offset_s, begins, ends }) })
    }

    /// Seconds east of UTC in standard time.
    pub fn standard_s(&self) -> i32 {
        self.standard_s
    }

    /// Seconds east of UTC at a point in time, seconds since the Unix epoch.
    pub fn offset_s(&self, unix_s: i64) -> i32 {
        let Some(summer) = &self.summer else { return self.standard_s };
        let local = unix_s.saturating_add(i64::from(self.standard_s));
        // The year by standard time: where it differs by summer time, clocks don't change.
        let year = Time(u64::try_from(local).unwrap_or(0)).civil().0;
        let begins = summer.begins.unix_s(year, self.standard_s);
        let ends = summer.ends.unix_s(year, summer.offset_s);
        let is_summer = match begins < ends {
            true => (begins..ends).contains(&unix_s),
            // The southern half of the world, and zones whose winter time is the exception.
            false => !(ends..begins).contains(&unix_s),
        };
        if is_summer { summer.offset_s } else { self.standard_s }
    }
}

impl Change {
    /// The moment in a year, with the offset that holds before it.
    fn unix_s(&self, year: u64, offset_s: i32) -> i64 {
        let lengths = month_days(year);
        let first_day = days_before(year);
        let day = match self.day {
            Day::Zero(day) => first_day + u64::from(day),
            Day::Julian(day) => {
                let after_february = lengths[1] == 29 && day >= 60;
                first_day + u64::from(day) - 1 + u64::from(after_february)
            }
            Day::Month { month, week, weekday } => {
                let month = usize::from(month - 1);
                let first = first_day + lengths.iter().take(month).sum::<u64>();
                // 1 January 1970 was a Thursday, 4.
                let to_weekday = (u64::from(weekday) + 7 - (first + 4) % 7) % 7;
                let nth = to_weekday + 7 * u64::from(week - 1);
                let length = lengths.get(month).copied().unwrap_or(31);
                first + if nth < length { nth } else { nth - 7 }
            }
        };
        i64::try_from(day * DAY_S).unwrap_or(i64::MAX) + i64::from(self.at_s) - i64::from(offset_s)
    }
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn take(&mut self, character: char) -> Option<()> {
        self.0 = self.0.strip_prefix(character)?;
        Some(())
    }

    /// `CET` or `<+01>`.
    fn name(&mut self) -> Option<()> {
        let length = match self.0.strip_prefix('<') {
            Some(quoted) => quoted.find('>')? + 2,
            None => self.0.find(|character: char| !character.is_ascii_alphabetic()).unwrap_or(self.0.len()),
        };
        let name = self.0.get(..length).filter(|name| name.len() >= 3)?;
        self.0 = self.0.get(name.len()..)?;
        Some(())
    }

    fn number(&mut self, most: u32) -> Option<u32> {
        let length = self.0.find(|character: char| !character.is_ascii_digit()).unwrap_or(self.0.len());
        let (digits, rest) = self.0.split_at_checked(length.min(4))?;
        self.0 = rest;
        digits.parse().ok().filter(|number| *number <= most)
    }

    /// `[+-]hh[:mm[:ss]]` in seconds.
    fn time(&mut self, most_hours: u32) -> Option<i32> {
        let negative = self.0.starts_with('-');
        self.0 = self.0.strip_prefix(['-', '+']).unwrap_or(self.0);
        let mut seconds = self.number(most_hours)? * 3600;
        for unit in [60, 1] {
            if self.take(':').is_none() {
                break;
            }
            seconds += self.number(59)? * unit;
        }
        let seconds = i32::try_from(seconds).ok()?;
        Some(if negative { -seconds } else { seconds })
    }

    /// `,M3.2.0/2`, `,J60` or `,59`.
    fn change(&mut self) -> Option<Change> {
        self.take(',')?;
        let small = |number: u32| u8::try_from(number).ok();
        let day = if self.take('M').is_some() {
            let month = small(self.number(12)?).filter(|month| *month >= 1)?;
            self.take('.')?;
            let week = small(self.number(5)?).filter(|week| *week >= 1)?;
            self.take('.')?;
            Day::Month { month, week, weekday: small(self.number(6)?)? }
        } else if self.take('J').is_some() {
            Day::Julian(u16::try_from(self.number(365)?).ok().filter(|day| *day >= 1)?)
        } else {
            Day::Zero(u16::try_from(self.number(365)?).ok()?)
        };
        let at_s = if self.take('/').is_some() { self.time(167)? } else { 2 * 3600 };
        Some(Change { day, at_s })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_not_a_rule_is_refused() {
        for text in [
            "",
            "C",
            "CET",
            "CET-1CEST",
            "CET-1CEST,M3.5.0",
            "CET-25",
            "CET-1CEST,M13.1.0,M10.5.0",
            "CET-1CEST,J0,J9",
            "CET-1CEST,M3.5.0,M10.5.0x",
            "<+01-1",
            "CET-1CEST,M3.0.0,M10.5.0",
            "CET-1CEST,366,1",
            "CET-1:60",
        ] {
            assert_eq!(Rule::parse(text), None, "{text}");
        }
    }

    #[test]
    fn days_of_the_year_count_29_february_as_they_should() {
        // 1 March: the 60th day that J counts, whether or not the year is a leap year; days from 0 count on.
        let begins = |day: &str, year: u64| {
            let rule = Rule::parse(&format!("AAA0BBB,{day}/0,J365/0")).unwrap();
            rule.summer.unwrap().begins.unix_s(year, 0) / 86_400
        };
        let first_of_march =
            |year: u64| i64::try_from(days_before(year) + month_days(year)[..2].iter().sum::<u64>()).unwrap();
        for year in [2027, 2028] {
            assert_eq!(begins("J60", year), first_of_march(year));
        }
        assert_eq!(begins("59", 2027), first_of_march(2027));
        assert_eq!(begins("59", 2028), first_of_march(2028) - 1);
    }

    const PARTS: &[&str] = &["<+03>", "CET", "-1", "0", "5", "167", ",M3.5.0", ",J60", ",0", "/-1", "/3"];

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "\\PC*", at in any::<i64>()) {
            if let Some(rule) = Rule::parse(&text) {
                rule.offset_s(at);
            }
        }

        #[test]
        fn changes_of_a_good_rule_never_panic(
            parts in proptest::collection::vec(proptest::sample::select(PARTS), 0..8),
            at in any::<i64>(),
        ) {
            if let Some(rule) = Rule::parse(&parts.concat()) {
                rule.offset_s(at);
            }
        }
    }
}
