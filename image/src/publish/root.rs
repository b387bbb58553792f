//! The next root: which keys count from now on, and how many of them are needed.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Result, ensure};
use keel_spec::tuf::public_key::from_hex;
use keel_spec::tuf::{self, Envelope, Key, PublicKey, Role, RoleKeys, Root, Time};

use super::files;
use super::signer::{key_id, verifies};

/// How long a root is valid by default.
pub const ROOT_VALID_DAYS: i64 = 3650;

/// What a new root changes.
#[derive(Clone, Debug)]
pub struct Change {
    /// How many of a role's keys are needed from now on; unnamed roles keep theirs.
    pub threshold: BTreeMap<Role, u64>,
    /// For how many days it is valid.
    pub expires_days: i64,
}

impl Default for Change {
    fn default() -> Self {
        Self { threshold: BTreeMap::new(), expires_days: ROOT_VALID_DAYS }
    }
}

/// The root after `before`, with the keys that each role has now.
pub fn next(before: Option<&Root>, change: &Change, keys_of: impl Fn(Role) -> Vec<Key>) -> Result<Root> {
    let (mut keys, mut roles) = (BTreeMap::new(), BTreeMap::new());
    for role in Role::ALL {
        let mut keyids = Vec::new();
        for key in keys_of(role) {
            let id = key_id(&key)?;
            keyids.push(id.clone());
            keys.insert(id, key);
        }
        let kept = before.and_then(|before| before.role(role)).map(|keys| keys.threshold);
        let threshold = change.threshold.get(&role).copied().or(kept).unwrap_or(1);
        ensure!(
            (1..=keyids.len() as u64).contains(&threshold),
            "{role} has {} keys, so that {threshold} of them can't be needed",
            keyids.len()
        );
        roles.insert(role.to_string(), RoleKeys { keyids, threshold });
    }
    let valid_s = change.expires_days.saturating_mul(86_400);
    Ok(Root {
        kind: Role::Root,
        spec_version: tuf::SPEC_VERSION.into(),
        version: before.map_or(0, |before| before.version) + 1,
        expires: Time(files::now_unix_s()?.saturating_add_signed(valid_s)),
        consistent_snapshot: true,
        keys,
        roles,
    })
}

/// Whether a file has the signatures that a root wants; how many it has otherwise.
pub fn threshold_met(root: &Root, role: Role, envelope: &Envelope) -> Result<(), usize> {
    let (Some(keys), Ok(message)) = (root.role(role), envelope.signed_bytes()) else { return Err(0) };
    let mut counted = BTreeSet::new();
    for signature in envelope.signatures.iter().filter(|signature| keys.keyids.contains(&signature.keyid)) {
        let (Some(key), Some(bytes)) = (root.keys.get(&signature.keyid), from_hex(&signature.sig)) else { continue };
        if verifies(key, &message, &bytes) {
            counted.insert(PublicKey::read(key));
        }
    }
    if (counted.len() as u64) < keys.threshold { Err(counted.len()) } else { Ok(()) }
}
