//! Containers, driven by the `docker` client.

use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::fixture::Fixture;
use crate::build::Build;
use crate::clients::{Host, wait_http};
use crate::images;
use crate::machine::WORKSTATION_IN_GUEST;
use crate::registry::Registry;

/// Longest wait for a container's port to answer.
const SERVE_LIMIT: Duration = Duration::from_secs(60);

/// A machine that may pull from a registry on the workstation, which holds `web:1`.
pub(super) fn with_registry(build: &Build, name: &str) -> Result<(Fixture, Registry, String)> {
    let mut fixture = Fixture::new(build, name)?;
    let registry = Registry::start(&fixture.dir.join("registry"))?;
    registry.push(&images::busybox(&fixture.dir, "web", "hello from a container\n")?, "web:1")?;
    let address = format!("{WORKSTATION_IN_GUEST}:{}", registry.port());
    fixture.add_config(&format!("[registry]\ninsecure = [\"{address}\"]"));
    Ok((fixture, registry, format!("{address}/web:1")))
}

pub(super) fn docker_client(build: &Build) -> Result<()> {
    let (fixture, _registry, web) = with_registry(build, "containers")?;
    let (machine, host) = fixture.boot()?;
    host.docker_ok(&["pull", &web])?;
    let id = host.docker_ok(&["run", "-d", "--name", "web", "-p", "8080:80", &web])?;
    let page = wait_http(machine.port(8080)?, SERVE_LIMIT)?;
    ensure!(page == "hello from a container\n", "page: {page:?}");
    let listed = host.docker_ok(&["ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"])?;
    ensure!(listed == format!("{id} web"), "docker ps: {listed}");

    exit_codes_and_streams(&host, &web)?;
    isolation(&host, &web)?;
    limits(&host, &web)?;
    archives(&host, &fixture, &web)?;

    host.docker_ok(&["stop", "-t", "2", "web"])?;
    let state = host.docker_ok(&["inspect", "-f", "{{.State.Status}}", "web"])?;
    ensure!(state == "exited", "after stop: {state}");
    host.docker_ok(&["start", "web"])?;
    wait_http(machine.port(8080)?, SERVE_LIMIT)?;
    let ps = host.keelctl_json(&["ps"])?;
    ensure!(ps.to_string().contains("web"), "keelctl ps: {ps}");
    host.docker_ok(&["kill", "web"])?;
    ensure!(host.docker_ok(&["wait", "web"])? == "137", "exit code of a killed container");
    host.docker_ok(&["rm", "web"])?;
    // What `keelctl run` left, as `docker run` would.
    host.docker_ok(&["container", "prune", "-f"])?;
    host.docker_ok(&["rmi", &web])?;
    let left = host.docker_ok(&["images", "-q", "--filter", &format!("reference={web}")])?;
    ensure!(left.is_empty(), "image is still there: {left}");
    Ok(())
}

/// Output, input and exit codes come through `docker run` and `keelctl run` whole.
fn exit_codes_and_streams(host: &Host, web: &str) -> Result<()> {
    let output = host.docker(&["run", "--rm", web, "sh", "-c", "echo out; echo err >&2; exit 7"]).output()?;
    ensure!(output.status.code() == Some(7), "exit code through docker run: {}", output.status);
    ensure!(output.stdout == b"out\n" && output.stderr == b"err\n", "streams through docker run: {output:?}");
    let many = host.docker_ok(&["run", "--rm", web, "seq", "1", "100000"])?;
    ensure!(
        many.lines().count() == 100_000 && many.ends_with("100000"),
        "100,000 lines became {}",
        many.lines().count()
    );

    let mut child =
        host.docker(&["run", "--rm", "-i", web, "cat"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    child.stdin.take().context("docker's input")?.write_all(b"through and back\n")?;
    let echoed = child.wait_with_output()?;
    ensure!(echoed.status.success() && echoed.stdout == b"through and back\n", "docker run -i cat: {echoed:?}");

    let output = host.keelctl(&["run", web, "sh", "-c", "echo from keelctl; exit 3"]).output()?;
    ensure!(output.status.code() == Some(3) && output.stdout == b"from keelctl\n", "keelctl run: {output:?}");
    let output = host.docker(&["run", "--rm", web, "/bin/not-there"]).output()?;
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.code() == Some(127) && message.contains("/bin/not-there"), "missing program: {output:?}");

    host.docker_ok(&["run", "--name", "talker", web, "sh", "-c", "echo one; echo two"])?;
    ensure!(host.docker_ok(&["logs", "talker"])? == "one\ntwo", "docker logs");
    ensure!(host.docker_ok(&["logs", "--tail", "1", "talker"])? == "two", "docker logs --tail 1");
    host.docker_ok(&["rm", "talker"])?;
    Ok(())
}

/// A container sees its own processes and its own root, and little of the machine.
fn isolation(host: &Host, web: &str) -> Result<()> {
    let run = |script: &str| host.docker_ok(&["run", "--rm", "--hostname", "inside", web, "sh", "-c", script]);
    ensure!(run("hostname; echo $$")? == "inside\n1", "hostname and PID namespace");
    let mapping = run("cat /proc/self/uid_map")?;
    let outside = mapping.split_whitespace().nth(1).and_then(|text| text.parse::<u64>().ok());
    ensure!(outside.is_some_and(|base| base >= 100_000), "root of a container is {mapping:?} outside");
    ensure!(run("cat /proc/self/status | grep Seccomp:")?.contains('2'), "no seccomp filter");
    ensure!(run("mount -t tmpfs none /tmp 2>&1; echo $?")?.ends_with('1'), "a container may mount");
    ensure!(run("cat /proc/kcore 2>&1 | head -c1; echo; ls /sys/firmware")?.trim().is_empty(), "masked paths");
    ensure!(run("touch /www/x && stat -c %u /www/x")? == "0", "root of the image belongs to the container's root");
    Ok(())
}

/// Limits of memory and processes are those of cgroup v2.
fn limits(host: &Host, web: &str) -> Result<()> {
    let shown = host.docker_ok(&[
        "run",
        "--rm",
        "-m",
        "32m",
        "--pids-limit",
        "17",
        "--cpus",
        "0.5",
        web,
        "sh",
        "-c",
        "cd /sys/fs/cgroup && cat memory.max pids.max cpu.max",
    ])?;
    ensure!(shown == "33554432\n17\n50000 100000", "limits inside: {shown:?}");
    let output = host.docker(&["run", "--name", "eater", "-m", "16m", web, "sh", "-c", "tail /dev/zero"]).output()?;
    ensure!(output.status.code() == Some(137), "beyond its memory a container ends with {}", output.status);
    host.docker_ok(&["rm", "eater"])?;
    Ok(())
}

/// `docker save` archives load, root file systems import.
fn archives(host: &Host, fixture: &Fixture, web: &str) -> Result<()> {
    let archive = images::busybox(&fixture.dir, "loaded", "loaded from an archive\n")?;
    let loaded = host.docker_ok(&["load", "-i", archive.to_str().context("path")?])?;
    ensure!(loaded.contains("loaded:1"), "docker load: {loaded}");
    ensure!(
        host.docker_ok(&["run", "--rm", "loaded:1", "cat", "/www/index.html"])? == "loaded from an archive",
        "load"
    );
    let id = host.docker_ok(&["image", "inspect", "-f", "{{.Id}}", "loaded:1"])?;
    ensure!(id.starts_with("sha256:"), "image ID: {id}");

    let root = fixture.dir.join("import");
    std::fs::create_dir_all(root.join("bin"))?;
    std::fs::copy("/bin/busybox", root.join("bin/busybox"))?;
    let tar = fixture.dir.join("import.tar");
    images::tar(&root, &tar, &["."])?;
    host.docker_ok(&["import", tar.to_str().context("path")?, "imported:1"])?;
    let echoed = host.docker_ok(&["run", "--rm", "imported:1", "/bin/busybox", "echo", "imported"])?;
    ensure!(echoed == "imported", "import: {echoed}");
    let names = host.docker_ok(&["images", "--format", "{{.Repository}}:{{.Tag}}"])?;
    for name in ["loaded:1", "imported:1", web] {
        ensure!(names.lines().any(|line| line == name), "docker images lacks {name}: {names}");
    }
    host.docker_ok(&["rmi", "loaded:1", "imported:1"])?;
    Ok(())
}

pub(super) fn runtime_killed(build: &Build) -> Result<()> {
    let (fixture, _registry, web) = with_registry(build, "runtime-killed")?;
    let (machine, host) = fixture.boot()?;
    host.docker_ok(&["pull", &web])?;
    host.docker_ok(&["run", "-d", "--name", "web", "-p", "8080:80", &web])?;
    let count = "i=0; while [ $i -lt 400 ]; do echo line $i; i=$((i+1)); sleep 0.05; done; exit 5";
    host.docker_ok(&["run", "-d", "--name", "counter", &web, "sh", "-c", count])?;
    host.docker_ok(&["run", "-d", "--name", "short", &web, "sh", "-c", "sleep 4; exit 9"])?;
    wait_http(machine.port(8080)?, SERVE_LIMIT)?;

    let first = runtime_pid(&host)?.context("the runtime's process ID")?;
    // The host has no shell: a privileged container in its PID namespace does the killing.
    let _ =
        host.docker(&["run", "--rm", "--privileged", "--pid=host", &web, "kill", "-9", &first.to_string()]).output();
    let begun = Instant::now();
    while !matches!(runtime_pid(&host), Ok(Some(pid)) if pid != first) {
        if begun.elapsed() > Duration::from_secs(60) {
            bail!("the runtime isn't back 60 s after it was killed");
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    ensure!(wait_http(machine.port(8080)?, SERVE_LIMIT)?.starts_with("hello"), "the web server's page");
    ensure!(host.docker_ok(&["wait", "counter"])? == "5", "exit code of a container that outlived the runtime");
    ensure!(host.docker_ok(&["wait", "short"])? == "9", "exit code of a container that ended around the kill");
    let log = host.docker_ok(&["logs", "counter"])?;
    let wanted: Vec<String> = (0..400).map(|index| format!("line {index}")).collect();
    ensure!(log.lines().eq(wanted.iter().map(String::as_str)), "log isn't whole: {} lines", log.lines().count());
    let restarts = host.docker_ok(&["inspect", "-f", "{{.RestartCount}} {{.State.Running}}", "web"])?;
    ensure!(restarts == "0 true", "the web server was started again: {restarts}");
    host.docker_ok(&["rm", "-f", "web", "counter", "short"])?;
    let left = host.docker_ok(&["ps", "-aq"])?;
    ensure!(left.lines().count() <= 1, "containers left behind: {left}");
    Ok(())
}

/// Process ID of the runtime daemon; `None` while it is down.
fn runtime_pid(host: &Host) -> Result<Option<u64>> {
    let services = host.keelctl_json(&["services"])?;
    let runtime = services.as_array().into_iter().flatten().find(|service| service["name"] == "runtime");
    Ok(runtime.and_then(|service| service["pid"].as_u64()))
}
