//! The part of `org.freedesktop.DBus` without which `busctl --address=unix:path=…` gives up
//! (D-Bus Specification, "Message Bus Messages"): names are made up, match rules are accepted and have no effect,
//! because a peer gets every signal anyway.

/// Unique name of the server on every connection.
pub(super) const SERVER_NAME: &str = ":1.0";
/// Unique name of the client on every connection.
const CLIENT_NAME: &str = ":1.1";
/// Where the stub is served.
pub(super) const PATH: &str = "/org/freedesktop/DBus";

/// Stands in for a message bus on one connection.
pub(super) struct Stub {
    /// Well-known name that the server goes by.
    pub(super) name: String,
}

#[zbus::interface(name = "org.freedesktop.DBus")]
impl Stub {
    fn hello(&self) -> String {
        CLIENT_NAME.into()
    }

    fn add_match(&self, _rule: &str) {}

    fn remove_match(&self, _rule: &str) {}

    fn list_names(&self) -> Vec<String> {
        vec![SERVER_NAME.into(), CLIENT_NAME.into(), self.name.clone(), "org.freedesktop.DBus".into()]
    }

    fn list_activatable_names(&self) -> Vec<String> {
        Vec::new()
    }

    fn name_has_owner(&self, name: &str) -> bool {
        self.list_names().iter().any(|known| known == name)
    }

    fn get_name_owner(&self, name: &str) -> zbus::fdo::Result<String> {
        match name {
            CLIENT_NAME => Ok(CLIENT_NAME.into()),
            "org.freedesktop.DBus" => Ok(name.into()),
            _ if self.name_has_owner(name) => Ok(SERVER_NAME.into()),
            _ => Err(zbus::fdo::Error::NameHasNoOwner(format!("nobody here goes by {name}"))),
        }
    }
}
