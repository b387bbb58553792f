//! `[registry]` and `[proxy]`: where images come from, and by which way.

use super::super::{ConfigError, Login, Mirror, Settings, check, fragment};
use super::{MAX_LIST, Merge, certificates};
use crate::tuf::PublicKey;

impl Merge<'_> {
    pub(super) fn registry(&self, settings: &mut Settings, written: &fragment::Registry) -> Result<(), ConfigError> {
        let registry = &mut settings.registry;
        let host = |text: &str| check::host_port(text, false);
        self.list(&mut registry.insecure, "registry.insecure", &written.insecure, host)?;
        self.option(&mut registry.ca_pem, "registry.ca_pem", &written.ca_pem, certificates)?;
        registry.require_digest = written.require_digest.unwrap_or(registry.require_digest);
        self.list(
            &mut registry.signature_keys_pem,
            "registry.signature_keys_pem",
            &written.signature_keys_pem,
            |text| {
                let key = PublicKey::from_pem(text).map(|_| text.to_owned());
                key.ok_or_else(|| "is not a public key of P-256 or Ed25519 in PEM, as cosign writes cosign.pub".into())
            },
        )?;
        if let Some(required) = &written.require_signature {
            registry.require_signature = *required.get_ref();
            if registry.require_signature && registry.signature_keys_pem.is_empty() {
                let reason = "is true without signature_keys_pem: nothing could be pulled or run";
                return Err(self.refuse("registry.require_signature", required, reason));
            }
        }
        if let Some(over) = written.mirror.get(MAX_LIST) {
            return Err(self.refuse("registry.mirror", over, &format!("has more than {MAX_LIST} entries")));
        }
        for entry in &written.mirror {
            let entry = entry.get_ref();
            let of = self.checked("registry.mirror.registry", &entry.registry, host)?;
            let url = self.checked("registry.mirror.url", &entry.url, check::url)?;
            registry.mirrors.push(Mirror { registry: of, url: url.trim_end_matches('/').into() });
        }
        if let Some(over) = written.login.get(MAX_LIST) {
            return Err(self.refuse("registry.login", over, &format!("has more than {MAX_LIST} entries")));
        }
        for entry in &written.login {
            let entry = entry.get_ref();
            let of = self.checked("registry.login.registry", &entry.registry, host)?;
            if registry.logins.iter().any(|login| login.registry == of) {
                return Err(self.refuse("registry.login.registry", &entry.registry, "is there twice"));
            }
            let (user, password) = (entry.user.get_ref().clone(), entry.password.get_ref().clone());
            registry.logins.push(Login { registry: of, user, password });
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
    fn keys_of_signatures_are_read_and_wanted_where_signatures_are() {
        let key = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n-----END PUBLIC KEY-----\n";
        let text = format!("[registry]\nrequire_signature = true\nsignature_keys_pem = [\"\"\"\n{key}\"\"\"]\n");
        let settings = parse(&text).unwrap();
        assert!(settings.registry.require_signature && settings.registry.signature_keys_pem == [key]);
        for (text, place) in [
            ("[registry]\nrequire_signature = true\n".to_owned(), (2, 21, "registry.require_signature")),
            (text.replace("MCow", "MCox"), (3, 23, "registry.signature_keys_pem")),
            ("[registry]\nsignature_keys_pem = [\"x\"]".into(), (2, 23, "registry.signature_keys_pem")),
        ] {
            let error = parse(&text).unwrap_err();
            assert_eq!((error.line, error.column, error.key.as_deref().unwrap()), place, "{error}");
        }
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
