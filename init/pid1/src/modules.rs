//! Kernel modules: found by name or alias in `depmod`'s indexes, loaded with what they depend on.
//!
//! Also the `modprobe` that the kernel itself runs (`request_module`). Formats: depmod(8), modules.dep(5).
//! `modules.softdep` and `modprobe.d` are not read: nothing on a host may configure them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use keel_spec::paths;
use rustix::io::Errno;

/// `MODULE_INIT_COMPRESSED_FILE`: the kernel unpacks the file itself.
const COMPRESSED: i32 = 4;
/// Longest index file that is read.
const MAX_INDEX_BYTES: u64 = 16 << 20;
/// Most modules that one request may load.
const MAX_DEPENDENCIES: usize = 128;
/// Most steps that a pattern's match may take; real ones take a few hundred.
const MAX_STEPS: usize = 65_536;

/// The modules of the running kernel.
pub struct Modules {
    folder: PathBuf,
    aliases: String,
    dependencies: String,
}

impl Modules {
    /// Reads the indexes of the running kernel's release. A missing index counts as an empty one.
    pub fn open() -> Self {
        let uname = rustix::system::uname();
        let folder = Path::new(paths::MODULES).join(uname.release().to_string_lossy().as_ref());
        let read = |name: &str| {
            let path = folder.join(name);
            let small = fs::metadata(&path).is_ok_and(|metadata| metadata.len() <= MAX_INDEX_BYTES);
            if small { fs::read_to_string(path).unwrap_or_default() } else { String::new() }
        };
        Self { aliases: read("modules.alias"), dependencies: read("modules.dep"), folder }
    }

    /// Loads a module by its name, or all whose aliases match. Says how many modules that asked for.
    pub fn load(&self, request: &str) -> io::Result<usize> {
        let name = normalised(request);
        let names = match find_dependencies(&self.dependencies, &name) {
            Some(_) => BTreeSet::from([name]),
            None => matching(&self.aliases, request),
        };
        let mut first_error = None;
        for name in &names {
            if let Err(error) = self.load_one(name) {
                first_error.get_or_insert(error);
            }
        }
        first_error.map_or(Ok(names.len()), Err)
    }

    fn load_one(&self, name: &str) -> io::Result<()> {
        let Some(files) = find_dependencies(&self.dependencies, name) else { return Ok(()) };
        // modules.dep names what is needed after what needs it.
        for file in files.iter().rev() {
            if is_loaded(&module_name(file)) {
                continue;
            }
            let module = File::open(self.folder.join(file))?;
            let flags = if file.ends_with(".ko") { 0 } else { COMPRESSED };
            match rustix::system::finit_module(&module, c"", flags) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// Modaliases of all devices that the kernel knows now.
pub fn device_aliases() -> BTreeSet<String> {
    let mut aliases = BTreeSet::new();
    for bus in fs::read_dir("/sys/bus").into_iter().flatten().flatten() {
        for device in fs::read_dir(bus.path().join("devices")).into_iter().flatten().flatten() {
            if let Ok(alias) = fs::read_to_string(device.path().join("modalias")) {
                aliases.insert(alias.trim_end().to_owned());
            }
        }
    }
    aliases.remove("");
    aliases
}

/// `modprobe [-q] [--] NAME...`, as the kernel calls it. Exit code 1: at least one isn't there or didn't load.
pub fn modprobe(arguments: &[String]) -> ExitCode {
    let modules = Modules::open();
    let names = arguments.iter().filter(|argument| !argument.starts_with('-'));
    let loaded = names.map(|name| modules.load(name)).filter(|result| matches!(result, Ok(1..))).count();
    ExitCode::from(u8::from(loaded == 0))
}

fn is_loaded(name: &str) -> bool {
    // Built-in modules have a folder too, but no state.
    Path::new("/sys/module").join(name).join("initstate").exists()
}

/// The kernel treats `-` and `_` in names alike.
fn normalised(name: &str) -> String {
    name.replace('-', "_")
}

fn module_name(file: &str) -> String {
    let base = file.rsplit('/').next().unwrap_or(file);
    normalised(base.split('.').next().unwrap_or(base))
}

/// The files to load for a module, itself first, from `modules.dep`.
fn find_dependencies<'a>(index: &'a str, name: &str) -> Option<Vec<&'a str>> {
    index.lines().find_map(|line| {
        let (file, needed) = line.split_once(':')?;
        (module_name(file) == name)
            .then(|| std::iter::once(file).chain(needed.split_ascii_whitespace()).take(MAX_DEPENDENCIES).collect())
    })
}

/// Names of the modules that have an alias which matches, from `modules.alias`.
fn matching(index: &str, alias: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in index.lines() {
        let Some((pattern, name)) = line.strip_prefix("alias ").and_then(|rest| rest.rsplit_once(' ')) else {
            continue;
        };
        if glob(pattern.as_bytes(), alias.as_bytes()) {
            names.insert(normalised(name));
        }
    }
    names
}

/// Whether `text` matches a shell pattern with `*`, `?` and `[...]` (fnmatch(3) without flags). No recursion; a
/// pattern that would take more than [`MAX_STEPS`] doesn't match.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut seen) = (0, 0);
    // Where the last `*` was, and how much of the text it stands for.
    let mut star: Option<(usize, usize)> = None;
    for _ in 0..MAX_STEPS {
        let rest = text.get(seen..).unwrap_or_default();
        let matched = match (pattern.get(at), rest.first()) {
            (None, None) => return true,
            (Some(b'*'), _) => {
                star = Some((at, seen));
                at += 1;
                continue;
            }
            (Some(b'?'), Some(_)) => Some(1),
            (Some(b'['), Some(byte)) => set(pattern.get(at..).unwrap_or_default(), *byte),
            (Some(wanted), Some(byte)) if wanted == byte => Some(1),
            _ => None,
        };
        match (matched, star) {
            (Some(length), _) => {
                at += length;
                seen += 1;
            }
            (None, Some((star_at, covered))) if covered < text.len() => {
                star = Some((star_at, covered + 1));
                at = star_at + 1;
                seen = covered + 1;
            }
            _ => return false,
        }
    }
    false
}

/// If `byte` is in the set that `pattern` begins with, the length of that set; an unclosed one matches nothing.
fn set(pattern: &[u8], byte: u8) -> Option<usize> {
    let negated = matches!(pattern.get(1), Some(b'!' | b'^'));
    let start = if negated { 2 } else { 1 };
    let end = pattern.iter().skip(start + 1).position(|byte| *byte == b']')? + start + 1;
    let members = pattern.get(start..end)?;
    let mut found = false;
    let mut at = 0;
    while let Some(low) = members.get(at) {
        match (members.get(at + 1), members.get(at + 2)) {
            (Some(b'-'), Some(high)) => {
                found |= (low..=high).contains(&&byte);
                at += 3;
            }
            _ => {
                found |= *low == byte;
                at += 1;
            }
        }
    }
    (found != negated).then_some(end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_match_as_fnmatch_does() {
        let alias = b"pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00";
        for (pattern, expected) in [
            ("pci:v00001AF4d*sv*sd*bc*sc*i*", true),
            ("pci:v00001AF4d00001042sv*sd*bc01sc00i*", true),
            ("pci:v00001AF5d*", false),
            ("pci:v00001AF[4-6]d*", true),
            ("pci:v00001AF[!4]d*", false),
            ("pci:v00001AF4d0000104?sv*", true),
            ("*", true),
            ("", false),
        ] {
            assert_eq!(glob(pattern.as_bytes(), alias), expected, "{pattern}");
        }
        assert!(glob(b"virtio:d00000002v*", b"virtio:d00000002v00001AF4"));
        assert!(glob(b"a[]]b", b"a]b"));
    }

    #[test]
    fn hostile_patterns_end() {
        assert!(!glob(b"[", b"x"));
        assert!(!glob(b"[a", b"a"));
        assert!(!glob(b"[]", b"]"));
        assert!(!glob("*a*a*a*a*a*b".as_bytes(), "a".repeat(5000).as_bytes()));
    }

    #[test]
    fn dependencies_are_found_by_either_spelling() {
        let index = "kernel/a/dm-mod.ko.xz:\nkernel/a/dm-verity.ko.xz: kernel/a/dm-bufio.ko.xz kernel/a/dm-mod.ko.xz\n";
        let files = find_dependencies(index, &normalised("dm-verity")).unwrap();
        assert_eq!(files, ["kernel/a/dm-verity.ko.xz", "kernel/a/dm-bufio.ko.xz", "kernel/a/dm-mod.ko.xz"]);
        assert!(find_dependencies(index, "dm").is_none());
    }

    #[test]
    fn an_alias_may_belong_to_several_modules() {
        let index = "# comment\nalias fs-erofs erofs\nalias pci:v1* virtio-a\nalias pci:v* b\n";
        assert_eq!(matching(index, "pci:v12"), BTreeSet::from(["b".into(), "virtio_a".into()]));
        assert_eq!(matching(index, "fs-erofs"), BTreeSet::from(["erofs".into()]));
    }
}
