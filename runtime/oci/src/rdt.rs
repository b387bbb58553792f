//! Intel's Resource Director Technology: parts of the cache and of the memory's bandwidth, by class of service
//! (Documentation/arch/x86/resctrl.rst; config-linux.md, "IntelRdt").

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags};

use crate::Error;
use crate::error::Step;
use crate::plan::refused;
use crate::spec::{IntelRdt, Spec};

/// Where the kernel's interface is mounted.
const ROOT: &str = "/sys/fs/resctrl";
/// `RDTGROUP_SUPER_MAGIC`.
const MAGIC: libc::c_long = 0x0765_5821;
/// Names in the root that are no classes.
const RESERVED: [&str; 3] = ["info", "mon_groups", "mon_data"];
/// The kernel's words about the last failure, below the root.
const LAST_STATUS: &str = "info/last_cmd_status";

/// Folders that were made for a container, removed when dropped.
#[derive(Debug, Default)]
pub(crate) struct Guard(Vec<PathBuf>);

impl Guard {
    /// The container lives: they stay until [`release`].
    pub(crate) fn keep(&mut self) {
        self.0.clear();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        for path in self.0.iter().rev() {
            // The error that led here is the one to tell.
            let _ = std::fs::remove_dir(path);
        }
    }
}

/// Refuses names that would lead elsewhere, and schemas that say nothing.
pub(crate) fn check(rdt: &IntelRdt) -> Result<(), Error> {
    let leads_out = |name: &str| matches!(name, "" | "." | "..") || name.contains(['/', '\0', '\n']);
    if let Some(name) = rdt.clos_id.as_deref().filter(|name| leads_out(name) || RESERVED.contains(name)) {
        return Err(refused("linux.intelRdt.closID", format!("{name:?} can't name a class")));
    }
    for line in lines(rdt) {
        if !line.contains(':') || line.contains('\0') {
            return Err(refused("linux.intelRdt", format!("{line:?} is no line of a schema (NAME:ID=VALUE;…)")));
        }
    }
    Ok(())
}

/// Brings a container's first process into its class, which is made where the configuration allows it.
pub(crate) fn enter(spec: &Spec, id: &str, pid: u32) -> Result<Guard, Error> {
    let Some(rdt) = &spec.linux.intel_rdt else { return Ok(Guard::default()) };
    enter_at(mounted()?, rdt, id, pid)
}

/// Brings a further process into it.
pub(crate) fn join(spec: &Spec, id: &str, pid: u32) -> Result<(), Error> {
    let Some(rdt) = &spec.linux.intel_rdt else { return Ok(()) };
    let root = mounted()?;
    [Some(class(root, rdt, id)), monitor(root, rdt, id)].into_iter().flatten().try_for_each(|path| add(&path, pid))
}

/// Removes what was made for a container of this ID, if it is there. A class that the configuration names stays: others may
/// be in it.
pub(crate) fn release(spec: &Spec, id: &str) -> io::Result<()> {
    spec.linux.intel_rdt.as_ref().map_or(Ok(()), |rdt| release_at(Path::new(ROOT), rdt, id))
}

fn mounted() -> Result<&'static Path, Error> {
    let fd = rustix::fs::openat(CWD, ROOT, OFlags::PATH | OFlags::CLOEXEC, Mode::empty());
    match fd.and_then(|fd| rustix::fs::fstatfs(&fd)) {
        Ok(found) if found.f_type == MAGIC => Ok(Path::new(ROOT)),
        _ => Err(refused(
            "linux.intelRdt",
            format!(
                "resctrl isn't mounted on {ROOT}: it needs a processor with RDT, and `mount -t resctrl resctrl {ROOT}`"
            ),
        )),
    }
}

fn class(root: &Path, rdt: &IntelRdt, id: &str) -> PathBuf {
    root.join(rdt.clos_id.as_deref().unwrap_or(id))
}

/// The folder that only counts, if that is asked for.
fn monitor(root: &Path, rdt: &IntelRdt, id: &str) -> Option<PathBuf> {
    (rdt.enable_cmt || rdt.enable_mbm).then(|| class(root, rdt, id).join("mon_groups").join(id))
}

/// Both schemas as one. Of the cache's, lines of the bandwidth are left to the other one where that is there.
fn lines(rdt: &IntelRdt) -> Vec<&str> {
    let (cache, bandwidth) = (rdt.l3_cache_schema.as_deref(), rdt.mem_bw_schema.as_deref());
    let is_kept = |line: &&str| bandwidth.is_none() || !line.starts_with("MB:");
    let cache = cache.into_iter().flat_map(str::lines).map(str::trim).filter(is_kept);
    cache.chain(bandwidth.into_iter().flat_map(str::lines).map(str::trim)).filter(|line| !line.is_empty()).collect()
}

fn enter_at(root: &Path, rdt: &IntelRdt, id: &str, pid: u32) -> Result<Guard, Error> {
    let (path, schema) = (class(root, rdt, id), lines(rdt));
    let mut guard = Guard::default();
    let is_made = match std::fs::create_dir(&path) {
        Ok(()) => {
            guard.0.push(path.clone());
            if rdt.clos_id.is_some() && schema.is_empty() {
                let reason = format!("{:?} isn't there, and no schema says what it would be", rdt.clos_id);
                return Err(refused("linux.intelRdt.closID", reason));
            }
            true
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(e).host(|| format!("make {}{}", path.display(), told(root))),
    };
    let file = path.join("schemata");
    // One that others share must be as this container expects it; its own is made so.
    if rdt.clos_id.is_some() && !is_made {
        let there = std::fs::read_to_string(&file).host(|| format!("read {}", file.display()))?;
        compare(rdt, &schema, &there)?;
    } else if !schema.is_empty() {
        let text: String = schema.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(&file, &text).host(|| format!("write {text:?} to {}{}", file.display(), told(root)))?;
    }
    add(&path, pid)?;
    if let Some(path) = monitor(root, rdt, id) {
        std::fs::create_dir(&path).host(|| format!("make {}{}", path.display(), told(root)))?;
        guard.0.push(path.clone());
        add(&path, pid)?;
    }
    Ok(guard)
}

fn add(group: &Path, pid: u32) -> Result<(), Error> {
    let file = group.join("tasks");
    std::fs::write(&file, pid.to_string()).host(|| format!("write {pid} to {}", file.display()))
}

/// What the kernel says about a failure, for messages.
fn told(root: &Path) -> String {
    let text = std::fs::read_to_string(root.join(LAST_STATUS)).unwrap_or_default();
    if text.trim().is_empty() { String::new() } else { format!(" ({})", text.trim()) }
}

/// Resources by name, and in each the value for each of its IDs.
fn parsed<'a>(lines: impl Iterator<Item = &'a str>) -> BTreeMap<(&'a str, &'a str), &'a str> {
    let of_line = |line: &'a str| {
        let (name, values) = line.trim().split_once(':')?;
        let pair = move |pair: &'a str| {
            let (id, value) = pair.trim().split_once('=')?;
            Some(((name, id.trim()), value.trim().trim_start_matches('0')))
        };
        Some(values.split(';').filter_map(pair))
    };
    lines.filter_map(of_line).flatten().collect()
}

fn compare(rdt: &IntelRdt, wanted: &[&str], there: &str) -> Result<(), Error> {
    let there = parsed(there.lines());
    for ((name, id), value) in parsed(wanted.iter().copied()) {
        if there.get(&(name, id)) != Some(&value) {
            let reason = format!("{:?} is there with another schema: {name}:{id}={value} was expected", rdt.clos_id);
            return Err(refused("linux.intelRdt.closID", reason));
        }
    }
    Ok(())
}

fn release_at(root: &Path, rdt: &IntelRdt, id: &str) -> io::Result<()> {
    let own = rdt.clos_id.is_none().then(|| class(root, rdt, id));
    for path in monitor(root, rdt, id).into_iter().chain(own) {
        match std::fs::remove_dir(&path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rdt(class: Option<&str>, cache: Option<&str>, bandwidth: Option<&str>) -> IntelRdt {
        let text = |word: Option<&str>| word.map(str::to_owned);
        IntelRdt {
            clos_id: text(class),
            l3_cache_schema: text(cache),
            mem_bw_schema: text(bandwidth),
            ..IntelRdt::default()
        }
    }

    fn read(dir: &Path, file: &str) -> String {
        std::fs::read_to_string(dir.join(file)).unwrap()
    }

    #[test]
    fn a_class_of_its_own_is_named_by_the_container() {
        let dir = tempfile::tempdir().unwrap();
        let both = rdt(None, Some("L3:0=ff;1=f\nMB:0=70\n"), Some("MB:0=20;1=70"));
        enter_at(dir.path(), &both, "box", 42).unwrap().keep();
        assert_eq!(read(dir.path(), "box/schemata"), "L3:0=ff;1=f\nMB:0=20;1=70\n");
        assert_eq!(read(dir.path(), "box/tasks"), "42");
        // With one schema alone, its lines of bandwidth count.
        enter_at(dir.path(), &rdt(None, Some("L3:0=ff\nMB:0=70"), None), "two", 43).unwrap().keep();
        assert_eq!(read(dir.path(), "two/schemata"), "L3:0=ff\nMB:0=70\n");
        // Without any, nothing is written.
        enter_at(dir.path(), &rdt(None, None, None), "three", 44).unwrap().keep();
        assert!(!dir.path().join("three/schemata").exists());
    }

    #[test]
    fn a_named_class_is_shared_if_it_is_as_expected() {
        let dir = tempfile::tempdir().unwrap();
        let error = enter_at(dir.path(), &rdt(Some("gold"), None, None), "box", 42).unwrap_err().to_string();
        assert!(error.contains("gold"), "{error}");
        assert!(!dir.path().join("gold").exists(), "a class that nobody described was left");
        std::fs::create_dir(dir.path().join("gold")).unwrap();
        std::fs::write(dir.path().join("gold/schemata"), "    L3:0=00ff;1=0fff\n    MB:0=100;1=100\n").unwrap();
        enter_at(dir.path(), &rdt(Some("gold"), None, None), "box", 42).unwrap().keep();
        enter_at(dir.path(), &rdt(Some("gold"), Some("L3:0=ff"), Some("MB:1=100")), "box", 42).unwrap().keep();
        let error = enter_at(dir.path(), &rdt(Some("gold"), Some("L3:0=f"), None), "box", 42).unwrap_err().to_string();
        assert!(error.contains("another schema") && error.contains("L3:0=f"), "{error}");
        assert!(dir.path().join("gold").exists(), "a class of others was removed");
    }

    #[test]
    fn what_was_made_goes_with_a_failure_and_at_the_end() {
        let dir = tempfile::tempdir().unwrap();
        let counted = IntelRdt { enable_mbm: true, ..rdt(None, None, None) };
        // Here the folder for monitors isn't the kernel's, so that it can't be made.
        enter_at(dir.path(), &counted, "box", 42).unwrap_err();
        std::fs::create_dir_all(dir.path().join("two/mon_groups/two")).unwrap();
        std::fs::remove_dir_all(dir.path().join("box")).unwrap();
        release_at(dir.path(), &counted, "box").unwrap();
        let shared = IntelRdt { clos_id: Some("two".into()), ..counted };
        release_at(dir.path(), &shared, "two").unwrap();
        assert!(dir.path().join("two").exists() && !dir.path().join("two/mon_groups/two").exists());
    }

    #[test]
    fn a_class_cannot_lead_out() {
        for name in ["", ".", "..", "a/b", "info", "mon_data"] {
            assert!(check(&rdt(Some(name), None, None)).is_err(), "{name:?}");
        }
        assert!(check(&rdt(Some("gold"), Some("nonsense"), None)).is_err());
        check(&rdt(Some("gold"), Some("L3:0=f"), None)).unwrap();
    }
}
