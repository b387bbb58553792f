//! `coldplug`: loads modules for devices that are there, once, in a process of its own.
//!
//! Every module costs the check of its signature, some 30 million instructions, so what a boot needs comes first
//! ([`Tier`]). What turns up later brings its own request: the kernel calls `modprobe`.

use std::collections::BTreeSet;
use std::process::ExitCode;

use crate::clock;
use crate::modules::{self, Modules};

/// Loading a bus's driver shows what is on that bus; no machine nests deeper than this.
const MAX_ROUNDS: usize = 8;

/// Modalias of an entropy device (Virtual I/O Device, section 5).
const VIRTIO_ENTROPY: &str = "virtio:d00000004";

/// Which devices get their drivers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// What may hold the root and costs little, and what saves from a hang: all that the initrd has modules for but
    /// controllers of disks (PCI class 01) that aren't virtual ones.
    Virtual,
    /// What may lead to other machines: virtual devices and network cards (PCI class 02). Not a source of random
    /// numbers: by then the processor's own have filled the kernel's pool.
    Network,
    /// All.
    All,
}

impl Tier {
    /// From the argument of `coldplug`.
    fn parse(argument: Option<&str>) -> Self {
        if argument == Some("network") { Self::Network } else { Self::All }
    }

    fn has(self, alias: &str) -> bool {
        match self {
            Self::Virtual => pci_class(alias) != Some("01"),
            Self::Network => {
                let leads_there = ["virtio:", "vmbus:", "xen:", "acpi:VMBUS"].iter().any(|bus| alias.starts_with(bus))
                    && !alias.starts_with(VIRTIO_ENTROPY);
                leads_there || pci_class(alias) == Some("02") || is_virtio_pci(alias)
            }
            Self::All => true,
        }
    }
}

/// The base class in a PCI modalias: `pci:v…d…sv…sd…bcBBscSSiII` (kernel: `drivers/pci/pci-driver.c`).
fn pci_class(alias: &str) -> Option<&str> {
    alias.strip_prefix("pci:").and_then(|rest| rest.split_once("bc")).and_then(|(_, class)| class.get(..2))
}

/// Its driver is what makes a virtio device appear; the vendor is 1AF4 (Virtual I/O Device, section 4.1.2).
fn is_virtio_pci(alias: &str) -> bool {
    alias.starts_with("pci:v00001AF4")
}

/// Loads modules until a round shows no new device.
pub fn run(arguments: &[String]) -> ExitCode {
    let tier = Tier::parse(arguments.first().map(String::as_str));
    let modules = Modules::open();
    let mut tried = BTreeSet::new();
    for _ in 0..MAX_ROUNDS {
        let count = round(&modules, tier, &mut tried);
        eprintln!("info: loaded the modules of {count} kinds of devices, {} ms after boot", clock::boot_ms());
        if count == 0 {
            break;
        }
    }
    ExitCode::SUCCESS
}

/// Loads what new devices ask for. Says how many were new. What doesn't load is said and passed over: a device that
/// can't be driven must not keep the others from being.
pub fn round(modules: &Modules, tier: Tier, tried: &mut BTreeSet<String>) -> usize {
    let devices = modules::device_aliases().into_iter().filter(|alias| tier.has(alias) && !tried.contains(alias));
    let mut new: Vec<String> = devices.collect();
    // Virtual disks and network cards first: they are what the rest of the boot waits for.
    new.sort_by_key(|alias| !alias.starts_with("virtio:"));
    for alias in &new {
        if let Err(error) = modules.load(alias) {
            eprintln!("warn: cannot load the modules for {alias}: {error}");
        }
    }
    let count = new.len();
    tried.extend(new);
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disks_that_need_large_drivers_and_what_no_boot_needs_come_later() {
        let sata = "pci:v00008086d00002922sv00001AF4sd00001100bc01sc06i01";
        let virtio_block = "pci:v00001AF4d00001042sv00001AF4sd00001100bc01sc00i00";
        let card = "pci:v00008086d000010D3sv00008086sd00000000bc02sc00i00";
        let watchdog = "pci:v00008086d000025ABsv00001AF4sd00001100bc08sc80i00";
        let expected = [
            (sata, [false, false, true]),
            (card, [true, true, true]),
            (watchdog, [true, false, true]),
            ("virtio:d00000002v00001AF4", [true, true, true]),
            ("virtio:d00000004v00001AF4", [true, false, true]),
            ("acpi:LNXPWRBN:", [true, false, true]),
        ];
        for (alias, wanted) in expected {
            assert_eq!([Tier::Virtual, Tier::Network, Tier::All].map(|tier| tier.has(alias)), wanted, "{alias}");
        }
        assert!(Tier::Network.has(virtio_block), "virtio-pci may be a module");
        assert_eq!(Tier::parse(Some("network")), Tier::Network);
        assert_eq!(Tier::parse(None), Tier::All);
    }
}
