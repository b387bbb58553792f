//! Changes to inputs, from a seeded generator: the same seed makes the same inputs.

/// Longest input that is made.
pub const MAX_INPUT_BYTES: usize = 64 << 10;

/// A small generator of numbers (xorshift64*, Vigna 2016). Nothing secret comes from it.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `end`; 0 if that is 0.
    pub fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.number() >> 16) as usize % end }
    }
}

/// Texts that parsers take for something.
const WORDS: [&[u8]; 30] = [
    b"{",
    b"}",
    b"[",
    b"]",
    b"\"",
    b"\\",
    b",",
    b":",
    b"\\u0000",
    b"\\ud800",
    b"null",
    b"true",
    b"-1",
    b"0",
    b"1e9",
    b"1.5",
    b"18446744073709551615",
    b"18446744073709551616",
    b"-9223372036854775808",
    b"\xc3\xbc",
    b"\xff",
    b"\0",
    b"\r\n",
    b"..",
    b"%00",
    b"*",
    b"=",
    b"[[",
    b"1970-01-01T00:00:00Z",
    b"9999-12-31T23:59:60Z",
];
/// Numbers at which lengths and offsets go wrong.
const NUMBERS: [u64; 12] = [
    0,
    1,
    0x7f,
    0xff,
    0x7fff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    0x1_0000_0000,
    i64::MAX as u64,
    u64::MAX - 1,
    u64::MAX,
];

/// Changes an input in a few places; `other` is another input to take pieces from.
pub fn mutate(random: &mut Random, input: &mut Vec<u8>, other: &[u8]) {
    for _ in 0..1 + random.below(4) {
        let at = random.below(input.len() + 1);
        let span = at..(at + random.below(32)).min(input.len());
        match random.below(10) {
            0 => flip(input, at, 1 << random.below(8)),
            1 => flip(input, at, random.number() as u8),
            2 => drop(input.drain(span)),
            3 => input.truncate(at),
            4 => drop(input.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            5 => drop(input.splice(span, WORDS[random.below(WORDS.len())].iter().copied())),
            6 => number(random, input, at),
            7 => {
                let piece = input[span].to_vec();
                let times = 1 + random.below(40);
                drop(input.splice(at..at, piece.repeat(times)));
            }
            8 => {
                let from = random.below(other.len());
                let piece = &other[from..(from + random.below(200)).min(other.len())];
                drop(input.splice(at..at, piece.iter().copied()));
            }
            _ => decimal(random, input, at),
        }
    }
    input.truncate(MAX_INPUT_BYTES);
}

fn flip(input: &mut [u8], at: usize, bits: u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte ^= bits;
    }
}

/// Puts a number in binary, little-endian or big.
fn number(random: &mut Random, input: &mut [u8], at: usize) {
    let value = NUMBERS[random.below(NUMBERS.len())];
    let width = 1 << random.below(4);
    let bytes =
        if random.below(2) == 0 { value.to_le_bytes() } else { value.rotate_right(width as u32 * 8).to_be_bytes() };
    for (byte, new) in input.iter_mut().skip(at).zip(bytes).take(width) {
        *byte = new;
    }
}

/// Replaces the digits at a place, or the next ones after it.
fn decimal(random: &mut Random, input: &mut Vec<u8>, at: usize) {
    let Some(first) = input.iter().skip(at).position(u8::is_ascii_digit).map(|more| at + more) else { return };
    let digits = input[first..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let value = NUMBERS[random.below(NUMBERS.len())].to_string();
    drop(input.splice(first..first + digits, value.into_bytes()));
}
