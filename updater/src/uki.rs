//! The command line inside a unified kernel image: which root it boots.
//!
//! A UKI is a PE file (Microsoft PE/COFF specification) with a section `.cmdline` (UAPI.5 Unified Kernel Image).

use std::io::{self, Read, Seek, SeekFrom};

/// Bytes of the file that hold all headers.
const MAX_HEADERS: u64 = 4096;
/// Most sections that are looked at.
const MAX_SECTIONS: usize = 64;
/// Longest command line.
const MAX_CMDLINE_BYTES: u64 = 16 << 10;

/// Where a file's section `.cmdline` is: offset and length in bytes. `None`: these aren't headers of a UKI.
pub fn find_cmdline(headers: &[u8]) -> Option<(u64, u64)> {
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
        if headers.get(at..at + 8)? == b".cmdline" {
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
    let Some((offset, length)) = find_cmdline(&headers) else { return Ok(None) };
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(offset))?;
    file.take(length.min(MAX_CMDLINE_BYTES)).read_to_end(&mut bytes)?;
    Ok(String::from_utf8(bytes).ok().map(|text| text.trim_end_matches(['\0', '\n']).to_owned()))
}

/// The smallest file that [`cmdline`] reads, for tests.
#[doc(hidden)]
pub fn minimal(cmdline: &str) -> Vec<u8> {
    let mut file = vec![0; 0x200];
    file[..2].copy_from_slice(b"MZ");
    file[0x3c] = 0x40;
    file[0x40..0x44].copy_from_slice(b"PE\0\0");
    file[0x46] = 1;
    let at = 0x40 + 24;
    file[at..at + 8].copy_from_slice(b".cmdline");
    file[at + 8..at + 12].copy_from_slice(&(cmdline.len() as u32).to_le_bytes());
    file[at + 16..at + 20].copy_from_slice(&0x200u32.to_le_bytes());
    file[at + 20..at + 24].copy_from_slice(&0x200u32.to_le_bytes());
    file.extend(cmdline.as_bytes());
    file.resize(0x400, 0);
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
            assert_eq!(find_cmdline(&good[..cut.min(0x57)]), None);
        }
        let mut far = good;
        far[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(cmdline(&mut Cursor::new(far)).unwrap(), None);
    }
}
