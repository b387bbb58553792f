//! Lines cut into words.

/// Words apart by blanks, with quotes and escapes as they stand; quotes hold a word together.
pub fn raw_words(text: &str, escape: char) -> Vec<&str> {
    let mut words = Vec::new();
    let mut begin = None;
    let mut quote = None;
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        if character.is_whitespace() && quote.is_none() {
            words.extend(begin.take().and_then(|begin: usize| text.get(begin..at)));
            continue;
        }
        begin.get_or_insert(at);
        match quote {
            // Nothing escapes in single quotes.
            Some('\'') if character == '\'' => quote = None,
            Some('\'') => {}
            _ if character == escape => drop(characters.next()),
            Some(open) if character == open => quote = None,
            None if matches!(character, '"' | '\'') => quote = Some(character),
            _ => {}
        }
    }
    words.extend(begin.and_then(|begin| text.get(begin..)));
    words
}

/// `["a", "b"]`: the exec form; `None`: it is none, and so the shell form.
pub fn json_words(text: &str) -> Option<Vec<String>> {
    if text.starts_with('[') { serde_json::from_str(text).ok() } else { None }
}

/// Flags before the arguments, `--name=value` or `--name`, and what follows them; `--` ends them.
pub fn flags(text: &str, escape: char) -> (Vec<(String, Option<String>)>, &str) {
    let mut flags = Vec::new();
    let mut rest = text.trim_start();
    while rest.starts_with("--") {
        let word = raw_words(rest, escape).first().copied().unwrap_or(rest);
        rest = rest.get(word.len()..).unwrap_or_default().trim_start();
        let Some(flag) = word.strip_prefix("--").filter(|flag| !flag.is_empty()) else { break };
        flags.push(match flag.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (flag.to_owned(), None),
        });
    }
    (flags, rest)
}
