//! Other people's clients: the Rust library Bollard.

mod common;

use bollard::Docker;
use common::machine::Machine;
use keel_other_clients::library;

/// Longest wait for one answer, in seconds.
const ANSWER_LIMIT_S: u64 = 60;

/// A daemon of its own, and the library connected to it.
fn with_daemon<F: Future<Output = anyhow::Result<()>>>(calls: impl FnOnce(Docker) -> F) {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    let socket = machine.folder.path().join("api.sock").display().to_string();
    let docker = Docker::connect_with_unix(&socket, ANSWER_LIMIT_S, bollard::API_DEFAULT_VERSION).unwrap();
    library::call(&docker, calls).unwrap();
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn the_library_leads_a_container_through_its_life() {
    with_daemon(library::life);
}

#[test]
fn clients_at_once_are_each_told_of_their_own() {
    with_daemon(library::crowd);
}
