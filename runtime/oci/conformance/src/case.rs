//! One requirement, its section, and what it needs of the machine.

use anyhow::Result;

use crate::lab::{Lab, cgroup_v2};

/// What the machine must have for a case to mean anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Needs {
    /// Linux, and root's rights.
    Root,
    /// All controllers in cgroup v2.
    CgroupV2,
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

    /// Whether this machine has what it needs.
    pub(crate) fn possible_here(&self) -> bool {
        match self.needs {
            Needs::Root => true,
            Needs::CgroupV2 => cgroup_v2(),
        }
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
