//! `events`: what happens, told to whoever listens.
//!
//! The last events are kept once, for all. A reader is no more than a place in that sequence, so it costs nothing
//! while it doesn't read; one that falls behind what is kept is told so, and its stream ends.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::cancel::{Bells, Cancel};
use crate::clock;
use crate::engine::Engine;

/// Most events that are kept.
const MAX_KEPT: usize = 1024;
/// Most bytes of them.
const MAX_KEPT_BYTES: usize = 512 * 1024;

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A container.
    Container,
    /// An image.
    Image,
    /// A network.
    Network,
    /// A volume.
    Volume,
    /// This program.
    Daemon,
}

impl Subject {
    /// Its name in the API.
    pub fn name(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Image => "image",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Daemon => "daemon",
        }
    }
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// To what.
    pub subject: Subject,
    /// What: `start`, `die`, `health_status: healthy` ….
    pub action: String,
    /// ID of the subject, or name where it has none.
    pub id: String,
    /// What else is known of it; labels are among it.
    pub attributes: BTreeMap<String, String>,
    /// When, nanoseconds since the Unix epoch.
    pub unix_ns: u64,
}

impl Event {
    fn size_bytes(&self) -> usize {
        let attributes: usize = self.attributes.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.action.len() + self.id.len() + attributes + 128
    }
}

/// Which events a reader wants.
#[derive(Clone, Debug, Default)]
pub struct EventWant {
    /// Those that are kept, from then on (nanoseconds since the Unix epoch), before new ones; `None`: new ones alone.
    pub since_unix_ns: Option<u64>,
    /// The stream ends then.
    pub until_unix_ns: Option<u64>,
    /// Docker's filters; of one filter's values one has to fit, but of labels all.
    pub filters: HashMap<String, Vec<String>>,
}

/// What a reader is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// Something happened.
    Event(Arc<Event>),
    /// The reader was too slow: so many events are lost to it. Nothing follows.
    LeftBehind(u64),
}

/// Keeps the last events.
#[derive(Default)]
pub struct Events {
    kept: Mutex<Kept>,
    bells: Bells,
}

#[derive(Default)]
struct Kept {
    events: VecDeque<Arc<Event>>,
    size_bytes: usize,
    /// Number of the first that is kept.
    first: u64,
}

impl Events {
    /// Tells of an event.
    pub fn tell(&self, event: Event) {
        let mut kept = self.lock();
        kept.size_bytes += event.size_bytes();
        kept.events.push_back(Arc::new(event));
        while kept.events.len() > MAX_KEPT || (kept.size_bytes > MAX_KEPT_BYTES && kept.events.len() > 1) {
            let Some(oldest) = kept.events.pop_front() else { break };
            kept.size_bytes = kept.size_bytes.saturating_sub(oldest.size_bytes());
            kept.first += 1;
        }
        drop(kept);
        self.bells.ring();
    }

    /// A reader of what is wanted.
    pub fn reader(self: &Arc<Self>, want: EventWant) -> EventReader {
        let kept = self.lock();
        let next = match want.since_unix_ns {
            Some(_) => kept.first,
            None => kept.first + kept.events.len() as u64,
        };
        drop(kept);
        let bell = Cancel::new();
        self.bells.add(&bell);
        EventReader { events: self.clone(), want, next, bell, ended: false }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads events; each call blocks until there is one.
pub struct EventReader {
    events: Arc<Events>,
    want: EventWant,
    next: u64,
    bell: Cancel,
    ended: bool,
}

impl EventReader {
    /// The next event; `None`: the end, or cancelled.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Told> {
        loop {
            let rings = self.bell.rings();
            if self.ended || self.bell.is_cancelled() {
                return None;
            }
            match self.take() {
                Some(Told::Event(event)) => {
                    if self.want.until_unix_ns.is_some_and(|until| event.unix_ns > until) {
                        return None;
                    }
                    if self.want.since_unix_ns.is_none_or(|since| event.unix_ns >= since)
                        && fits(&self.want.filters, &event)
                    {
                        return Some(Told::Event(event));
                    }
                }
                Some(behind) => {
                    self.ended = true;
                    return Some(behind);
                }
                None => {
                    let deadline = self.deadline();
                    if deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                        return None;
                    }
                    self.bell.wait(rings, deadline);
                }
            }
        }
    }

    /// Ends [`EventReader::next`] from another thread.
    pub fn cancel(&self) -> Cancel {
        self.bell.clone()
    }

    fn take(&mut self) -> Option<Told> {
        let kept = self.events.lock();
        let Some(index) = self.next.checked_sub(kept.first) else {
            return Some(Told::LeftBehind(kept.first - self.next));
        };
        let event = kept.events.get(usize::try_from(index).ok()?)?.clone();
        self.next += 1;
        Some(Told::Event(event))
    }

    fn deadline(&self) -> Option<Instant> {
        let left_ns = self.want.until_unix_ns?.saturating_sub(clock::unix_ns());
        Instant::now().checked_add(Duration::from_nanos(left_ns))
    }
}

/// Names of filters that are understood.
pub const FILTERS: [&str; 14] = [
    "config",
    "container",
    "daemon",
    "event",
    "image",
    "label",
    "network",
    "node",
    "plugin",
    "scope",
    "secret",
    "service",
    "type",
    "volume",
];

/// Whether an event passes all filters.
fn fits(filters: &HashMap<String, Vec<String>>, event: &Event) -> bool {
    let attribute = |name: &str| event.attributes.get(name).map(String::as_str);
    let of_subject = |subject: Subject, wanted: &str| {
        event.subject == subject && (event.id.starts_with(wanted) || attribute("name") == Some(wanted))
    };
    let image = |wanted: &str| match event.subject {
        Subject::Image => {
            same_image(&event.id, wanted)
                || same_digest(&event.id, wanted)
                || attribute("name").is_some_and(|name| same_image(name, wanted))
        }
        Subject::Container => attribute("image").is_some_and(|name| same_image(name, wanted)),
        _ => false,
    };
    let label = |wanted: &str| {
        let (name, value) = wanted.split_once('=').map_or((wanted, None), |(name, value)| (name, Some(value)));
        attribute(name).is_some_and(|found| value.is_none_or(|value| value == found))
    };
    filters.iter().filter(|(_, values)| !values.is_empty()).all(|(key, values)| match key.as_str() {
        "type" => values.iter().any(|value| value == event.subject.name()),
        "event" => values.iter().any(|value| {
            event.action == *value
                || event.action.strip_prefix(value.as_str()).is_some_and(|rest| rest.starts_with(':'))
        }),
        "container" => values.iter().any(|value| of_subject(Subject::Container, value)),
        "image" => values.iter().any(|value| image(value)),
        "network" => values.iter().any(|value| of_subject(Subject::Network, value)),
        "volume" => values.iter().any(|value| of_subject(Subject::Volume, value)),
        "daemon" => values.iter().any(|value| of_subject(Subject::Daemon, value)),
        "label" => values.iter().all(|value| label(value)),
        "scope" => values.iter().any(|value| value == "local"),
        // What isn't there has no events.
        _ => false,
    })
}

/// Whether a name of an image is the one wanted, which may leave the tag out.
fn same_image(name: &str, wanted: &str) -> bool {
    name == wanted || name.strip_prefix(wanted).is_some_and(|rest| rest.starts_with(':') && !rest.contains('/'))
}

/// Whether an image's ID begins with what is wanted, which may leave `sha256:` out.
fn same_digest(id: &str, wanted: &str) -> bool {
    let digits = wanted.strip_prefix("sha256:").unwrap_or(wanted);
    !digits.is_empty() && id.strip_prefix("sha256:").is_some_and(|id| id.starts_with(digits))
}

impl Engine {
    /// Reads what happens.
    pub fn events(&self, want: EventWant) -> EventReader {
        self.events.reader(want)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(action: &str) -> Event {
        let attributes = [("name", "web"), ("image", "box:1"), ("tier", "front")];
        Event {
            subject: Subject::Container,
            action: action.into(),
            id: "c0ffee".into(),
            attributes: attributes.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            unix_ns: clock::unix_ns(),
        }
    }

    #[test]
    fn a_reader_that_does_not_read_is_cut_off_and_costs_nothing() {
        let events = Arc::new(Events::default());
        let mut slow = events.reader(EventWant::default());
        for number in 0..3 * MAX_KEPT {
            events.tell(event(&number.to_string()));
        }
        assert_eq!(events.lock().events.len(), MAX_KEPT);
        assert_eq!(slow.next(), Some(Told::LeftBehind(2 * MAX_KEPT as u64)));
        assert_eq!(slow.next(), None);
    }

    #[test]
    fn large_events_push_others_out() {
        let events = Events::default();
        for _ in 0..8 {
            events.tell(Event { action: "x".repeat(MAX_KEPT_BYTES / 4), ..event("") });
        }
        let kept = events.lock();
        assert!(kept.events.len() < 4 && kept.size_bytes <= MAX_KEPT_BYTES);
    }

    #[test]
    fn what_was_is_told_with_since_and_the_stream_ends_at_until() {
        let events = Arc::new(Events::default());
        events.tell(event("start"));
        let (since, until) = (Some(1), Some(clock::unix_ns()));
        let mut reader = events.reader(EventWant { since_unix_ns: since, until_unix_ns: until, ..Default::default() });
        assert!(matches!(reader.next(), Some(Told::Event(event)) if event.action == "start"));
        assert_eq!(reader.next(), None);
    }

    #[test]
    fn filters_are_dockers() {
        let check = |key: &str, values: &[&str], action: &str| {
            let values = values.iter().map(|value| (*value).into()).collect();
            fits(&HashMap::from([(key.into(), values)]), &event(action))
        };
        assert!(check("event", &["health_status"], "health_status: healthy"));
        assert!(!check("event", &["health"], "health_status: healthy"));
        assert!(check("type", &["image", "container"], "die") && !check("type", &["network"], "die"));
        assert!(check("container", &["web"], "die") && check("container", &["c0ff"], "die"));
        assert!(check("image", &["box"], "die") && !check("image", &["bo"], "die"));
        assert!(check("label", &["tier=front"], "die") && !check("label", &["tier", "x"], "die"));
        assert!(!check("service", &["x"], "die"));
    }

    #[test]
    fn images_are_found_by_name_and_id_and_other_subjects_by_theirs() {
        let check = |event: &Event, key: &str, value: &str| {
            fits(&HashMap::from([(key.to_owned(), vec![value.to_owned()])]), event)
        };
        let of = |subject, id: &str, name: &str| Event {
            subject,
            id: id.into(),
            attributes: [("name".to_owned(), name.to_owned())].into(),
            ..event("create")
        };
        let pulled = of(Subject::Image, "box:1", "box");
        assert!(check(&pulled, "image", "box") && check(&pulled, "image", "box:1") && !check(&pulled, "image", "bo"));
        let tagged = of(Subject::Image, "sha256:c0ffee", "box:2");
        assert!(
            check(&tagged, "image", "c0ff") && check(&tagged, "image", "sha256:c0") && check(&tagged, "image", "box")
        );
        assert!(!check(&tagged, "image", "") && !check(&tagged, "image", "box:1"));
        let network = of(Subject::Network, "abcd", "front");
        assert!(check(&network, "network", "front") && check(&network, "network", "ab"));
        assert!(!check(&network, "volume", "front") && !check(&network, "network", "back"));
        assert!(check(&of(Subject::Volume, "data", ""), "volume", "data"));
    }
}
