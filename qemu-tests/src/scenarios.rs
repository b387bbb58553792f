//! What is tested end to end: every machine starts through firmware and boot loader.

mod any_image;
mod any_write;
mod bad_input;
mod boot;
mod containers;
mod earlier;
mod enlarge;
mod fallback;
mod fixture;
mod kexec;
mod minimum;
mod networks;
mod other_clients;
mod peer;
mod power_cut;
mod rollout;
mod sessions;
mod update;
mod verbs;

pub use fixture::{BOOT_LIMIT, Fixture, Variant, prepare_releases};
pub(crate) use kexec::trusted_machine;

use crate::scenario::Scenario;

/// All scenarios, the long ones first so that they don't come last alone.
pub const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "power-cut",
        about: "power cut at ten points of an update: the old or the new release boots whole",
        run: power_cut::ten_points,
    },
    Scenario {
        name: "enlarge",
        about: "releases too large for slots and EFI system partition: these move to larger places, and all else is as it was",
        run: enlarge::both_slots_and_esp,
    },
    Scenario {
        name: "rollout",
        about: "a host updates by itself in its window; paused it doesn't, a withdrawn release isn't taken",
        run: rollout::by_itself,
    },
    Scenario {
        name: "kexec",
        about: "updates without the firmware: a good release proves itself, a bad one ends in the firmware and is left",
        run: kexec::updates,
    },
    Scenario {
        name: "fallback-unhealthy",
        about: "a release whose required service never becomes ready is left",
        run: fallback::unhealthy,
    },
    Scenario {
        name: "power-cut-states",
        about: "a first boot and an update recorded write by write: every state boots whole, some drawn at random do so really",
        run: any_write::any_write,
    },
    Scenario {
        name: "power-cut-images",
        about: "a pull, a build and a commit recorded write by write: in every state images are whole or absent",
        run: any_image::any_image,
    },
    Scenario {
        name: "fallback-hang",
        about: "a release whose PID 1 hangs is reset by the watchdog and left",
        run: fallback::hang,
    },
    Scenario {
        name: "fallback-panic",
        about: "a release whose PID 1 panics is left after its three tries",
        run: fallback::panic,
    },
    Scenario {
        name: "fallback-network",
        about: "a release that doesn't know the host's network device is left",
        run: fallback::unconnected,
    },
    Scenario {
        name: "fallback-rot",
        about: "a bit flipped in the trial slot: the machine returns to the good one",
        run: fallback::flipped_bit,
    },
    Scenario {
        name: "containers",
        about: "docker pulls, runs, publishes, limits, logs, loads, imports, removes",
        run: containers::docker_client,
    },
    Scenario {
        name: "verbs",
        about: "each verb of the docker client, declared containers and roles on one machine",
        run: verbs::each_once,
    },
    Scenario {
        name: "clients",
        about: "docker-compose, Docker's Python SDK, Bollard and several docker clients at once drive a machine over TLS",
        run: other_clients::each,
    },
    Scenario {
        name: "runtime-killed",
        about: "containers run on while the runtime is killed and started again, nothing is lost",
        run: containers::runtime_killed,
    },
    Scenario {
        name: "update-and-back",
        about: "update A to B, then back to A; containers return as their restart policy says",
        run: update::there_and_back,
    },
    Scenario {
        name: "stick-and-peer",
        about: "an update from a disk that is plugged in; the host then serves another one its release, through a proxy",
        run: peer::stick_and_peer,
    },
    Scenario {
        name: "kexec-refused",
        about: "a locked-down kernel that trusts no key says so, and the update goes through the firmware",
        run: kexec::refused,
    },
    Scenario {
        name: "tpm",
        about: "the state partition is put back to before an update: the TPM knows, an older release stays refused",
        run: minimum::rewound,
    },
    Scenario {
        name: "bad-releases-refused",
        about: "wrong signature, stale timestamp, lower version, flipped bit in any file: refused, nothing changed",
        run: bad_input::releases,
    },
    Scenario {
        name: "bad-registry",
        about: "a registry that is away or lies about a digest: a clear message, nothing left behind",
        run: bad_input::registries,
    },
    Scenario {
        name: "bad-config",
        about: "a config with an error is refused with line and column, the last good one stays",
        run: bad_input::config,
    },
    Scenario {
        name: "small-disk",
        about: "a slot too small for the release is found out before the first write",
        run: bad_input::small_slot,
    },
    Scenario {
        name: "boot",
        about: "firmware to API: stages with times, panel, services, logs, growth, console prompt, power off",
        run: boot::to_api,
    },
];

/// Scenarios that run only when they are asked for by name. This one wants programs that `make earlier` builds, which takes
/// as long as building today's.
pub const BY_NAME: &[Scenario] = &[Scenario {
    name: "earlier-release",
    about: "from an earlier revision's release to this one's and back: containers, images, volumes and networks of both stay",
    run: earlier::there_and_back,
}];
