//! `[registry]` and `[proxy]`: where images come from, and by which way.

use super::super::{ConfigError, Mirror, Settings, check, fragment};
use super::{MAX_LIST, Merge, certificates};

impl Merge<'_> {
    pub(super) fn registry(&self, settings: &mut Settings, written: &fragment::Registry) -> Result<(), ConfigError> {
        let registry = &mut settings.registry;
        let host = |text: &str| check::host_port(text, false);
        self.list(&mut registry.insecure, "registry.insecure", &written.insecure, host)?;
        self.option(&mut registry.ca_pem, "registry.ca_pem", &written.ca_pem, certificates)?;
        registry.require_digest = written.require_digest.unwrap_or(registry.require_digest);
        if let Some(over) = written.mirror.get(MAX_LIST) {
            return Err(self.refuse("registry.mirror", over, &format!("has more than {MAX_LIST} entries")));
        }
        for entry in &written.mirror {
            let entry = entry.get_ref();
            let of = self.checked("registry.mirror.registry", &entry.registry, host)?;
            let url = self.checked("registry.mirror.url", &entry.url, check::url)?;
            registry.mirrors.push(Mirror { registry: of, url: url.trim_end_matches('/').into() });
        }
        Ok(())
    }

    pub(super) fn proxy(&self, settings: &mut Settings, written: &fragment::Proxy) -> Result<(), ConfigError> {
        let proxy = &mut settings.proxy;
        self.option(&mut proxy.http, "proxy.http", &written.http, check::proxy)?;
        self.option(&mut proxy.https, "proxy.https", &written.https, check::proxy)?;
        self.list(&mut proxy.no_proxy, "proxy.no_proxy", &written.no_proxy, check::direct_host)
    }
}

#[cfg(test)]
mod tests {
    use super::super::parse;

    #[test]
    fn mirrors_and_proxies_are_read() {
        let text = r#"
            [registry]
            require_digest = true
            [[registry.mirror]]
            registry = "docker.io"
            url = "https://mirror.example:5000/"
            [proxy]
            https = "http://me:p%40ss@proxy.example:3128/"
            no_proxy = ["10.0.0.0/8", ".example.net", "fd00::1", "host:5000", "*"]
        "#;
        let settings = parse(text).unwrap();
        assert!(settings.registry.require_digest);
        assert_eq!(settings.registry.mirrors[0].url, "https://mirror.example:5000");
        assert_eq!(settings.proxy.https.as_deref(), Some("http://me:p%40ss@proxy.example:3128"));
        assert_eq!(settings.proxy.no_proxy.len(), 5);
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_its_key() {
        for (text, key) in [
            ("[[registry.mirror]]\nregistry = \"a b\"\nurl = \"https://x\"", "registry.mirror.registry"),
            ("[[registry.mirror]]\nregistry = \"a\"\nurl = \"x\"", "registry.mirror.url"),
            ("[proxy]\nhttp = \"proxy:3128\"", "proxy.http"),
            ("[proxy]\nhttps = \"socks5://proxy:3128\"", "proxy.https"),
            ("[proxy]\nno_proxy = [\"a/b\"]", "proxy.no_proxy"),
        ] {
            assert_eq!(parse(text).unwrap_err().key.as_deref(), Some(key), "{text}");
        }
    }
}
