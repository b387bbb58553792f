//! `[[api.user]]`: who may what.

use super::super::{ApiUser, ConfigError, Settings, fragment};
use super::{MAX_LIST, Merge};

impl Merge<'_> {
    pub(super) fn users(&self, settings: &mut Settings, written: &fragment::Api) -> Result<(), ConfigError> {
        let api = &mut settings.api;
        let role = |text: &str| text.parse().map_err(str::to_owned);
        self.one(&mut api.default_role, "api.default_role", &written.default_role, role)?;
        api.audit_reads = written.audit_reads.unwrap_or(api.audit_reads);
        if let Some(over) = written.user.get(MAX_LIST) {
            return Err(self.refuse("api.user", over, &format!("has more than {MAX_LIST} entries")));
        }
        for entry in &written.user {
            let user = entry.get_ref();
            let (mut name, mut fingerprint) = (None, None);
            self.option(&mut name, "api.user.name", &user.name, |text| Ok(text.to_owned()))?;
            self.option(&mut fingerprint, "api.user.fingerprint", &user.fingerprint, digits)?;
            if name.is_some() == fingerprint.is_some() {
                return Err(self.refuse("api.user", entry, "wants either name or fingerprint"));
            }
            api.users.push(ApiUser { name, fingerprint, role: self.checked("api.user.role", &user.role, role)? });
        }
        Ok(())
    }
}

/// SHA-256 in hexadecimal; colons, as `openssl x509 -fingerprint` writes them, are left out.
fn digits(text: &str) -> Result<String, String> {
    let digits: String = text.chars().filter(|c| *c != ':').collect::<String>().to_ascii_lowercase();
    match digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        true => Ok(digits),
        false => Err("is not a SHA-256 fingerprint: want 64 hexadecimal digits".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::Role;
    use super::super::parse;

    #[test]
    fn users_are_named_one_way_and_have_a_role() {
        let fingerprint = "AB:".repeat(31) + "cd";
        let text = format!(
            "[api]\ndefault_role = \"read\"\n[[api.user]]\nname = \"alice\"\nrole = \"admin\"\n[[api.user]]\nfingerprint = \"{fingerprint}\"\nrole = \"run\"\n"
        );
        let api = parse(&text).unwrap_or_else(|error| panic!("{error}")).api;
        assert_eq!((api.default_role, api.users[0].role), (Role::Read, Role::Admin));
        assert_eq!(api.users[1].fingerprint.as_deref(), Some(format!("{}cd", "ab".repeat(31)).as_str()));
        for (text, key) in [
            ("[[api.user]]\nname = \"a\"\nrole = \"root\"", "api.user.role"),
            ("[[api.user]]\nrole = \"run\"", "api.user"),
            ("[[api.user]]\nfingerprint = \"ab\"\nrole = \"run\"", "api.user.fingerprint"),
            ("[api]\ndefault_role = \"none\"", "api.default_role"),
        ] {
            assert_eq!(parse(text).unwrap_err().key.as_deref(), Some(key), "{text}");
        }
    }
}
