//! The daemon's start and its end.
//!
//! It ends in two ways. SIGTERM (a restart of the daemon): it leaves at once and containers run on; its successor
//! finds them. PID 1's word that the machine goes down: it stops all containers first.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use keel_build::Builder;
use keel_engine::Engine;
use keel_link::control::{self, Client};
use keel_spec::config::Settings;
use keel_spec::control::Event;
use keel_spec::paths;
use keel_spec::tuf::PublicKey;
use keel_store::Store;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc, watch};

use crate::context::Context;
use crate::host::Host;
use crate::listeners::Keeper;
use crate::server;
use crate::tls::Tls;

/// Threads that drive connections. They never block, and a host has few clients.
const WORKERS: usize = 2;
/// Most threads that block on the engine's behalf.
const MAX_BLOCKING_THREADS: usize = 256;
/// How many of those may be taken by calls that last as long as a client likes.
const MAX_LONG_CALLS: usize = 192;
/// Stack of each thread; only what is used costs memory.
const STACK_BYTES: usize = 1 << 20;
/// Longest wait for a predecessor that was killed to be gone.
const PREDECESSOR_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);
/// How often the stream of PID 1's events is opened anew after it broke.
const MAX_RESUBSCRIBE: usize = 100;

/// How the daemon runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where images, containers and keys are.
    pub state: PathBuf,
    /// The unix socket to listen on.
    pub socket: PathBuf,
    /// Not under Keel's PID 1 but on a workstation: default settings, no cgroups, no container networks.
    pub standalone: bool,
    /// Standalone: the machine config to take settings from.
    pub config: Option<PathBuf>,
    /// Standalone: the socket of whoever is the parent of containers in PID 1's place; `None`: this process itself.
    pub control: Option<PathBuf>,
    /// Standalone: whether containers get networks, in this process's own network namespace.
    pub network: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            state: paths::RUNTIME_STATE.into(),
            socket: paths::API_SOCKET.into(),
            standalone: false,
            config: None,
            control: None,
            network: false,
        }
    }
}

/// Runs until told to end.
pub fn run(options: Options) -> anyhow::Result<()> {
    raise_descriptor_limit();
    let mut problems = Vec::new();
    let settings = settings(&options, &mut problems)?;
    // Without the settings nobody knows what is declared: then all stays as it is.
    let declares = problems.is_empty();
    let engine = open_engine(&options, &settings, declares)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(MAX_BLOCKING_THREADS)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .context("cannot start worker threads")?;
    let (ending, ended) = watch::channel(false);
    let end = runtime.block_on(serve(options, settings, engine.clone(), problems, ended))?;
    if let End::HostStops = end {
        log::info!("the host goes down: stopping all containers");
        engine.shutdown();
    }
    // The answer to the very request that stops the host is among those under way.
    runtime.block_on(server::drain(ending));
    // Threads that wait for containers or clients would keep the runtime from ending.
    runtime.shutdown_background();
    log::info!("the daemon ends");
    Ok(())
}

/// Each container takes a few descriptors, and the usual limit is for programs that serve nobody. Containers inherit
/// it unless they ask for another.
fn raise_descriptor_limit() {
    const SOFT: u64 = 65_536;
    const HARD: u64 = 1_048_576;
    let set = |current, maximum| setrlimit(Resource::Nofile, Rlimit { current, maximum });
    let hard = getrlimit(Resource::Nofile).maximum;
    // Raising the hard limit takes a right that a workstation's daemon may lack.
    let done = set(Some(SOFT), Some(HARD)).or_else(|_| set(hard.map_or(Some(SOFT), |hard| Some(hard.min(SOFT))), hard));
    if let Err(error) = done {
        log::warn!("the limit of open files stays as it is: {error}");
    }
}

fn settings(options: &Options, problems: &mut Vec<String>) -> anyhow::Result<Settings> {
    if options.standalone {
        let Some(path) = &options.config else { return Ok(Settings::default()) };
        let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        return keel_spec::config::parse(&text).with_context(|| format!("machine config {}", path.display()));
    }
    Ok(keel_link::bus::settings().unwrap_or_else(|error| {
        let message = format!("runtime uses default settings: {}", keel_link::logger::chain(&error));
        log::error!("{message}");
        problems.push(message);
        Settings::default()
    }))
}

fn open_engine(options: &Options, settings: &Settings, declares: bool) -> anyhow::Result<Arc<Engine>> {
    let store_options = keel_store::Options {
        insecure_registries: settings.registry.insecure.clone(),
        extra_ca_pem: settings.registry.ca_pem.clone(),
        mirrors: settings.registry.mirrors.iter().map(|m| (m.registry.clone(), m.url.clone())).collect(),
        proxies: keel_store::Proxies {
            http: settings.proxy.http.clone(),
            https: settings.proxy.https.clone(),
            no_proxy: settings.proxy.no_proxy.clone(),
        },
        require_digest: settings.registry.require_digest,
        signature_keys: signature_keys(settings)?,
        stall_limit: None,
        lock_wait: PREDECESSOR_LIMIT,
    };
    let store = Arc::new(Store::open(&options.state, store_options).context("cannot open the image store")?);
    let engine = if options.standalone {
        let (network, control) = (options.network, options.control.clone());
        let local = keel_engine::Options { cgroups: None, network, control, oci_init: None, declares };
        Engine::open_with(&options.state, settings, store, local)
    } else {
        Engine::open_with(&options.state, settings, store, keel_engine::Options { declares, ..Default::default() })
    };
    engine.context("cannot open the container engine")
}

/// The keys of which one must have signed each image. A config that was checked whole has no others than readable ones;
/// should that ever be otherwise, no image may run for want of a key.
fn signature_keys(settings: &Settings) -> anyhow::Result<Vec<PublicKey>> {
    if !settings.registry.require_signature {
        return Ok(Vec::new());
    }
    let keys: Vec<_> = settings.registry.signature_keys_pem.iter().filter_map(|pem| PublicKey::from_pem(pem)).collect();
    anyhow::ensure!(!keys.is_empty(), "the machine config wants signed images and has no key that can be read");
    Ok(keys)
}

/// Why the daemon ends.
enum End {
    Asked,
    HostStops,
}

async fn serve(
    options: Options,
    settings: Settings,
    engine: Arc<Engine>,
    mut problems: Vec<String>,
    ending: server::Ending,
) -> anyhow::Result<End> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    let (stops, mut stopping) = mpsc::channel(1);
    if !options.standalone {
        let spawned = std::thread::Builder::new().name("events".into()).stack_size(256 << 10);
        spawned.spawn(move || watch_shutdown(&stops)).context("cannot start the thread for PID 1's events")?;
    }
    let declares = problems.is_empty();
    let control = if options.standalone { options.control.as_deref() } else { Some(paths::CONTROL_SOCKET.as_ref()) };
    let keeper = Keeper::at(control);
    let tls = open_tls(&options, &settings, &keeper, &mut problems);
    let local =
        keeper.unix(&options.socket).with_context(|| format!("cannot listen on {}", options.socket.display()))?;
    let builder =
        Builder::open(engine.clone(), &options.state.join("build")).context("cannot open the image builder")?;
    let context = Arc::new(Context {
        engine,
        builder: Arc::new(builder),
        host: Host::new(!options.standalone),
        tls_listen: tls.as_ref().map(|_| settings.api.listen.to_string()),
        settings,
        state: options.state.clone(),
        problems,
        reads: Arc::default(),
        long_calls: Arc::new(Semaphore::new(MAX_LONG_CALLS)),
    });
    tokio::spawn(server::serve_unix(local, Arc::clone(&context), ending.clone()));
    if let Some((listener, tls)) = tls {
        let (config, renewal) = tls.into_parts();
        tokio::spawn(renewal.run());
        tokio::spawn(server::serve_tls(listener, config, Arc::clone(&context), ending));
    }
    log::info!("serving on {}", options.socket.display());
    if let Some(address) = &context.tls_listen {
        log::info!("serving on {address} with TLS, for clients with a certificate");
    }
    if !options.standalone {
        ready().await;
    }
    let network = !options.standalone || options.network;
    tokio::task::spawn_blocking(move || {
        prepare_network(&context.engine, network);
        if declares
            && let Err(error) = context.engine.declare(&context.settings.declared, &context.settings.registry.logins)
        {
            log::error!("{}", keel_link::logger::chain(&error));
        }
    });
    Ok(tokio::select! {
        _ = terminate.recv() => End::Asked,
        _ = interrupt.recv() => End::Asked,
        Some(()) = stopping.recv() => End::HostStops,
    })
}

/// Sets the containers' network up before the first container waits for it.
fn prepare_network(engine: &Engine, wanted: bool) {
    if wanted && let Err(error) = engine.prepare_network() {
        log::error!("{}; tried again when a container wants it", keel_link::logger::chain(&error));
    }
}

/// TLS, if the machine config brings certificates. A fault there must not take the local API away, too.
fn open_tls(
    options: &Options,
    settings: &Settings,
    keeper: &Keeper,
    problems: &mut Vec<String>,
) -> Option<(tokio::net::TcpListener, Tls)> {
    let mut note = |message: String| {
        log::error!("{message}");
        problems.push(message);
    };
    let tls = Tls::open(settings, &options.state.join("tls/key.pem"))
        .map_err(|error| note(format!("the API is local only: {}", keel_link::logger::chain(&error))))
        .ok()??;
    match keeper.tcp(settings.api.listen) {
        Ok(listener) => Some((listener, tls)),
        Err(error) => {
            note(format!("the API is local only: cannot listen on {}: {error}", settings.api.listen));
            None
        }
    }
}

async fn ready() {
    let told = tokio::task::spawn_blocking(|| Client::connect()?.ready()).await;
    match told {
        Ok(Ok(())) => {}
        Ok(Err(error)) => log::error!("cannot tell PID 1 that the API is up: {}", keel_link::logger::chain(&error)),
        Err(error) => log::error!("cannot tell PID 1 that the API is up: {error}"),
    }
}

/// Waits for PID 1's word that the machine goes down. PID 1 drops a subscriber that doesn't keep up, so a broken
/// stream is opened again; whether a shutdown was missed meanwhile is asked for.
fn watch_shutdown(stops: &mpsc::Sender<()>) {
    for _ in 0..MAX_RESUBSCRIBE {
        match next_shutdown() {
            Ok(()) => {
                let _ = stops.blocking_send(());
                return;
            }
            Err(error) => log::warn!("lost PID 1's events: {}", keel_link::logger::chain(&error)),
        }
        std::thread::sleep(std::time::Duration::from_millis(200));
    }
    log::error!("PID 1's events can't be had: containers will not be stopped in order at shutdown");
}

fn next_shutdown() -> control::Result<()> {
    let mut events = Client::connect()?.subscribe()?;
    if Client::connect()?.system()?.shutting_down.is_some() {
        return Ok(());
    }
    loop {
        if let Event::ShuttingDown(_) = events.next()? {
            return Ok(());
        }
    }
}
