//! The machine config, `keel.toml`: what a human writes, and the validated settings that programs use.
//!
//! Three layers: a fragment as written (everything optional, unknown keys refused), merged over the defaults, checked
//! into [`Settings`]. [`parse`] does all three; nothing else makes settings from text.

mod check;
mod compose;
mod declared;
mod fragment;
mod parse;
mod role;
mod rollout;

pub use declared::{Condition, Declared, DeclaredContainer, DeclaredObject, Dependency, PullPolicy};
pub use parse::{ConfigError, MAX_CONFIG_BYTES, parse};
pub use role::{ApiUser, Role};
pub use rollout::{ALL_DAYS, Auto, Automatic, CheckEvery, DAYS, FleetLock, Reboot, Window};

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Validated settings. Every value is in force: what `keel.toml` leaves out has its default here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// Name of the host (RFC 1123), `keel` by default.
    pub hostname: String,
    /// Host network.
    pub network: Network,
    /// NTP servers, names or addresses; none: the clock is left to the hardware.
    pub ntp_servers: Vec<String>,
    /// The HTTP API.
    pub api: Api,
    /// Where releases come from and how they are tried.
    pub update: Update,
    /// What must be true for a release to be good.
    pub health: Health,
    /// Image registries.
    pub registry: Registry,
    /// How registries are reached.
    #[serde(default)]
    pub proxy: Proxy,
    /// Whether `keelctl` can be typed on the console.
    pub console_prompt: bool,
    /// Containers, networks and volumes that this machine is to have.
    #[serde(default)]
    pub declared: Declared,
}

/// Host network.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Static address with prefix length, `192.0.2.7/24`; `None`: DHCP.
    pub address: Option<(IpAddr, u8)>,
    /// Default router with a static address.
    pub gateway: Option<IpAddr>,
    /// Name servers; with DHCP they go before those of the lease.
    pub dns: Vec<IpAddr>,
}

/// The HTTP API over TLS. It listens on TCP only where all three PEM texts are there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Api {
    /// Address to listen on, `0.0.0.0:2376` by default.
    pub listen: SocketAddr,
    /// Names and addresses that the host is reached by, beside its own: into its certificate.
    pub names: Vec<String>,
    /// Authority that client certificates must come from, PEM.
    pub client_ca_pem: Option<String>,
    /// Authority that issues this host's own certificate, PEM; the key is made on the host.
    pub issuer_cert_pem: Option<String>,
    /// Its private key, PEM (PKCS #8).
    pub issuer_key_pem: Option<String>,
    /// Roles of certificates, by name or fingerprint.
    #[serde(default)]
    pub users: Vec<ApiUser>,
    /// Role of those that neither `users` nor their own unit names; `admin` by default.
    #[serde(default)]
    pub default_role: Role,
    /// Whether calls that change nothing are in the audit log, too; they are by default.
    #[serde(default = "yes")]
    pub audit_reads: bool,
}

/// Where releases come from and how they are tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Update {
    /// Base address of the update repository, `http://` or `https://`.
    pub url: Option<String>,
    /// How often a release may try to prove itself, 1 to 9, 3 by default.
    pub tries: u32,
    /// Further certificate authorities for `url` and `mirrors`, PEM.
    pub ca_pem: Option<String>,
    /// Base addresses of mirrors, asked for files before `url` in this order; a peer in the same network, for example.
    /// Metadata come from `url` alone.
    #[serde(default)]
    pub mirrors: Vec<String>,
    /// Most KiB per second that an update fetches; 0, the default: no limit.
    #[serde(default)]
    pub max_kib_per_s: u32,
    /// What the host does by itself.
    #[serde(default)]
    pub automatic: Automatic,
    /// Whether a restart starts the next kernel without the firmware where that can be done; `false` by default.
    #[serde(default)]
    pub kexec: bool,
    /// Address on which the running release's files are served to peers, plain HTTP; `None`, the default: nowhere.
    #[serde(default)]
    pub serve: Option<SocketAddr>,
}

/// Where `update.serve = true` listens.
pub const SERVE_DEFAULT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 7380);

/// What must be true for a release to be good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// Seconds after boot by which everything must be good, 10 to 3600, 120 by default.
    pub within_s: u32,
    /// Seconds for which it must stay good without a break, 0 to 600, 5 by default.
    pub settle_s: u32,
    /// Whether the host has to be connected again that was so when the release was installed; it has to by default.
    #[serde(default = "yes")]
    pub network: bool,
    /// Whether the containers that should run have to be up, and healthy where that is checked; they have to by default.
    #[serde(default = "yes")]
    pub containers: bool,
    /// Names of containers that don't count.
    #[serde(default)]
    pub ignore_containers: Vec<String>,
    /// Checks beside the required services.
    pub checks: Vec<HealthCheck>,
}

fn yes() -> bool {
    true
}

/// One health check.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Name, for messages.
    pub name: String,
    /// What is tried.
    pub probe: Probe,
}

/// What a health check tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Probe {
    /// A `GET` that must answer 200 to 399 within 5 s.
    Http(String),
    /// A TCP connection that must come about within 5 s.
    Tcp(String),
}

/// Image registries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registry {
    /// `host[:port]` of registries that are spoken to without TLS.
    pub insecure: Vec<String>,
    /// Further certificate authorities for registries, PEM.
    pub ca_pem: Option<String>,
    /// Whether images are pulled and run by digest only, so that no registry chooses what runs.
    #[serde(default)]
    pub require_digest: bool,
    /// Whether each image that is pulled or run must be signed by one of the keys.
    #[serde(default)]
    pub require_signature: bool,
    /// Public keys of cosign, PEM.
    #[serde(default)]
    pub signature_keys_pem: Vec<String>,
    /// Where images of a registry are looked for first, in order.
    #[serde(default)]
    pub mirrors: Vec<Mirror>,
    /// Who the host is towards registries where a client doesn't say who it is.
    #[serde(default)]
    pub logins: Vec<Login>,
}

/// Who the host is towards a registry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// `host[:port]`; `docker.io` for Docker's.
    pub registry: String,
    /// User.
    pub user: String,
    /// Password or access token.
    pub password: String,
}

impl std::fmt::Debug for Login {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Login")
            .field("registry", &self.registry)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}

/// A registry that has what another has.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// `host[:port]` whose images it has; `docker.io` for Docker's.
    pub registry: String,
    /// Its base address, `http://` or `https://`, without `/v2/`.
    pub url: String,
}

/// Proxies on the way to registries and update repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxy {
    /// Proxy for `http://` addresses: `http://[user:password@]host:port`.
    pub http: Option<String>,
    /// Proxy for `https://` addresses.
    pub https: Option<String>,
    /// Hosts reached directly: names with those below them, addresses, networks such as `10.0.0.0/8`, each also with
    /// `:port`; `*`: all.
    pub no_proxy: Vec<String>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            hostname: "keel".into(),
            network: Network::default(),
            ntp_servers: Vec::new(),
            api: Api {
                listen: SocketAddr::from(([0, 0, 0, 0], 2376)),
                names: Vec::new(),
                client_ca_pem: None,
                issuer_cert_pem: None,
                issuer_key_pem: None,
                users: Vec::new(),
                default_role: Role::Admin,
                audit_reads: true,
            },
            update: Update {
                url: None,
                tries: 3,
                ca_pem: None,
                mirrors: Vec::new(),
                max_kib_per_s: 0,
                kexec: false,
                serve: None,
                automatic: Automatic::default(),
            },
            health: Health {
                within_s: 120,
                settle_s: 5,
                containers: true,
                network: true,
                ignore_containers: Vec::new(),
                checks: Vec::new(),
            },
            registry: Registry::default(),
            proxy: Proxy::default(),
            console_prompt: true,
            declared: Declared::default(),
        }
    }
}
