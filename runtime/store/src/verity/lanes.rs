//! SHA-256 (FIPS 180-4) of eight blocks side by side, one in each lane of AVX2's registers. The blocks of a hash tree
//! don't depend on one another, and where a processor has no instructions for SHA-256 they are done sooner this way.

use core::arch::x86_64::{
    __m256i, _mm256_add_epi32, _mm256_and_si256, _mm256_andnot_si256, _mm256_extract_epi32, _mm256_or_si256,
    _mm256_set_epi32, _mm256_set1_epi32, _mm256_slli_epi32, _mm256_srli_epi32, _mm256_xor_si256,
};

use super::{BLOCK_BYTES, HASH_BYTES};

/// Blocks that are hashed at a time.
pub const LANES: usize = 8;
/// Words of a chunk, which is what one compression takes in (6.2.1).
const CHUNK_WORDS: usize = 16;
/// First hash value (5.3.3).
const START: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];
/// Constants of the 64 rounds (4.2.2), eight a line.
#[rustfmt::skip]
const ROUNDS: [[u32; 8]; 8] = [
    [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
    [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
    [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
    [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
    [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
    [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
    [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
    [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
];

/// Macros and not functions: a program that is optimised for size would call them.
macro_rules! add {
    ($x:expr) => { $x };
    ($x:expr, $($more:expr),+) => { _mm256_add_epi32($x, add!($($more),+)) };
}
macro_rules! xor3 {
    ($x:expr, $y:expr, $z:expr) => {
        _mm256_xor_si256(_mm256_xor_si256($x, $y), $z)
    };
}
macro_rules! rotate {
    ($x:expr, $right:literal) => {
        _mm256_or_si256(_mm256_srli_epi32::<$right>($x), _mm256_slli_epi32::<{ 32 - $right }>($x))
    };
}
/// A round (6.2.2, step 3), whose variables the next one takes by other names instead of moving them.
macro_rules! round {
    ($a:ident $b:ident $c:ident $d:ident $e:ident $f:ident $g:ident $h:ident, $word:expr, $constant:expr) => {
        let choice = _mm256_xor_si256(_mm256_and_si256($e, $f), _mm256_andnot_si256($e, $g));
        let mixed = xor3!(rotate!($e, 6), rotate!($e, 11), rotate!($e, 25));
        $h = add!($h, mixed, choice, $word, _mm256_set1_epi32($constant.cast_signed()));
        $d = add!($d, $h);
        let either = _mm256_or_si256($a, $b);
        let majority = _mm256_or_si256(_mm256_and_si256($a, $b), _mm256_and_si256($c, either));
        $h = add!($h, majority, xor3!(rotate!($a, 2), rotate!($a, 13), rotate!($a, 22)));
    };
}

/// Hashes of eight blocks.
#[target_feature(enable = "avx2")]
pub fn hash(blocks: [&[u8; BLOCK_BYTES]; LANES]) -> [[u8; HASH_BYTES]; LANES] {
    let mut state = START.map(|word| _mm256_set1_epi32(word.cast_signed()));
    for chunk in 0..BLOCK_BYTES / (CHUNK_WORDS * 4) {
        let mut words = [_mm256_set1_epi32(0); CHUNK_WORDS];
        for (number, word) in words.iter_mut().enumerate() {
            let at = chunk * CHUNK_WORDS + number;
            let [a, b, c, d, e, f, g, h] = blocks.map(|block| {
                let (all, _) = block.as_chunks::<4>();
                all.get(at).map_or(0, |bytes| i32::from_be_bytes(*bytes))
            });
            *word = _mm256_set_epi32(h, g, f, e, d, c, b, a);
        }
        compress(&mut state, &mut words);
    }
    // The end of the message: one bit, and its length in bits (5.1.1).
    let mut last = [_mm256_set1_epi32(0); CHUNK_WORDS];
    last[0] = _mm256_set1_epi32(i32::MIN);
    last[CHUNK_WORDS - 1] = _mm256_set1_epi32((BLOCK_BYTES * 8) as i32);
    compress(&mut state, &mut last);
    digests(&state)
}

/// Takes in one chunk of each lane (6.2.2).
#[target_feature(enable = "avx2")]
fn compress(state: &mut [__m256i; 8], words: &mut [__m256i; CHUNK_WORDS]) {
    let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = *state;
    for (group, k) in ROUNDS.iter().enumerate() {
        let at = group % 2 * 8;
        if group >= 2 {
            // The message schedule, in place: word t takes the room of word t - 16.
            for t in at..at + 8 {
                let (near, far) = (words[(t + 1) % CHUNK_WORDS], words[(t + 14) % CHUNK_WORDS]);
                let near = xor3!(rotate!(near, 7), rotate!(near, 18), _mm256_srli_epi32::<3>(near));
                let far = xor3!(rotate!(far, 17), rotate!(far, 19), _mm256_srli_epi32::<10>(far));
                words[t % CHUNK_WORDS] = add!(words[t % CHUNK_WORDS], near, words[(t + 9) % CHUNK_WORDS], far);
            }
        }
        round!(a b c d e f g h, words[at % CHUNK_WORDS], k[0]);
        round!(h a b c d e f g, words[(at + 1) % CHUNK_WORDS], k[1]);
        round!(g h a b c d e f, words[(at + 2) % CHUNK_WORDS], k[2]);
        round!(f g h a b c d e, words[(at + 3) % CHUNK_WORDS], k[3]);
        round!(e f g h a b c d, words[(at + 4) % CHUNK_WORDS], k[4]);
        round!(d e f g h a b c, words[(at + 5) % CHUNK_WORDS], k[5]);
        round!(c d e f g h a b, words[(at + 6) % CHUNK_WORDS], k[6]);
        round!(b c d e f g h a, words[(at + 7) % CHUNK_WORDS], k[7]);
    }
    for (before, after) in state.iter_mut().zip([a, b, c, d, e, f, g, h]) {
        *before = _mm256_add_epi32(*before, after);
    }
}

/// The lanes, each as the bytes of its hash.
#[target_feature(enable = "avx2")]
fn digests(state: &[__m256i; 8]) -> [[u8; HASH_BYTES]; LANES] {
    let mut digests = [[0; HASH_BYTES]; LANES];
    for (number, word) in state.iter().enumerate() {
        let word = *word;
        let lanes = [
            _mm256_extract_epi32::<0>(word),
            _mm256_extract_epi32::<1>(word),
            _mm256_extract_epi32::<2>(word),
            _mm256_extract_epi32::<3>(word),
            _mm256_extract_epi32::<4>(word),
            _mm256_extract_epi32::<5>(word),
            _mm256_extract_epi32::<6>(word),
            _mm256_extract_epi32::<7>(word),
        ];
        for (digest, lane) in digests.iter_mut().zip(lanes) {
            let (parts, _) = digest.as_chunks_mut::<4>();
            if let Some(part) = parts.get_mut(number) {
                *part = lane.to_be_bytes();
            }
        }
    }
    digests
}
