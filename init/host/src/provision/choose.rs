//! Which machine config is in force: the one that was found if it is good, else the last good one, else the defaults.

use std::fs;
use std::path::Path;

use keel_durable as durable;
use keel_spec::config::{self, Settings};
use keel_spec::paths;

use super::sources::Found;

/// The settings of the last good config as JSON, beside its text: a release that doesn't know a key of the text yet
/// (after a fallback) still reads the settings it knows.
const LAST_SETTINGS: &str = "settings.json";

/// The config in force.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Chosen {
    pub settings: Settings,
    /// Where it was read from.
    pub source: String,
    /// Why a newer one was refused.
    pub refused: Option<String>,
}

/// What the state folder remembers.
#[derive(Default)]
struct Last {
    text: Option<String>,
    settings: Option<Settings>,
}

/// Chooses, and remembers a good new config durably in the folder `state`.
pub(super) fn choose(found: Option<Found>, state: &Path) -> Chosen {
    let last = Last::read(state);
    let known = last.text.clone();
    let (mut chosen, text) = decide(found, last);
    if let Some(text) = text.filter(|text| known.as_ref() != Some(text))
        && let Err(error) = remember(state, &text, &chosen.settings)
    {
        let warning = format!("the machine config is in force, but could not be kept in {}: {error}", state.display());
        chosen.refused.get_or_insert(warning);
    }
    chosen
}

/// The choice itself; the text comes back when it is worth remembering.
fn decide(found: Option<Found>, last: Last) -> (Chosen, Option<String>) {
    let refused = match found {
        None => None,
        Some(Found { source, content }) => match read(content) {
            Ok((settings, text)) => return (Chosen { settings, source, refused: None }, Some(text)),
            Err(reason) => Some(format!("machine config from {source} refused: {reason}")),
        },
    };
    let parsed = last.text.as_deref().map(config::parse);
    let (settings, source, trouble) = match (parsed, last.settings) {
        (Some(Ok(settings)), _) => (settings, "the last good config", None),
        (Some(Err(error)), Some(settings)) => (settings, "the settings of the last good config", Some(error)),
        (None, Some(settings)) => (settings, "the settings of the last good config", None),
        (Some(Err(error)), None) => (Settings::default(), "the defaults", Some(error)),
        (None, None) => (Settings::default(), "the defaults", None),
    };
    let refused = refused.or_else(|| trouble.map(|error| format!("last good machine config refused: {error}")));
    (Chosen { settings, source: source.into(), refused }, None)
}

fn read(content: Result<Vec<u8>, String>) -> Result<(Settings, String), String> {
    let text = String::from_utf8(content?).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let line = error.as_bytes()[..good].iter().filter(|&&byte| byte == b'\n').count() + 1;
        format!("line {line}: not UTF-8 from byte {good} on")
    })?;
    match config::parse(&text) {
        Ok(settings) => Ok((settings, text)),
        Err(error) => Err(error.to_string()),
    }
}

impl Last {
    fn read(state: &Path) -> Self {
        let text = fs::read_to_string(state.join(paths::MACHINE_CONFIG)).ok();
        let settings = fs::read(state.join(LAST_SETTINGS)).ok();
        Self { text, settings: settings.and_then(|json| serde_json::from_slice(&json).ok()) }
    }
}

fn remember(state: &Path, text: &str, settings: &Settings) -> std::io::Result<()> {
    std::fs::create_dir_all(state)?;
    durable::write_json(&state.join(LAST_SETTINGS), settings)?;
    durable::write(&state.join(paths::MACHINE_CONFIG), text.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Option<Found> {
        Some(Found { source: "a test".into(), content: Ok(text.into()) })
    }

    #[test]
    fn a_good_config_is_in_force_and_kept_for_a_boot_without_one() {
        let state = tempfile::tempdir().unwrap();
        let first = choose(found("hostname = \"one\""), state.path());
        assert_eq!((first.settings.hostname.as_str(), first.source.as_str()), ("one", "a test"));
        let second = choose(None, state.path());
        assert_eq!((second.settings.hostname.as_str(), second.refused), ("one", None));
    }

    #[test]
    fn a_bad_config_is_refused_with_its_place_and_the_last_good_one_stays() {
        let state = tempfile::tempdir().unwrap();
        choose(found("hostname = \"one\""), state.path());
        let chosen = choose(found("hostname = \"two\"\nx = 1"), state.path());
        assert_eq!(chosen.settings.hostname, "one");
        assert!(chosen.refused.unwrap().contains("a test refused: line 2, column 1"));
    }

    #[test]
    fn without_any_config_the_defaults_are_in_force() {
        let state = tempfile::tempdir().unwrap();
        assert_eq!(choose(None, state.path()).settings, Settings::default());
        let chosen = choose(found("\u{0}"), state.path());
        assert_eq!(chosen.settings, Settings::default());
        assert!(chosen.refused.is_some());
    }

    #[test]
    fn a_last_config_with_keys_of_a_newer_release_still_gives_its_settings() {
        let state = tempfile::tempdir().unwrap();
        choose(found("hostname = \"one\""), state.path());
        fs::write(state.path().join("keel.toml"), "hostname = \"one\"\nnewer = 1").unwrap();
        let chosen = choose(None, state.path());
        assert_eq!(chosen.settings.hostname, "one");
        assert!(chosen.refused.is_some());
    }
}
