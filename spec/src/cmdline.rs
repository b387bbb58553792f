//! The kernel command line that a UKI carries: what stage 1 needs to find and check the root.

use std::fmt::Write as _;

use crate::release::UkiName;
use crate::verity::RootHash;

/// Keel's own parameters on the kernel command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootParameters {
    /// `roothash=`: the hash tree's root, in hexadecimal.
    pub root_hash: RootHash,
    /// `keel.root_blocks=`: data blocks of 4096 bytes that the tree covers.
    pub root_blocks: u64,
    /// `keel.watchdog_s=`: seconds without a sign of life after which the hardware watchdog resets the machine.
    pub watchdog_s: u32,
    /// `keel.trial_s=`: seconds after boot by which a release on trial must have passed, unless the updater moves it.
    pub trial_s: u32,
}

/// Why a kernel command line can't be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum CmdlineError {
    /// A parameter that has no default is absent.
    #[error("kernel command line has no {0}=")]
    Missing(&'static str),
    /// A parameter's value can't be read.
    #[error("kernel command line: {0}={1} is not valid")]
    Invalid(&'static str, String),
}

impl BootParameters {
    /// Seconds before the watchdog resets the machine, where the command line doesn't say.
    pub const DEFAULT_WATCHDOG_S: u32 = 30;
    /// Seconds before a trial fails, where neither the command line nor the updater says.
    pub const DEFAULT_TRIAL_S: u32 = 180;

    /// Reads `/proc/cmdline`. Parameters of others are passed over; the last of several wins, as in the kernel.
    pub fn parse(cmdline: &str) -> Result<Self, CmdlineError> {
        let root_hash = value(cmdline, "roothash").ok_or(CmdlineError::Missing("roothash"))?;
        Ok(Self {
            root_hash: root_hash.parse().map_err(|_| CmdlineError::Invalid("roothash", root_hash.into()))?,
            root_blocks: number(cmdline, "keel.root_blocks")?.ok_or(CmdlineError::Missing("keel.root_blocks"))?,
            watchdog_s: number(cmdline, "keel.watchdog_s")?.unwrap_or(Self::DEFAULT_WATCHDOG_S),
            trial_s: number(cmdline, "keel.trial_s")?.unwrap_or(Self::DEFAULT_TRIAL_S),
        })
    }

    /// Writes Keel's own parameters, to be put before those of the kernel.
    pub fn render(&self) -> String {
        let mut line = format!("roothash={} keel.root_blocks={}", self.root_hash, self.root_blocks);
        if self.watchdog_s != Self::DEFAULT_WATCHDOG_S {
            let _ = write!(line, " keel.watchdog_s={}", self.watchdog_s);
        }
        if self.trial_s != Self::DEFAULT_TRIAL_S {
            let _ = write!(line, " keel.trial_s={}", self.trial_s);
        }
        line
    }
}

/// Parameter that names the booted UKI where no boot loader chose it: the updater adds it when the kernel is started by
/// kexec. What the boot loader's EFI variables say is of the boot before then.
pub const KEXEC_ENTRY: &str = "keel.entry";

/// The UKI that was started by kexec; `None`: a boot loader chose what runs.
pub fn kexec_entry(cmdline: &str) -> Option<UkiName> {
    value(cmdline, KEXEC_ENTRY)?.parse().ok()
}

/// The last value of `name=value` on a kernel command line.
pub fn value<'a>(cmdline: &'a str, name: &str) -> Option<&'a str> {
    cmdline.split_ascii_whitespace().rev().find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

fn number<T: std::str::FromStr>(cmdline: &str, name: &'static str) -> Result<Option<T>, CmdlineError> {
    value(cmdline, name).map(|text| text.parse().map_err(|_| CmdlineError::Invalid(name, text.into()))).transpose()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_rendered_can_be_parsed() {
        let parameters = BootParameters {
            root_hash: "ab".repeat(32).parse().unwrap(),
            root_blocks: 5123,
            watchdog_s: 10,
            trial_s: 60,
        };
        let line = format!("{} quiet panic=5", parameters.render());
        assert_eq!(BootParameters::parse(&line).unwrap(), parameters);
    }

    #[test]
    fn a_kernel_that_was_started_by_kexec_knows_its_uki() {
        let entry = kexec_entry("roothash=1 quiet keel.entry=keel_1.2.0+2-1.efi").unwrap();
        assert_eq!((entry.tries_left, entry.tries_done), (Some(2), 1));
        assert_eq!(kexec_entry("roothash=1 quiet"), None);
        assert_eq!(kexec_entry("roothash=1 keel.entry=other.efi"), None);
    }

    #[test]
    fn absent_and_broken_parameters_are_named() {
        assert_eq!(BootParameters::parse("quiet"), Err(CmdlineError::Missing("roothash")));
        assert_eq!(BootParameters::parse("roothash=xyz"), Err(CmdlineError::Invalid("roothash", "xyz".into())));
    }
}
