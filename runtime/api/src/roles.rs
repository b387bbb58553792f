//! Who calls, and what they may: each route of the table in `router` needs something, each caller has a role.
//!
//! Whoever is on the host's own socket is its administrator. From afar a role comes from the machine config, by the
//! certificate's fingerprint or name, else from the certificate's own unit (`OU=read`, `run` or `admin`), else it is the
//! config's default. A role holds those below it: read, run, admin.
//!
//! `run` isn't a way around `admin`: what gives a container power over the host is an administrator's to ask for, and so
//! is what goes into such a container afterwards.

use std::net::SocketAddr;
use std::sync::Arc;

use bollard_stubs::models::{ContainerCreateBody, HostConfig, MountType};
use hyper::StatusCode;
use keel_engine::Engine;
use keel_spec::api::ErrorCode;
use keel_spec::config::{Api, Role};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use crate::call::blocking;
use crate::respond::Failure;

/// Longest name that is taken from a certificate, bytes.
const MAX_NAME_BYTES: usize = 64;

/// Who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The certificate's common name, or `local`.
    pub name: String,
    /// What they may.
    pub role: Role,
    /// Where they call from; `None`: the host itself.
    pub address: Option<SocketAddr>,
}

/// What a route needs of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To see.
    Read,
    /// To change containers, images, networks and volumes.
    Run,
    /// To get into a container: `Run`, and `Admin` where that container has power over the host.
    Inside,
    /// To change the host.
    Admin,
}

impl Need {
    /// The least role that may do.
    pub fn role(self) -> Role {
        match self {
            Self::Read => Role::Read,
            Self::Run | Self::Inside => Role::Run,
            Self::Admin => Role::Admin,
        }
    }
}

impl Caller {
    /// Who is on the host's own socket.
    pub fn local() -> Self {
        Self { name: "local".into(), role: Role::Admin, address: None }
    }

    /// Who shows a certificate, which TLS has checked already.
    pub fn with_certificate(der: &[u8], address: SocketAddr, api: &Api) -> Self {
        let fingerprint = hex(ring_digest(der).as_ref());
        let (name, unit) = subject(der);
        let listed = api.users.iter().find(|user| {
            user.fingerprint.as_ref().is_some_and(|known| *known == fingerprint)
                || user.name.as_ref().is_some_and(|known| *known == name)
        });
        let role = listed.map(|user| user.role).or(unit).unwrap_or(api.default_role);
        Self { name, role, address: Some(address) }
    }

    /// Refuses whoever may not.
    pub fn require(&self, role: Role, what: &str) -> Result<(), Failure> {
        if self.role >= role {
            return Ok(());
        }
        let message = format!(
            "{} has the role {} on this host, and {what} needs the role {}",
            self.name,
            self.role.name(),
            role.name()
        );
        Err(Failure { status: StatusCode::FORBIDDEN, code: ErrorCode::BadRequest, message })
    }
}

fn ring_digest(der: &[u8]) -> impl AsRef<[u8]> {
    ring::digest::digest(&ring::digest::SHA256, der)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Common name and unit of a certificate.
fn subject(der: &[u8]) -> (String, Option<Role>) {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else { return ("unknown".into(), None) };
    let subject = certificate.subject();
    let name = subject.iter_common_name().find_map(|name| name.as_str().ok()).unwrap_or("unknown");
    let name = name.chars().filter(|c| !c.is_control()).take(MAX_NAME_BYTES).collect();
    // The least of several: a certificate never means more than it says.
    let units = subject.iter_organizational_unit().filter_map(|unit| unit.as_str().ok()?.parse().ok());
    (name, units.min())
}

/// Refuses whoever may not get into a container that has power over the host.
pub async fn require_inside(caller: &Caller, engine: &Arc<Engine>, path: &str, name: &str) -> Result<(), Failure> {
    if caller.role >= Role::Admin {
        return Ok(());
    }
    let (engine, name, is_exec) = (Arc::clone(engine), name.to_owned(), path.starts_with("/exec/"));
    let power = blocking(move || {
        let container = match is_exec.then(|| engine.exec_inspect(&name)) {
            Some(Ok(exec)) if exec.asked.privileged == Some(true) => return Ok(Some("is privileged".to_owned())),
            Some(Ok(exec)) => exec.container,
            Some(Err(_)) => return Ok(None),
            None => name,
        };
        // One that isn't there is the endpoint's to tell of.
        Ok(engine.request(&container).ok().and_then(|body| power_over_host(&engine, &body)))
    })
    .await?;
    match power {
        None => Ok(()),
        Some(why) => caller.require(Role::Admin, &format!("getting into a container that {why}")),
    }
}

/// Refuses a new container with power over the host to whoever may not have it.
pub fn require_to_create(caller: &Caller, engine: &Engine, body: &ContainerCreateBody) -> Result<(), Failure> {
    match power_over_host(engine, body) {
        Some(why) if caller.role < Role::Admin => {
            caller.require(Role::Admin, &format!("making a container that {why}"))
        }
        _ => Ok(()),
    }
}

/// What gives a container power over the host, if anything does: its own options, or those of the containers whose
/// namespaces or mounts it is to share.
fn power_over_host(engine: &Engine, body: &ContainerCreateBody) -> Option<String> {
    own_power(body).map(str::to_owned).or_else(|| {
        let host = body.host_config.as_ref()?;
        let modes = [&host.network_mode, &host.pid_mode, &host.ipc_mode].into_iter().flatten();
        let shared = modes.filter_map(|mode| mode.strip_prefix("container:"));
        let lent = host.volumes_from.iter().flatten().map(|from| from.split(':').next().unwrap_or_default());
        shared.chain(lent).find_map(|name| {
            let why = own_power(&engine.request(name).ok()?)?;
            Some(format!("shares with {name:.64}, which {why}"))
        })
    })
}

fn own_power(body: &ContainerCreateBody) -> Option<&'static str> {
    let host = body.host_config.as_ref()?;
    let is_host = |mode: &Option<String>| mode.as_deref() == Some("host");
    let some = |list: usize| list > 0;
    let unconfined = |host: &HostConfig| {
        let options = host.security_opt.iter().flatten();
        options.into_iter().any(|option| option.starts_with("seccomp") && !option.ends_with("builtin"))
    };
    let binds = host.binds.iter().flatten().any(|bind| bind.starts_with('/') && bind.contains(':'));
    let bound = |mount: &bollard_stubs::models::Mount| {
        let driver = mount.volume_options.as_ref().and_then(|options| options.driver_config.as_ref());
        mount.typ == Some(MountType::BIND)
            || driver.is_some_and(|config| config.options.as_ref().is_some_and(|options| !options.is_empty()))
    };
    let checks = [
        (host.privileged == Some(true), "is privileged"),
        (binds || host.mounts.iter().flatten().any(bound), "has folders of the host"),
        (some(host.devices.as_ref().map_or(0, Vec::len)), "has devices of the host"),
        (some(host.device_cgroup_rules.as_ref().map_or(0, Vec::len)), "has devices of the host"),
        (is_host(&host.network_mode), "shares the host's network"),
        (is_host(&host.pid_mode), "shares the host's processes"),
        (is_host(&host.ipc_mode), "shares the host's IPC"),
        (host.oom_score_adj.is_some_and(|score| score < 0), "is spared by the kernel when memory is short"),
        (is_host(&host.userns_mode), "has no user namespace of its own"),
        (unconfined(host), "has a system call filter of its own, or none"),
    ];
    checks.into_iter().find(|(asked, _)| *asked).map(|(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use keel_spec::config::{ApiUser, Settings};

    fn certificate(name: &str, unit: Option<&str>) -> Vec<u8> {
        let mut parameters = rcgen::CertificateParams::new(Vec::new()).unwrap();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        parameters.distinguished_name.push(rcgen::DnType::CommonName, name);
        if let Some(unit) = unit {
            parameters.distinguished_name.push(rcgen::DnType::OrganizationalUnitName, unit);
        }
        parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn roles_come_from_the_config_then_the_unit_then_the_default() {
        let address = "192.0.2.1:9".parse().unwrap();
        let mut api = Settings::default().api;
        let of = |der: &[u8], api: &Api| Caller::with_certificate(der, address, api);
        let (plain, unit) = (certificate("alice", None), certificate("bob", Some("read")));
        assert_eq!((of(&plain, &api).name.as_str(), of(&plain, &api).role), ("alice", Role::Admin));
        assert_eq!(of(&unit, &api).role, Role::Read);
        assert_eq!(of(&certificate("eve", Some("root")), &api).role, Role::Admin, "no unit of ours");
        api.default_role = Role::Read;
        assert_eq!(of(&plain, &api).role, Role::Read);
        api.users.push(ApiUser { name: Some("bob".into()), fingerprint: None, role: Role::Run });
        let fingerprint = hex(ring_digest(&plain).as_ref());
        api.users.push(ApiUser { name: None, fingerprint: Some(fingerprint), role: Role::Admin });
        assert_eq!((of(&unit, &api).role, of(&plain, &api).role), (Role::Run, Role::Admin));
        assert_eq!(of(b"nonsense", &api).role, Role::Read);
    }

    #[test]
    fn a_refusal_says_who_what_and_what_is_needed() {
        let caller = Caller { role: Role::Read, ..Caller::local() };
        let failure = caller.require(Role::Run, "POST /containers/create").unwrap_err();
        assert_eq!(failure.status, StatusCode::FORBIDDEN);
        let expected = "local has the role read on this host, and POST /containers/create needs the role run";
        assert_eq!(failure.message, expected);
        assert!(Caller::local().require(Role::Admin, "x").is_ok());
    }

    #[test]
    fn what_reaches_the_host_is_found_whichever_way_it_is_asked_for() {
        let of = |json: &str| own_power(&serde_json::from_str(&format!(r#"{{"HostConfig":{json}}}"#)).unwrap());
        for json in [
            r#"{"Privileged":true}"#,
            r#"{"Binds":["/etc:/x:ro"]}"#,
            r#"{"Mounts":[{"Type":"bind","Source":"/etc","Target":"/x"}]}"#,
            r#"{"Mounts":[{"Type":"volume","Target":"/x","VolumeOptions":{"DriverConfig":{"Options":{"o":"bind"}}}}]}"#,
            r#"{"Devices":[{"PathOnHost":"/dev/sda"}]}"#,
            r#"{"NetworkMode":"host"}"#,
            r#"{"PidMode":"host"}"#,
            r#"{"UsernsMode":"host"}"#,
            r#"{"OomScoreAdj":-1}"#,
            r#"{"SecurityOpt":["seccomp=unconfined"]}"#,
        ] {
            assert!(of(json).is_some(), "{json}");
        }
        for json in ["{}", r#"{"Binds":["data:/x","/anonymous"],"CapAdd":["ALL"],"SecurityOpt":["seccomp=builtin"]}"#] {
            assert_eq!(of(json), None, "{json}");
        }
    }
}
