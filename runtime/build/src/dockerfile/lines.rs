//! Logical lines of a Dockerfile: directives are read, comments left out, continued lines joined, here-documents taken
//! in.

use super::ParseError;
use super::words::raw_words;

/// Longest Dockerfile in bytes.
pub const MAX_BYTES: usize = 1 << 20;
/// Most instructions of a Dockerfile.
pub const MAX_INSTRUCTIONS: usize = 1000;
/// Longest instruction in bytes, without its here-documents.
const MAX_LINE_BYTES: usize = 128 << 10;
/// Most here-documents of an instruction.
const MAX_HEREDOCS: usize = 16;

/// A piece of text that stands in the Dockerfile itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heredoc {
    /// What ends it, and the file's name where it becomes one.
    pub name: String,
    /// The text; each of its lines ends in a line feed.
    pub content: String,
    /// Whether variables in it stand for their values: not if its name was quoted.
    pub expands: bool,
}

/// One logical line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Where it begins, from 1.
    pub number: usize,
    /// Its text.
    pub text: String,
    /// Its here-documents, in order.
    pub heredocs: Vec<Heredoc>,
}

/// Reads logical lines, and which character escapes and continues (`# escape=`).
pub fn read(text: &str) -> Result<(Vec<Line>, char), ParseError> {
    if text.len() > MAX_BYTES {
        return Err(ParseError { line: 1, reason: format!("the file is longer than {MAX_BYTES} bytes") });
    }
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let physical: Vec<&str> = text.lines().collect();
    let escape = escape_directive(&physical)?;
    let mut reader = Reader { physical, next: 0, escape };
    let mut lines = Vec::new();
    while let Some(line) = reader.line()? {
        if lines.len() == MAX_INSTRUCTIONS {
            let reason = format!("the file has more than {MAX_INSTRUCTIONS} instructions");
            return Err(ParseError { line: line.number, reason });
        }
        lines.push(line);
    }
    Ok((lines, escape))
}

/// The `escape` directive, which stands above anything that isn't a directive.
fn escape_directive(lines: &[&str]) -> Result<char, ParseError> {
    let mut escape = None;
    for (index, line) in lines.iter().enumerate() {
        let Some((name, value)) = directive(line) else { break };
        if !name.eq_ignore_ascii_case("escape") {
            continue;
        }
        let refuse = |reason: String| Err(ParseError { line: index + 1, reason });
        if escape.is_some() {
            return refuse("only one escape parser directive can be used".into());
        }
        escape = match value {
            "\\" => Some('\\'),
            "`" => Some('`'),
            other => return refuse(format!("invalid escape token {other:?}, does not match ` or \\")),
        };
    }
    Ok(escape.unwrap_or('\\'))
}

/// `# name=value`
fn directive(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.trim().strip_prefix('#')?.split_once('=')?;
    let (name, value) = (name.trim(), value.trim());
    let is_name =
        name.starts_with(|c: char| c.is_ascii_alphabetic()) && name.bytes().all(|b| b.is_ascii_alphanumeric());
    (is_name && !value.is_empty()).then_some((name, value))
}

struct Reader<'a> {
    physical: Vec<&'a str>,
    next: usize,
    escape: char,
}

impl<'a> Reader<'a> {
    fn take(&mut self) -> Option<&'a str> {
        let line = self.physical.get(self.next).copied();
        self.next += usize::from(line.is_some());
        line
    }

    fn line(&mut self) -> Result<Option<Line>, ParseError> {
        let first = loop {
            match self.take() {
                None => return Ok(None),
                Some(line) if is_nothing(line) => {}
                Some(line) => break line,
            }
        };
        let number = self.next;
        let (piece, mut goes_on) = self.cut(first.trim_start());
        let mut text = piece.to_owned();
        while goes_on {
            let Some(line) = self.take() else { break };
            // Comments and empty lines may stand between the lines of an instruction.
            if is_nothing(line) {
                continue;
            }
            let (piece, more) = self.cut(line);
            text.push_str(piece);
            goes_on = more;
            if text.len() > MAX_LINE_BYTES {
                let reason = format!("the instruction is longer than {MAX_LINE_BYTES} bytes");
                return Err(ParseError { line: number, reason });
            }
        }
        let text = text.trim().to_owned();
        let heredocs = self.heredocs(number, &text)?;
        Ok(Some(Line { number, text, heredocs }))
    }

    /// A line without the character that continues it, and whether it had one: at its end, but for blanks, and not
    /// escaped itself.
    fn cut<'l>(&self, line: &'l str) -> (&'l str, bool) {
        match line.trim_end_matches([' ', '\t']).strip_suffix(self.escape) {
            Some(piece) if !piece.ends_with(self.escape) => (piece, true),
            _ => (line, false),
        }
    }

    fn heredocs(&mut self, number: usize, text: &str) -> Result<Vec<Heredoc>, ParseError> {
        let mut words = text.split_whitespace();
        let mut keyword = words.next().unwrap_or_default();
        if keyword.eq_ignore_ascii_case("onbuild") {
            keyword = words.next().unwrap_or_default();
        }
        if !["run", "copy", "add"].iter().any(|known| keyword.eq_ignore_ascii_case(known)) {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        for word in raw_words(text, self.escape) {
            let Some((name, strips_tabs, expands)) = heredoc(word) else { continue };
            if found.len() == MAX_HEREDOCS {
                let reason = format!("more than {MAX_HEREDOCS} here-documents");
                return Err(ParseError { line: number, reason });
            }
            let mut content = String::new();
            loop {
                let Some(line) = self.take() else {
                    return Err(ParseError { line: number, reason: format!("unterminated heredoc {name:?}") });
                };
                let line = if strips_tabs { line.trim_start_matches('\t') } else { line };
                if line == name {
                    break;
                }
                content.push_str(line);
                content.push('\n');
            }
            found.push(Heredoc { name, content, expands });
        }
        Ok(found)
    }
}

/// Whether a line is empty or a comment.
fn is_nothing(line: &str) -> bool {
    let line = line.trim_start();
    line.is_empty() || line.starts_with('#')
}

/// A word that begins a here-document, `<<EOF`, `<<-EOF`, `3<<"EOF"`: its name, whether tabs at the beginning of lines
/// go, whether variables in it are expanded.
pub fn heredoc(word: &str) -> Option<(String, bool, bool)> {
    let rest = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
    let (strips_tabs, rest) = rest.strip_prefix('-').map_or((false, rest), |rest| (true, rest));
    let name: String = rest.chars().filter(|c| !matches!(c, '"' | '\'')).collect();
    let is_odd = |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '\\' | '`' | '$' | '(' | ')' | ';' | '&' | '|');
    let is_name = !name.is_empty() && !name.contains(is_odd);
    is_name.then_some((name.clone(), strips_tabs, name.len() == rest.len()))
}
