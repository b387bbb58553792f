//! Containers, networks and volumes that the machine config declares.
//!
//! What is to be and what there is are compared, and what can be done now towards the former is done, in order
//! ([`plan`], pure). Then they are compared anew, until nothing is left: at the start of this program, and so after each
//! boot and each change of the config. What failed is tried again after a pause that doubles. Whoever removes or stops a
//! declared container later is left alone until then.
//!
//! What was made so bears a label with a digest of its declaration. So a changed one is made anew, and one that is no
//! longer declared is removed; whatever has no such label is never touched. Volumes are never removed: they are data.
//!
//! - [`plan`]: the comparison
//! - [`drive`]: the thread that carries it out

pub mod drive;
pub mod plan;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, PoisonError};

use keel_spec::config::{Declared, DeclaredContainer, DeclaredObject};
use serde_json::Value;

/// The label, whose value is the declaration's digest.
pub const LABEL: &str = "org.keel.declared";

/// Something declared, with its digest.
#[derive(Clone, Debug)]
pub struct Marked<T> {
    pub what: T,
    pub mark: String,
}

/// All that is declared, with digests.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// In dependency order.
    pub containers: Vec<Marked<DeclaredContainer>>,
    pub networks: Vec<Marked<DeclaredObject>>,
    pub volumes: Vec<Marked<DeclaredObject>>,
}

impl Wanted {
    /// From the machine config.
    pub fn new(declared: &Declared) -> Self {
        let object = |object: &DeclaredObject| {
            let mark = digest(&object.create);
            let create = labelled(&object.create, &mark);
            Marked { what: DeclaredObject { name: object.name.clone(), create }, mark }
        };
        let container = |container: &DeclaredContainer| {
            let mark = digest(&container.create);
            let create = labelled(&container.create, &mark);
            Marked { what: DeclaredContainer { create, ..container.clone() }, mark }
        };
        Self {
            containers: declared.containers.iter().map(container).collect(),
            networks: declared.networks.iter().map(object).collect(),
            volumes: declared.volumes.iter().map(object).collect(),
        }
    }
}

/// SHA-256 of the request, in the first half of its digits.
fn digest(create: &Value) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, create.to_string().as_bytes());
    digest.as_ref().iter().take(16).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn labelled(create: &Value, mark: &str) -> Value {
    let mut create = create.clone();
    create["Labels"][LABEL] = mark.into();
    create
}

/// What isn't as it is declared yet, and why.
#[derive(Default)]
pub struct Open(Mutex<Known>);

#[derive(Default)]
struct Known {
    open: BTreeMap<String, String>,
    missing: BTreeMap<String, String>,
}

impl Open {
    fn set(&self, open: BTreeMap<String, String>, missing: BTreeMap<String, String>) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (what, why) in &open {
            if known.open.get(what) != Some(why) {
                ::log::info!("declared {what}: {why}");
            }
        }
        *known = Known { open, missing };
    }

    /// One line for each.
    pub fn lines(&self) -> Vec<String> {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.open.iter().map(|(what, why)| format!("declared {what}: {why}")).collect()
    }

    /// Containers that aren't made, by name, and why not.
    pub fn missing(&self) -> BTreeMap<String, String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).missing.clone()
    }
}

/// Declared containers that aren't there, with the reason: what failed of their image goes before that they wait for it.
fn missing(wanted: &Wanted, there: &dyn Fn(&str) -> bool, open: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let absent = wanted.containers.iter().map(|container| &container.what).filter(|what| !there(&what.name));
    let why = |what: &DeclaredContainer| match open.get(&format!("image {}", what.image)) {
        Some(why) => format!("image {}: {why}", what.image),
        None => open.get(&format!("container {}", what.name)).cloned().unwrap_or_default(),
    };
    absent.map(|what| (what.name.clone(), why(what))).collect()
}
