//! From an earlier revision's programs to today's and back: what today's leave on the state partition, the earlier ones
//! can use.

use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::fixture::{Fixture, Variant};
use super::update::reboot;
use crate::build::{Build, FIRST, SECOND};
use crate::clients::{Host, wait_http};
use crate::images;
use crate::machine::Machine;

pub(super) fn there_and_back(build: &Build) -> Result<()> {
    let mut fixture = Fixture::with_first(build, "earlier-release", Variant::Earlier)?;
    fixture.hardware.guest_ports.push(8081);
    fixture.publish(SECOND, Variant::Good)?;
    let (mut machine, host) = fixture.boot()?;
    for image in ["before", "after"] {
        images::busybox(&fixture.dir, image, &format!("{image}\n"))?;
    }
    make(&fixture, &host, "before", 8080)?;
    wait_http(machine.port(8080)?, Duration::from_secs(60))?;

    host.install(None)?.finish()?;
    let status = reboot(&mut machine, &host)?;
    ensure!(status["version"] == SECOND, "after the update: {status}");
    is_whole(&fixture, &machine, &host, "before", 8080)?;
    make(&fixture, &host, "after", 8081)?;
    host.docker_ok(&["commit", "after", "kept:1"])?;
    host.docker_ok(&["rename", "before-ended", "before-renamed"])?;
    host.docker_ok(&["network", "connect", "after-net", "before"])?;

    host.keelctl_ok(&["update", "rollback"])?;
    let status = reboot(&mut machine, &host)?;
    ensure!(status["version"] == FIRST, "after the rollback: {status}");
    is_whole(&fixture, &machine, &host, "before", 8080)?;
    is_whole(&fixture, &machine, &host, "after", 8081)?;
    let networks = host.docker_ok(&["inspect", "-f", "{{len .NetworkSettings.Networks}}", "before"])?;
    ensure!(networks == "2", "networks of a container that today's programs connected: {networks}");
    let ended = host.docker_ok(&["inspect", "-f", "{{.State.ExitCode}}", "before-renamed"])?;
    ensure!(ended == "7", "exit code of a container that today's programs renamed: {ended}");
    let page = host.docker_ok(&["run", "--rm", "kept:1", "cat", "/written"])?;
    ensure!(page == "after", "an image that today's programs committed: {page:?}");

    let again = host.keelctl_json(&["update", "plan", SECOND])?;
    ensure!(again["fetch_bytes"].as_u64().is_some_and(|bytes| bytes < 1 << 20), "the release is still here: {again}");
    Ok(())
}

/// A container that serves a page, with a volume and a network of its own, and one that has ended.
fn make(fixture: &Fixture, host: &Host, name: &str, port: u16) -> Result<()> {
    let archive = fixture.dir.join(format!("{name}.tar"));
    host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    let (image, volume, network) = (format!("{name}:1"), format!("{name}-volume:/data"), format!("{name}-net"));
    host.docker_ok(&["network", "create", "--label", "made=here", &network])?;
    let publish = format!("{port}:80");
    let script = "echo started; trap 'exit 0' TERM; httpd -p 80 -h /www; while true; do sleep 1; done";
    let run = ["run", "-d", "--name", name, "--restart", "always", "--network", &network, "-v", &volume];
    host.docker_ok(&[&run[..], &["-p", &publish, "--memory", "64m", &image, "sh", "-c", script]].concat())?;
    host.docker_ok(&["exec", name, "sh", "-c", &format!("echo {name} > /data/file; echo {name} > /written")])?;
    let ended = format!("{name}-ended");
    host.docker_ok(&["run", "-d", "--name", &ended, &image, "sh", "-c", "echo said; exit 7"])?;
    let code = host.docker_ok(&["wait", &ended])?;
    ensure!(code == "7", "exit code: {code}");
    Ok(())
}

/// The container is back with its page, files, network, limits and log; its image can be saved.
fn is_whole(fixture: &Fixture, machine: &Machine, host: &Host, name: &str, port: u16) -> Result<()> {
    let page = wait_http(machine.port(port)?, Duration::from_secs(60)).with_context(|| format!("container {name}"))?;
    ensure!(page == format!("{name}\n"), "page of {name}: {page:?}");
    let files = host.docker_ok(&["exec", name, "cat", "/data/file", "/written"])?;
    ensure!(files == format!("{name}\n{name}"), "files of {name}: {files:?}");
    let log = host.docker_ok(&["logs", name])?;
    ensure!(log.lines().count() > 1 && log.lines().all(|line| line == "started"), "log of {name}: {log:?}");
    let known = host.docker_ok(&[
        "inspect",
        "-f",
        "{{.HostConfig.Memory}} {{range $name, $_ := .NetworkSettings.Networks}}{{$name}} {{end}}",
        name,
    ])?;
    ensure!(known.starts_with("67108864 ") && known.contains(&format!("{name}-net")), "{name}: {known}");
    let label = host.docker_ok(&["network", "inspect", "-f", "{{.Labels.made}}", &format!("{name}-net")])?;
    ensure!(label == "here", "label of the network of {name}: {label}");
    let archive = fixture.dir.join(format!("{name}-saved.tar"));
    host.docker_ok(&["save", "-o", archive.to_str().context("path")?, &format!("{name}:1")])?;
    let (saved, loaded) = (archive.metadata()?.len(), fixture.dir.join(format!("{name}.tar")).metadata()?.len());
    ensure!(saved > loaded / 2, "an image of {loaded} bytes was saved as {saved}");
    Ok(())
}
