//! Adding sections to a PE image (Microsoft PE format; UAPI group: Unified Kernel Image).
//!
//! The UKI stub finds its sections by name in the loaded image. They have to come after the stub's own last section,
//! page-aligned, or the firmware loads them over the stub.

const PAGE: u32 = 4096;
const SECTION_HEADER_BYTES: usize = 40;
/// Initialised data, readable.
const READ_ONLY_DATA: u32 = 0x4000_0040;
const PE32_PLUS: u16 = 0x20b;

/// Why sections can't be added.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PeError {
    /// The bytes aren't what they should be.
    #[error("the boot stub is not a PE32+ image: {0}")]
    Format(&'static str),
    /// No room for further section headers.
    #[error("the boot stub has room for {room} further section headers, but {wanted} are wanted")]
    NoRoom {
        /// Headers that fit.
        room: usize,
        /// Headers wanted.
        wanted: usize,
    },
    /// The image would be larger than a PE image can be.
    #[error("the boot image would be larger than 4 GiB")]
    TooLarge,
}

/// A section to add: name of at most 8 bytes, content.
pub type Section<'a> = (&'a str, &'a [u8]);

/// The stub with these sections added. Its symbol table is dropped, and it must not be signed yet.
///
/// A section of a page or more starts at a multiple of 4 KiB in the file, so that its blocks are the same blocks in
/// every image that has it, which is what deltas need. There are no gaps: the section before is padded.
pub fn add_sections(stub: &[u8], sections: &[Section]) -> Result<Vec<u8>, PeError> {
    let layout = Layout::read(stub)?;
    let room = layout.headers_end.saturating_sub(layout.section_headers_end) / SECTION_HEADER_BYTES;
    if sections.len() > room {
        return Err(PeError::NoRoom { room, wanted: sections.len() });
    }
    let mut image = stub[..layout.raw_end.min(stub.len())].to_vec();
    let mut header_at = layout.section_headers_end;
    let mut address = layout.virtual_end;
    for (number, (name, content)) in sections.iter().enumerate() {
        let too_large = |_| PeError::TooLarge;
        let size = u32::try_from(content.len()).map_err(too_large)?;
        address = address.checked_next_multiple_of(PAGE).ok_or(PeError::TooLarge)?;
        image.resize(image.len().next_multiple_of(layout.file_alignment), 0);
        let raw_at = u32::try_from(image.len()).map_err(too_large)?;
        image.extend_from_slice(content);
        let large = sections.get(number + 1).is_some_and(|(_, next)| next.len() >= PAGE as usize);
        let alignment = if large { PAGE as usize } else { layout.file_alignment };
        image.resize(image.len().next_multiple_of(alignment), 0);
        let raw_size = u32::try_from(image.len()).map_err(too_large)? - raw_at;
        let header = &mut image[header_at..header_at + SECTION_HEADER_BYTES];
        header.fill(0);
        header[..name.len().min(8)].copy_from_slice(&name.as_bytes()[..name.len().min(8)]);
        for (at, value) in [(8, size), (12, address), (16, raw_size), (20, raw_at), (36, READ_ONLY_DATA)] {
            header[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        header_at += SECTION_HEADER_BYTES;
        address = address.checked_add(size).ok_or(PeError::TooLarge)?;
    }
    let image_size = address.checked_next_multiple_of(layout.section_alignment.max(PAGE)).ok_or(PeError::TooLarge)?;
    let count = layout.sections + sections.len() as u16;
    image[layout.coff + 2..layout.coff + 4].copy_from_slice(&count.to_le_bytes());
    // PointerToSymbolTable and NumberOfSymbols: what they point at is gone.
    image[layout.coff + 8..layout.coff + 16].fill(0);
    image[layout.optional + 56..layout.optional + 60].copy_from_slice(&image_size.to_le_bytes());
    // CheckSum: firmware doesn't look at it, and signing would make it wrong.
    image[layout.optional + 64..layout.optional + 68].fill(0);
    Ok(image)
}

struct Layout {
    coff: usize,
    optional: usize,
    sections: u16,
    section_headers_end: usize,
    headers_end: usize,
    file_alignment: usize,
    section_alignment: u32,
    /// End of the last section in memory, and in the file.
    virtual_end: u32,
    raw_end: usize,
}

impl Layout {
    fn read(image: &[u8]) -> Result<Self, PeError> {
        if image.get(..2) != Some(b"MZ") {
            return Err(PeError::Format("no DOS header"));
        }
        let signature = u32_at(image, 60)? as usize;
        if image.get(signature..signature.saturating_add(4)) != Some(b"PE\0\0") {
            return Err(PeError::Format("no PE signature"));
        }
        let (coff, optional) = (signature + 4, signature + 24);
        let (sections, optional_bytes) = (u16_at(image, coff + 2)?, u16_at(image, coff + 16)?);
        if u16_at(image, optional)? != PE32_PLUS {
            return Err(PeError::Format("not PE32+"));
        }
        if optional_bytes >= 152 && u32_at(image, optional + 144)? != 0 {
            return Err(PeError::Format("it is signed already"));
        }
        let table = optional + optional_bytes as usize;
        let (mut virtual_end, mut raw_end) = (0, 0);
        for number in 0..sections as usize {
            let header = table + number * SECTION_HEADER_BYTES;
            let end = |size: u32, start: u32| size.checked_add(start).ok_or(PeError::Format("section too large"));
            virtual_end = end(u32_at(image, header + 8)?, u32_at(image, header + 12)?)?.max(virtual_end);
            raw_end = end(u32_at(image, header + 16)?, u32_at(image, header + 20)?)?.max(raw_end);
        }
        let file_alignment = u32_at(image, optional + 36)? as usize;
        let section_alignment = u32_at(image, optional + 32)?;
        let powers = file_alignment.is_power_of_two() && section_alignment.is_power_of_two();
        if !powers || file_alignment > PAGE as usize || raw_end as usize > image.len() {
            return Err(PeError::Format("its sections are out of bounds"));
        }
        let layout = Self {
            coff,
            optional,
            sections,
            section_headers_end: table + sections as usize * SECTION_HEADER_BYTES,
            headers_end: u32_at(image, optional + 60)? as usize,
            file_alignment,
            section_alignment,
            virtual_end,
            raw_end: raw_end as usize,
        };
        if layout.headers_end > layout.raw_end {
            return Err(PeError::Format("its headers are out of bounds"));
        }
        Ok(layout)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Result<u16, PeError> {
    let part = bytes.get(at..at.saturating_add(2)).and_then(|part| part.try_into().ok());
    part.map(u16::from_le_bytes).ok_or(PeError::Format("it is cut off"))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<u32, PeError> {
    let part = bytes.get(at..at.saturating_add(4)).and_then(|part| part.try_into().ok());
    part.map(u32::from_le_bytes).ok_or(PeError::Format("it is cut off"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_are_no_image_are_refused() {
        let mut image = vec![0; 512];
        image[..2].copy_from_slice(b"MZ");
        image[60] = 64;
        image[64..68].copy_from_slice(b"PE\0\0");
        for length in 0..image.len() {
            assert!(add_sections(&image[..length], &[(".linux", b"x")]).is_err());
        }
    }
}
