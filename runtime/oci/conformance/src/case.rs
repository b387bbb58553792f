//! One requirement, its section, and what it needs of the machine.

use anyhow::Result;

use crate::lab::{Lab, cgroup_v2};
use crate::policies;

/// What the machine must have for a case to mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Linux, and root's rights.
    Root,
    /// All controllers in cgroup v2.
    CgroupV2,
    /// AppArmor with the suite's profiles.
    AppArmor,
    /// SELinux with the suite's policy.
    SeLinux,
}

impl Needs {
    /// By the words of the command line.
    pub(crate) fn named(word: &str) -> Option<Self> {
        [Self::Root, Self::CgroupV2, Self::AppArmor, Self::SeLinux].into_iter().find(|needs| needs.word() == word)
    }

    /// The command line's word for it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::CgroupV2 => "cgroup-v2",
            Self::AppArmor => "apparmor",
            Self::SeLinux => "selinux",
        }
    }

    /// What it is, for people.
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Root => "root",
            Self::CgroupV2 => "cgroup v2",
            Self::AppArmor => "AppArmor with the suite's profiles",
            Self::SeLinux => "SELinux with the suite's policy",
        }
    }

    /// Whether this machine has it.
    pub(crate) fn is_here(self) -> bool {
        match self {
            Self::Root => true,
            Self::CgroupV2 => cgroup_v2(),
            Self::AppArmor => policies::apparmor(),
            Self::SeLinux => policies::selinux(),
        }
    }
}

/// One requirement that can be observed.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// Topic and requirement, `topic.what-holds`.
    pub name: &'static str,
    /// File and heading of the specification, or what else demands it.
    pub section: &'static str,
    /// What it needs of the machine.
    pub needs: Needs,
    /// Finds out; the error says what was expected and what was there.
    pub run: fn(&Lab) -> Result<()>,
}

impl Case {
    /// A case that runs anywhere.
    pub(crate) const fn new(name: &'static str, section: &'static str, run: fn(&Lab) -> Result<()>) -> Self {
        Self { name, section, needs: Needs::Root, run }
    }

    /// A case about cgroup v2.
    pub(crate) const fn v2(name: &'static str, section: &'static str, run: fn(&Lab) -> Result<()>) -> Self {
        Self { name, section, needs: Needs::CgroupV2, run }
    }

    /// A case about AppArmor.
    pub(crate) const fn apparmor(name: &'static str, section: &'static str, run: fn(&Lab) -> Result<()>) -> Self {
        Self { name, section, needs: Needs::AppArmor, run }
    }

    /// A case about SELinux.
    pub(crate) const fn selinux(name: &'static str, section: &'static str, run: fn(&Lab) -> Result<()>) -> Self {
        Self { name, section, needs: Needs::SeLinux, run }
    }
}

/// Ends a case with an error unless both are equal; the error shows both.
macro_rules! same {
    ($got:expr, $expected:expr, $($what:tt)+) => {
        match (&$got, &$expected) {
            (got, expected) => {
                if *got != *expected {
                    anyhow::bail!("{}: expected {expected:?}, got {got:?}", format!($($what)+));
                }
            }
        }
    };
}
pub(crate) use same;
