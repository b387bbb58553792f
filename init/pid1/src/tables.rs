//! What PID 1 keeps for services that may end and come back: descriptors, and the exits of containers.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;

use keel_spec::control::{Adopted, Exit, MAX_NAME_BYTES};

/// Most descriptors that are kept in all.
pub const MAX_FDS: usize = 4096;
/// Most adopted processes, those that ended included.
pub const MAX_ADOPTED: usize = 4096;
/// Exits of processes that nobody adopted (yet) that are remembered.
const RECENT_EXITS: usize = 64;

/// Descriptors by service and name.
#[derive(Default)]
pub struct FdStore {
    sets: BTreeMap<(usize, String), Vec<OwnedFd>>,
}

impl FdStore {
    /// Keeps a set, instead of what is there under that name. Says why not, otherwise.
    pub fn store(&mut self, service: usize, name: String, fds: Vec<OwnedFd>) -> Result<(), String> {
        check_name(&name)?;
        let replaced = self.sets.get(&(service, name.clone())).map_or(0, Vec::len);
        let kept: usize = self.sets.values().map(Vec::len).sum();
        if fds.is_empty() || kept.saturating_sub(replaced).saturating_add(fds.len()) > MAX_FDS {
            return Err(format!("{} descriptors for {name:?} beside {kept}: room for {MAX_FDS}", fds.len()));
        }
        self.sets.insert((service, name), fds);
        Ok(())
    }

    /// Copies of a set.
    pub fn fetch(&self, service: usize, name: &str) -> Result<Vec<OwnedFd>, String> {
        let set = self.sets.get(&(service, name.to_owned())).ok_or_else(|| format!("nothing stored as {name:?}"))?;
        let copies: Result<Vec<_>, _> = set.iter().map(OwnedFd::try_clone).collect();
        copies.map_err(|error| format!("cannot copy the descriptors stored as {name:?}: {error}"))
    }

    /// Closes a set, if it is there.
    pub fn drop_set(&mut self, service: usize, name: &str) {
        self.sets.remove(&(service, name.to_owned()));
    }

    /// Names of a service's sets.
    pub fn names(&self, service: usize) -> Vec<String> {
        self.sets.keys().filter(|(owner, _)| *owner == service).map(|(_, name)| name.clone()).collect()
    }
}

/// Processes that PID 1 became the parent of on behalf of the runtime, and recent exits of others.
#[derive(Default)]
pub struct Adoptions {
    table: Vec<Adopted>,
    recent: VecDeque<(u32, Exit)>,
}

impl Adoptions {
    /// Takes note of a process. `alive`: it hasn't been reaped. Otherwise its exit must be among the recent ones.
    /// Returns what is now known of it.
    pub fn adopt(&mut self, id: String, pid: u32, alive: bool) -> Result<Adopted, String> {
        check_name(&id)?;
        if let Some(same) = self.table.iter().find(|known| known.id == id && known.exit.is_none()) {
            return match same.pid == pid {
                true => Ok(same.clone()),
                false => Err(format!("{id:?} is process {}, which still runs", same.pid)),
            };
        }
        let exit = match alive {
            true => None,
            false => {
                let recent = self.recent.iter().rev().find(|(gone, _)| *gone == pid);
                Some(recent.ok_or_else(|| format!("process {pid} is gone and its exit was not kept"))?.1)
            }
        };
        self.forget(&id);
        if self.table.len() >= MAX_ADOPTED {
            return Err(format!("{MAX_ADOPTED} processes are adopted already"));
        }
        let adopted = Adopted { id, pid, exit };
        self.table.push(adopted.clone());
        Ok(adopted)
    }

    /// A process ended. Returns it if it was adopted.
    pub fn exited(&mut self, pid: u32, exit: Exit) -> Option<Adopted> {
        let Some(adopted) = self.table.iter_mut().find(|known| known.pid == pid && known.exit.is_none()) else {
            if self.recent.len() >= RECENT_EXITS {
                self.recent.pop_front();
            }
            self.recent.push_back((pid, exit));
            return None;
        };
        adopted.exit = Some(exit);
        Some(adopted.clone())
    }

    /// All of them.
    pub fn all(&self) -> &[Adopted] {
        &self.table
    }

    /// Drops one, if it is there.
    pub fn forget(&mut self, id: &str) {
        self.table.retain(|known| known.id != id);
    }
}

fn check_name(name: &str) -> Result<(), String> {
    match name.len() {
        1..=MAX_NAME_BYTES => Ok(()),
        length => Err(format!("a name of {length} bytes: want 1 to {MAX_NAME_BYTES}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn a_second_set_replaces_the_first_and_services_do_not_see_each_other() {
        let mut store = FdStore::default();
        store.store(1, "a".into(), vec![fd(), fd()]).unwrap();
        store.store(1, "a".into(), vec![fd()]).unwrap();
        store.store(2, "b".into(), vec![fd()]).unwrap();
        assert_eq!(store.fetch(1, "a").unwrap().len(), 1);
        assert_eq!(store.names(1), ["a"]);
        assert!(store.fetch(2, "a").is_err());
        store.drop_set(1, "a");
        assert!(store.names(1).is_empty());
    }

    #[test]
    fn the_store_is_bounded() {
        let mut store = FdStore::default();
        assert!(store.store(1, String::new(), vec![fd()]).is_err());
        assert!(store.store(1, "x".repeat(MAX_NAME_BYTES + 1), vec![fd()]).is_err());
        let _ = rustix::process::setrlimit(
            rustix::process::Resource::Nofile,
            rustix::process::Rlimit { current: Some(8192), maximum: Some(8192) },
        );
        for number in 0..MAX_FDS / 8 {
            store.store(1, number.to_string(), (0..8).map(|_| fd()).collect()).unwrap();
        }
        assert!(store.store(1, "more".into(), vec![fd()]).is_err());
        store.store(1, "0".into(), vec![fd()]).unwrap();
    }

    #[test]
    fn an_exit_before_the_adoption_is_found_once_it_comes() {
        let mut adoptions = Adoptions::default();
        let exit = Exit { code: 3, at_unix_ms: 5 };
        assert_eq!(adoptions.exited(42, exit), None);
        assert_eq!(adoptions.adopt("c".into(), 42, false).unwrap().exit, Some(exit));
        assert!(adoptions.adopt("d".into(), 43, false).is_err());
    }

    #[test]
    fn an_exit_stays_until_it_is_forgotten() {
        let mut adoptions = Adoptions::default();
        let exit = Exit { code: 137, at_unix_ms: 5 };
        adoptions.adopt("c".into(), 42, true).unwrap();
        assert_eq!(adoptions.exited(42, exit).unwrap().exit, Some(exit));
        assert_eq!(adoptions.exited(42, exit), None, "the number may be another process's by now");
        assert_eq!(adoptions.all().len(), 1);
        adoptions.adopt("c".into(), 44, true).unwrap();
        assert!(adoptions.adopt("c".into(), 45, true).is_err(), "still runs");
        adoptions.forget("c");
        assert!(adoptions.all().is_empty());
    }

    #[test]
    fn recent_exits_are_bounded() {
        let mut adoptions = Adoptions::default();
        for pid in 1..1000 {
            adoptions.exited(pid, Exit { code: 0, at_unix_ms: 0 });
        }
        assert_eq!(adoptions.recent.len(), RECENT_EXITS);
    }
}
