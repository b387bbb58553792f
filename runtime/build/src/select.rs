//! The files that `COPY` and `ADD` name, in the client's files or an image's: found, listed, digested, packed.
//!
//! Paths are the kernel's to resolve, with the tree as `/`, so that no link leads out of it.

use std::ffi::OsStr;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use keel_engine::inside::pack::Packer;
use keel_engine::inside::root::{Meta, Root, gone, names};
use keel_store::digest::{HashRead, Hasher};
use rustix::fs::{FileType, OFlags};

use crate::error::Error;
use crate::glob::Pattern;
use crate::ignore::Ignore;
use crate::interrupt::Interrupt;

/// Most files and folders that one instruction takes.
const MAX_ENTRIES: usize = 1_000_000;
/// Most sources that one pattern comes to.
const MAX_MATCHES: usize = 100_000;
/// Most links that are followed to a source (`MAXSYMLINKS`).
const MAX_LINKS: usize = 40;
/// Deepest folder.
const MAX_DEPTH: usize = 256;

/// One file or folder.
struct Entry {
    /// Where it is, seen from its source.
    path: PathBuf,
    meta: Meta,
}

/// A file, or a folder with all in it.
pub struct Source {
    /// The folder that it is in, or that it is.
    tree: Root,
    /// Whether it is a folder: then its content is meant.
    pub is_folder: bool,
    /// Its own name; empty for the top of a tree.
    pub name: String,
    /// It was written or fetched for this build.
    pub is_made: bool,
    /// Its own folder, or file.
    top: Meta,
    entries: Vec<Entry>,
}

/// Where files are taken from.
pub struct Place<'a> {
    /// The tree.
    pub root: &'a Root,
    /// What of it is as good as absent.
    pub ignore: Option<&'a Ignore>,
}

impl Place<'_> {
    /// What a path stands for, or a pattern, which may fit nothing.
    pub fn find(&self, wanted: &str, interrupt: &Interrupt) -> Result<Vec<Source>, Error> {
        let path =
            clean(wanted).ok_or_else(|| Error::Bad(format!("forbidden path outside the build context: {wanted}")))?;
        let missing = || {
            let place = if self.ignore.is_some() { "build context or excluded by .dockerignore" } else { "source" };
            Error::Bad(format!("file not found in {place}: stat {path}: file does not exist"))
        };
        let is_pattern = Pattern::is_needed(&path);
        let paths = if is_pattern { self.matches(&path)? } else { vec![path.clone()] };
        let mut found = Vec::new();
        for path in paths {
            if self.is_ignored(&path) && !self.has_some_below(&path) {
                continue;
            }
            match self.source(&path, interrupt) {
                Ok(source) => found.push(source),
                Err(Error::Io { source, .. }) if gone(&source) => {}
                Err(error) => return Err(error),
            }
        }
        if found.is_empty() && !is_pattern { Err(missing()) } else { Ok(found) }
    }

    fn is_ignored(&self, path: &str) -> bool {
        !path.is_empty() && self.ignore.is_some_and(|ignore| ignore.leaves_out(path))
    }

    /// Whether a folder that is left out may have something in it that isn't.
    fn has_some_below(&self, path: &str) -> bool {
        let folder = self.root.open(Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY);
        let below = folder.and_then(names).unwrap_or_default();
        below.iter().filter_map(|name| name.to_str()).any(|name| !self.is_ignored(&format!("{path}/{name}")))
    }

    /// Paths that a pattern fits, in order: one folder after the other, since no `*` goes beyond a slash.
    fn matches(&self, pattern: &str) -> Result<Vec<String>, Error> {
        let mut found = vec![String::new()];
        for part in pattern.split('/') {
            let fits = Pattern::plain(part).map_err(|error| Error::Bad(error.to_string()))?;
            let mut next = Vec::new();
            for above in &found {
                let folder = match self.root.open(Path::new(above), OFlags::RDONLY | OFlags::DIRECTORY) {
                    Ok(folder) => folder,
                    Err(error) if gone(&error) => continue,
                    Err(error) => return Err(Error::io(format!("listing {above}"))(error)),
                };
                for name in names(folder).map_err(Error::io(format!("listing {above}")))? {
                    let Some(name) = name.to_str().filter(|name| fits.fits(name)) else { continue };
                    next.push(if above.is_empty() { name.to_owned() } else { format!("{above}/{name}") });
                }
            }
            if next.len() > MAX_MATCHES {
                return Err(Error::Bad(format!("{pattern} stands for more than {MAX_MATCHES} files")));
            }
            found = next;
        }
        Ok(found)
    }

    fn source(&self, path: &str, interrupt: &Interrupt) -> Result<Source, Error> {
        let fail = |error| Error::io(format!("reading {path}"))(error);
        let (folder, name) = self.followed(Path::new(path)).map_err(fail)?;
        let top = Meta::of(folder.as_fd(), name.as_os_str()).map_err(fail)?;
        let shown = path.rsplit('/').next().unwrap_or_default().to_owned();
        if !top.is_folder() {
            let entries = vec![Entry { path: name, meta: top.clone() }];
            return Ok(Source {
                tree: Root::new(folder, 0),
                is_folder: false,
                name: shown,
                is_made: false,
                top,
                entries,
            });
        }
        let tree = self.root.open(Path::new(path), OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
        let (tree, entries) = (Root::new(tree, 0), Vec::new());
        let mut source = Source { tree, is_folder: true, name: shown, is_made: false, top, entries };
        self.list(&mut source, path, interrupt)?;
        Ok(source)
    }

    /// The folder that something is in, and its name there, once links at its end are followed.
    fn followed(&self, path: &Path) -> io::Result<(OwnedFd, PathBuf)> {
        let mut path = path.to_path_buf();
        for _ in 0..MAX_LINKS {
            let above = path.parent().unwrap_or(Path::new(""));
            let folder = self.root.open(above, OFlags::PATH | OFlags::DIRECTORY)?;
            let Some(name) = path.file_name() else { return Ok((folder, PathBuf::new())) };
            let meta = Meta::of(folder.as_fd(), name)?;
            if meta.kind != FileType::Symlink {
                return Ok((folder, name.into()));
            }
            let target = rustix::fs::readlinkat(&folder, name, Vec::new())?;
            let target = OsStr::from_bytes(target.as_bytes());
            path = lexical(&above.join(target));
        }
        Err(io::Error::from_raw_os_error(rustix::io::Errno::LOOP.raw_os_error()))
    }

    /// Lists all in a folder that isn't left out, each folder before what is in it.
    fn list(&self, source: &mut Source, path: &str, interrupt: &Interrupt) -> Result<(), Error> {
        let mut folders = vec![(PathBuf::new(), 0)];
        while let Some((folder, depth)) = folders.pop() {
            interrupt.check()?;
            let fail = |error| Error::io(format!("listing {path}/{}", folder.display()))(error);
            let fd = source.tree.open_exact(&folder, OFlags::RDONLY | OFlags::DIRECTORY).map_err(fail)?;
            for name in names(&fd).map_err(fail)? {
                let meta = Meta::of(fd.as_fd(), &name).map_err(fail)?;
                let below = folder.join(&name);
                if meta.is_folder() {
                    if depth >= MAX_DEPTH {
                        return Err(Error::Bad(format!("{path} has folders more than {MAX_DEPTH} deep")));
                    }
                    folders.push((below.clone(), depth + 1));
                }
                let whole = format!("{path}/{}", below.display());
                if self.is_ignored(whole.trim_start_matches('/')) {
                    continue;
                }
                source.entries.push(Entry { path: below, meta });
                if source.entries.len() > MAX_ENTRIES {
                    return Err(Error::Bad(format!("{path} has more than {MAX_ENTRIES} files")));
                }
            }
        }
        source.entries.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(())
    }
}

impl Source {
    /// The same, written or fetched for this build, under a name of its own.
    pub fn made_as(self, name: &str) -> Self {
        Self { name: name.to_owned(), is_made: true, ..self }
    }

    /// Digests all that an image would have of it: names, kinds, modes, contents; not times and owners.
    pub fn digest(&self, hasher: &mut Hasher, interrupt: &Interrupt) -> Result<(), Error> {
        let kind = |meta: &Meta| format!("{:?} {:o}", meta.kind, meta.mode);
        hasher.update(format!("\n{}:{} {}", self.name.len(), self.name, kind(&self.top)).as_bytes());
        for entry in &self.entries {
            interrupt.check()?;
            let name = entry.path.as_os_str().as_bytes();
            // The name of a file alone is that of what a link led to: its content says it all.
            let name = if self.is_folder { name } else { b"" };
            hasher.update(format!("\n{} {}:", kind(&entry.meta), name.len()).as_bytes());
            hasher.update(name);
            let fail = |error| Error::io(format!("reading {}", entry.path.display()))(error);
            match entry.meta.kind {
                FileType::RegularFile => {
                    let file = self.tree.open_exact(&entry.path, OFlags::RDONLY | OFlags::NONBLOCK).map_err(fail)?;
                    let mut content = HashRead::new(interrupt.watch(std::fs::File::from(file)));
                    io::copy(&mut content, &mut io::sink()).map_err(fail)?;
                    hasher.update(content.finish().0.to_string().as_bytes());
                }
                FileType::Symlink => {
                    let (folder, name) = self.place_of(entry).map_err(fail)?;
                    let target =
                        rustix::fs::readlinkat(&folder, name, Vec::new()).map_err(|error| fail(error.into()))?;
                    hasher.update(target.as_bytes());
                }
                _ => hasher.update(format!("{:?}", entry.meta.device).as_bytes()),
            }
        }
        Ok(())
    }

    /// Opens it, if it is a file.
    pub fn open(&self) -> io::Result<std::fs::File> {
        let path = self.entries.first().map_or(Path::new(""), |entry| &entry.path);
        Ok(self.tree.open_exact(path, OFlags::RDONLY | OFlags::NONBLOCK)?.into())
    }

    /// Its own tree, for a packer.
    pub fn root(&self) -> &Root {
        &self.tree
    }

    /// Packs it under a name: a file as that, a folder's content below that. `with_top`: the folder itself, too.
    pub fn pack(&self, packer: &mut Packer<'_>, name: &Path, with_top: bool) -> io::Result<()> {
        if self.is_folder && with_top {
            let top = self.tree.open_exact(Path::new(""), OFlags::PATH | OFlags::DIRECTORY)?;
            packer.entry(&top, OsStr::new(""), &self.top, name.as_os_str().as_bytes())?;
        }
        for entry in &self.entries {
            let shown = if self.is_folder { name.join(&entry.path) } else { name.to_path_buf() };
            let (folder, last) = self.place_of(entry)?;
            packer.entry(&folder, last, &entry.meta, shown.as_os_str().as_bytes())?;
        }
        Ok(())
    }

    fn place_of<'e>(&self, entry: &'e Entry) -> io::Result<(OwnedFd, &'e OsStr)> {
        let above = entry.path.parent().unwrap_or(Path::new(""));
        let folder = self.tree.open_exact(above, OFlags::PATH | OFlags::DIRECTORY)?;
        Ok((folder, entry.path.file_name().unwrap_or_default()))
    }
}

/// Packs sources one after the other, each under its name; `bool`: see [`Source::pack`].
pub fn pack(sources: &[(&Source, PathBuf, bool)], out: &mut dyn Write) -> io::Result<()> {
    let Some((first, _, _)) = sources.first() else { return Ok(()) };
    let mut packer = Packer::new(first.root(), out);
    for (source, name, with_top) in sources {
        source.pack(&mut packer, name, *with_top)?;
    }
    packer.finish()
}

/// A path without `.`, `..` and slashes around it; `None`: it leads out. A backslash keeps the next character.
fn clean(path: &str) -> Option<String> {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()?),
            part => parts.push(part),
        }
    }
    Some(parts.join("/"))
}

/// The same for a link's target, which can't lead out: the kernel wouldn't follow it there either.
fn lexical(path: &Path) -> PathBuf {
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::Normal(name) => clean.push(name),
            std::path::Component::ParentDir => drop(clean.pop()),
            _ => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    fn tree() -> (tempfile::TempDir, Root) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        fs::create_dir_all(path.join("a/deep")).unwrap();
        for file in ["a/one.txt", "a/two.txt", "a/deep/three.txt", "top", "secret"] {
            fs::write(path.join(file), file).unwrap();
        }
        symlink("a/../top", path.join("link")).unwrap();
        symlink("/../../etc/passwd", path.join("out")).unwrap();
        symlink("loop", path.join("loop")).unwrap();
        let root = Root::new(crate::context::open_folder(path).unwrap(), 0);
        (folder, root)
    }

    fn found(root: &Root, ignore: &str, wanted: &str) -> Result<Vec<String>, String> {
        let ignore = Ignore::parse(ignore).unwrap();
        let place = Place { root, ignore: Some(&ignore) };
        let sources = place.find(wanted, &Interrupt::default()).map_err(|error| error.chain())?;
        let entries = |source: Source| {
            let name = source.name.clone();
            let path = move |entry: Entry| format!("{name}:{}", entry.path.display());
            source.entries.into_iter().map(path).collect::<Vec<_>>()
        };
        Ok(sources.into_iter().flat_map(entries).collect())
    }

    #[test]
    fn paths_and_patterns_find_what_they_name() {
        let (_folder, root) = tree();
        assert_eq!(found(&root, "", "a/*.txt").unwrap(), ["one.txt:one.txt", "two.txt:two.txt"]);
        assert_eq!(found(&root, "", "./a//deep/../deep").unwrap(), ["deep:three.txt"]);
        assert_eq!(found(&root, "", "/link").unwrap(), ["link:top"]);
        assert_eq!(found(&root, "", "*/d*p").unwrap(), ["deep:three.txt"]);
        assert!(found(&root, "", "*.none").unwrap().is_empty());
        let whole = found(&root, "secret\nl*\nout\n", ".").unwrap();
        assert_eq!(whole, [":a", ":a/deep", ":a/deep/three.txt", ":a/one.txt", ":a/two.txt", ":top"]);
        assert_eq!(found(&root, "*\n!a/one.txt\n", "a").unwrap(), ["a:one.txt"]);
    }

    #[test]
    fn what_is_absent_left_out_or_outside_is_told_so() {
        let (_folder, root) = tree();
        for (ignore, wanted, word) in [
            ("", "none", "stat none"),
            ("secret", "secret", ".dockerignore"),
            ("", "../x", "outside"),
            ("", "out", "not found"),
            ("", "loop", "not found"),
            ("", "[", "syntax error"),
        ] {
            let error = found(&root, ignore, wanted).unwrap_err();
            assert!(error.contains(word), "{wanted}: {error}");
        }
    }

    #[test]
    fn digests_tell_contents_and_modes_but_not_times() {
        let (folder, root) = tree();
        let digest = || {
            let place = Place { root: &root, ignore: None };
            let mut hasher = Hasher::new();
            place.find("a", &Interrupt::default()).unwrap()[0].digest(&mut hasher, &Interrupt::default()).unwrap();
            hasher.finish()
        };
        let first = digest();
        let file = fs::File::options().write(true).open(folder.path().join("a/one.txt")).unwrap();
        file.set_times(fs::FileTimes::new().set_modified(std::time::UNIX_EPOCH)).unwrap();
        assert_eq!(digest(), first);
        fs::write(folder.path().join("a/one.txt"), "other").unwrap();
        let second = digest();
        assert_ne!(second, first);
        fs::rename(folder.path().join("a/one.txt"), folder.path().join("a/three.txt")).unwrap();
        assert_ne!(digest(), second);
    }
}
