//! `keel-image`: the workstation's tool. Parses, calls, and turns errors into exit codes.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use clap::{Args, Parser, Subcommand};
use keel_image::{credentials, disk, inputs, progress, publish, release, vm};
use keel_spec::release::Version;

#[derive(Parser)]
#[command(name = "keel-image", about = "Builds Keel releases and disk images, and runs them", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Fetch, check and unpack the Debian packages that releases are made from
    Inputs(InputsArguments),
    /// Make the Secure Boot key where it is absent
    Keys(FolderArguments),
    /// Make the certificates of hosts and operators where they are absent
    Certs(FolderArguments),
    /// Write a machine config that holds the certificates
    Config(ConfigArguments),
    /// Make a release from the host's programs
    Release(ReleaseArguments),
    /// Make a disk image from a release
    Disk(DiskArguments),
    /// Run a disk image in QEMU, serial console on this terminal
    Run(RunArguments),
    /// Make the keys of the update repository where they are absent
    TufKeys(publish::KeysArguments),
    /// Sign the next root of the update repository, for new keys or thresholds
    TufRoot(publish::RootArguments),
    /// Add a release to an update repository
    Publish(publish::PublishArguments),
    /// Put a published release into one file, for hosts that reach no repository
    Bundle(publish::bundle::BundleArguments),
    /// Change who gets a release that is published, and when
    Rollout(publish::rollout::RolloutArguments),
    /// Take a release back: no host installs it or restarts into it any more
    Withdraw(publish::rollout::WithdrawArguments),
}

#[derive(Args)]
struct InputsArguments {
    /// Take the archive's current versions, and write them into the lock file
    #[arg(long)]
    update: bool,
    /// Folder for the packages
    #[arg(long, default_value = "build/inputs")]
    out: PathBuf,
    /// The lock file
    #[arg(long, default_value = "image/inputs.lock")]
    lock: PathBuf,
    /// Kernel package, where the lock file names none (default: the current one)
    #[arg(long, value_name = "PACKAGE")]
    kernel: Option<String>,
}

#[derive(Args)]
struct FolderArguments {
    /// Folder to make them in (default: build/keys or build/certs)
    #[arg(long)]
    out: Option<PathBuf>,
}

#[derive(Args)]
struct ConfigArguments {
    /// Folder of the certificates
    #[arg(long, default_value = "build/certs")]
    certs: PathBuf,
    /// File to write
    #[arg(long, default_value = "build/run/keel.toml")]
    out: PathBuf,
    /// Host name
    #[arg(long, default_value = "keel")]
    hostname: String,
    /// Name or address by which the host is reached; the console shows the first one
    #[arg(long = "name", default_value = "127.0.0.1")]
    names: Vec<String>,
    /// TCP port of the API
    #[arg(long, default_value_t = 2376)]
    port: u16,
    /// Base address of the update repository
    #[arg(long)]
    update_url: Option<String>,
    /// host[:port] of a registry without TLS
    #[arg(long)]
    insecure_registry: Vec<String>,
}

#[derive(Args)]
struct ReleaseArguments {
    /// The release's version
    #[arg(long)]
    version: Version,
    /// Folder with the programs init and keel
    #[arg(long)]
    programs: PathBuf,
    /// Folder for the release; what is in it is replaced
    #[arg(long)]
    out: PathBuf,
    /// Root metadata of the update repository that the release trusts (default: root.json in the folder of the keys)
    #[arg(long)]
    tuf_root: Option<PathBuf>,
    /// Put FILE in the place of a file of the root: /path/in/root=FILE
    #[arg(long, value_parser = replacement)]
    replace: Vec<(String, PathBuf)>,
    /// Further kernel parameters
    #[arg(long)]
    cmdline: Option<String>,
    /// Selection of kernel and modules
    #[arg(long, default_value = "cloud")]
    profile: String,
    /// Folder of the profiles
    #[arg(long, default_value = "image/profiles")]
    profiles: PathBuf,
    /// Folder of the packages
    #[arg(long, default_value = "build/inputs")]
    inputs: PathBuf,
    /// Folder of the Secure Boot key
    #[arg(long, default_value = "build/keys")]
    keys: PathBuf,
    /// Build time, seconds since the Unix epoch (default: SOURCE_DATE_EPOCH, else now)
    #[arg(long)]
    built: Option<u64>,
    /// Only a release of at least this version may be updated from directly
    #[arg(long)]
    follows_at_least: Option<Version>,
}

#[derive(Args)]
struct DiskArguments {
    /// Folder of the release
    #[arg(long)]
    release: PathBuf,
    /// Image file to write
    #[arg(long)]
    out: PathBuf,
    /// Machine config to put on the EFI system partition
    #[arg(long)]
    config: Option<PathBuf>,
    /// Folder of the packages
    #[arg(long, default_value = "build/inputs")]
    inputs: PathBuf,
    /// Folder of the Secure Boot key
    #[arg(long, default_value = "build/keys")]
    keys: PathBuf,
}

#[derive(Args)]
struct RunArguments {
    /// The disk image
    #[arg(long, default_value = "build/cloud/disk.raw")]
    disk: PathBuf,
    /// Folder of the machine's own disk
    #[arg(long, default_value = "build/run")]
    folder: PathBuf,
    /// Start from the image again, instead of going on with the machine's disk
    #[arg(long)]
    fresh: bool,
    /// Machine config
    #[arg(long, default_value = "build/run/keel.toml")]
    config: PathBuf,
    /// Folder of the packages
    #[arg(long, default_value = "build/inputs")]
    inputs: PathBuf,
    /// Port of 127.0.0.1 for the machine's API
    #[arg(long, default_value_t = 2376)]
    port: u16,
    /// Port of 127.0.0.1 for the machine's port 8080
    #[arg(long, default_value_t = 8080)]
    web_port: u16,
    /// MiB of memory
    #[arg(long, default_value_t = 1024)]
    memory: u32,
}

fn replacement(text: &str) -> Result<(String, PathBuf), String> {
    let (path, file) = text.split_once('=').ok_or("want /path/in/root=FILE")?;
    Ok((path.into(), file.into()))
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    progress::log_to_stderr();
    match arguments.verb {
        Verb::Inputs(it) => {
            inputs::fetch(&it.out, &it.lock, it.update, it.kernel.as_deref())?;
        }
        Verb::Keys(it) => {
            credentials::ensure_secure_boot_key(it.out.as_deref().unwrap_or(Path::new("build/keys")))?;
        }
        Verb::Certs(it) => {
            credentials::ensure_certificates(it.out.as_deref().unwrap_or(Path::new("build/certs")))?;
        }
        Verb::Config(it) => config(it)?,
        Verb::Release(it) => make_release(it)?,
        Verb::Disk(it) => make_disk(it)?,
        Verb::Run(it) => run(it)?,
        Verb::TufKeys(it) => publish::tuf_keys(&it)?,
        Verb::TufRoot(it) => {
            publish::tuf_root(&it)?;
        }
        Verb::Publish(it) => {
            publish::publish(&it)?;
        }
        Verb::Bundle(it) => {
            publish::bundle::bundle(&it)?;
        }
        Verb::Rollout(it) => publish::rollout::rollout(&it)?,
        Verb::Withdraw(it) => publish::rollout::withdraw(&it)?,
    }
    Ok(())
}

fn config(arguments: ConfigArguments) -> Result<()> {
    let order = credentials::ConfigOrder {
        certificates: &arguments.certs,
        hostname: &arguments.hostname,
        names: arguments.names,
        update_url: arguments.update_url,
        api_port: arguments.port,
        insecure_registries: arguments.insecure_registry,
    };
    Ok(credentials::write_config(&order, &arguments.out)?)
}

fn make_release(arguments: ReleaseArguments) -> Result<()> {
    // A release without it could never be updated, so there is none.
    let tuf_root = arguments.tuf_root.unwrap_or_else(|| arguments.keys.join("root.json"));
    anyhow::ensure!(tuf_root.exists(), "there is no {}: run `keel-image tuf-keys` first", tuf_root.display());
    let order = release::Order {
        version: arguments.version,
        profile: &arguments.profiles.join(format!("{}.toml", arguments.profile)),
        profile_name: &arguments.profile,
        programs: &arguments.programs,
        inputs: &inputs::locate(&arguments.inputs).context("run `keel-image inputs` first")?,
        key: credentials::secure_boot_key(&arguments.keys),
        tuf_root,
        replace: arguments.replace,
        command_line: arguments.cmdline,
        built_unix_s: build_time(arguments.built)?,
        follows_at_least: arguments.follows_at_least,
    };
    release::make(&order, &arguments.out)?;
    Ok(())
}

fn build_time(given: Option<u64>) -> Result<u64> {
    if let Some(time) = given {
        return Ok(time);
    }
    match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text.parse().with_context(|| format!("SOURCE_DATE_EPOCH is no number of seconds: {text}")),
        Err(_) => Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs()),
    }
}

fn make_disk(arguments: DiskArguments) -> Result<()> {
    let inputs = inputs::locate(&arguments.inputs).context("run `keel-image inputs` first")?;
    let order = disk::Order {
        release: &arguments.release,
        boot_loader: &inputs.boot_loader,
        key: credentials::secure_boot_key(&arguments.keys),
        config: arguments.config.as_deref(),
    };
    Ok(disk::make(&order, &arguments.out)?)
}

fn run(arguments: RunArguments) -> Result<()> {
    let inputs = inputs::locate(&arguments.inputs).context("run `keel-image inputs` first")?;
    Ok(vm::run(&vm::Order {
        disk: &arguments.disk,
        folder: &arguments.folder,
        fresh: arguments.fresh,
        config: &arguments.config,
        kernel: &inputs.kernel,
        api_port: arguments.port,
        web_port: arguments.web_port,
        memory_mib: arguments.memory,
    })?)
}
