//! Other people's clients on a whole machine, over mutual TLS: what they are asked for is what tests on a workstation's
//! daemon ask them for (`keel-other-clients`).

use std::path::Path;
use std::thread::{Scope, ScopedJoinHandle, scope};

use anyhow::{Context, Result, anyhow, ensure};
use keel_other_clients::{compose, library, sdk, tls};

use super::fixture::Fixture;
use super::verbs::{prints, told};
use crate::build::Build;
use crate::clients::{Host, succeed};
use crate::images;

/// How many `docker` clients are at work at once.
const CLIENTS: usize = 6;

pub(super) fn each(build: &Build) -> Result<()> {
    let fixture = Fixture::new(build, "clients")?;
    let image = images::busybox(&fixture.dir, "box", "from a box\n")?;
    let (_machine, host) = fixture.boot()?;
    host.docker_ok(&["load", "-i", image.to_str().context("path")?])?;
    let bollard = tls::connect(host.address(), host.certs())?;
    let steps: [(&str, &dyn Fn() -> Result<()>); 5] = [
        ("docker-compose", &|| project(&host, &fixture.dir.join("shop"))),
        ("the Python SDK", &|| script(&host)),
        ("Bollard", &|| library::call(&bollard, library::life)),
        ("Bollard's clients beside those of docker", &|| {
            scope(|scope| {
                let others = crowd(scope, &host);
                let crowd = library::call(&bollard, library::crowd);
                others.into_iter().try_for_each(joined).and(crowd)
            })
        }),
        ("what is left", &|| nothing_left(&host)),
    ];
    let failed = steps.iter().filter_map(|(what, step)| Some(format!("{what}: {:#}", step().err()?)));
    told(failed.collect(), || host.keelctl_ok(&["logs", "runtime"]).unwrap_or_default())
}

/// A project of two services, one of which waits for the other's health.
fn project(host: &Host, folder: &Path) -> Result<()> {
    compose::write(folder)?;
    let program = compose::program();
    compose::lead(|words| {
        let mut command = host.client(&program);
        command.args(words).current_dir(folder).env(compose::API_VERSION.0, compose::API_VERSION.1);
        succeed(&program, words, command.output())
    })
}

fn script(host: &Host) -> Result<()> {
    let python = sdk::python();
    let said = succeed(&python, &["sdk.py"], host.client(&python).arg(sdk::script()).arg("cgroups").output())?;
    ensure!(said == "all verbs work", "the script said {said:?}");
    Ok(())
}

/// `docker` clients at once, each of which is told of its own container.
fn crowd<'scope>(scope: &'scope Scope<'scope, '_>, host: &'scope Host) -> Vec<ScopedJoinHandle<'scope, Result<()>>> {
    let one = |number: usize| {
        let (script, wanted) = (format!("sleep 1; echo {number}"), number.to_string());
        scope.spawn(move || prints(host, &["run", "--rm", "box:1", "sh", "-c", &script], &wanted))
    };
    (0..CLIENTS).map(one).collect()
}

fn joined(client: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    client.join().map_err(|_| anyhow!("a client's thread ended early"))?
}

fn nothing_left(host: &Host) -> Result<()> {
    prints(host, &["ps", "-aq"], "")?;
    prints(host, &["volume", "ls", "-q"], "")?;
    prints(host, &["network", "ls", "-q", "--filter", "type=custom"], "")
}
