//! Variables, quotes and escapes, as instructions other than `RUN`, `CMD` and `ENTRYPOINT` have them (Dockerfile
//! reference, "Environment replacement").

use std::iter::Peekable;
use std::str::Chars;

/// Longest word that expansion may come to: words that double themselves end here.
pub const MAX_BYTES: usize = 128 << 10;
/// Deepest nesting of `${a:-${b:-…}}`.
const MAX_DEPTH: usize = 32;

/// Where the value of a variable comes from; `None`: it isn't set.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One word: variables stand for their values, quotes and escapes are taken away. Blanks don't part it.
pub fn word(text: &str, escape: char, lookup: Lookup<'_>) -> Result<String, String> {
    let mut expander = Expander { rest: text.chars().peekable(), escape, lookup, words: Words::default() };
    expander.until(None, 0)?;
    Ok(expander.words.joined())
}

/// Several words: blanks part them, also those that come from variables; quotes hold one together.
pub fn words(text: &str, escape: char, lookup: Lookup<'_>) -> Result<Vec<String>, String> {
    let words = Words { splits: true, ..Words::default() };
    let mut expander = Expander { rest: text.chars().peekable(), escape, lookup, words };
    expander.until(None, 0)?;
    Ok(expander.words.finish())
}

/// Words being put together.
#[derive(Default)]
struct Words {
    splits: bool,
    done: Vec<String>,
    current: String,
    /// Whether there is a current word, be it empty (`""`).
    begun: bool,
    bytes: usize,
}

impl Words {
    fn push(&mut self, character: char) -> Result<(), String> {
        self.begun = true;
        self.bytes += character.len_utf8();
        if self.bytes > MAX_BYTES {
            return Err(format!("a word comes to more than {MAX_BYTES} bytes"));
        }
        self.current.push(character);
        Ok(())
    }

    /// A character that stands for itself unless it is a blank between words.
    fn push_or_split(&mut self, character: char) -> Result<(), String> {
        if self.splits && character.is_whitespace() {
            self.split();
            return Ok(());
        }
        self.push(character)
    }

    fn split(&mut self) {
        if std::mem::take(&mut self.begun) {
            self.done.push(std::mem::take(&mut self.current));
        }
    }

    fn finish(mut self) -> Vec<String> {
        self.split();
        self.done
    }

    fn joined(self) -> String {
        self.current
    }
}

struct Expander<'a> {
    rest: Peekable<Chars<'a>>,
    escape: char,
    lookup: Lookup<'a>,
    words: Words,
}

impl Expander<'_> {
    fn until(&mut self, stop: Option<char>, depth: usize) -> Result<(), String> {
        while let Some(character) = self.rest.next() {
            match character {
                _ if Some(character) == stop => return Ok(()),
                '\'' => self.single_quoted()?,
                '"' => self.double_quoted(depth)?,
                '$' => {
                    let value = self.variable(depth)?;
                    value.chars().try_for_each(|character| self.words.push_or_split(character))?;
                }
                _ if character == self.escape => match self.rest.next() {
                    Some(next) => self.words.push(next)?,
                    None => self.words.push(character)?,
                },
                _ => self.words.push_or_split(character)?,
            }
        }
        match stop {
            None => Ok(()),
            Some(stop) => Err(format!("syntax error: missing {stop:?}")),
        }
    }

    fn single_quoted(&mut self) -> Result<(), String> {
        self.words.begun = true;
        loop {
            match self.rest.next() {
                None => return Err("unexpected end of statement while looking for matching single-quote".into()),
                Some('\'') => return Ok(()),
                Some(character) => self.words.push(character)?,
            }
        }
    }

    fn double_quoted(&mut self, depth: usize) -> Result<(), String> {
        self.words.begun = true;
        loop {
            match self.rest.next() {
                None => return Err("unexpected end of statement while looking for matching double-quote".into()),
                Some('"') => return Ok(()),
                Some('$') => {
                    let value = self.variable(depth)?;
                    value.chars().try_for_each(|character| self.words.push(character))?;
                }
                Some(character) if character == self.escape => match self.rest.peek().copied() {
                    Some(next) if matches!(next, '"' | '$') || next == self.escape => {
                        self.rest.next();
                        self.words.push(next)?;
                    }
                    _ => self.words.push(character)?,
                },
                Some(character) => self.words.push(character)?,
            }
        }
    }

    /// What follows a `$`.
    fn variable(&mut self, depth: usize) -> Result<String, String> {
        if self.rest.next_if_eq(&'{').is_none() {
            let name = self.name();
            return Ok(if name.is_empty() { "$".into() } else { (self.lookup)(&name).unwrap_or_default() });
        }
        if depth >= MAX_DEPTH {
            return Err(format!("variables are nested more than {MAX_DEPTH} deep"));
        }
        let name = self.name();
        if name.is_empty() {
            return Err("syntax error: bad substitution".into());
        }
        let value = (self.lookup)(&name);
        let mut modifier = self.rest.next();
        if modifier == Some('}') {
            return Ok(value.unwrap_or_default());
        }
        // With a colon, empty counts as not set.
        let colon = modifier == Some(':');
        if colon {
            modifier = self.rest.next();
        }
        let set = value.filter(|value| !(colon && value.is_empty()));
        match modifier {
            Some('-') => {
                let default = self.operand(depth)?;
                Ok(set.unwrap_or(default))
            }
            Some('+') => {
                let alternative = self.operand(depth)?;
                Ok(if set.is_some() { alternative } else { String::new() })
            }
            Some('?') => {
                let message = self.operand(depth)?;
                let message = if message.is_empty() { "is not set".into() } else { message };
                set.ok_or_else(|| format!("{name}: {message}"))
            }
            Some(other) => Err(format!("unsupported modifier ({other}) in substitution of {name}")),
            None => Err("syntax error: missing '}'".into()),
        }
    }

    /// What stands between a modifier and the brace, itself expanded.
    fn operand(&mut self, depth: usize) -> Result<String, String> {
        let fresh = Words { bytes: self.words.bytes, ..Words::default() };
        let outer = std::mem::replace(&mut self.words, fresh);
        let result = self.until(Some('}'), depth + 1);
        let inner = std::mem::replace(&mut self.words, outer);
        self.words.bytes = inner.bytes;
        result.map(|()| inner.joined())
    }

    fn name(&mut self) -> String {
        let mut name = String::new();
        if let Some(special) = self.rest.next_if(|c| c.is_ascii_digit() || matches!(c, '@' | '*' | '#')) {
            return special.into();
        }
        while let Some(character) = self.rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
            name.push(character);
        }
        name
    }
}
