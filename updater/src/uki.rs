//! What is inside a unified kernel image: which root it boots, and where its kernel is.
//!
//! A UKI is a PE file (Microsoft PE/COFF specification) with sections `.cmdline`, `.linux` and `.initrd` (UAPI.5 Unified
//! Kernel Image).

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of the file that hold all headers.
pub const MAX_HEADERS: u64 = 4096;
/// Most sections that are looked at.
const MAX_SECTIONS: usize = 64;
/// Longest command line.
const MAX_CMDLINE_BYTES: u64 = 16 << 10;

/// Where the section of this name is in the file: offset and length in bytes. `None`: there is none, or these aren't
/// headers of a UKI.
pub fn find_section(headers: &[u8], name: &str) -> Option<(u64, u64)> {
    let u16_at = |at: usize| Some(u16::from_le_bytes(headers.get(at..at.checked_add(2)?)?.try_into().ok()?));
    let u32_at = |at: usize| Some(u32::from_le_bytes(headers.get(at..at.checked_add(4)?)?.try_into().ok()?));
    if headers.get(..2)? != b"MZ" {
        return None;
    }
    let coff = u32_at(0x3c)? as usize;
    if headers.get(coff..coff.checked_add(4)?)? != b"PE\0\0" {
        return None;
    }
    let sections = usize::from(u16_at(coff + 6)?);
    let table = coff + 24 + usize::from(u16_at(coff + 20)?);
    for index in 0..sections.min(MAX_SECTIONS) {
        let at = table + index * 40;
        let found = headers.get(at..at + 8)?;
        if found.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.iter().all(|byte| *byte == 0)) {
            // What is used of the section: its size in memory, where the linker padded the file.
            let length = u32_at(at + 8)?.min(u32_at(at + 16)?);
            return Some((u64::from(u32_at(at + 20)?), u64::from(length)));
        }
    }
    None
}

/// Reads the command line of a UKI; `None` if it isn't one.
pub fn cmdline(file: &mut (impl Read + Seek)) -> io::Result<Option<String>> {
    let mut headers = Vec::new();
    file.take(MAX_HEADERS).read_to_end(&mut headers)?;
    let Some((offset, length)) = find_section(&headers, ".cmdline") else { return Ok(None) };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(length.min(MAX_CMDLINE_BYTES)).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\0', '\n']).to_owned()))
}

/// The smallest file that [`cmdline`] reads, for tests.
#[doc(hidden)]
pub fn minimal(cmdline: &str) -> Vec<u8> {
    with_sections(&[(".cmdline", cmdline.as_bytes().to_vec())])
}

/// A file with these sections one behind the other, for tests.
#[doc(hidden)]
pub fn with_sections(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x46] = sections.len() as u8;
    for (index, (name, content)) in sections.iter().enumerate() {
        let (at, place, length) = (0x40 + 24 + index * 40, file.len(), content.len());
        file.extend(content);
        file.resize(file.len().next_multiple_of(0x200), 0);
        let padded = file.len() - place;
        file[at..at + name.len()].copy_from_slice(name.as_bytes());
        for (field, value) in [(8, length), (16, padded), (20, place)] {
            file[at + field..at + field + 4].copy_from_slice(&(value as u32).to_le_bytes());
        }
    }
    file
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn the_command_line_is_found_and_hostile_headers_are_not_believed() {
        let good = minimal("roothash=1 quiet");
        assert_eq!(cmdline(&mut Cursor::new(good.clone())).unwrap().as_deref(), Some("roothash=1 quiet"));
        for cut in 0..0x90 {
            assert_eq!(find_section(&good[..cut.min(0x57)], ".cmdline"), None);
        }
        let (offset, length) = find_section(&good, ".cmdline").unwrap();
        assert_eq!((offset, length), (0x200, 16));
        for name in [".cmdlin", ".cmdlinex", ""] {
            assert_eq!(find_section(&good, name), None, "{name}");
        }
        let mut far = good;
        far[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(cmdline(&mut Cursor::new(far)).unwrap(), None);
    }
}
