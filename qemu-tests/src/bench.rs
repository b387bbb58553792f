//! Measures the figures that the project steers by, each against its goal.
//!
//! - [`boot`]: guest time from kernel start to the API and to the first container
//! - [`earlier`]: an earlier build, from which updates are measured
//! - [`engines`]: Keel's engine beside Docker's and Podman's
//! - [`fuzz`]: parsers on changed inputs
//! - [`limits`]: what engines withstand: the end of their daemon, and many containers
//! - [`memory`]: what the host programs hold, and the smallest guest that works
//! - [`oci`]: a container's life by our OCI runtime, beside crun's and runc's
//! - [`outage`]: how long an update keeps a container's service away
//! - [`pull`]: pulls by Keel, Docker and Podman
//! - [`report`]: `build/bench.json`, `build/bench.md` and a plot
//! - [`size`]: bytes of a release
//! - [`update`]: what an update fetches and needs, and the states that power cuts leave
//! - [`update_peers`]: what others fetch for the same update

pub mod boot;
pub mod earlier;
pub mod engines;
pub mod fuzz;
pub mod limits;
pub mod memory;
pub mod oci;
pub mod outage;
pub mod pull;
pub mod report;
pub mod size;
pub mod update;
pub mod update_peers;

use anyhow::Result;
use serde::Serialize;

use crate::build::Build;

/// One measured figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// Key, as in the table of goals.
    #[serde(skip)]
    pub key: &'static str,
    /// The value; the median where there are several samples.
    pub value: f64,
    /// Unit of value, goal and samples.
    pub unit: &'static str,
    /// What it should be at most (or at least, where `at_least`); none for a figure that is only watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub goal: Option<f64>,
    /// Whether the goal is a least value.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
    /// How it was measured.
    pub how: String,
    /// All samples, in the order in which they were taken.
    pub samples: Vec<f64>,
    /// 95th percentile of the samples.
    pub p95: f64,
    /// The same figure of others, measured in the same run.
    pub peers: std::collections::BTreeMap<String, f64>,
}

impl Figure {
    /// A figure from its samples; there must be at least one.
    pub fn new(key: &'static str, unit: &'static str, goal: Option<f64>, how: &str, samples: Vec<f64>) -> Self {
        let mut sorted = samples.clone();
        sorted.sort_by(f64::total_cmp);
        let at = |share: f64| sorted.get(((sorted.len() as f64 - 1.0) * share).round() as usize).copied();
        Self {
            key,
            value: at(0.5).unwrap_or(f64::NAN),
            unit,
            goal,
            at_least: false,
            how: how.to_owned(),
            p95: at(0.95).unwrap_or(f64::NAN),
            samples,
            peers: Default::default(),
        }
    }

    /// Whether the goal is met; `None` without a goal.
    pub fn met(&self) -> Option<bool> {
        self.goal.map(|goal| if self.at_least { self.value >= goal } else { self.value <= goal })
    }
}

/// The middle one; of none, not a number.
fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A measurement, which yields one or more figures.
pub struct Measurement {
    /// Keys of the figures.
    pub keys: &'static [&'static str],
    /// Takes it.
    pub run: fn(&Build) -> Result<Vec<Figure>>,
}

/// All measurements.
pub const MEASUREMENTS: &[Measurement] = &[
    Measurement { keys: &["release_cloud_bytes"], run: size::release },
    Measurement {
        keys: &["boot_init_ms", "boot_api_over_floor_ms", "boot_first_container_over_floor_ms"],
        run: boot::times,
    },
    Measurement {
        keys: &[
            "oci_vs_crun",
            "oci_exec_vs_crun",
            "oci_vs_crun_guest",
            "oci_exec_vs_crun_guest",
            "oci_run_ms",
            "oci_exec_ms",
            "oci_run_guest_ms",
            "oci_exec_guest_ms",
            "oci_peak_vs_crun",
            "oci_peak_kib",
            "oci_peak_guest_kib",
        ],
        run: oci::times,
    },
    Measurement { keys: &["idle_memory_kib", "pid1_rss_kib"], run: memory::idle },
    Measurement { keys: &["smallest_guest_mib"], run: memory::smallest_guest },
    Measurement {
        keys: &[
            "run_vs_docker",
            "run_vs_podman",
            "run_network_vs_docker",
            "run_network_vs_podman",
            "exec_vs_docker",
            "exec_vs_podman",
            "run_ms",
            "run_network_ms",
            "engine_exec_ms",
        ],
        run: engines::compare,
    },
    Measurement { keys: &["container_overhead_kib", "ps_500_ms", "api_calls_per_s"], run: engines::crowds },
    Measurement { keys: &["engine_vs_oci"], run: engines::beside_oci },
    Measurement { keys: &["engine_back_ms"], run: limits::back },
    Measurement { keys: &["containers_in_2gib"], run: limits::many },
    Measurement {
        keys: &[
            "pull_vs_best",
            "pull_ms",
            "pull_settled_ms",
            "pull_engine_cpu_s",
            "pull_peak_kib",
            "pull_written_kib",
            "pull_flushes",
            "pull_shared_vs_best",
            "pull_shared_ms",
            "pull_shared_written_kib",
        ],
        run: pull::compare,
    },
    Measurement { keys: &["mount_image_ms"], run: pull::mount },
    Measurement { keys: &["fuzz_execs", "fuzz_crashes"], run: fuzz::parsers },
    Measurement { keys: &["update_ratio_programs", "update_ratio_kernel", "update_ratio_all"], run: update::ratios },
    Measurement { keys: &["slot_write_vs_dd", "updater_peak_kib"], run: update::write },
    Measurement { keys: &["update_outage_reboot_ms", "update_outage_kexec_ms"], run: outage::times },
    Measurement { keys: &["write_prefixes_tried", "write_prefixes_bad"], run: update::prefixes },
];
