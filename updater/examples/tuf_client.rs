//! Our client of The Update Framework behind a plain command line, so that test suites of others can drive it.
//!
//! ```text
//! tuf_client --metadata-dir D init ROOT
//! tuf_client --metadata-dir D --metadata-url U refresh
//! tuf_client --metadata-dir D --metadata-url U --target-name T [--target-name …] --target-base-url B --target-dir O download
//! ```
//!
//! Accepted metadata is in D under the names of its roles, without versions. What `init` was given is kept in
//! `D/roots/` and trusted from then on. Status 0: done, whole; 1: refused or failed, and why is on standard error.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use keel_durable as durable;
use keel_spec::tuf::{Role, Time};
use keel_updater::host;
use keel_updater::source::Http;
use keel_updater::tuf::client::PATIENCE;
use keel_updater::tuf::store::Store;
use keel_updater::tuf::{Client, TrustedSet, download};

/// What `init` was given, in the folder of metadata.
const PINNED: &str = "roots/trusted.json";

#[derive(Default)]
struct Arguments {
    metadata_dir: Option<PathBuf>,
    metadata_url: Option<String>,
    target_names: Vec<String>,
    target_base_url: Option<String>,
    target_dir: Option<PathBuf>,
    words: Vec<String>,
}

fn parse(mut from: impl Iterator<Item = String>) -> Result<Arguments> {
    let mut arguments = Arguments::default();
    while let Some(argument) = from.next() {
        let (name, inline) = match argument.split_once('=') {
            Some((name, value)) if name.starts_with("--") => (name.to_owned(), Some(value.to_owned())),
            _ => (argument, None),
        };
        let mut value =
            || inline.clone().or_else(|| from.next()).with_context(|| format!("{name}: what follows it is missing"));
        match name.as_str() {
            "--metadata-dir" => arguments.metadata_dir = Some(value()?.into()),
            "--metadata-url" => arguments.metadata_url = Some(value()?),
            "--target-name" => arguments.target_names.push(value()?),
            "--target-base-url" => arguments.target_base_url = Some(value()?),
            "--target-dir" => arguments.target_dir = Some(value()?.into()),
            unknown if unknown.starts_with("--") => bail!("{unknown}: there is no such option"),
            _ => arguments.words.push(name),
        }
    }
    Ok(arguments)
}

fn main() -> ExitCode {
    match parse(std::env::args().skip(1)).and_then(|arguments| run(&arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::from(1)
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    let folder = arguments.metadata_dir.as_deref().context("--metadata-dir is missing")?;
    let words: Vec<&str> = arguments.words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["init", root] => init(folder, Path::new(root)),
        ["refresh"] => with_client(arguments, folder, |_, _| Ok(())),
        ["download"] => with_client(arguments, folder, |client, set| download_all(arguments, client, set)),
        _ => bail!("want one of: init ROOT, refresh, download"),
    }
}

/// Takes a root as trusted, which has to be signed by itself.
fn init(folder: &Path, root: &Path) -> Result<()> {
    let bytes = durable::read(root, Role::Root.max_bytes()).with_context(|| format!("read {}", root.display()))?;
    let bytes = bytes.with_context(|| format!("read {}: there is no such file", root.display()))?;
    TrustedSet::new(&bytes, now()).with_context(|| format!("trust {}", root.display()))?;
    let store = Store::open(folder).with_context(|| format!("open {}", folder.display()))?;
    let keep = || -> std::io::Result<()> {
        durable::write(&folder.join(PINNED), &bytes)?;
        store.put(Role::Root, &bytes)
    };
    keep().with_context(|| format!("keep {} in {}", root.display(), folder.display()))
}

fn now() -> Time {
    Time(host::now_unix_s())
}

fn with_client(
    arguments: &Arguments,
    folder: &Path,
    then: impl FnOnce(&Client, &TrustedSet) -> Result<()>,
) -> Result<()> {
    let store = Store::open(folder).with_context(|| format!("open {}", folder.display()))?;
    // A root that somebody put there without `init` is as good.
    let pinned = durable::read(&folder.join(PINNED), Role::Root.max_bytes()).context("read what init was given")?;
    let trusted_root = pinned.or_else(|| store.get(Role::Root)).context("no root is trusted: run init first")?;
    let url = arguments.metadata_url.as_deref().context("--metadata-url is missing")?;
    let source = Http::new(url, None)?;
    let client = Client { source: &source, store: &store, trusted_root: &trusted_root, patience: PATIENCE };
    let set = client.refresh(now()).with_context(|| format!("refresh from {url}"))?;
    then(&client, &set)
}

fn download_all(arguments: &Arguments, client: &Client, set: &TrustedSet) -> Result<()> {
    let base = arguments.target_base_url.as_deref().context("--target-base-url is missing")?;
    let folder = arguments.target_dir.as_deref().context("--target-dir is missing")?;
    if arguments.target_names.is_empty() {
        bail!("--target-name is missing");
    }
    std::fs::create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
    let source = Http::new(base, None)?;
    for name in &arguments.target_names {
        let file = client.find(set, name)?.with_context(|| format!("{name}: no trusted role lists it"))?;
        let place = download::fetch(&source, name, &file, set.root().consistent_snapshot, folder)?;
        println!("{}", place.display());
    }
    Ok(())
}
