//! Names of signals, as clients write them: `SIGTERM`, `term`, `15`, `SIGRTMIN+3`.

use rustix::process::Signal;

use crate::error::Error;

const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM", "TERM",
    "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO",
    "PWR", "SYS",
];
/// First and last real-time signal as programs see them (glibc takes the two below).
const REAL_TIME: std::ops::RangeInclusive<i32> = 34..=64;

/// The signal's number.
pub fn number(name: &str) -> Result<i32, Error> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
    let found = match bare.parse::<i32>() {
        Ok(number) => Some(number),
        Err(_) => match (bare.strip_prefix("RTMIN"), bare.strip_prefix("RTMAX")) {
            (Some(""), _) => Some(*REAL_TIME.start()),
            (Some(rest), _) => {
                rest.strip_prefix('+').and_then(|n| n.parse::<i32>().ok()).map(|n| REAL_TIME.start() + n)
            }
            (_, Some("")) => Some(*REAL_TIME.end()),
            (_, Some(rest)) => rest.strip_prefix('-').and_then(|n| n.parse::<i32>().ok()).map(|n| REAL_TIME.end() - n),
            _ => NAMES.iter().position(|known| *known == bare).map(|index| index as i32 + 1),
        },
    };
    let valid = |number: &i32| (1..=31).contains(number) || REAL_TIME.contains(number);
    found.filter(valid).ok_or_else(|| Error::BadParameter(format!("Invalid signal: {name:.40}")))
}

/// The signal to send; real-time ones can't be expressed by rustix's safe interface.
pub fn sendable(number: i32) -> Result<Signal, Error> {
    Signal::from_named_raw(number)
        .ok_or_else(|| Error::BadParameter(format!("sending real-time signal {number} isn't supported yet")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_understood() {
        for (name, expected) in [("SIGTERM", 15), ("kill", 9), ("1", 1), ("SIGRTMIN+3", 37), ("RTMAX-1", 63)] {
            assert_eq!(number(name).unwrap(), expected, "{name}");
        }
        for name in ["", "0", "65", "33", "SIGNOPE", "RTMIN+99", "-9"] {
            assert!(number(name).is_err(), "{name}");
        }
    }
}
