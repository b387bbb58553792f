//! Maintenance windows, over changes of the clocks.

use keel_spec::config::Window;
use keel_spec::zone;

/// Days that are looked at for the next opening: a window opens at least once a week.
const DAYS_AHEAD: i64 = 8;
/// Days back on which a window that is still open may have opened: the longest is a day, on the wall's calendar.
const DAYS_BACK: i64 = 2;

/// Whether maintenance may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Maintenance {
    /// Now.
    Open {
        /// Until then, seconds since the Unix epoch.
        until_unix_s: u64,
    },
    /// Not now.
    Closed {
        /// When it may; `None`: there is no window.
        opens_unix_s: Option<u64>,
    },
}

/// How windows are at a moment.
///
/// A window opens at the first moment of a day at which the wall shows its time or later, so once a day whatever clocks
/// do, and stays open for its length as it really passes.
pub fn at(windows: &[Window], now_unix_s: u64) -> Maintenance {
    let openings = windows.iter().flat_map(|window| openings(window, now_unix_s));
    let mut until = None;
    let mut opens = None;
    for (from, to) in openings {
        if (from..to).contains(&now_unix_s) {
            until = until.max(Some(to));
        } else if from > now_unix_s {
            opens = Some(opens.map_or(from, |earlier: u64| earlier.min(from)));
        }
    }
    match until {
        Some(until_unix_s) => Maintenance::Open { until_unix_s },
        None => Maintenance::Closed { opens_unix_s: opens },
    }
}

/// When a window opens and closes in the days around a moment.
fn openings(window: &Window, now_unix_s: u64) -> impl Iterator<Item = (u64, u64)> {
    let today = window.zone.day(now_unix_s);
    let opens = move |day: &i64| window.days >> zone::weekday(*day) & 1 == 1;
    (today - DAYS_BACK..=today + DAYS_AHEAD).filter(opens).map(move |day| {
        let from = window.zone.first_moment(day, window.start_min * 60);
        (from, from.saturating_add(u64::from(window.length_min) * 60))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::config::ALL_DAYS;
    use keel_spec::tuf::Time;

    fn unix(text: &str) -> u64 {
        text.parse::<Time>().unwrap().0
    }

    fn window(days: u8, start_min: u32, length_min: u32, zone: &str) -> Window {
        Window { days, start_min, length_min, zone: zone.parse().unwrap() }
    }

    fn open(windows: &[Window], at_text: &str) -> bool {
        matches!(at(windows, unix(at_text)), Maintenance::Open { .. })
    }

    #[test]
    fn a_window_is_open_on_its_days_between_its_times() {
        // Saturdays, 23:00 to 01:00 in Berlin, which is 21:00 to 23:00 UTC in summer.
        let windows = [window(1 << 5, 23 * 60, 120, "Europe/Berlin")];
        assert!(!open(&windows, "2027-07-03T20:59:59Z") && open(&windows, "2027-07-03T21:00:00Z"));
        assert!(open(&windows, "2027-07-03T22:59:59Z") && !open(&windows, "2027-07-03T23:00:00Z"));
        assert!(!open(&windows, "2027-07-04T21:30:00Z"));
        let next = at(&windows, unix("2027-07-03T23:00:00Z"));
        assert_eq!(next, Maintenance::Closed { opens_unix_s: Some(unix("2027-07-10T21:00:00Z")) });
    }

    #[test]
    fn a_window_that_clocks_jump_over_opens_when_they_jump_and_is_as_long_as_ever() {
        let windows = [window(ALL_DAYS, 150, 60, "Europe/Berlin")];
        assert!(!open(&windows, "2027-03-28T00:59:59Z") && open(&windows, "2027-03-28T01:00:00Z"));
        assert!(open(&windows, "2027-03-28T01:59:59Z") && !open(&windows, "2027-03-28T02:00:00Z"));
    }

    #[test]
    fn a_window_that_clocks_show_twice_opens_once() {
        let windows = [window(ALL_DAYS, 150, 20, "Europe/Berlin")];
        assert!(open(&windows, "2027-10-31T00:30:00Z") && !open(&windows, "2027-10-31T00:50:00Z"));
        assert!(!open(&windows, "2027-10-31T01:35:00Z"), "the second 02:35 of that night");
    }

    #[test]
    fn a_whole_day_leaves_no_gap_but_where_clocks_go_back() {
        let windows = [window(ALL_DAYS, 0, 1440, "Asia/Kolkata")];
        assert!((0..2000).all(|step| {
            matches!(at(&windows, unix("2027-07-03T00:00:00Z") + step * 97), Maintenance::Open { .. })
        }));
    }

    #[test]
    fn of_several_windows_the_last_to_close_and_the_next_to_open_count() {
        let windows =
            [window(ALL_DAYS, 60, 60, "UTC"), window(ALL_DAYS, 90, 60, "UTC"), window(ALL_DAYS, 600, 5, "UTC")];
        let state = at(&windows, unix("2027-07-03T01:45:00Z"));
        assert_eq!(state, Maintenance::Open { until_unix_s: unix("2027-07-03T02:30:00Z") });
        let state = at(&windows, unix("2027-07-03T02:30:00Z"));
        assert_eq!(state, Maintenance::Closed { opens_unix_s: Some(unix("2027-07-03T10:00:00Z")) });
        assert_eq!(at(&[], 5), Maintenance::Closed { opens_unix_s: None });
    }
}
