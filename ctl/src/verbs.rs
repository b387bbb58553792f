//! Which verb does what. Each returns the process's exit code.

use keel_spec::api::Status;

use crate::cli::{Invocation, Verb};
use crate::client::Client;
use crate::error::Result;
use crate::target::Target;
use crate::{boots, console, containers, help, logs, power, run, status, update};

/// Carries out what was typed.
pub fn run(invocation: Invocation) -> Result<u8> {
    if let Verb::Help(topic) = &invocation.verb {
        print!("{}", help::text(topic.as_deref()));
        return Ok(0);
    }
    let target = Target::find(invocation.host.as_deref(), invocation.cert_path, |name| std::env::var(name).ok())?;
    let client = Client::new(target);
    let json = invocation.json;
    match invocation.verb {
        Verb::Status => status::status(&client, json)?,
        Verb::Services => status::services(&client, json)?,
        Verb::Logs { service, follow } => logs::logs(&client, &service, follow, json)?,
        Verb::Boots(which) => boots::boots(&client, which, json)?,
        Verb::UpdateStatus => update::status(&client, json)?,
        Verb::UpdateCheck => update::check(&client, json)?,
        Verb::UpdateInstall(version) => update::install(&client, version, json)?,
        Verb::UpdatePlan(version) => update::plan(&client, version, json)?,
        Verb::UpdateBundle(path) => update::install_bundle(&client, &path, json)?,
        Verb::UpdateFrom(url) => update::install_from(&client, url, json)?,
        Verb::UpdateDisk(name) => update::install_disk(&client, name, json)?,
        Verb::UpdateBundles => update::bundles(&client, json)?,
        Verb::UpdateRollback => update::rollback(&client, json)?,
        Verb::UpdatePause => update::pause(&client, json)?,
        Verb::UpdateResume => update::resume(&client, json)?,
        Verb::Reboot { kexec } => power::reboot(&client, kexec, json)?,
        Verb::Poweroff => power::poweroff(&client, json)?,
        Verb::Ps { all } => containers::ps(&client, all, json)?,
        Verb::Run(container) => return run::run(&client, &container, json),
        Verb::Console => console::run(&client)?,
        Verb::Version => version(&client, json),
        Verb::Help(_) => {}
    }
    Ok(0)
}

/// A host that can't be reached is no failure here: this program's own version is asked for as well.
fn version(client: &Client, json: bool) {
    let host = client.get::<Status>("/keel/v1/status").map(|status| status.version);
    let own = env!("CARGO_PKG_VERSION");
    match (json, host) {
        (true, host) => println!("{}", serde_json::json!({ "keelctl": own, "host": host.ok() })),
        (false, Ok(host)) => println!("keelctl {own}\nhost    {host}"),
        (false, Err(failure)) => println!("keelctl {own}\nhost    unknown: {failure}"),
    }
}
