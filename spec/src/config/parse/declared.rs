//! `[[container]]`, `[[container_network]]`, `[[volume]]` and `compose`.

use toml::Spanned;

use super::super::compose::file::{self, Found};
use super::super::compose::from_toml::{Lines, Raw};
use super::super::compose::node::{Node, Place, refuse};
use super::super::compose::{joins, objects, order, service};
use super::super::{ConfigError, Declared, DeclaredObject, fragment};
use super::{MAX_LIST, Merge, place};

impl Merge<'_> {
    /// All that is declared, whichever way.
    pub(super) fn declared(&self, written: &fragment::Fragment) -> Result<Declared, ConfigError> {
        let mut found = match &written.compose {
            Some(text) => file::read(text.get_ref()).map_err(|error| self.inside(text, error))?,
            None => Found::default(),
        };
        self.moved(written.compose.as_ref(), &mut found);
        let scope = joins::Scope::default();
        for node in self.nodes("container", &written.container)? {
            found.containers.push((node.at, service::read("container", &node, None, &scope)?));
        }
        for node in self.nodes("container_network", &written.container_network)? {
            if let objects::Described::Own(object) = objects::network("container_network", &node, None)? {
                found.networks.push((node.at, object));
            }
        }
        for node in self.nodes("volume", &written.volume)? {
            if let objects::Described::Own(object) = objects::volume("volume", &node, None)? {
                found.volumes.push((node.at, object));
            }
        }
        Ok(Declared {
            containers: order::order(found.containers)?,
            networks: once("container_network", found.networks)?,
            volumes: once("volume", found.volumes)?,
        })
    }

    fn nodes(&self, key: &str, written: &[Spanned<Raw>]) -> Result<Vec<Node>, ConfigError> {
        if let Some(over) = written.get(MAX_LIST) {
            return Err(self.refuse(key, over, &format!("has more than {MAX_LIST} entries")));
        }
        if written.is_empty() {
            return Ok(Vec::new());
        }
        let lines = Lines::new(self.text);
        Ok(written.iter().map(|raw| lines.node(raw)).collect())
    }

    /// An error within the Compose file, told by its place in the whole config.
    fn inside(&self, text: &Spanned<String>, error: ConfigError) -> ConfigError {
        ConfigError { line: error.line + self.lines_before(text), ..error }
    }

    fn moved(&self, text: Option<&Spanned<String>>, found: &mut Found) {
        let Some(text) = text else { return };
        let before = self.lines_before(text);
        let places = found.containers.iter_mut().map(|(place, _)| place);
        let objects = found.networks.iter_mut().chain(&mut found.volumes).map(|(place, _)| place);
        places.chain(objects).for_each(|place: &mut Place| place.line += before);
    }

    /// Lines of the config before the first of a text of several lines, whose own first line feed doesn't count.
    fn lines_before(&self, text: &Spanned<String>) -> usize {
        let start = text.span().start;
        let opened = self.text.get(start..).unwrap_or_default();
        let own_line = ["'''", "\"\"\""].iter().any(|quotes| {
            opened.strip_prefix(quotes).is_some_and(|rest| rest.starts_with('\n') || rest.starts_with("\r\n"))
        });
        place(self.text, start).0 - 1 + usize::from(own_line)
    }
}

fn once(key: &str, objects: Vec<(Place, DeclaredObject)>) -> Result<Vec<DeclaredObject>, ConfigError> {
    let mut all: Vec<DeclaredObject> = Vec::with_capacity(objects.len());
    for (at, object) in objects {
        if all.iter().any(|known| known.name == object.name) {
            return refuse(at, key, format!("name = {:?} is there twice", object.name));
        }
        all.push(object);
    }
    Ok(all)
}
