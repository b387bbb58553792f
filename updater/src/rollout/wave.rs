//! Which part of the hosts a host belongs to.

use keel_spec::rollout::{ALL, Waves};
use ring::digest;

/// Eight bytes of the SHA-256 over parts, each after its length so that no two lists of parts give the same bytes.
fn number(parts: &[&[u8]]) -> u64 {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    context.finish().as_ref().first_chunk().copied().map_or(0, u64::from_be_bytes)
}

/// A host's place in a schedule, below [`ALL`]: by the seed, in an order that only the seed decides.
pub fn place(seed: &str, host_id: &str) -> u32 {
    u32::try_from(scaled(number(&[seed.as_bytes(), host_id.as_bytes()]), ALL.into())).unwrap_or(ALL)
}

/// When a host gets a release by this schedule, seconds since the Unix epoch; `None`: not by this one.
pub fn time(waves: &Waves, host_id: &str) -> Option<u64> {
    waves.time_of(place(&waves.seed, host_id))
}

/// A number below `most` that differs from host to host and from one `salt` to the next.
pub fn spread(host_id: &str, salt: u64, most: u64) -> u64 {
    scaled(number(&[b"spread", host_id.as_bytes(), &salt.to_be_bytes()]), most)
}

/// A number out of all to one below `most`.
fn scaled(number: u64, most: u64) -> u64 {
    u64::try_from((u128::from(number) * u128::from(most)) >> 64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::rollout::Step;
    use keel_spec::tuf::Time;

    fn hosts() -> Vec<String> {
        (0..20_000).map(|number| format!("host-{number}")).collect()
    }

    #[test]
    fn each_step_gets_its_part_of_the_hosts() {
        let steps = [(0, 100), (60, 1000), (120, ALL)].map(|(after_min, parts)| Step { after_min, parts });
        let waves = Waves { start: Time(0), seed: "seed".into(), steps: steps.into() };
        let count = |at: u64| hosts().iter().filter(|host| time(&waves, host) == Some(at)).count();
        let counts = [0, 3600, 7200].map(count);
        assert!((150..250).contains(&counts[0]) && (1650..1950).contains(&counts[1]), "{counts:?}");
        assert_eq!(counts.iter().sum::<usize>(), 20_000);
    }

    #[test]
    fn another_seed_makes_other_hosts_the_first() {
        let first =
            |seed: &str| -> Vec<String> { hosts().into_iter().filter(|host| place(seed, host) < 100).collect() };
        let (one, other) = (first("one"), first("other"));
        let both = one.iter().filter(|host| other.contains(host)).count();
        assert!(both < one.len() / 10, "{both} of {}", one.len());
    }

    #[test]
    fn places_stay_what_they_are() {
        // Hosts of different releases have to agree on who is in a wave: this never changes.
        assert_eq!([place("", ""), place("seed", "host-1"), place("seed", "host-2")], PLACES);
        assert!((0..1000).all(|salt| spread("h", salt, 10) < 10) && spread("h", 1, 0) == 0);
    }

    const PLACES: [u32; 3] = [2159, 7321, 182];
}
