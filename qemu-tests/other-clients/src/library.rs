//! The Rust library Bollard, which knows the API by its published description.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
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
use futures_util::{StreamExt, TryStreamExt};

/// Longest wait for all calls together; an emulated machine is slow.
const LIMIT: Duration = Duration::from_secs(180);
/// How many clients are at work at once.
const CLIENTS: usize = 12;
/// What marks our containers.
const LABEL: (&str, &str) = ("of", "bollard");

/// Asks a daemon, which holds `box:1`, for a newest version that both know, then makes these calls.
pub fn call<F: Future<Output = Result<()>>>(docker: &Docker, calls: impl FnOnce(Docker) -> F) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let docker = docker.clone().negotiate_version().await.context("ask for the version")?;
        tokio::time::timeout(LIMIT, calls(docker)).await.with_context(|| format!("no end within {LIMIT:?}"))?
    })
}

/// A container's life: network, volume, exec, logs, files, statistics, events, and the errors' kind.
pub async fn life(docker: Docker) -> Result<()> {
    ensure!(docker.ping().await? == "OK");
    ensure!(docker.version().await?.api_version.as_deref() == Some("1.47"));
    ensure!(docker.info().await?.images.is_some_and(|count| count > 0));
    ensure!(docker.inspect_image("box:1").await?.repo_tags == words(&["box:1"]));

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
    ensure!(found.state.and_then(|state| state.running) == Some(true));
    ensure!(found.host_config.and_then(|host| host.memory) == Some(64 << 20));
    while said(&docker, "one").await? != ("out\n".to_owned(), "err\n".to_owned()) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }

    exec(&docker).await?;
    let options = DownloadFromContainerOptionsBuilder::new().path("/data/file").build();
    let pieces: Vec<_> = docker.download_from_container("one", Some(options)).try_collect().await?;
    ensure!(pieces.concat().windows(5).any(|part| part == b"word\n"), "the file's content isn't in the archive");
    let stats = docker.stats("one", Some(StatsOptionsBuilder::new().stream(false).build())).try_next().await?;
    ensure!(stats.and_then(|stats| stats.memory_stats).and_then(|memory| memory.usage).is_some_and(|bytes| bytes > 0));
    ensure!(docker.top_processes("one", None).await?.processes.is_some_and(|list| !list.is_empty()));

    docker.rename_container("one", RenameContainerOptionsBuilder::new().name("two").build()).await?;
    docker.stop_container("two", Some(StopContainerOptionsBuilder::new().t(20).build())).await?;
    ensure!(end(&docker, "two").await? == 3);
    events(&docker).await?;
    remove(&docker, "two").await?;
    docker.remove_volume("lib-data", None::<RemoveVolumeOptions>).await?;
    docker.remove_network("lib-net").await?;
    match docker.inspect_container("two", None).await {
        Err(Error::DockerResponseServerError { status_code: 404, message }) if message.contains("two") => Ok(()),
        other => bail!("a container that was removed: {other:?}"),
    }
}

/// Clients at once, each of which must be told of its own container.
pub async fn crowd(docker: Docker) -> Result<()> {
    let one = |number: usize| {
        let docker = docker.clone();
        async move {
            let name = format!("crowd-{number}");
            run(&docker, &name, &["sh", "-c", &format!("echo {number}; exit {number}")], HostConfig::default()).await?;
            let code = end(&docker, &name).await?;
            let (out, _) = said(&docker, &name).await?;
            ensure!(code == number as i64 && out == format!("{number}\n"), "{name} ended with {code}, said {out:?}");
            Ok(remove(&docker, &name).await?)
        }
    };
    futures_util::stream::iter(0..3 * CLIENTS).map(one).buffer_unordered(CLIENTS).try_collect::<Vec<()>>().await?;
    let filters = HashMap::from([("label", vec!["of=bollard"])]);
    let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
    let left = docker.list_containers(Some(options)).await?;
    ensure!(left.is_empty(), "{left:?}");
    Ok(())
}

fn words(words: &[&str]) -> Option<Vec<String>> {
    Some(words.iter().map(|word| (*word).to_owned()).collect())
}

/// A container of these words that is started.
async fn run(docker: &Docker, name: &str, command: &[&str], host: HostConfig) -> Result<(), Error> {
    let body = ContainerCreateBody {
        image: Some("box:1".into()),
        cmd: words(command),
        labels: Some(HashMap::from([(LABEL.0.into(), LABEL.1.into())])),
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

async fn exec(docker: &Docker) -> Result<()> {
    let config = ExecConfig {
        attach_stdout: Some(true),
        attach_stderr: Some(true),
        env: words(&["WORD=hello"]),
        cmd: words(&["sh", "-c", "echo $WORD; echo bad >&2; exit 4"]),
        ..Default::default()
    };
    let id = docker.create_exec("one", config).await?.id;
    let StartExecResults::Attached { output, .. } = docker.start_exec(&id, None).await? else {
        bail!("the exec isn't attached");
    };
    let said = apart(output.try_collect().await?);
    ensure!(said == ("hello\n".to_owned(), "bad\n".to_owned()), "the exec said {said:?}");
    ensure!(docker.inspect_exec(&id).await?.exit_code == Some(4));
    Ok(())
}

async fn events(docker: &Docker) -> Result<()> {
    // By its ID: it has had two names.
    let id = docker.inspect_container("two", None).await?.id.unwrap_or_default();
    let filters = HashMap::from([("container", vec![id.as_str()])]);
    let mut told = docker.events(Some(EventsOptionsBuilder::new().since("1").filters(&filters).build()));
    let mut actions = Vec::new();
    while actions.last().is_none_or(|last| last != "stop") {
        actions.push(told.try_next().await?.context("the stream of events ended")?.action.unwrap_or_default());
    }
    let wanted = ["create", "start", "rename", "kill", "die", "stop"];
    let mut left = actions.iter().map(String::as_str);
    ensure!(wanted.iter().all(|action| left.any(|other| other == *action)), "not in this order: {actions:?}");
    Ok(())
}
