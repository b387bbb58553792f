//! `COPY` and `ADD`.

use std::io::Read;
use std::path::{Path, PathBuf};

use keel_engine::find_owner;
use keel_engine::inside::root::Root;
use keel_engine::inside::stream::piped;
use keel_engine::inside::unpack::UnpackOptions;
use keel_store::digest::Hasher;
use keel_store::{Decoder, Draft};
use rustix::fs::OFlags;

use crate::build::Build;
use crate::context::open_folder;
use crate::dockerfile::expand;
use crate::dockerfile::instruction::{Source as Written, Transfer};
use crate::error::Error;
use crate::fetched::{self, is_address, is_git};
use crate::layer::{View, put};
use crate::plan::find;
use crate::room::Room;
use crate::select::{self, Place, Source};
use crate::settings;
use crate::stage::State;

/// All that is taken, and what it lies in.
#[derive(Default)]
struct Taken {
    sources: Vec<Source>,
    /// Folders of texts and fetched files; they go after the sources.
    _rooms: Vec<Room>,
    _view: Option<View>,
}

/// Where it goes.
struct Target {
    /// As written, its variables in place; absolute.
    path: String,
    /// Whether it is said to be a folder.
    is_folder: bool,
    owner: Option<String>,
    mode: Option<u32>,
    unpacks: bool,
}

impl Build<'_> {
    /// Takes a `COPY` or `ADD`.
    pub fn transfer(&mut self, state: &mut State<'_>, transfer: &Transfer) -> Result<(), Error> {
        let keyword = if transfer.is_add { "ADD" } else { "COPY" };
        let failed = |error: Error| match error {
            // The words of Docker, as scripts look for them.
            Error::Bad(reason) => Error::Bad(format!("{keyword} failed: {reason}")),
            other => other,
        };
        let target = target(state, transfer).map_err(failed)?;
        let taken = self.gather(state, transfer).map_err(failed)?;
        if taken.sources.is_empty() {
            return Err(failed(Error::Bad("no source files were specified: the patterns fit nothing".into())));
        }
        if taken.sources.len() > 1 && !target.is_folder {
            return Err(Error::Bad(format!(
                "When using {keyword} with more than one source file, the destination must be a directory and end with a /"
            )));
        }
        let mut hasher = Hasher::new();
        taken.sources.iter().try_for_each(|source| source.digest(&mut hasher, self.interrupt))?;
        let digest = hasher.finish().to_string();
        let mode = target.mode.map(|mode| format!("{mode:o}")).unwrap_or_default();
        let owner = target.owner.clone().unwrap_or_default();
        let slash = if target.is_folder { "/" } else { "" };
        let words = [keyword, &digest, &target.path, slash, &owner, &mode];
        let created_by = format!("/bin/sh -c #(nop) {keyword} {digest} in {}{slash} ", target.path);
        let config = state.draft.config().clone();
        self.take(&mut state.draft, &words, config, created_by, None, |build, draft| {
            build.layer_of(draft, &taken, &target).map_err(failed)
        })
    }

    /// Finds all sources, and fetches or writes those that aren't files yet.
    fn gather(&mut self, state: &mut State<'_>, transfer: &Transfer) -> Result<Taken, Error> {
        let mut taken = Taken::default();
        if let Some(from) = &transfer.from {
            let draft = self.draft_of(state, from)?;
            let view = self.view(&draft)?;
            let place = Place { root: &view.root, ignore: None };
            for source in &transfer.sources {
                let Written::Path(path) = source else {
                    return Err(Error::Bad("a heredoc is no file of a stage".into()));
                };
                taken.sources.extend(place.find(&state.word(path)?, self.interrupt)?);
            }
            taken._view = Some(view);
            return Ok(taken);
        }
        for source in &transfer.sources {
            match source {
                Written::Inline(heredoc) => {
                    let content =
                        if heredoc.expands { inline(state, &heredoc.content)? } else { heredoc.content.clone() };
                    let (room, found) = self.written(&heredoc.name, content.as_bytes(), 0o644)?;
                    taken._rooms.push(room);
                    taken.sources.push(found);
                }
                Written::Path(path) => {
                    let path = state.word(path)?;
                    if is_git(&path) {
                        return Err(Error::Bad(format!("repositories of Git aren't fetched: {path}")));
                    }
                    if transfer.is_add && is_address(&path) {
                        let (room, found) = self.fetched(state, transfer, &path)?;
                        taken._rooms.push(room);
                        taken.sources.push(found);
                        continue;
                    }
                    let context = state.context;
                    let place = Place { root: &context.root, ignore: Some(&context.ignore) };
                    taken.sources.extend(place.find(&path, self.interrupt)?);
                }
            }
        }
        Ok(taken)
    }

    /// The stage or image that files are taken from.
    fn draft_of(&mut self, state: &State<'_>, from: &str) -> Result<Draft, Error> {
        let from = state.word(from)?;
        if let Some(number) = find(state.file, &from, state.number) {
            let missing = || Error::Bad(format!("stage {from:?} was not built"));
            return self.done.get(&number).cloned().ok_or_else(missing);
        }
        if from.is_empty() || from.parse::<usize>().is_ok() {
            return Err(Error::Bad(format!("invalid from flag value {from}: there is no such stage before this one")));
        }
        self.base(&from, None).map_err(|error| match error {
            Error::Cancelled => Error::Cancelled,
            other => Error::Bad(format!("invalid from flag value {from}: {}", other.chain())),
        })
    }

    /// A file made here.
    fn written(&mut self, name: &str, content: &[u8], mode: u32) -> Result<(Room, Source), Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let room = self.room.within()?;
        let path = room.path().join("file");
        let made = std::fs::write(&path, content)
            .and_then(|()| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)));
        made.map_err(Error::io(format!("writing the text {name}")))?;
        let source = self.file_of(&room, name)?;
        Ok((room, source))
    }

    fn fetched(&mut self, state: &State<'_>, transfer: &Transfer, address: &str) -> Result<(Room, Source), Error> {
        use std::os::unix::fs::PermissionsExt as _;
        let checksum = transfer.checksum.as_deref().map(|text| state.word(text)).transpose()?;
        let is_file = !state.word(&transfer.target)?.ends_with('/');
        let nameless = || Error::Bad(format!("cannot determine filename for {address}: name the target's file"));
        let name = fetched::name(address).or(is_file.then(String::new)).ok_or_else(nameless)?;
        let room = self.fetch(address, checksum.as_deref())?;
        // What comes from elsewhere is nobody else's to read (Dockerfile reference, ADD).
        let mode = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(room.path().join("file"), mode).map_err(Error::io("closing what was fetched"))?;
        let source = self.file_of(&room, &name)?;
        Ok((room, source))
    }

    /// The one file of a folder, under another name.
    fn file_of(&self, room: &Room, name: &str) -> Result<Source, Error> {
        let root = Root::new(open_folder(room.path())?, 0);
        let found = Place { root: &root, ignore: None }.find("file", self.interrupt)?;
        let source = found.into_iter().next().ok_or_else(|| Error::Bad(format!("{name} has gone")))?;
        Ok(source.made_as(name))
    }

    fn layer_of(&mut self, draft: &Draft, taken: &Taken, target: &Target) -> Result<Option<keel_store::Digest>, Error> {
        let interrupt = self.interrupt.clone();
        self.layer(draft, |root| {
            let owner = target.owner.as_deref().map(|owner| owner_of(root, owner)).transpose()?;
            let inside = Path::new(target.path.trim_start_matches('/'));
            let exists = root.open(inside, OFlags::PATH | OFlags::DIRECTORY).is_ok();
            let mut packed: Vec<(&Source, PathBuf, bool)> = Vec::new();
            for source in &taken.sources {
                if target.unpacks && !source.is_folder && !source.is_made {
                    let file = source.open().map_err(Error::io(format!("opening {}", source.name)))?;
                    if let Some(mut archive) =
                        archive(interrupt.watch(file)).map_err(Error::io("reading an archive"))?
                    {
                        let options = UnpackOptions { owner, mode: target.mode, ..UnpackOptions::default() };
                        put(root, inside, &mut archive, options)?;
                        continue;
                    }
                }
                let into_folder = !source.is_folder && (target.is_folder || exists);
                let name = if into_folder { inside.join(&source.name) } else { inside.to_path_buf() };
                if name.as_os_str().is_empty() && !source.is_folder {
                    return Err(Error::Bad("the target has no name".into()));
                }
                packed.push((source, name, !exists));
            }
            if packed.is_empty() {
                return Ok(());
            }
            let options =
                UnpackOptions { owner: Some(owner.unwrap_or((0, 0))), mode: target.mode, ..UnpackOptions::default() };
            let done = piped(
                |out| select::pack(&packed, out),
                |archive| put(root, Path::new("/"), &mut interrupt.watch(archive), options),
            );
            done.map_err(Error::io("copying files"))?
        })
    }
}

fn target(state: &State<'_>, transfer: &Transfer) -> Result<Target, Error> {
    let written = state.word(&transfer.target)?;
    if written.is_empty() {
        return Err(Error::Bad("the target is empty".into()));
    }
    let last = written.rsplit('/').next().unwrap_or_default();
    let mode = match transfer.mode.as_deref().map(|mode| state.word(mode)).transpose()? {
        None => None,
        Some(text) => {
            let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| *mode <= 0o7777);
            Some(mode.ok_or_else(|| {
                Error::Bad(format!("invalid chmod parameter {text:?}: it should be octal, such as 755"))
            })?)
        }
    };
    Ok(Target {
        path: settings::within(&state.draft.config().working_dir, &written),
        is_folder: matches!(last, "" | "." | ".."),
        owner: transfer.owner.as_deref().map(|owner| state.word(owner)).transpose()?.filter(|owner| !owner.is_empty()),
        mode,
        unpacks: transfer.is_add,
    })
}

/// Who owns what is taken. A user without a group gets the group of the same number (Dockerfile reference, COPY).
fn owner_of(root: &Root, owner: &str) -> Result<(u32, u32), Error> {
    let (uid, gid) = find_owner(root, owner)?.unwrap_or((0, 0));
    Ok(if owner.contains(':') { (uid, gid) } else { (uid, uid) })
}

/// A text of the Dockerfile with the values of its variables; quotes in it are no quotes.
fn inline(state: &State<'_>, content: &str) -> Result<String, Error> {
    let escape = state.file.escape;
    let mut quoted = String::from("\"");
    let mut characters = content.chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '"' => quoted.extend([escape, '"']),
            c if c == escape && !characters.peek().is_some_and(|next| *next == '$' || *next == escape) => {
                quoted.extend([escape, escape]);
            }
            c if c == escape => quoted.extend([Some(c), characters.next()].into_iter().flatten()),
            other => quoted.push(other),
        }
    }
    quoted.push('"');
    if quoted.len() > expand::MAX_BYTES && !content.contains('$') {
        return Ok(content.to_owned());
    }
    state.word(&quoted)
}

/// A file as an archive, if it is one, compressed or not.
fn archive<'a>(mut file: impl Read + 'a) -> std::io::Result<Option<Box<dyn Read + 'a>>> {
    let mut start = Vec::new();
    file.by_ref().take(512).read_to_end(&mut start)?;
    let mut content = Decoder::new(std::io::Cursor::new(start).chain(file))?;
    let mut header = Vec::new();
    if content.by_ref().take(512).read_to_end(&mut header).is_err() || header.len() < 512 {
        return Ok(None);
    }
    let mut block = tar::Header::new_old();
    block.as_mut_bytes().copy_from_slice(&header);
    let sum = header
        .iter()
        .enumerate()
        .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
        .sum::<u32>();
    let is_tar = block.cksum().is_ok_and(|told| told == sum) && sum != 256;
    Ok(if is_tar { Some(Box::new(std::io::Cursor::new(header).chain(content))) } else { None })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn archives_are_told_by_their_content() {
        let mut made = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(0);
        header.set_mode(0o644);
        made.append_data(&mut header, "a", std::io::empty()).unwrap();
        let made = made.into_inner().unwrap();
        let mut whole = Vec::new();
        archive(made.as_slice()).unwrap().unwrap().read_to_end(&mut whole).unwrap();
        assert_eq!(whole, made);
        for other in [&b"short"[..], &[0; 1024], &[b'x'; 1024], b"\x1f\x8bnot gzip at all", b"\xfd7zXZ\0not xz"] {
            assert!(archive(other).unwrap().is_none());
        }
    }
}
