//! SNTP packets (RFC 4330, RFC 5905 section 14): one question, one answer, pure.

/// Bytes of a packet without extensions.
pub const PACKET_BYTES: usize = 48;
/// Seconds from the NTP era's start, 1900, to the Unix epoch.
const EPOCH_S: u64 = 2_208_988_800;

/// What one exchange tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sample {
    /// What has to be added to the local clock, microseconds.
    pub offset_us: i64,
    /// How long the exchange took on the wire, microseconds.
    pub delay_us: i64,
}

/// Why an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unusable {
    /// Too short.
    #[error("answer is cut off")]
    Short,
    /// Not an answer to the question asked: the cookie isn't there.
    #[error("answer belongs to another question")]
    Foreign,
    /// A server that isn't synchronised itself, or says go away (stratum 0, leap indicator 3).
    #[error("server is not synchronised, or turns clients away")]
    Unsynchronised,
    /// Times in it contradict each other.
    #[error("times in the answer make no sense")]
    Nonsense,
}

/// A question. The transmit time is a random cookie instead of the clock (draft-ietf-ntp-data-minimization): the server
/// returns it, and nobody else can guess it.
pub fn question(cookie: u64) -> [u8; PACKET_BYTES] {
    let mut packet = [0; PACKET_BYTES];
    // Leap indicator 0, version 4, mode 3 (client).
    packet[0] = 0x23;
    packet[40..].copy_from_slice(&cookie.to_be_bytes());
    packet
}

/// Reads an answer to the question with this cookie, sent and received at these local times (microseconds since the
/// Unix epoch).
pub fn answer(packet: &[u8], cookie: u64, sent_us: i64, received_us: i64) -> Result<Sample, Unusable> {
    let header = packet.get(..PACKET_BYTES).ok_or(Unusable::Short)?;
    let field = |at: usize| {
        let mut bytes = [0; 8];
        bytes.copy_from_slice(&header[at..at + 8]);
        u64::from_be_bytes(bytes)
    };
    if header[0] & 7 != 4 || field(24) != cookie {
        return Err(Unusable::Foreign);
    }
    if header[0] >> 6 == 3 || !(1..=15).contains(&header[1]) {
        return Err(Unusable::Unsynchronised);
    }
    let (arrived_us, left_us) = (unix_us(field(32)), unix_us(field(40)));
    let delay_us = (received_us - sent_us) - (left_us - arrived_us);
    if field(40) == 0 || left_us < arrived_us || delay_us < 0 {
        return Err(Unusable::Nonsense);
    }
    Ok(Sample { offset_us: ((arrived_us - sent_us) + (left_us - received_us)) / 2, delay_us })
}

/// An NTP time as microseconds since the Unix epoch. Times before 1968 belong to the era that begins in 2036
/// (RFC 4330, section 3).
fn unix_us(ntp: u64) -> i64 {
    let (seconds, fraction) = (ntp >> 32, ntp & 0xffff_ffff);
    let seconds = if seconds & 0x8000_0000 == 0 { seconds + (1 << 32) } else { seconds };
    (seconds as i64 - EPOCH_S as i64) * 1_000_000 + ((fraction * 1_000_000) >> 32) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(cookie: u64, arrived_s: u64, left_s: u64) -> [u8; PACKET_BYTES] {
        let mut packet = [0; PACKET_BYTES];
        (packet[0], packet[1]) = (0x24, 2);
        packet[24..32].copy_from_slice(&cookie.to_be_bytes());
        packet[32..40].copy_from_slice(&((arrived_s + EPOCH_S) << 32).to_be_bytes());
        packet[40..].copy_from_slice(&((left_s + EPOCH_S) << 32).to_be_bytes());
        packet
    }

    #[test]
    fn the_offset_is_the_mean_of_both_ways() {
        let sample = answer(&packet(9, 1_000_010, 1_000_010), 9, 1_000_000_000_000, 1_000_002_000_000).unwrap();
        assert_eq!(sample, Sample { offset_us: 9_000_000, delay_us: 2_000_000 });
    }

    #[test]
    fn answers_of_others_and_of_servers_without_a_clock_are_refused() {
        let good = packet(9, 5, 5);
        assert_eq!(answer(&good, 8, 0, 0), Err(Unusable::Foreign));
        assert_eq!(answer(&good[..47], 9, 0, 0), Err(Unusable::Short));
        let mut kiss = good;
        kiss[1] = 0;
        assert_eq!(answer(&kiss, 9, 0, 0), Err(Unusable::Unsynchronised));
        assert_eq!(answer(&packet(9, 6, 5), 9, 0, 0), Err(Unusable::Nonsense));
    }

    #[test]
    fn the_era_after_2036_is_read() {
        assert_eq!(unix_us(0), ((1_i64 << 32) - EPOCH_S as i64) * 1_000_000);
    }
}
