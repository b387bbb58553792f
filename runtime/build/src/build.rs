//! One build under way: what it holds, tells and leaves.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Mutex;

use keel_engine::Engine;
use keel_store::image::History;
use keel_store::{Digest, Draft, ImageConfig, ImageId, Pins, Pull, Reference, Store};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::builder::lock;
use crate::cache::{Cache, Entry, Key};
use crate::context::Context;
use crate::dockerfile::Dockerfile;
use crate::error::Error;
use crate::interrupt::Interrupt;
use crate::options::{Options, Told};
use crate::plan::Plan;
use crate::room::Room;

/// Most bytes of text that a quiet build keeps for the case that it fails; the first ones go.
const MAX_KEPT_BYTES: usize = 256 << 10;
/// Longest piece of an instruction in an error.
const SHOWN_CHARS: usize = 100;

/// One build under way.
pub struct Build<'a> {
    pub engine: &'a Engine,
    pub store: &'a Store,
    pub options: &'a Options,
    pub interrupt: &'a Interrupt,
    pub room: &'a Room,
    cache: &'a Mutex<Cache>,
    tell: &'a mut dyn FnMut(Told) -> bool,
    /// What a quiet build would have told.
    untold: String,
    /// Images that stand for steps while something is mounted or run on them.
    temporary: Vec<ImageId>,
    held: Vec<Pins<'a>>,
    /// Steps taken, for the cache once all is well.
    taken: HashMap<Key, Entry>,
    /// Stages that are done, by number.
    pub done: BTreeMap<usize, Draft>,
    /// Build arguments that some stage asked for.
    pub asked: BTreeSet<String>,
    /// Which step is being taken, and of how many.
    pub step: (usize, usize),
}

impl<'a> Build<'a> {
    pub fn new(
        engine: &'a Engine,
        options: &'a Options,
        interrupt: &'a Interrupt,
        room: &'a Room,
        cache: &'a Mutex<Cache>,
        tell: &'a mut dyn FnMut(Told) -> bool,
    ) -> Self {
        let store = engine.store();
        Self {
            engine,
            store,
            options,
            interrupt,
            room,
            cache,
            tell,
            untold: String::new(),
            temporary: Vec::new(),
            held: Vec::new(),
            taken: HashMap::new(),
            done: BTreeMap::new(),
            asked: BTreeSet::new(),
            step: (0, 0),
        }
    }

    /// Takes all steps and names what comes of them.
    pub fn run(&mut self, file: &Dockerfile, plan: &Plan<'_>, context: &Context) -> Result<ImageId, Error> {
        let result = self.stages(file, plan, context).and_then(|draft| self.finish(file, &draft));
        if result.is_err() && !self.untold.is_empty() {
            let untold = std::mem::take(&mut self.untold);
            (self.tell)(Told::Text(untold));
        }
        result
    }

    fn stages(&mut self, file: &Dockerfile, plan: &Plan<'_>, context: &Context) -> Result<Draft, Error> {
        let labels = self.options.labels.len().min(1);
        self.step = (0, plan.steps + labels);
        let mut last = None;
        for (index, planned) in plan.stages.iter().enumerate() {
            let is_last = index + 1 == plan.stages.len();
            let draft = self.stage(file, plan, planned, context, is_last)?;
            self.done.insert(planned.number, draft.clone());
            last = Some(draft);
        }
        last.ok_or_else(|| Error::Bad("there is nothing to build".into()))
    }

    fn finish(&mut self, file: &Dockerfile, last: &Draft) -> Result<ImageId, Error> {
        self.interrupt.check()?;
        let id = self.store.keep(last, &self.options.names)?;
        // Without an image that has their layers, the steps of other stages would be taken anew each time.
        let others: Vec<Draft> =
            self.done.values().filter(|draft| self.is_worth_keeping(draft, last)).cloned().collect();
        for draft in others {
            let kept = self.store.keep(&draft, &[])?;
            self.temporary.retain(|id| *id != kept);
        }
        let store = self.store;
        lock(self.cache).add(std::mem::take(&mut self.taken), |layer| store.has_layer(layer));
        let given: Vec<&str> = self.options.arguments.keys().map(String::as_str).collect();
        let unused: Vec<&str> =
            given.into_iter().filter(|name| !self.asked.contains(*name) && !is_predefined(name)).collect();
        let in_head = |name: &str| file.arguments.iter().any(|(_, known, _)| known == name);
        let unused: Vec<&str> = unused.into_iter().filter(|name| !in_head(name)).collect();
        if !unused.is_empty() {
            self.say(format!("[Warning] One or more build-args [{}] were not consumed\n", unused.join(" ")));
        }
        self.conclude(id);
        Ok(id)
    }

    fn conclude(&mut self, id: ImageId) {
        if self.options.quiet {
            self.untold.clear();
            (self.tell)(Told::Text(format!("{id}\n")));
            return;
        }
        (self.tell)(Told::Image(id));
        self.say(format!("Successfully built {}\n", id.short()));
        for name in &self.options.names {
            self.say(format!("Successfully tagged {name}\n"));
        }
    }

    fn is_worth_keeping(&self, draft: &Draft, last: &Draft) -> bool {
        let is_made = |layer: &Digest| self.taken.values().any(|entry| entry.layer == Some(*layer));
        draft.layers().iter().any(|layer| !last.layers().contains(layer) && is_made(layer))
    }

    /// Removes what was made on the way but for the image.
    pub fn clear_away(&mut self, built: Option<&ImageId>) {
        for id in self.temporary.drain(..).filter(|id| Some(id) != built) {
            // Someone may have given it a name, or made a container of it.
            let is_named = self.store.image(&id.to_string()).is_ok_and(|image| !image.tags.is_empty());
            if is_named || self.engine.image_in_use(&id) {
                continue;
            }
            if let Err(error) = self.store.prune(&id, &|id| self.engine.image_in_use(id)) {
                log::warn!("image {id} of a step stays: {error}");
            }
        }
        self.held.clear();
    }

    /// Tells text.
    pub fn say(&mut self, text: impl Into<String>) {
        let text = text.into();
        if self.options.quiet {
            self.untold.push_str(&text);
            let over = self.untold.len().saturating_sub(MAX_KEPT_BYTES);
            if over > 0 {
                let from = (over..self.untold.len()).find(|at| self.untold.is_char_boundary(*at));
                self.untold.drain(..from.unwrap_or(self.untold.len()));
            }
            return;
        }
        self.told(Told::Text(text));
    }

    fn told(&mut self, told: Told) {
        if !(self.tell)(told) {
            self.interrupt.interrupt();
        }
    }

    /// Keeps layers from being removed until the build is over.
    pub fn hold(&mut self, pins: Pins<'a>) {
        self.held.push(pins);
    }

    /// An image as a base: one that is here, or else one that is pulled.
    pub fn base(&mut self, name: &str, platform: Option<&str>) -> Result<Draft, Error> {
        let platform = platform.or(self.options.platform.as_deref());
        let is_here = self.store.image(name).is_ok();
        if !is_here || (self.options.pull && name.parse::<Reference>().is_ok()) {
            let reference: Reference = name.parse().map_err(keel_store::Error::from)?;
            let pull = Pull { auth: self.options.auths.get(reference.registry()), platform };
            let (store, interrupt, quiet) = (self.store, self.interrupt, self.options.quiet);
            let tell = &mut *self.tell;
            store.pull(&reference, &pull, &mut |progress| {
                if !quiet && !tell(Told::Pull(progress)) {
                    interrupt.interrupt();
                }
            })?;
        } else if let Some(platform) = platform.filter(|platform| !keel_store::runs_here(platform)) {
            return Err(keel_store::Error::NoPlatform(name.into(), platform.into()).into());
        }
        self.interrupt.check()?;
        let image = self.store.image_to_run(name)?;
        let (draft, pins) = self.store.draft(&image.id)?;
        self.hold(pins);
        Ok(draft)
    }

    /// The image that a draft is as of now, made if there is none: to mount it, or run something in it.
    pub fn image(&mut self, draft: &Draft) -> Result<ImageId, Error> {
        let id = draft.id()?;
        if self.store.image(&id.to_string()).is_err() {
            self.store.keep(draft, &[])?;
            self.temporary.push(id);
        }
        Ok(id)
    }

    /// Takes a step, or finds that it was taken before. `words` say all that matters for what comes of it, `config` are
    /// the settings from then on; `make` makes its layer, if it has one.
    pub fn take(
        &mut self,
        draft: &mut Draft,
        words: &[&str],
        config: ImageConfig,
        created_by: String,
        author: Option<String>,
        make: impl FnOnce(&mut Self, &Draft) -> Result<Option<Digest>, Error>,
    ) -> Result<(), Error> {
        let key = crate::cache::key(&draft.id()?, words);
        let known = if self.options.no_cache { None } else { self.known(&key) };
        let now = OffsetDateTime::now_utc();
        let entry = match known {
            Some(entry) => {
                self.say(" ---> Using cache\n");
                entry
            }
            None => {
                let layer = make(self, draft)?;
                Entry { layer, created: now.format(&Rfc3339).unwrap_or_default(), used_unix_s: 0 }
            }
        };
        let entry = Entry { used_unix_s: now.unix_timestamp(), ..entry };
        let author = author.unwrap_or_default();
        let history = History { created: entry.created.clone(), created_by, author, ..History::default() };
        draft.step(config, entry.layer, history)?;
        self.taken.insert(key, entry);
        self.say(format!(" ---> {}\n", draft.id()?.short()));
        Ok(())
    }

    /// What came of a step, if its layer is still here; it is held then.
    fn known(&mut self, key: &Key) -> Option<Entry> {
        let entry = self.taken.get(key).cloned().or_else(|| lock(self.cache).get(key).cloned())?;
        if let Some(layer) = entry.layer {
            let pins = self.store.hold(&[layer])?;
            self.hold(pins);
        }
        Some(entry)
    }

    /// Says where an error happened.
    pub fn in_step(&self, line: usize, text: &str) -> impl FnOnce(Error) -> Error + use<> {
        let (number, total) = self.step;
        let text = shown(text);
        move |source| match source {
            Error::Cancelled | Error::Step { .. } => source,
            source => Error::Step { number, total, line, text, source: Box::new(source) },
        }
    }
}

/// The beginning of an instruction, on one line.
fn shown(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut shown: String = characters.by_ref().take(SHOWN_CHARS).collect();
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

/// Arguments that every build knows without asking for them (Dockerfile reference, "Predefined ARGs").
pub fn is_predefined(name: &str) -> bool {
    const NAMES: [&str; 5] = ["HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY"];
    NAMES.contains(&name) || NAMES.iter().any(|known| known.to_ascii_lowercase() == name)
}
