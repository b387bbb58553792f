//! Words of a line typed on the console: spaces part them, quotes keep them together. There is no other syntax.

/// Parts a line into words. `'…'` is taken as it is; in `"…"` and outside, `\` takes the next character as it is.
pub fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, open @ ('\'' | '"')) => {
                quote = Some(open);
                word.get_or_insert_default();
            }
            (None | Some('"'), '\\') => {
                word.get_or_insert_default().push(characters.next().ok_or("the line ends in a \\")?);
            }
            (None, space) if space.is_whitespace() => words.extend(word.take()),
            (_, character) => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err("a quote is not closed");
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_keep_words_together() {
        assert_eq!(split(r#" a  "b c" 'd "e' f\ g "" x'y'z "#).unwrap(), ["a", "b c", "d \"e", "f g", "", "xyz"]);
        assert_eq!(split("").unwrap(), Vec::<String>::new());
        assert!(split("'a").is_err());
        assert!(split("a\\").is_err());
    }

    #[test]
    fn there_is_no_other_syntax() {
        assert_eq!(split("$HOME * | ; &").unwrap(), ["$HOME", "*", "|", ";", "&"]);
    }
}
