//! What entries and whiteouts do to a tree.
//!
//! A whiteout speaks of the layers below its own, wherever it stands in the archive (OCI image specification,
//! layer.md). So each node knows the last layer that has an entry of it or below it: what the layer has itself stays.

use std::collections::BTreeMap;

use super::attributes::Attributes;
use super::node::{Body, Node, NodeId};
use crate::layer::path::LayerPath;

/// Most files and folders of a tree: each takes some 200 bytes while the tree is made.
const MAX_NODES: usize = 1_000_000;
/// Most bytes that a tree's names, link targets and extended attributes take beside: a few bytes of a compressed archive
/// can be megabytes of those. A file of a distribution takes some 90, its name included.
const MAX_BYTES: usize = 128 << 20;
/// What a name in a folder takes beside its bytes; hard links are names as well.
const NAME_BYTES: usize = 64;
/// The root's number.
const ROOT: NodeId = 0;

/// Why an entry can't be: a clause that follows its path.
#[derive(Debug, PartialEq, Eq)]
pub struct Refused(pub String);

impl From<&str> for Refused {
    fn from(reason: &str) -> Self {
        Self(reason.into())
    }
}

/// The tree of an image, or of a layer alone.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    layer: u16,
    /// Bytes that are left of [`MAX_BYTES`].
    bytes_left: usize,
}

impl Default for Tree {
    fn default() -> Self {
        let mut tree = Self { nodes: Vec::new(), layer: 0, bytes_left: MAX_BYTES };
        tree.nodes.push(tree.implied_folder());
        tree
    }
}

impl Tree {
    /// What comes next are entries of the next layer.
    pub fn next_layer(&mut self) {
        self.layer = self.layer.saturating_add(1);
    }

    /// The root's number.
    pub fn root(&self) -> NodeId {
        ROOT
    }

    /// A node.
    pub fn node(&self, id: NodeId) -> Option<&Node> {
        self.nodes.get(id as usize).filter(|node| node.links > 0)
    }

    /// How many numbers are taken; some may be of nodes that are gone.
    pub fn count(&self) -> usize {
        self.nodes.len()
    }

    /// Makes a file, in place of whatever has its name. The root can only be a folder.
    pub fn put(&mut self, path: &LayerPath, attributes: Attributes, body: Body) -> Result<(), Refused> {
        let is_folder = body.names().is_some();
        let Some((folder, name)) = path.split() else {
            return if is_folder {
                self.dress(ROOT, attributes)
            } else {
                Err("the root of a layer must be a folder".into())
            };
        };
        let folder = self.folder(&folder)?;
        let old = self.child(folder, name);
        if let Some(old) = old.filter(|_| is_folder)
            && self.get(old)?.body.names().is_some()
        {
            // Folders of several layers become one, with what the topmost says of it.
            return self.dress(old, attributes);
        }
        let new = self.add(Node { attributes, body, links: 1, layer: self.layer, hidden: None })?;
        self.name(folder, name, new)
    }

    /// Gives a folder other attributes.
    fn dress(&mut self, folder: NodeId, attributes: Attributes) -> Result<(), Refused> {
        let before = self.get(folder)?.attributes.held_bytes();
        self.bytes_left += before;
        self.take(attributes.held_bytes())?;
        let (layer, folder) = (self.layer, self.get(folder)?);
        (folder.attributes, folder.layer) = (attributes, layer);
        Ok(())
    }

    /// Gives a file another name.
    pub fn link(&mut self, path: &LayerPath, target: &LayerPath) -> Result<(), Refused> {
        let (target_folder, target_name) = target.split().ok_or("that is the root")?;
        let missing = || Refused::from("the layer has no such file before it");
        let from = self.walk(&target_folder)?.ok_or_else(|| Refused::from("the layer has no such folder"))?;
        let file = self.child(from, target_name).ok_or_else(missing)?;
        let (folder, name) = path.split().ok_or("the root of a layer must be a folder")?;
        let folder = self.folder(&folder)?;
        let layer = self.layer;
        let node = self.get(file)?;
        if node.body.names().is_some() {
            return Err("that can't be linked to".into());
        }
        if self.child(folder, name) == Some(file) {
            return if path == target { Err("that is itself".into()) } else { Ok(()) };
        }
        let node = self.get(file)?;
        node.links += 1;
        node.layer = layer;
        self.name(folder, name, file)
    }

    /// Hides what lower layers have under a name.
    pub fn hide(&mut self, folder: &LayerPath, name: &[u8]) -> Result<(), Refused> {
        let folder = self.folder(folder)?;
        let Some(hidden) = self.child(folder, name) else { return Ok(()) };
        if self.get(hidden)?.layer == self.layer {
            return self.hide_lower(hidden);
        }
        self.unname(folder, name)
    }

    /// Hides everything that lower layers have in a folder.
    pub fn hide_below(&mut self, folder: &LayerPath) -> Result<(), Refused> {
        let folder = self.folder(folder)?;
        self.hide_lower(folder)
    }

    /// All that is left in a folder afterwards is of this layer, and so is what comes to it later: each folder is
    /// searched once a layer, however often the archive asks for it.
    fn hide_lower(&mut self, folder: NodeId) -> Result<(), Refused> {
        let (layer, mut waiting) = (self.layer, vec![folder]);
        while let Some(folder) = waiting.pop() {
            let node = self.get(folder)?;
            if node.hidden.replace(layer) == Some(layer) {
                continue;
            }
            let mut lower: Vec<Box<[u8]>> = Vec::new();
            for (name, child) in
                self.nodes.get(folder as usize).and_then(|node| node.body.names()).into_iter().flatten()
            {
                match self.node(*child) {
                    Some(node) if node.layer == layer => waiting.push(*child),
                    _ => lower.push(name.clone()),
                }
            }
            lower.iter().try_for_each(|name| self.unname(folder, name))?;
        }
        Ok(())
    }

    /// A folder, made with its parents if absent (archives may leave them out). No link is followed.
    fn folder(&mut self, path: &LayerPath) -> Result<NodeId, Refused> {
        let mut folder = ROOT;
        let layer = self.layer;
        self.get(folder)?.layer = layer;
        for part in path.parts() {
            let there = self.child(folder, part);
            folder = match there {
                Some(child) if self.get(child)?.body.names().is_some() => child,
                Some(child) if self.get(child)?.layer == layer => return Err(on_the_way()),
                // What a lower layer has there gives way.
                _ => {
                    let new = self.implied_folder();
                    let new = self.add(new)?;
                    self.name(folder, part, new)?;
                    new
                }
            };
            self.get(folder)?.layer = layer;
        }
        Ok(folder)
    }

    /// A folder, if it is there.
    fn walk(&mut self, path: &LayerPath) -> Result<Option<NodeId>, Refused> {
        let mut folder = ROOT;
        for part in path.parts() {
            let Some(child) = self.child(folder, part) else { return Ok(None) };
            if self.get(child)?.body.names().is_none() {
                return Err(on_the_way());
            }
            folder = child;
        }
        Ok(Some(folder))
    }

    fn child(&self, folder: NodeId, name: &[u8]) -> Option<NodeId> {
        self.node(folder)?.body.names()?.get(name).copied()
    }

    /// Points a name at a node; what had the name goes.
    fn name(&mut self, folder: NodeId, name: &[u8], node: NodeId) -> Result<(), Refused> {
        self.unname(folder, name)?;
        self.take(NAME_BYTES + name.len())?;
        if let Some(names) = self.get(folder)?.body.names_mut() {
            names.insert(name.into(), node);
        }
        Ok(())
    }

    fn unname(&mut self, folder: NodeId, name: &[u8]) -> Result<(), Refused> {
        let gone = self.get(folder)?.body.names_mut().and_then(|names| names.remove(name));
        let mut waiting: Vec<NodeId> = gone.into_iter().collect();
        let mut freed = gone.map_or(0, |_| NAME_BYTES + name.len());
        while let Some(gone) = waiting.pop() {
            let node = self.get(gone)?;
            node.links = node.links.saturating_sub(1);
            if node.links == 0 {
                // What it held in memory goes as well.
                let body = std::mem::replace(&mut node.body, Body::Inline(0, 0));
                freed += std::mem::take(&mut node.attributes).held_bytes() + body.held_bytes();
                for (name, child) in body.names().into_iter().flatten() {
                    freed += NAME_BYTES + name.len();
                    waiting.push(*child);
                }
            }
        }
        self.bytes_left += freed;
        Ok(())
    }

    fn implied_folder(&self) -> Node {
        let body = Body::Folder(BTreeMap::new());
        Node { attributes: Attributes::of_implied_folder(), body, links: 1, layer: self.layer, hidden: None }
    }

    fn add(&mut self, node: Node) -> Result<NodeId, Refused> {
        let id = NodeId::try_from(self.nodes.len()).ok().filter(|_| self.nodes.len() < MAX_NODES);
        let id = id.ok_or_else(|| Refused(format!("more than {MAX_NODES} files in one image")))?;
        self.take(node.attributes.held_bytes() + node.body.held_bytes())?;
        self.nodes.push(node);
        Ok(id)
    }

    /// Counts bytes that the tree is about to hold.
    fn take(&mut self, bytes: usize) -> Result<(), Refused> {
        let limit = MAX_BYTES >> 20;
        let too_large = || Refused(format!("names, links and attributes of one image take more than {limit} MiB"));
        self.bytes_left = self.bytes_left.checked_sub(bytes).ok_or_else(too_large)?;
        Ok(())
    }

    fn get(&mut self, id: NodeId) -> Result<&mut Node, Refused> {
        self.nodes.get_mut(id as usize).ok_or_else(|| "the tree is broken".into())
    }
}

fn on_the_way() -> Refused {
    "a folder on the way is a symbolic link or no folder".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Device;

    fn path(text: &str) -> LayerPath {
        LayerPath::new(text.as_bytes()).unwrap()
    }

    fn file(tree: &mut Tree, name: &str) {
        tree.put(&path(name), Attributes::default(), Body::Inline(0, 0)).unwrap();
    }

    fn folder(tree: &mut Tree, name: &str, mode: u16) {
        let attributes = Attributes { mode, ..Attributes::default() };
        tree.put(&path(name), attributes, Body::Folder(BTreeMap::new())).unwrap();
    }

    fn shown(tree: &Tree) -> Vec<String> {
        let mut found = Vec::new();
        let mut waiting = vec![(String::new(), tree.root())];
        while let Some((above, id)) = waiting.pop() {
            for (name, child) in tree.node(id).unwrap().body.names().into_iter().flatten() {
                let path = format!("{above}{}", String::from_utf8_lossy(name));
                waiting.push((format!("{path}/"), *child));
                found.push(path);
            }
        }
        found.sort();
        found
    }

    #[test]
    fn whiteouts_hide_lower_layers_only_wherever_they_stand() {
        for whiteout_first in [true, false] {
            let mut tree = Tree::default();
            ["a", "d/old", "d/sub/old", "e/old", "f"].iter().for_each(|name| file(&mut tree, name));
            tree.next_layer();
            let hide = |tree: &mut Tree| {
                tree.hide(&path(""), b"a").unwrap();
                tree.hide(&path(""), b"e").unwrap();
                tree.hide(&path(""), b"none").unwrap();
                tree.hide_below(&path("d")).unwrap();
            };
            if whiteout_first {
                hide(&mut tree);
            }
            ["d/new", "d/sub/new", "e/new"].iter().for_each(|name| file(&mut tree, name));
            if !whiteout_first {
                hide(&mut tree);
            }
            assert_eq!(shown(&tree), ["d", "d/new", "d/sub", "d/sub/new", "e", "e/new", "f"], "{whiteout_first}");
        }
    }

    #[test]
    fn what_a_tree_holds_in_memory_is_bounded_and_given_back() {
        let symlink = || Body::Symlink(vec![b'x'; 4000].into());
        let wide = |bytes: usize| Attributes {
            xattrs: vec![((*b"user.x").into(), vec![0; bytes].into())],
            ..Attributes::default()
        };
        type Grow = fn(&mut Tree, usize, Attributes, Body) -> Result<(), Refused>;
        let ways: [(&str, Grow); 4] = [
            ("link targets", |tree, n, _, body| tree.put(&path(&format!("l{n}")), Attributes::default(), body)),
            ("attributes", |tree, n, wide, _| tree.put(&path(&format!("a{n}")), wide, Body::Inline(0, 0))),
            ("names", |tree, n, _, _| tree.put(&path(&format!("{n:0255}")), Attributes::default(), Body::Inline(0, 0))),
            ("hard links", |tree, n, _, _| match n {
                0 => tree.put(&path("file"), Attributes::default(), Body::Inline(0, 0)),
                _ => tree.link(&path(&format!("{n:0255}")), &path("file")),
            }),
        ];
        for (what, grow) in ways {
            let mut tree = Tree { bytes_left: 1 << 20, ..Tree::default() };
            let refused = (0..5000).find_map(|n| grow(&mut tree, n, wide(60_000), symlink()).err());
            assert!(refused.is_some_and(|refused| refused.0.contains("128 MiB")), "{what}");
        }
        let mut tree = Tree { bytes_left: 1 << 20, ..Tree::default() };
        for _ in 0..40 {
            tree.put(&path("again"), wide(60_000), Body::Folder(BTreeMap::new())).unwrap();
            tree.put(&path("d/link"), Attributes::default(), symlink()).unwrap();
            tree.put(&path("d"), wide(60_000), symlink()).unwrap();
            tree.next_layer();
        }
        ["again", "d"].iter().for_each(|name| tree.hide(&path(""), name.as_bytes()).unwrap());
        tree.next_layer();
        ["again", "d"].iter().for_each(|name| tree.hide(&path(""), name.as_bytes()).unwrap());
        assert_eq!((shown(&tree).len(), tree.bytes_left), (0, 1 << 20));
    }

    #[test]
    fn a_folder_is_searched_once_a_layer_however_often_it_is_hidden() {
        const FILES: usize = 20_000;
        let mut tree = Tree::default();
        (0..FILES).for_each(|n| file(&mut tree, &format!("d/e/{n}")));
        tree.next_layer();
        (0..FILES).for_each(|n| file(&mut tree, &format!("d/e/new{n}")));
        let began = std::time::Instant::now();
        for _ in 0..FILES {
            tree.hide_below(&path("d/e")).unwrap();
            tree.hide_below(&path("d")).unwrap();
            tree.hide(&path(""), b"d").unwrap();
        }
        // Each in full would be a billion names.
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
        assert_eq!(shown(&tree).len(), FILES + 2);
        tree.next_layer();
        tree.hide_below(&path("d/e")).unwrap();
        assert_eq!(shown(&tree), ["d", "d/e"], "the next layer hides them again");
    }

    #[test]
    fn folders_of_layers_become_one_and_other_things_are_replaced() {
        let mut tree = Tree::default();
        folder(&mut tree, "d", 0o700);
        file(&mut tree, "d/x");
        file(&mut tree, "was-file");
        tree.put(&path("link"), Attributes::default(), Body::Symlink((*b"d").into())).unwrap();
        tree.next_layer();
        file(&mut tree, "d/y");
        let mode = |tree: &Tree, name: &[u8]| tree.node(tree.child(ROOT, name).unwrap()).unwrap().attributes.mode;
        assert_eq!(mode(&tree, b"d"), 0o700, "no entry changes it");
        folder(&mut tree, "d", 0o711);
        assert_eq!(mode(&tree, b"d"), 0o711);
        file(&mut tree, "was-file/in");
        file(&mut tree, "link/in");
        assert_eq!(shown(&tree), ["d", "d/x", "d/y", "link", "link/in", "was-file", "was-file/in"]);
        tree.put(&path("d"), Attributes::default(), Body::Special(Device::Fifo, 0)).unwrap();
        assert_eq!(shown(&tree), ["d", "link", "link/in", "was-file", "was-file/in"]);
    }

    #[test]
    fn links_are_counted_and_ways_over_links_refused() {
        let mut tree = Tree::default();
        file(&mut tree, "a");
        tree.link(&path("d/b"), &path("a")).unwrap();
        assert_eq!(tree.node(tree.child(ROOT, b"a").unwrap()).unwrap().links, 2);
        file(&mut tree, "a");
        assert_eq!(tree.node(tree.child(ROOT, b"a").unwrap()).unwrap().links, 1);
        tree.put(&path("way"), Attributes::default(), Body::Symlink((*b"/").into())).unwrap();
        let inline = || Body::Inline(0, 0);
        assert_eq!(tree.put(&path("way/x"), Attributes::default(), inline()), Err(on_the_way()));
        assert_eq!(tree.hide(&path("way"), b"x"), Err(on_the_way()));
        assert_eq!(tree.link(&path("y"), &path("way/x")), Err(on_the_way()));
        for (target, reason) in [("none", "no such file"), ("d", "linked to"), ("", "root"), ("none/x", "folder")] {
            assert!(tree.link(&path("y"), &path(target)).unwrap_err().0.contains(reason), "{target}");
        }
        assert!(tree.put(&path(""), Attributes::default(), inline()).is_err());
    }
}
