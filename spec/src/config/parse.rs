//! From the text of `keel.toml` to [`Settings`], or to the first thing that is wrong with it.

mod declared;
mod registry;
mod rollout;
mod users;

use std::net::SocketAddr;

use toml::Spanned;

use super::fragment::{self, Fragment};
use super::{HealthCheck, Probe, SERVE_DEFAULT, Settings, check};

/// Longest machine config in bytes.
pub const MAX_CONFIG_BYTES: usize = 256 * 1024;
/// Most entries of any list.
const MAX_LIST: usize = 64;
/// Most bytes of the value that an error quotes.
const MAX_QUOTED: usize = 60;

/// Why a machine config is refused, and where.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {}{reason}", key.as_ref().map(|key| format!("{key} ")).unwrap_or_default())]
pub struct ConfigError {
    /// Line, from 1.
    pub line: usize,
    /// Character within the line, from 1.
    pub column: usize,
    /// The key whose value makes no sense, `update.tries`; `None` where the text itself can't be read.
    pub key: Option<String>,
    /// What is wrong.
    pub reason: String,
}

/// Reads and checks a whole machine config.
pub fn parse(text: &str) -> Result<Settings, ConfigError> {
    if text.len() > MAX_CONFIG_BYTES {
        let reason = format!("machine config of {} bytes is longer than {MAX_CONFIG_BYTES}", text.len());
        return Err(ConfigError { line: 1, column: 1, key: None, reason });
    }
    let fragment: Fragment = toml::from_str(text).map_err(|error| {
        let (line, column) = place(text, error.span().map_or(0, |span| span.start));
        let reason = error.message().split_whitespace().collect::<Vec<_>>().join(" ");
        ConfigError { line, column, key: None, reason }
    })?;
    Merge { text }.settings(fragment)
}

/// Line and column of a byte, both from 1.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = &text.as_bytes()[..at.min(text.len())];
    let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
    let line = before.iter().filter(|&&byte| byte == b'\n').count() + 1;
    (line, String::from_utf8_lossy(&before[line_start..]).chars().count() + 1)
}

struct Merge<'a> {
    text: &'a str,
}

impl Merge<'_> {
    fn settings(&self, written: Fragment) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        self.one(&mut settings.hostname, "hostname", &written.hostname, |text| check::host_name(text, 64))?;
        self.list(&mut settings.ntp_servers, "ntp_servers", &written.ntp_servers, check::host)?;
        settings.console_prompt = written.console_prompt.unwrap_or(settings.console_prompt);
        self.network(&mut settings, &written.network)?;
        self.api(&mut settings, &written.api)?;
        let update = &mut settings.update;
        self.option(&mut update.url, "update.url", &written.update.url, check::url)?;
        self.number(&mut update.tries, "update.tries", &written.update.tries, 1, 9)?;
        self.option(&mut update.ca_pem, "update.ca_pem", &written.update.ca_pem, certificates)?;
        self.list(&mut update.mirrors, "update.mirrors", &written.update.mirrors, check::url)?;
        let limit = &written.update.max_kib_per_s;
        self.number(&mut update.max_kib_per_s, "update.max_kib_per_s", limit, 0, 1 << 30)?;
        self.automatic(&mut update.automatic, &written.update)?;
        update.kexec = written.update.kexec.unwrap_or(update.kexec);
        update.serve = self.serve(&written.update.serve, &settings.api.listen)?;
        self.health(&mut settings, &written.health)?;
        self.registry(&mut settings, &written.registry)?;
        self.proxy(&mut settings, &written.proxy)?;
        settings.declared = self.declared(&written)?;
        Ok(settings)
    }

    fn network(&self, settings: &mut Settings, written: &fragment::Network) -> Result<(), ConfigError> {
        let network = &mut settings.network;
        self.option(&mut network.address, "network.address", &written.address, check::prefixed_address)?;
        self.option(&mut network.gateway, "network.gateway", &written.gateway, check::address)?;
        self.list(&mut network.dns, "network.dns", &written.dns, check::address)?;
        let (Some(gateway), Some(place)) = (network.gateway, &written.gateway) else { return Ok(()) };
        let reason = match network.address {
            None => "stands without network.address: with DHCP the lease names the router",
            Some((address, _)) if address.is_ipv4() != gateway.is_ipv4() => "and network.address differ in family",
            Some(_) => return Ok(()),
        };
        Err(self.refuse("network.gateway", place, reason))
    }

    fn api(&self, settings: &mut Settings, written: &fragment::Api) -> Result<(), ConfigError> {
        self.users(settings, written)?;
        let api = &mut settings.api;
        self.one(&mut api.listen, "api.listen", &written.listen, check::listen)?;
        self.list(&mut api.names, "api.names", &written.names, check::host)?;
        self.option(&mut api.client_ca_pem, "api.client_ca_pem", &written.client_ca_pem, certificates)?;
        self.option(&mut api.issuer_cert_pem, "api.issuer_cert_pem", &written.issuer_cert_pem, certificates)?;
        self.option(&mut api.issuer_key_pem, "api.issuer_key_pem", &written.issuer_key_pem, |text| {
            check::pem(text, "PRIVATE KEY")
        })?;
        let all = [
            ("api.client_ca_pem", &written.client_ca_pem),
            ("api.issuer_cert_pem", &written.issuer_cert_pem),
            ("api.issuer_key_pem", &written.issuer_key_pem),
        ];
        let missing = all.iter().find(|(_, value)| value.is_none());
        let present = all.iter().find_map(|(key, value)| value.as_ref().map(|value| (key, value)));
        match (present, missing) {
            (Some((key, value)), Some((missing, _))) => {
                Err(self.refuse(key, value, &format!("is of no use without {missing}: give all three texts or none")))
            }
            _ => Ok(()),
        }
    }

    /// `true`, `false`, or an address to listen on, which isn't the API's.
    fn serve(
        &self,
        written: &Option<Spanned<toml::Value>>,
        api: &SocketAddr,
    ) -> Result<Option<SocketAddr>, ConfigError> {
        let key = "update.serve";
        let Some(place) = written else { return Ok(None) };
        let listen = match place.get_ref() {
            toml::Value::Boolean(false) => return Ok(None),
            toml::Value::Boolean(true) => Ok(SERVE_DEFAULT),
            toml::Value::String(text) => check::listen(text).map_err(|_| ()),
            _ => Err(()),
        };
        let want = "is neither true nor false nor an address to listen on: want one like 0.0.0.0:7380";
        let listen = listen.map_err(|()| self.refuse(key, place, want))?;
        if listen.port() == api.port() {
            return Err(self.refuse(key, place, "has the port of api.listen"));
        }
        Ok(Some(listen))
    }

    fn health(&self, settings: &mut Settings, written: &fragment::Health) -> Result<(), ConfigError> {
        let health = &mut settings.health;
        self.number(&mut health.within_s, "health.within_s", &written.within_s, 10, 3600)?;
        self.number(&mut health.settle_s, "health.settle_s", &written.settle_s, 0, 600)?;
        health.network = written.network.unwrap_or(health.network);
        health.containers = written.containers.unwrap_or(health.containers);
        let ignored = &written.ignore_containers;
        self.list(&mut health.ignore_containers, "health.ignore_containers", ignored, check_name)?;
        if let Some(over) = written.check.get(MAX_LIST) {
            return Err(self.refuse("health.check", over, &format!("has more than {MAX_LIST} entries")));
        }
        for entry in &written.check {
            let check = entry.get_ref();
            let name = self.checked("health.check.name", &check.name, check_name)?;
            if health.checks.iter().any(|other| other.name == name) {
                return Err(self.refuse("health.check.name", &check.name, "is there twice"));
            }
            let probe = match (&check.http, &check.tcp) {
                (Some(url), None) => Probe::Http(self.checked("health.check.http", url, check::url)?),
                (None, Some(target)) => {
                    Probe::Tcp(self.checked("health.check.tcp", target, |text| check::host_port(text, true))?)
                }
                _ => return Err(self.refuse("health.check", entry, "wants either http or tcp")),
            };
            health.checks.push(HealthCheck { name, probe });
        }
        Ok(())
    }

    fn one<T>(
        &self,
        into: &mut T,
        key: &str,
        written: &Option<Spanned<String>>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), ConfigError> {
        if let Some(value) = written {
            *into = self.checked(key, value, check)?;
        }
        Ok(())
    }

    fn option<T>(
        &self,
        into: &mut Option<T>,
        key: &str,
        written: &Option<Spanned<String>>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), ConfigError> {
        self.one(into, key, written, |text| check(text).map(Some))
    }

    fn list<T>(
        &self,
        into: &mut Vec<T>,
        key: &str,
        written: &Option<Spanned<Vec<Spanned<String>>>>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<(), ConfigError> {
        let Some(list) = written else { return Ok(()) };
        if list.get_ref().len() > MAX_LIST {
            return Err(self.refuse(key, list, &format!("has more than {MAX_LIST} entries")));
        }
        *into = list.get_ref().iter().map(|value| self.checked(key, value, &check)).collect::<Result<_, _>>()?;
        Ok(())
    }

    fn number(
        &self,
        into: &mut u32,
        key: &str,
        written: &Option<Spanned<i64>>,
        least: u32,
        most: u32,
    ) -> Result<(), ConfigError> {
        let Some(value) = written else { return Ok(()) };
        match u32::try_from(*value.get_ref()) {
            Ok(number) if (least..=most).contains(&number) => *into = number,
            _ => {
                let reason = format!("= {} is not between {least} and {most}", value.get_ref());
                return Err(self.refuse(key, value, &reason));
            }
        }
        Ok(())
    }

    fn checked<T>(
        &self,
        key: &str,
        value: &Spanned<String>,
        check: impl Fn(&str) -> Result<T, String>,
    ) -> Result<T, ConfigError> {
        check(value.get_ref()).map_err(|reason| {
            let quoted: String = value.get_ref().chars().take(MAX_QUOTED).collect();
            // Keys are secrets: what is said of PEM texts quotes nothing of them.
            match key.ends_with("_pem") {
                true => self.refuse(key, value, &reason),
                false => self.refuse(key, value, &format!("= {quoted:?} {reason}")),
            }
        })
    }

    fn refuse<T>(&self, key: &str, value: &Spanned<T>, reason: &str) -> ConfigError {
        let (line, column) = place(self.text, value.span().start);
        ConfigError { line, column, key: Some(key.into()), reason: reason.into() }
    }
}

fn certificates(text: &str) -> Result<String, String> {
    check::pem(text, "CERTIFICATE")
}

fn check_name(text: &str) -> Result<String, String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    match text {
        "" => Err("is empty".into()),
        _ if text.len() > 64 || !text.bytes().all(fits) => {
            Err("is not a name: want at most 64 letters, digits, dots, hyphens and underscores".into())
        }
        _ => Ok(text.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const WHOLE: &str = r#"
hostname = "web-1"
ntp_servers = ["192.0.2.1", "ntp.example.org"]
console_prompt = false
[network]
address = "192.0.2.7/24"
gateway = "192.0.2.1"
dns = ["192.0.2.53", "2001:db8::53"]
[api]
listen = "[::]:2376"
names = ["web-1.example.org", "198.51.100.4"]
[update]
url = "https://updates.example.org/keel"
tries = 2
mirrors = ["http://192.0.2.9:8080/keel"]
max_kib_per_s = 512
kexec = true
ca_pem = """
-----BEGIN CERTIFICATE-----
MIIB
-----END CERTIFICATE-----
"""
[health]
within_s = 60
settle_s = 0
containers = false
ignore_containers = ["batch_1"]
network = false
[[health.check]]
name = "registry"
http = "http://10.0.2.2:5000/v2/"
[[health.check]]
name = "database"
tcp = "[2001:db8::1]:5432"
[registry]
insecure = ["10.0.2.2:5000", "localhost"]
"#;

    fn refused(text: &str) -> (usize, usize, Option<String>) {
        let error = parse(text).unwrap_err();
        (error.line, error.column, error.key)
    }

    #[test]
    fn nothing_written_means_the_defaults() {
        assert_eq!(parse("").unwrap(), Settings::default());
    }

    #[test]
    fn everything_written_is_in_force() {
        let settings = parse(WHOLE).unwrap();
        assert_eq!(settings.hostname, "web-1");
        assert_eq!(settings.network.address, Some(("192.0.2.7".parse().unwrap(), 24)));
        assert_eq!((settings.update.tries, settings.health.within_s, settings.health.settle_s), (2, 60, 0));
        assert!(!settings.health.network);
        assert_eq!((settings.health.containers, settings.health.ignore_containers.len()), (false, 1));
        assert_eq!((settings.update.mirrors.len(), settings.update.max_kib_per_s), (1, 512));
        assert_eq!(settings.health.checks[1].probe, Probe::Tcp("[2001:db8::1]:5432".into()));
        assert_eq!(settings.registry.insecure, ["10.0.2.2:5000", "localhost"]);
        assert!(settings.update.kexec && !settings.console_prompt);
    }

    #[test]
    fn peers_are_served_where_the_config_says_and_nowhere_by_default() {
        let serve = |text: &str| parse(&format!("[update]\n{text}")).unwrap().update.serve;
        assert_eq!((serve(""), serve("serve = false")), (None, None));
        assert_eq!(serve("serve = true"), Some(SERVE_DEFAULT));
        assert_eq!(serve("serve = \"[::]:81\""), Some("[::]:81".parse().unwrap()));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let key = |key: &str| Some(key.to_owned());
        assert_eq!(refused("hostname = \"a\"\nhostname = 3"), (2, 1, None));
        assert_eq!(refused("\n[update]\nretries = 3"), (3, 1, None));
        assert_eq!(refused("[update]\ntries = 10"), (2, 9, key("update.tries")));
        assert_eq!(refused("# ü\nhostname = \"-a\""), (2, 12, key("hostname")));
        assert_eq!(refused("ntp_servers = [\"a\", \"b c\"]"), (1, 21, key("ntp_servers")));
        assert_eq!(refused("[network]\naddress = \"192.0.2.7\""), (2, 11, key("network.address")));
        assert_eq!(refused("[network]\ngateway = \"192.0.2.1\""), (2, 11, key("network.gateway")));
        assert_eq!(refused("[update]\nurl = \"ftp://x\""), (2, 7, key("update.url")));
        assert_eq!(
            refused("[[health.check]]\nname = \"x\"\nhttp = \"http://x\"\ntcp = \"x:1\"").2,
            key("health.check")
        );
        assert_eq!(refused("[update]\nca_pem = \"x\""), (2, 10, key("update.ca_pem")));
        assert_eq!(refused("[update]\nmirrors = [\"x\"]"), (2, 12, key("update.mirrors")));
        for wrong in ["7380", "\"yes\"", "\"0.0.0.0:0\"", "\"0.0.0.0:2376\"", "[true]"] {
            assert_eq!(refused(&format!("[update]\nserve = {wrong}")), (2, 9, key("update.serve")), "{wrong}");
        }
    }

    #[test]
    fn one_certificate_text_without_the_others_is_refused() {
        let text = "[api]\nclient_ca_pem = \"\"\"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\"\"\"";
        let error = parse(text).unwrap_err();
        assert!(error.reason.contains("issuer_cert_pem"), "{error}");
    }

    #[test]
    fn a_key_in_the_wrong_place_is_not_quoted() {
        let error = parse("[api]\nissuer_key_pem = \"secret\"").unwrap_err();
        assert!(!error.to_string().contains("secret"));
    }

    #[test]
    fn names_addresses_and_limits_are_checked() {
        for bad in ["", "a..b", "a_b", &"a".repeat(65)] {
            assert!(check::host_name(bad, 64).is_err(), "{bad}");
        }
        for bad in ["0.0.0.0/8", "192.0.2.1/33", "192.0.2.1/0", "224.0.0.1/4", "x/8"] {
            assert!(check::prefixed_address(bad).is_err(), "{bad}");
        }
        for bad in ["http://", "https://user@x", "http://x y", "HTTP://x"] {
            assert!(check::url(bad).is_err(), "{bad}");
        }
        for bad in ["x:0", "x:65536", "x:", "[::1", "::1:80"] {
            assert!(check::host_port(bad, true).is_err(), "{bad}");
        }
        assert!(parse(&"#".repeat(MAX_CONFIG_BYTES + 1)).is_err());
    }

    proptest! {
        #[test]
        fn hostile_text_never_panics(text in "\\PC*") {
            let _ = parse(&text);
        }

        #[test]
        fn changes_of_a_good_config_never_panic(at in 0..WHOLE.len(), with in "\\PC{0,4}", cut in 0_usize..8) {
            if let (Some(before), Some(after)) = (WHOLE.get(..at), WHOLE.get((at + cut).min(WHOLE.len())..)) {
                let _ = parse(&format!("{before}{with}{after}"));
            }
        }
    }
}
