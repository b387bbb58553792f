//! Names of roles and files, which may hold anything, made safe for addresses and folders.

/// Percent-encodes all but letters, digits and `-._~` (RFC 3986, section 2.3): one segment of an address.
pub fn segment(name: &str) -> String {
    encode(name, |_| false)
}

/// The same, but slashes stay, and what RFC 3986 allows in a segment: the path of a file.
pub fn path(name: &str) -> String {
    encode(name, |byte| b"/!$&'()*+,;=:@".contains(&byte))
}

/// Longest name of a file before its suffix, in bytes: Linux allows 255 in all.
const MAX_FILE_NAME: usize = 200;

/// The name of a file in one folder: never a path, never hidden. `None` if that would be too long.
pub fn file_name(name: &str) -> Option<String> {
    let encoded = segment(name);
    let safe = match encoded.strip_prefix('.') {
        Some(rest) => format!("%2E{rest}"),
        None => encoded,
    };
    (1..=MAX_FILE_NAME).contains(&safe.len()).then_some(safe)
}

fn encode(name: &str, also: impl Fn(u8) -> bool) -> String {
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || also(byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_folder_or_become_queries() {
        assert_eq!(segment("../a b?#ü"), "..%2Fa%20b%3F%23%C3%BC");
        assert_eq!(path("dir/a b%?.txt"), "dir/a%20b%25%3F.txt");
        assert_eq!(file_name("../a").as_deref(), Some("%2E.%2Fa"));
        assert_eq!(file_name(".."), Some("%2E.".into()));
        assert_eq!(file_name(""), None);
        assert_eq!(file_name(&"ü".repeat(100)), None);
    }
}
