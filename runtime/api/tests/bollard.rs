//! Other people's clients: the Rust library Bollard, which knows the API by its published description.

mod common;

use std::collections::HashMap;
use std::time::Duration;

use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::exec::StartExecResults;
use bollard::models::{ContainerCreateBody, ExecConfig, HostConfig, NetworkCreateRequest, VolumeCreateRequest};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, DownloadFromContainerOptionsBuilder, EventsOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder, RemoveVolumeOptions,
    RenameContainerOptionsBuilder, StatsOptionsBuilder, StopContainerOptionsBuilder, WaitContainerOptions,
};
use common::machine::Machine;
use futures_util::{StreamExt, TryStreamExt};

/// Longest wait for a test's calls altogether.
const LIMIT: Duration = Duration::from_secs(180);
/// How many clients are at work at once.
const CLIENTS: usize = 12;

/// A daemon of its own, and the library connected to it.
fn with_daemon<F: Future<Output = Result<(), Error>>>(calls: impl FnOnce(Docker) -> F) {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    let socket = machine.folder.path().join("api.sock").display().to_string();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let docker = Docker::connect_with_unix(&socket, 60, bollard::API_DEFAULT_VERSION).unwrap();
        let docker = docker.negotiate_version().await.unwrap();
        tokio::time::timeout(LIMIT, calls(docker)).await.expect("the calls end").unwrap();
    });
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

/// A container of these words that is started.
async fn run(docker: &Docker, name: &str, command: &[&str], host: HostConfig) -> Result<(), Error> {
    let body = ContainerCreateBody {
        image: Some("box:1".into()),
        cmd: words(command),
        labels: Some(HashMap::from([("of".into(), "bollard".into())])),
        host_config: Some(host),
        ..Default::default()
    };
    docker.create_container(Some(CreateContainerOptionsBuilder::new().name(name).build()), body).await?;
    docker.start_container(name, None).await
}

async fn remove(docker: &Docker, name: &str) -> Result<(), Error> {
    docker.remove_container(name, Some(RemoveContainerOptionsBuilder::new().force(true).v(true).build())).await
}

/// What a container has said, by stream.
async fn said(docker: &Docker, name: &str) -> Result<(String, String), Error> {
    let options = LogsOptionsBuilder::new().stdout(true).stderr(true).build();
    let pieces: Vec<LogOutput> = docker.logs(name, Some(options)).try_collect().await?;
    Ok(apart(pieces))
}

fn apart(pieces: Vec<LogOutput>) -> (String, String) {
    let (mut out, mut err) = (String::new(), String::new());
    for piece in pieces {
        match piece {
            LogOutput::StdErr { message } => err += &String::from_utf8_lossy(&message),
            other => out += &String::from_utf8_lossy(&other.into_bytes()),
        }
    }
    (out, err)
}

/// The code that it ended with; the library tells one other than 0 as an error.
async fn end(docker: &Docker, name: &str) -> Result<i64, Error> {
    match docker.wait_container(name, None::<WaitContainerOptions>).try_next().await {
        Ok(answer) => Ok(answer.map_or(-1, |answer| answer.status_code)),
        Err(Error::DockerContainerWaitError { code, .. }) => Ok(code),
        Err(error) => Err(error),
    }
}

async fn life(docker: Docker) -> Result<(), Error> {
    assert_eq!(docker.ping().await?, "OK");
    assert_eq!(docker.version().await?.api_version.as_deref(), Some("1.47"));
    assert_eq!(docker.info().await?.images, Some(1));
    assert_eq!(docker.inspect_image("box:1").await?.repo_tags, words(&["box:1"]));

    docker.create_network(NetworkCreateRequest { name: "lib-net".into(), ..Default::default() }).await?;
    docker.create_volume(VolumeCreateRequest { name: Some("lib-data".into()), ..Default::default() }).await?;
    let host = HostConfig {
        binds: words(&["lib-data:/data"]),
        network_mode: Some("lib-net".into()),
        memory: Some(64 << 20),
        ..Default::default()
    };
    let script = "echo out; echo err >&2; echo word >/data/file; trap 'exit 3' TERM; while :; do sleep 0.1; done";
    run(&docker, "one", &["sh", "-c", script], host).await?;
    let found = docker.inspect_container("one", None).await?;
    assert_eq!(found.state.and_then(|state| state.running), Some(true));
    assert_eq!(found.host_config.and_then(|host| host.memory), Some(64 << 20));
    while said(&docker, "one").await? != ("out\n".to_owned(), "err\n".to_owned()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    exec(&docker).await?;
    let options = DownloadFromContainerOptionsBuilder::new().path("/data/file").build();
    let pieces: Vec<_> = docker.download_from_container("one", Some(options)).try_collect().await?;
    assert!(pieces.concat().windows(5).any(|part| part == b"word\n"), "the file's content is in the archive");
    let stats = docker.stats("one", Some(StatsOptionsBuilder::new().stream(false).build())).try_next().await?;
    assert!(stats.and_then(|stats| stats.memory_stats).and_then(|memory| memory.usage).is_some_and(|bytes| bytes > 0));
    assert!(docker.top_processes("one", None).await?.processes.is_some_and(|list| !list.is_empty()));

    docker.rename_container("one", RenameContainerOptionsBuilder::new().name("two").build()).await?;
    docker.stop_container("two", Some(StopContainerOptionsBuilder::new().t(20).build())).await?;
    assert_eq!(end(&docker, "two").await?, 3);
    events(&docker).await?;
    remove(&docker, "two").await?;
    docker.remove_volume("lib-data", None::<RemoveVolumeOptions>).await?;
    docker.remove_network("lib-net").await?;
    match docker.inspect_container("two", None).await {
        Err(Error::DockerResponseServerError { status_code: 404, message }) => {
            assert!(message.contains("two"), "{message}")
        }
        other => panic!("a container that was removed: {other:?}"),
    }
    Ok(())
}

async fn exec(docker: &Docker) -> Result<(), Error> {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: words(&["WORD=hello"]),
        cmd: words(&["sh", "-c", "echo $WORD; echo bad >&2; exit 4"]),
        ..Default::default()
    };
    let id = docker.create_exec("one", config).await?.id;
    let StartExecResults::Attached { output, .. } = docker.start_exec(&id, None).await? else {
        panic!("it was to be attached");
    };
    assert_eq!(apart(output.try_collect().await?), ("hello\n".to_owned(), "bad\n".to_owned()));
    assert_eq!(docker.inspect_exec(&id).await?.exit_code, Some(4));
    Ok(())
}

async fn events(docker: &Docker) -> Result<(), Error> {
    // By its ID: it has had two names.
    let id = docker.inspect_container("two", None).await?.id.unwrap_or_default();
    let filters = HashMap::from([("container", vec![id.as_str()])]);
    let until = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs() + 1;
    let options = EventsOptionsBuilder::new().since("1").until(&until.to_string()).filters(&filters).build();
    let told: Vec<_> =
        docker.events(Some(options)).map_ok(|event| event.action.unwrap_or_default()).try_collect().await?;
    let wanted = ["create", "start", "rename", "kill", "die", "stop"];
    let mut left = told.iter().map(String::as_str);
    assert!(wanted.iter().all(|action| left.any(|other| other == *action)), "in this order: {told:?}");
    Ok(())
}

#[test]
fn the_library_leads_a_container_through_its_life() {
    with_daemon(life);
}

async fn crowd(docker: Docker) -> Result<(), Error> {
    let one = |number: usize| {
        let docker = docker.clone();
        async move {
            let name = format!("crowd-{number}");
            run(&docker, &name, &["sh", "-c", &format!("echo {number}; exit {number}")], HostConfig::default()).await?;
            assert_eq!(end(&docker, &name).await?, number as i64);
            assert_eq!(said(&docker, &name).await?.0, format!("{number}\n"));
            remove(&docker, &name).await
        }
    };
    futures_util::stream::iter(0..3 * CLIENTS).map(one).buffer_unordered(CLIENTS).try_collect::<Vec<()>>().await?;
    let left = docker.list_containers(Some(ListContainersOptionsBuilder::new().all(true).build())).await?;
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

#[test]
fn clients_at_once_are_each_told_of_their_own() {
    with_daemon(crowd);
}
