//! The services of a host: a constant table. No file configures it.

/// One service.
#[derive(Debug)]
pub struct Service {
    /// Name, as in `keelctl services`; also of its cgroup.
    pub name: &'static str,
    /// Program and arguments.
    pub argv: &'static [&'static str],
    /// Services that must be up before this one is started, and that are stopped after it.
    pub after: &'static [&'static str],
    /// Started only when all required services that aren't late are up, or some time after boot without them
    /// ([`LATE_MS`](crate::supervise::LATE_MS)): so that it doesn't hold them up where there is one processor.
    pub late: bool,
    /// A release is good only while this is up.
    pub required: bool,
    /// When it counts as up.
    pub kind: Kind,
    /// Terminal that it has for itself; without one, its output goes to its log.
    pub tty: Option<&'static str>,
    /// Whether a shutdown waits for it to end by itself, before anything is told to.
    pub drains: bool,
    /// Milliseconds between being told to end and being killed.
    pub stop_ms: u64,
}

/// When a service counts as up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// When it says so on the control socket.
    Notifies,
    /// As soon as it runs.
    Simple,
    /// When it has ended with code 0; it isn't started again then.
    OneShot,
}

const HOST: &str = "/usr/lib/keel/host";
const INIT: &str = "/usr/lib/keel/init";
const CONSOLE: &[&str] = &["/usr/bin/keelctl", "console"];

const fn service(name: &'static str, argv: &'static [&'static str], after: &'static [&'static str]) -> Service {
    Service {
        name,
        argv,
        after,
        late: false,
        required: true,
        kind: Kind::Notifies,
        tty: None,
        drains: false,
        stop_ms: 5_000,
    }
}

const fn console(name: &'static str, tty: &'static str) -> Service {
    Service {
        late: true,
        required: false,
        kind: Kind::Simple,
        tty: Some(tty),
        stop_ms: 1_000,
        ..service(name, CONSOLE, &["provision"])
    }
}

const fn job(name: &'static str, argv: &'static [&'static str]) -> Service {
    Service { required: false, kind: Kind::OneShot, ..service(name, argv, &[]) }
}

/// Makes the firmware's variables readable; what the boot loader left in them counts from its end on.
pub const FIRMWARE: &str = "firmware";

/// All services. One that is named in an `after` stands before the one that names it.
pub static SERVICES: [Service; 10] = [
    job("coldplug", &[INIT, "coldplug", "network"]),
    service("provision", &[HOST, "provision"], &[]),
    // Not after coldplug: it hears of network cards as they turn up.
    service("network", &[HOST, "network"], &["provision"]),
    Service { drains: true, stop_ms: 20_000, ..service("runtime", &["/usr/lib/keel/runtime"], &["provision"]) },
    Service { late: true, ..job(FIRMWARE, &[INIT, "firmware"]) },
    // It must not take a trial for one that is none, nor the other way round.
    Service { late: true, ..service("updater", &["/usr/lib/keel/updater"], &["provision", FIRMWARE]) },
    Service { late: true, required: false, ..service("time", &[HOST, "time"], &["provision"]) },
    Service { late: true, ..job("devices", &[INIT, "coldplug"]) },
    console("console-serial", "/dev/ttyS0"),
    console("console-vga", "/dev/tty1"),
];

#[cfg(test)]
mod tests {
    use super::SERVICES;

    #[test]
    fn every_service_waits_only_for_earlier_ones() {
        for (index, service) in SERVICES.iter().enumerate() {
            for name in service.after {
                assert!(SERVICES[..index].iter().any(|earlier| earlier.name == *name), "{} after {name}", service.name);
            }
        }
    }
}
