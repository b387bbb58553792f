//! The least version that this machine accepts: that of the newest release that ever proved itself here.
//!
//! It rises only then, as Android Verified Boot's rollback index does, so that what a fallback returns to may always be
//! updated again, to that release or a newer one. It lies in the state file and, where there is a TPM, there too: whoever
//! replaces the state partition by an earlier copy while the machine is off doesn't get an older release accepted, and
//! is found out. A TPM that is missing, busy, full or cleared leaves the file alone to say; nothing waits for it long.
//!
//! In order: the file is written, then the TPM's record, then its counter ([`crate::tpm::keeping`]). Power may fail
//! between any two; the next start goes on.

use std::io;
use std::sync::{Mutex, PoisonError};

use keel_spec::api::MinimumStatus;
use keel_spec::release::Version;
use serde::{Deserialize, Serialize};

use crate::failure::{Result, chain};
use crate::host;
use crate::state::File;
use crate::tpm::{Error, Held, Keeping, Record, Transport};

/// What the state file has of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// The version.
    pub version: Version,
    /// Number of the TPM's counter that belongs to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub number: Option<u64>,
    /// That the state partition was found to be older than the TPM, until a newer release proves itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rewound: Option<Rewound>,
}

/// The state partition was older than the TPM.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rewound {
    /// When that was found out, seconds since the Unix epoch.
    pub at_unix_s: u64,
    /// What it had, what the TPM had.
    pub why: String,
}

/// The TPM, as far as it can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Tpm {
    #[default]
    Missing,
    Held,
    Unusable(String),
}

/// What is known since the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Known {
    kept: Option<Kept>,
    tpm: Tpm,
}

/// Opens this machine's TPM; `None`: it has none.
pub type Opener = Box<dyn Fn() -> io::Result<Option<Box<dyn Transport>>> + Send + Sync>;

/// The least version of this machine.
pub struct Minimum {
    open: Opener,
    known: Mutex<Option<Known>>,
}

impl Minimum {
    /// With a way to its TPM.
    pub fn new(open: Opener) -> Self {
        Self { open, known: Mutex::default() }
    }

    /// The least version, if any release ever proved itself. The first time, the TPM is asked.
    pub fn version(&self, file: &File) -> Option<Version> {
        self.known(file).kept.map(|kept| kept.version)
    }

    /// For the status; nothing before the first look, which is never waited for here.
    pub fn status(&self) -> Option<MinimumStatus> {
        // Whoever has it locked is talking to the TPM.
        let known = self.known.try_lock().ok()?.clone()?;
        let kept = known.kept?;
        let rewound = |rewound: Rewound| (rewound.at_unix_s, rewound.why);
        Some(MinimumStatus {
            version: kept.version,
            in_tpm: known.tpm == Tpm::Held,
            tpm_problem: match known.tpm {
                Tpm::Unusable(why) => Some(why),
                Tpm::Missing | Tpm::Held => None,
            },
            rewound: kept.rewound.map(rewound),
        })
    }

    fn known(&self, file: &File) -> Known {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get_or_insert_with(|| self.look(file)).clone()
    }

    /// Asks the TPM, and takes note in the file of what that knows better.
    fn look(&self, file: &File) -> Known {
        let kept = file.read().minimum;
        let (held, tpm) = match (self.open)().map_err(Error::Device) {
            Ok(None) => (None, Tpm::Missing),
            Ok(Some(mut tpm)) => usable(Keeping(&mut *tpm).read()),
            Err(error) => usable(Err(error)),
        };
        let kept = match held {
            Some(held) => {
                if held.counter.is_none() && kept.as_ref().is_some_and(|kept| kept.number.is_some()) {
                    log::warn!("the TPM no longer holds the least version: it was cleared, or is another one");
                }
                let now = judge(kept.clone(), &held, host::now_unix_s());
                if now != kept {
                    if let Some(rewound) = now.as_ref().and_then(|kept| kept.rewound.as_ref()) {
                        log::error!("{}", rewound.why);
                    }
                    write(file, now.clone()).unwrap_or_else(|failure| log::error!("{failure}"));
                }
                now
            }
            None => kept,
        };
        Known { kept, tpm }
    }

    /// A release has proved itself, or is one that did before.
    pub fn raise(&self, file: &File, proved: &Version) -> Result<()> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = known.get_or_insert_with(|| self.look(file)).clone();
        let target = now.kept.as_ref().map_or(proved, |kept| proved.max(&kept.version)).clone();
        let (outcome, tpm) = match (self.open)().map_err(Error::Device) {
            Ok(None) => (None, Tpm::Missing),
            Ok(Some(mut tpm)) => usable(put(&mut *tpm, &mut now, &target, file)),
            Err(error) => usable(Err(error)),
        };
        now.tpm = tpm;
        if outcome.is_none() && now.kept.as_ref().is_none_or(|kept| kept.version < target) {
            let number = now.kept.and_then(|kept| kept.number);
            now.kept = Some(Kept { version: target, number, rewound: None });
            write(file, now.kept.clone())?;
        }
        *known = Some(now);
        Ok(())
    }
}

/// Says what is wrong with the TPM.
fn usable<T>(outcome: Result<T, Error>) -> (Option<T>, Tpm) {
    match outcome {
        Ok(value) => (Some(value), Tpm::Held),
        Err(error) => {
            let why = chain(&error);
            log::warn!("the least version is kept in a file alone, not in the TPM: {why}");
            (None, Tpm::Unusable(why))
        }
    }
}

fn write(file: &File, kept: Option<Kept>) -> Result<()> {
    file.change(|state| state.minimum = kept).map(drop)
}

/// What counts, of what the file has and what the TPM has; and whether the file is an earlier copy.
fn judge(kept: Option<Kept>, held: &Held, now_unix_s: u64) -> Option<Kept> {
    let Some(record) = &held.record else { return kept };
    let newest = kept.as_ref().map_or(&record.version, |kept| (&record.version).max(&kept.version)).clone();
    let number = kept.as_ref().and_then(|kept| kept.number);
    // A record that has no counter was written by one who stopped before the counter counted; the file was first.
    let counter = held.counter.unwrap_or(record.number);
    if number.is_some_and(|number| number >= counter) {
        let kept = kept.map(|kept| Kept { version: newest, ..kept });
        return kept;
    }
    let had = kept.as_ref().map_or("no least version".into(), |kept| format!("{} as the least version", kept.version));
    let why = format!(
        "the state partition is an earlier copy, or another machine's: it has {had}, with number {} of the TPM's \
         counter, which is at {counter} and has {}; nothing older than {newest} is accepted",
        number.map_or("none".into(), |number| number.to_string()),
        record.version,
    );
    Some(Kept { version: newest, number: Some(counter), rewound: Some(Rewound { at_unix_s: now_unix_s, why }) })
}

/// What has to be written so that a version is the least one: to the file, and to the TPM if that hasn't got it.
fn plan(kept: Option<&Kept>, held: &Held, counter: u64, target: &Version) -> (Kept, Option<Record>) {
    let rewound = kept.filter(|kept| kept.version == *target).and_then(|kept| kept.rewound.clone());
    let done = Record { version: target.clone(), number: counter };
    if held.record.as_ref() == Some(&done) {
        return (Kept { version: target.clone(), number: Some(counter), rewound }, None);
    }
    let record = Record { number: counter.saturating_add(1), ..done };
    (Kept { version: target.clone(), number: Some(record.number), rewound }, Some(record))
}

/// Makes a version the least one, in the file and in the TPM.
fn put(tpm: &mut dyn Transport, known: &mut Known, target: &Version, file: &File) -> Result<(), Error> {
    let mut keeping = Keeping(tpm);
    let counter = keeping.begin()?;
    let (kept, record) = plan(known.kept.as_ref(), &keeping.read()?, counter, target);
    if known.kept.as_ref() != Some(&kept) {
        write(file, Some(kept.clone())).map_err(io::Error::other)?;
        known.kept = Some(kept);
    }
    let Some(record) = record else { return Ok(()) };
    keeping.put(&record)?;
    log::info!("nothing older than {target} is accepted from now on: the TPM's counter is at {}", record.number);
    Ok(())
}

#[cfg(test)]
#[path = "minimum_tests.rs"]
mod tests;
