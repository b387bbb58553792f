//! The machine config as written: everything optional, unknown keys refused. Values keep their place in the text, so
//! that a value that makes no sense is refused with line and column.

use serde::Deserialize;
use toml::Spanned;

use super::compose::from_toml::Raw;

type Text = Option<Spanned<String>>;
type Texts = Option<Spanned<Vec<Spanned<String>>>>;
type Number = Option<Spanned<i64>>;

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Fragment {
    pub hostname: Text,
    pub ntp_servers: Texts,
    pub console_prompt: Option<bool>,
    pub network: Network,
    pub api: Api,
    pub update: Update,
    pub health: Health,
    pub registry: Registry,
    pub proxy: Proxy,
    pub container: Vec<Spanned<Raw>>,
    pub container_network: Vec<Spanned<Raw>>,
    pub volume: Vec<Spanned<Raw>>,
    pub compose: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Network {
    pub address: Text,
    pub gateway: Text,
    pub dns: Texts,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Api {
    pub listen: Text,
    pub names: Texts,
    pub client_ca_pem: Text,
    pub issuer_cert_pem: Text,
    pub issuer_key_pem: Text,
    pub default_role: Text,
    pub audit_reads: Option<bool>,
    pub user: Vec<Spanned<User>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct User {
    pub name: Text,
    pub fingerprint: Text,
    pub role: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Update {
    pub url: Text,
    pub tries: Number,
    pub ca_pem: Text,
    pub mirrors: Texts,
    pub max_kib_per_s: Number,
    pub kexec: Option<bool>,
    pub serve: Option<Spanned<toml::Value>>,
    pub auto: Text,
    pub channel: Text,
    pub pin: Text,
    pub check_every_min: Number,
    pub check_jitter_min: Number,
    pub reboot: Text,
    pub window: Vec<Spanned<Window>>,
    pub fleetlock_url: Text,
    pub fleetlock_group: Text,
    pub report_url: Text,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Window {
    pub days: Texts,
    pub start: Spanned<String>,
    pub length_min: Spanned<i64>,
    pub time_zone: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Health {
    pub within_s: Number,
    pub settle_s: Number,
    pub network: Option<bool>,
    pub containers: Option<bool>,
    pub ignore_containers: Texts,
    pub check: Vec<Spanned<Check>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Check {
    pub name: Spanned<String>,
    pub http: Text,
    pub tcp: Text,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Registry {
    pub insecure: Texts,
    pub ca_pem: Text,
    pub require_digest: Option<bool>,
    pub require_signature: Option<Spanned<bool>>,
    pub signature_keys_pem: Texts,
    pub mirror: Vec<Spanned<Mirror>>,
    pub login: Vec<Spanned<Login>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Mirror {
    pub registry: Spanned<String>,
    pub url: Spanned<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    pub registry: Spanned<String>,
    pub user: Spanned<String>,
    pub password: Spanned<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Proxy {
    pub http: Text,
    pub https: Text,
    pub no_proxy: Texts,
}
