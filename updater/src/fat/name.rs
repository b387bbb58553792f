//! Long names and their parts (specification, section 7).

/// Bytes of an entry.
pub const ENTRY: usize = 32;
/// Attributes that mark a part of a long name.
pub const LONG: u8 = 0x0f;
/// UTF-16 units in one part.
const UNITS: usize = 13;
/// Longest name that is written: with its short entry it has to fit into one sector of 16 entries.
const MAX_UNITS: usize = 14 * UNITS;
/// Where the units of a part are.
const PLACES: [usize; UNITS] = [1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30];
/// Marks the last part, which comes first on disk.
const LAST: u8 = 0x40;

/// The checksum that ties the parts of a long name to their short name.
pub fn checksum(short: &[u8; 11]) -> u8 {
    short.iter().fold(0u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte))
}

/// The parts of a long name in the order of the disk; `None` if it can't be written.
pub fn parts(name: &str, short: &[u8; 11]) -> Option<Vec<[u8; ENTRY]>> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-+".contains(&byte);
    if name.is_empty() || name.len() > MAX_UNITS || !name.bytes().all(fits) || name.ends_with('.') {
        return None;
    }
    let count = name.len().div_ceil(UNITS);
    let part = |number: usize| {
        let mut entry = [0; ENTRY];
        let units = name.bytes().map(u16::from).chain([0]).chain(std::iter::repeat(0xffff));
        for (unit, place) in units.skip(number * UNITS).zip(PLACES) {
            entry[place..place + 2].copy_from_slice(&unit.to_le_bytes());
        }
        entry[0] = (number as u8 + 1) | if number + 1 == count { LAST } else { 0 };
        entry[11] = LONG;
        entry[13] = checksum(short);
        entry
    };
    Some((0..count).rev().map(part).collect())
}

/// Puts a long name together from its parts as they come.
#[derive(Default)]
pub struct Assembly {
    units: Vec<u16>,
    /// Number of the part that has to come next; 0: the short entry.
    next: u8,
    checksum: u8,
}

impl Assembly {
    /// Takes the next part; what doesn't follow begins anew.
    pub fn take(&mut self, entry: &[u8]) {
        let (number, sum) = (entry[0] & 0x3f, entry[13]);
        let begins = entry[0] & LAST != 0;
        if number == 0 || (!begins && (number != self.next || sum != self.checksum)) {
            return *self = Self::default();
        }
        if begins {
            *self = Self { units: Vec::new(), next: number, checksum: sum };
        }
        let units = PLACES.map(|place| u16::from_le_bytes([entry[place], entry[place + 1]]));
        self.units.splice(0..0, units);
        self.next = number - 1;
    }

    /// The long name, if the parts so far belong to this short entry.
    pub fn finish(self, short: &[u8; 11]) -> Option<String> {
        if self.units.is_empty() || self.next != 0 || self.checksum != checksum(short) {
            return None;
        }
        let end = self.units.iter().position(|unit| *unit == 0).unwrap_or(self.units.len());
        String::from_utf16(&self.units[..end]).ok()
    }
}

/// A short name as text, with the case that Windows NT and Linux remember in byte 12.
pub fn short_text(short: &[u8; 11], case: u8) -> String {
    let part = |bytes: &[u8], lower: bool| {
        let text = String::from_utf8_lossy(bytes).trim_end().to_owned();
        if lower { text.to_ascii_lowercase() } else { text }
    };
    let (base, extension) = (part(&short[..8], case & 8 != 0), part(&short[8..], case & 16 != 0));
    if extension.is_empty() { base } else { format!("{base}.{extension}") }
}

/// A short name for a file with a long one. Nothing looks at it; it has to differ from the others in the folder.
pub fn short(name: &str, taken: impl Fn(&[u8; 11]) -> bool) -> Option<[u8; 11]> {
    let extension = if name.to_ascii_lowercase().ends_with(".efi") { b"EFI" } else { b"PAR" };
    (0..=u16::MAX).find_map(|number| {
        let mut short = *b"KEEL0000   ";
        short[4..8].copy_from_slice(format!("{number:04X}").as_bytes());
        short[8..].copy_from_slice(extension);
        (!taken(&short)).then_some(short)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_put_together_from_their_own_parts_alone() {
        let short = *b"KEEL0001EFI";
        for name in ["a", "keel_1.2.3+3-1.efi", "keel_10.0.0.e", &"x".repeat(26)] {
            let mut assembly = Assembly::default();
            parts(name, &short).unwrap().iter().for_each(|part| assembly.take(part));
            assert_eq!(assembly.finish(&short).as_deref(), Some(name));
        }
        let parts = parts("keel_1.2.3+3-1.efi.part", &short).unwrap();
        let mut assembly = Assembly::default();
        assembly.take(&parts[1]);
        assert_eq!(assembly.finish(&short), None, "the first part is missing");
        let mut assembly = Assembly::default();
        parts.iter().for_each(|part| assembly.take(part));
        assert_eq!(assembly.finish(b"KEEL0002EFI"), None, "it belongs to another entry");
    }

    #[test]
    fn names_that_need_escaping_or_two_sectors_are_refused() {
        for name in ["", "a/b", "a b", "ü", "dot.", &"x".repeat(183)] {
            assert!(parts(name, b"KEEL0001EFI").is_none(), "{name}");
        }
    }
}
