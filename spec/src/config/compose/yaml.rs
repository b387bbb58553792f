//! Nodes from YAML (1.2, core schema): one document, with anchors, aliases and merge keys (`<<`), and with the Compose
//! specification's variables, of which a host has none: only `${NAME:-default}` and `$$` make sense.

use std::collections::HashMap;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

use super::super::ConfigError;
use super::node::{Key, Node, Place, Value, refuse};

/// Deepest nesting.
const MAX_DEPTH: usize = 32;
/// Most values of a file, those that aliases repeat included.
const MAX_NODES: usize = 20_000;

/// A table or list that isn't at its end yet.
enum Open {
    List { at: Place, anchor: usize, list: Vec<Node> },
    Table { at: Place, anchor: usize, entries: Vec<(Key, Node)>, key: Option<Key> },
}

#[derive(Default)]
struct Reader {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    nodes: usize,
    root: Option<Node>,
}

/// Reads a document.
pub fn node(text: &str) -> Result<Node, ConfigError> {
    let mut reader = Reader::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.or_else(|error| refuse(place(*error.marker()), "", error.info()))?;
        reader.event(event, at(&span))?;
    }
    reader.root.map_or_else(|| refuse(Place { line: 1, column: 1 }, "", "is empty"), Ok)
}

fn at(span: &Span) -> Place {
    place(span.start)
}

fn place(marker: saphyr_parser::Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

impl Reader {
    fn event(&mut self, event: Event<'_>, at: Place) -> Result<(), ConfigError> {
        match event {
            Event::DocumentStart(..) if self.root.is_some() => refuse(at, "", "holds more than one document"),
            Event::Scalar(text, style, anchor, _) => {
                let value = if style == ScalarStyle::Plain { plain(&text) } else { Value::Text(text.into_owned()) };
                self.value(Node { at, value }, anchor, 1)
            }
            Event::SequenceStart(anchor, ..) => self.begin(at, Open::List { at, anchor, list: Vec::new() }),
            Event::MappingStart(anchor, ..) => {
                self.begin(at, Open::Table { at, anchor, entries: Vec::new(), key: None })
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open::List { at, anchor, list }) => self.value(Node { at, value: Value::List(list) }, anchor, 1),
                Some(Open::Table { at, anchor, entries, .. }) => {
                    self.value(Node { at, value: Value::Table(merged(entries)?) }, anchor, 1)
                }
                None => refuse(at, "", "ends what has not begun"),
            },
            Event::Alias(anchor) => match self.anchors.get(&anchor).cloned() {
                Some(node) => {
                    let weight = count(&node);
                    self.value(node, 0, weight)
                }
                None => refuse(at, "", "names an anchor that isn't complete here"),
            },
            _ => Ok(()),
        }
    }

    fn begin(&mut self, at: Place, open: Open) -> Result<(), ConfigError> {
        if self.open.len() == MAX_DEPTH {
            return refuse(at, "", format!("is nested deeper than {MAX_DEPTH}"));
        }
        self.open.push(open);
        Ok(())
    }

    /// A value is complete: it belongs to whatever is open. `weight`: how many values come with it.
    fn value(&mut self, mut node: Node, anchor: usize, weight: usize) -> Result<(), ConfigError> {
        self.nodes += weight;
        if self.nodes > MAX_NODES {
            return refuse(node.at, "", format!("has more than {MAX_NODES} values, aliases counted"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut() {
            None => self.root = Some(node),
            Some(Open::List { list, .. }) => {
                interpolate(&mut node)?;
                list.push(node);
            }
            Some(Open::Table { entries, key, .. }) => match key.take() {
                None => *key = Some(Key { at: node.at, text: node.text("a key")? }),
                Some(key) => {
                    interpolate(&mut node)?;
                    entries.push((key, node));
                }
            },
        }
        Ok(())
    }
}

/// The node and all below.
fn count(node: &Node) -> usize {
    match &node.value {
        Value::List(list) => 1 + list.iter().map(count).sum::<usize>(),
        Value::Table(entries) => 1 + entries.iter().map(|(_, node)| count(node)).sum::<usize>(),
        _ => 1,
    }
}

/// What a plain scalar is (YAML 1.2.2, section 10.3.2).
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Flag(true),
        "false" | "False" | "FALSE" => Value::Flag(false),
        text if text.parse::<i64>().is_ok() => Value::Number(text.into()),
        text if text.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == '-')
            && text.parse::<f64>().is_ok_and(f64::is_finite) =>
        {
            Value::Number(text.into())
        }
        text => Value::Text(text.into()),
    }
}

/// Adds what merge keys bring (yaml.org/type/merge): a table's own keys win, then the earlier of several.
fn merged(entries: Vec<(Key, Node)>) -> Result<Vec<(Key, Node)>, ConfigError> {
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key.text == "<<");
    for (key, node) in merges {
        for table in node.list("<<").unwrap_or(std::slice::from_ref(&node)) {
            let Value::Table(further) = &table.value else {
                return refuse(key.at, "<<", "wants an alias of a table, or a list of such");
            };
            for (key, node) in further {
                if !own.iter().any(|(known, _)| known.text == key.text) {
                    own.push((key.clone(), node.clone()));
                }
            }
        }
    }
    Ok(own)
}

/// Replaces `$$` and `${NAME:-default}` in a text.
fn interpolate(node: &mut Node) -> Result<(), ConfigError> {
    let at = node.at;
    let Value::Text(text) = &mut node.value else { return Ok(()) };
    if !text.contains('$') {
        return Ok(());
    }
    let (mut made, mut rest) = (String::with_capacity(text.len()), text.as_str());
    while let Some((before, after)) = rest.split_once('$') {
        made.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            made.push('$');
            rest = after;
            continue;
        }
        let inside = after.strip_prefix('{').and_then(|inside| inside.split_once('}'));
        let default =
            inside.and_then(|(inside, after)| Some((inside.split_once(":-").or(inside.split_once('-'))?, after)));
        let Some(((_, default), after)) = default else {
            let name: String = after.chars().take(40).collect();
            return refuse(
                at,
                "",
                format!("holds the variable ${name}: a host has none; write the value, or $$ for $"),
            );
        };
        made.push_str(default);
        rest = after;
    }
    made.push_str(rest);
    *text = made;
    Ok(())
}
