//! Paths of an archive, checked: no way leads out of the layer.

/// Longest path, as the kernel has it (PATH_MAX).
const MAX_PATH_BYTES: usize = 4096;
/// Deepest folder: whoever walks a tree holds a descriptor for each level.
const MAX_DEPTH: usize = 256;
/// Longest name (NAME_MAX).
const MAX_NAME_BYTES: usize = 255;
/// Begins the name of a whiteout: the file of the rest of the name is gone (OCI image spec, layer.md).
const WHITEOUT: &[u8] = b".wh.";
/// Name that hides everything that lower layers have in a folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A path below the root of a layer: no empty part, no `.` and no `..`. The root itself has no part.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LayerPath(Vec<Vec<u8>>);

/// What a name means in a layer.
#[derive(Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// A file.
    Plain(&'a [u8]),
    /// The file of this name in lower layers is gone.
    Whiteout(&'a [u8]),
    /// Everything that lower layers have in this folder is gone.
    Opaque,
    /// Bookkeeping of aufs, without meaning here.
    Ignored,
}

impl LayerPath {
    /// Checks a path of an archive.
    pub fn new(path: &[u8]) -> Result<Self, &'static str> {
        if path.len() > MAX_PATH_BYTES {
            return Err("the path is longer than 4096 bytes");
        }
        if path.contains(&0) {
            return Err("the path holds a zero byte");
        }
        if path.starts_with(b"/") {
            return Err("the path is absolute");
        }
        let parts: Vec<_> = path.split(|byte| *byte == b'/').filter(|part| !part.is_empty() && *part != b".").collect();
        if parts.contains(&&b".."[..]) {
            return Err("the path leads out of its folder (..)");
        }
        if parts.iter().any(|part| part.len() > MAX_NAME_BYTES) {
            return Err("a name is longer than 255 bytes");
        }
        if parts.len() > MAX_DEPTH {
            return Err("more than 256 folders stand in each other");
        }
        Ok(Self(parts.into_iter().map(<[u8]>::to_vec).collect()))
    }

    /// Target of a hard link; some programs write it with a leading slash, meaning the root of the layer.
    pub fn of_link(path: &[u8]) -> Result<Self, &'static str> {
        Self::new(path.strip_prefix(b"/").unwrap_or(path))
    }

    /// The folder and the name in it; `None` for the root.
    pub fn split(&self) -> Option<(Self, &[u8])> {
        let (name, folder) = self.0.split_last()?;
        Some((Self(folder.to_vec()), name))
    }

    /// The names on the way.
    pub fn parts(&self) -> &[Vec<u8>] {
        &self.0
    }
}

/// What a name means in a layer.
pub fn meaning(name: &[u8]) -> Result<Name<'_>, &'static str> {
    if name == OPAQUE {
        return Ok(Name::Opaque);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(Name::Plain(name)),
        Some(rest) if rest.starts_with(WHITEOUT) => Ok(Name::Ignored),
        Some(b"" | b"." | b"..") => Err("a whiteout of no file"),
        Some(rest) => Ok(Name::Whiteout(rest)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_out_are_refused() {
        let long = vec![b'a'; 256];
        let deep = b"a/".repeat(2049);
        for path in [&b"../x"[..], b"a/../x", b"..", b"/x", b"a/..", b"a\0b", &long, &deep] {
            assert!(LayerPath::new(path).is_err(), "{path:?}");
        }
        assert_eq!(LayerPath::new(b"./a//b/./c/").unwrap().parts(), [b"a".to_vec(), b"b".to_vec(), b"c".to_vec()]);
        assert_eq!(LayerPath::new(b"./").unwrap().split(), None);
        assert!(LayerPath::of_link(b"/../x").is_err());
        assert!(LayerPath::of_link(b"//x").is_err());
    }

    #[test]
    fn whiteouts_are_told_apart() {
        assert_eq!(meaning(b".wh.x"), Ok(Name::Whiteout(b"x")));
        assert_eq!(meaning(b".wh..wh..opq"), Ok(Name::Opaque));
        assert_eq!(meaning(b".wh..wh.plnk"), Ok(Name::Ignored));
        assert_eq!(meaning(b"x.wh."), Ok(Name::Plain(b"x.wh.")));
        for name in [&b".wh."[..], b".wh..", b".wh..."] {
            assert!(meaning(name).is_err());
        }
    }
}
