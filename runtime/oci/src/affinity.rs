//! The processors of a further process: `process.execCPUAffinity` (config.md, "Linux Process").
//!
//! A new process has those of the thread that makes it, from its first moment in the container's cgroup on: so it can't
//! get to others of that cgroup, which may be kept for real-time programs, before its own are set.

use rustix::process::Pid;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

use crate::Error;
use crate::error::Step;
use crate::plan::refused;
use crate::spec::Process;

/// Longest list: every processor by its number takes less.
const MAX_LIST_BYTES: usize = 8192;

/// Both lists, understood.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    initial: Option<CpuSet>,
    last: Option<CpuSet>,
}

/// What a process asks for.
pub(crate) fn of(process: &Process) -> Result<Affinity, Error> {
    let Some(asked) = &process.exec_cpu_affinity else { return Ok(Affinity::default()) };
    let understood = |field: &str, list: &Option<String>| {
        let list = list.as_deref().filter(|list| !list.is_empty());
        list.map(|list| cpus(list).map_err(|why| refused(field, why))).transpose()
    };
    Ok(Affinity {
        initial: understood("process.execCPUAffinity.initial", &asked.initial)?,
        last: understood("process.execCPUAffinity.final", &asked.last)?,
    })
}

impl Affinity {
    /// Makes a process with the initial processors. The calling thread has its own again afterwards.
    pub(crate) fn while_made<T>(&self, make: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let Some(initial) = &self.initial else { return make() };
        let own = sched_getaffinity(None).host(|| "ask for the runtime's processors".into())?;
        sched_setaffinity(None, initial).host(|| format!("run on processors {}", list(initial)))?;
        let made = make();
        sched_setaffinity(None, &own).host(|| format!("run on processors {} again", list(&own)))?;
        made
    }

    /// Gives a process, which is in the container's cgroup, its final processors.
    pub(crate) fn apply(&self, pid: u32) -> Result<(), Error> {
        let Some(last) = &self.last else { return Ok(()) };
        sched_setaffinity(Pid::from_raw(pid.cast_signed()), last)
            .host(|| format!("let process {pid} run on processors {}", list(last)))
    }
}

/// Numbers and ranges with commas between them. As runc has it, there may be spaces around each, and commas without any.
fn cpus(text: &str) -> Result<CpuSet, String> {
    if text.len() > MAX_LIST_BYTES {
        return Err(format!("is longer than {MAX_LIST_BYTES} bytes"));
    }
    let mut cpus = CpuSet::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (cpu(first, text)?, cpu(last, text)?);
        if first > last {
            return Err(format!("{part:?} in {text:?} ends before it begins"));
        }
        (first..=last).for_each(|cpu| cpus.set(cpu));
    }
    if cpus.count() == 0 { Err(format!("{text:?} names no processor")) } else { Ok(cpus) }
}

fn cpu(number: &str, text: &str) -> Result<usize, String> {
    let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
    let cpu = number.parse().ok().filter(|cpu| digits && *cpu < CpuSet::MAX_CPU);
    let most = CpuSet::MAX_CPU - 1;
    cpu.ok_or_else(|| format!("{number:?} in {text:?} is no number from 0 to {most}: a list is like 0-3,7"))
}

/// The numbers again, for messages.
fn list(cpus: &CpuSet) -> String {
    let numbers = (0..CpuSet::MAX_CPU).filter(|cpu| cpus.is_set(*cpu)).map(|cpu| cpu.to_string());
    numbers.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::ExecCpuAffinity;

    #[test]
    fn lists_are_understood() {
        for (text, numbers) in [
            ("0", "0"),
            ("0-3,7", "0,1,2,3,7"),
            ("7,0-1", "0,1,7"),
            ("5-5", "5"),
            (" 1 , 3 ", "1,3"),
            ("1,,3,", "1,3"),
            ("1023", "1023"),
        ] {
            assert_eq!(list(&cpus(text).unwrap()), numbers, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_list_is_refused() {
        let long = "9".repeat(100_000);
        for text in [
            " ",
            ",",
            "-",
            "1-",
            "-1",
            "3-1",
            "1-2-3",
            "a",
            "+1",
            "0x1",
            "1.5",
            "1;2",
            "1024",
            "0-1024",
            "1 - 2",
            "1 2",
            "18446744073709551616",
            "4294967296",
            "\0",
            "1\n2",
            "١",
            &long,
        ] {
            assert!(cpus(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_empty_list_asks_for_nothing_and_a_wrong_one_is_named() {
        let asked = |initial: &str, last: &str| {
            let affinity = ExecCpuAffinity { initial: Some(initial.into()), last: Some(last.into()) };
            of(&Process { exec_cpu_affinity: Some(affinity), ..Process::default() })
        };
        let none = asked("", "").unwrap();
        assert!(none.initial.is_none() && none.last.is_none());
        assert!(asked("0", "x").unwrap_err().to_string().contains("process.execCPUAffinity.final"));
        assert!(asked("1-", "0").unwrap_err().to_string().contains("process.execCPUAffinity.initial"));
    }

    #[test]
    fn the_maker_has_its_own_processors_again() {
        let own = list(&sched_getaffinity(None).unwrap());
        let first = own.split(',').next().unwrap();
        let affinity = Affinity { initial: Some(cpus(first).unwrap()), last: None };
        let inside = affinity.while_made(|| Ok(list(&sched_getaffinity(None).unwrap()))).unwrap();
        assert_eq!((inside.as_str(), list(&sched_getaffinity(None).unwrap())), (first, own.clone()));
    }
}
