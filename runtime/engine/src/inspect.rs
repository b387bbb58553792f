//! `inspect`.

use bollard_stubs::models::{
    ContainerConfig, ContainerCreateBody, ContainerInspectResponse, ContainerState, DriverData, HostConfig,
    HostConfigLogConfig, NetworkSettings, RestartPolicy, RestartPolicyNameEnum,
};

use crate::clock;
use crate::disk::{Phase, State};
use crate::engine::Engine;
use crate::error::Error;
use crate::health::Health;
use crate::plan::security;
use crate::show;

impl Engine {
    /// All that is known of a container; with `size` what its files take, too.
    pub fn inspect(&self, wanted: &str, size: bool) -> Result<ContainerInspectResponse, Error> {
        let container = self.find(wanted)?;
        let (size_rw, size_root_fs) = if size { self.sizes(&container) } else { (None, None) };
        let (config, state) = (container.config(), container.state());
        let mut words = config.body.entrypoint.iter().chain(&config.body.cmd).flatten().cloned();
        let file = |name: &str| Some(container.folder.join(name).to_string_lossy().into_owned());
        Ok(ContainerInspectResponse {
            id: Some(config.id.clone()),
            created: Some(clock::rfc3339(config.created_unix_ns)),
            path: Some(words.next().unwrap_or_default()),
            args: Some(words.collect()),
            state: Some(ContainerState {
                health: container.live().health.as_ref().map(Health::told),
                ..container_state(&state)
            }),
            image: Some(config.image_id.clone()),
            resolv_conf_path: file("resolv.conf"),
            hostname_path: file("hostname"),
            hosts_path: file("hosts"),
            log_path: Some(container.log.current_path().to_string_lossy().into_owned()),
            name: Some(format!("/{}", config.name)),
            restart_count: Some(state.restart_count.into()),
            driver: Some("overlay".into()),
            platform: Some("linux".into()),
            mount_label: Some(String::new()),
            process_label: Some(String::new()),
            app_armor_profile: Some(security::security(&config.body).ok().and_then(|s| s.apparmor).unwrap_or_default()),
            exec_ids: self.running_execs(&config.id),
            host_config: Some(host_config(&config.body, show::network_name(&config))),
            graph_driver: Some(DriverData { name: "overlay".into(), data: Default::default() }),
            mounts: Some(show::mount_points(&container, &self.volumes_folder())),
            config: Some(container_config(&config.body, &config.id)),
            network_settings: Some(NetworkSettings {
                sandbox_id: Some(if state.is_running() { config.id.clone() } else { String::new() }),
                sandbox_key: Some(state.pid.map_or(String::new(), |pid| format!("/proc/{pid}/ns/net"))),
                ports: Some(show::port_map(&config, &state)),
                networks: Some(show::networks(&config, &state)),
            }),
            size_rw,
            size_root_fs,
            ..Default::default()
        })
    }
}

impl Engine {
    fn running_execs(&self, id: &str) -> Option<Vec<String>> {
        let running = self.execs.of(id).into_iter().filter(|exec| exec.is_running());
        Some(running.map(|exec| exec.id.clone()).collect::<Vec<_>>()).filter(|ids| !ids.is_empty())
    }
}

fn container_state(state: &State) -> ContainerState {
    ContainerState {
        status: show::state_name(state).parse().ok(),
        running: Some(matches!(state.phase, Phase::Running | Phase::Restarting)),
        paused: Some(state.paused),
        restarting: Some(state.phase == Phase::Restarting),
        oom_killed: Some(state.oom_killed),
        dead: Some(false),
        pid: Some(state.pid.unwrap_or(0).into()),
        exit_code: Some(state.exit_code.into()),
        error: Some(state.error.clone()),
        started_at: Some(clock::rfc3339_ms(state.started_unix_ms)),
        finished_at: Some(clock::rfc3339_ms(state.finished_unix_ms)),
        health: None,
    }
}

/// What was asked for, with the defaults that clients look at filled in.
fn host_config(body: &ContainerCreateBody, network: &str) -> HostConfig {
    let mut host = body.host_config.clone().unwrap_or_default();
    host.network_mode = Some(network.into());
    let logging = host.log_config.get_or_insert_with(HostConfigLogConfig::default);
    logging.typ = logging.typ.take().filter(|name| !name.is_empty()).or_else(|| Some("json-file".into()));
    logging.config.get_or_insert_default();
    host.restart_policy
        .get_or_insert(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: Some(0) });
    host.runtime = Some("keel".into());
    host
}

fn container_config(body: &ContainerCreateBody, id: &str) -> ContainerConfig {
    let short = || id.get(..12).unwrap_or(id).to_owned();
    ContainerConfig {
        hostname: Some(body.hostname.clone().filter(|name| !name.is_empty()).unwrap_or_else(short)),
        domainname: Some(body.domainname.clone().unwrap_or_default()),
        user: Some(body.user.clone().unwrap_or_default()),
        attach_stdin: Some(body.attach_stdin == Some(true)),
        attach_stdout: Some(body.attach_stdout == Some(true)),
        attach_stderr: Some(body.attach_stderr == Some(true)),
        exposed_ports: body.exposed_ports.clone().filter(|ports| !ports.is_empty()),
        tty: Some(body.tty == Some(true)),
        open_stdin: Some(body.open_stdin == Some(true)),
        stdin_once: Some(body.stdin_once == Some(true)),
        env: body.env.clone(),
        cmd: body.cmd.clone(),
        image: body.image.clone(),
        volumes: body.volumes.clone(),
        working_dir: Some(body.working_dir.clone().unwrap_or_default()),
        entrypoint: body.entrypoint.clone(),
        labels: Some(body.labels.clone().unwrap_or_default()),
        stop_signal: body.stop_signal.clone(),
        healthcheck: body.healthcheck.clone(),
        stop_timeout: body.stop_timeout,
        ..Default::default()
    }
}
