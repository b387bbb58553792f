//! Compose files and `[[container]]`, read and refused.

use proptest::prelude::*;
use serde_json::{Value as Json, json};

use crate::config::{Condition, ConfigError, DeclaredContainer, PullPolicy, Settings, parse};

fn settings(compose: &str) -> Result<Settings, ConfigError> {
    parse(&format!("hostname = \"aa\"\ncompose = '''\n{compose}'''\n"))
}

fn one(service: &str) -> Json {
    let text = format!("services:\n  web:\n    image: a\n{service}");
    settings(&text).unwrap_or_else(|error| panic!("{error}\n{text}")).declared.containers.remove(0).create
}

fn refused(compose: &str) -> ConfigError {
    settings(compose).err().unwrap_or_else(|| panic!("accepted: {compose}"))
}

const WHOLE: &str = r#"
name: shop
x-common: &common
  restart: unless-stopped
  environment:
    MODE: ${MODE:-production}
services:
  web:
    <<: *common
    image: registry.example/web:1
    command: serve --name "two words" $$HOME
    ports: ["8080:80", "127.0.0.1:8443:443/tcp", "53:53/udp"]
    volumes:
      - data:/var/lib/data:ro
      - {type: tmpfs, target: /run, tmpfs: {size: 16m}}
    networks:
      front: {aliases: [www]}
      back:
    depends_on:
      db: {condition: service_healthy}
      setup: {condition: service_completed_successfully}
    deploy: {resources: {limits: {cpus: "0.5", memory: 64m, pids: 100}}}
  db:
    image: db
    container_name: database
    healthcheck: {test: "pg_isready", interval: 1m30s, retries: 5}
    networks: [back]
  setup: {image: setup, network_mode: none}
networks:
  front:
  back: {internal: true, ipam: {config: [{subnet: 10.9.0.0/24}]}}
volumes:
  data: {labels: {tier: gold}}
"#;

#[test]
fn a_whole_file_becomes_what_dockers_client_would_send() {
    let declared = settings(WHOLE).unwrap_or_else(|error| panic!("{error}")).declared;
    let names: Vec<&str> = declared.containers.iter().map(|container| container.name.as_str()).collect();
    assert_eq!(names, ["database", "setup", "web"], "each comes after those that it depends on");
    let web: &DeclaredContainer = &declared.containers[2];
    assert_eq!((web.image.as_str(), web.pull), ("registry.example/web:1", PullPolicy::Missing));
    let needs: Vec<_> = web.depends_on.iter().map(|need| (need.container.as_str(), need.condition)).collect();
    assert_eq!(needs, [("database", Condition::Healthy), ("setup", Condition::Completed)]);
    assert_eq!(web.create["Cmd"], json!(["serve", "--name", "two words", "$HOME"]));
    assert_eq!(web.create["Env"], json!(["MODE=production"]));
    let host = &web.create["HostConfig"];
    assert_eq!(host["PortBindings"]["443/tcp"], json!([{ "HostIp": "127.0.0.1", "HostPort": "8443" }]));
    assert_eq!(host["Binds"], json!(["data:/var/lib/data:ro"]));
    assert_eq!(host["Mounts"][0]["TmpfsOptions"]["SizeBytes"], 16 << 20);
    assert_eq!((&host["NanoCpus"], &host["Memory"]), (&json!(500_000_000), &json!(64 << 20)));
    assert_eq!((&host["NetworkMode"], &host["RestartPolicy"]["Name"]), (&json!("front"), &json!("unless-stopped")));
    let endpoints = &web.create["NetworkingConfig"]["EndpointsConfig"];
    assert_eq!(
        (&endpoints["front"]["Aliases"], &endpoints["back"]["Aliases"]),
        (&json!(["www", "web"]), &json!(["web"]))
    );
    let check = &declared.containers[0].create["Healthcheck"];
    assert_eq!((&check["Test"], &check["Interval"]), (&json!(["CMD-SHELL", "pg_isready"]), &json!(90_000_000_000_u64)));
    let policy = |at: usize| declared.containers[at].create["HostConfig"]["RestartPolicy"]["Name"].clone();
    assert_eq!((policy(0), policy(1)), (json!("always"), json!("on-failure")), "what is waited for to end may end");
    assert_eq!(declared.networks.len(), 2, "nobody is in the default network");
    assert_eq!(declared.networks[1].create["IPAM"]["Config"][0]["Subnet"], "10.9.0.0/24");
    assert_eq!(declared.volumes[0].create["Labels"]["tier"], "gold");
}

#[test]
fn the_same_keys_make_containers_in_toml() {
    let text = r#"
        [[container]]
        name = "web"
        image = "web:1"
        ports = ["8080:80"]
        environment = { A = 1, B = "x" }
        networks = ["back"]
        depends_on = ["db"]
        [[container]]
        name = "db"
        image = "db:1"
        command = ["serve"]
        [container.healthcheck]
        test = ["CMD", "true"]
        [[container_network]]
        name = "back"
        internal = true
        [[volume]]
        name = "data"
        [[registry.login]]
        registry = "registry.example:5000"
        user = "me"
        password = "secret"
    "#;
    let settings = parse(text).unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(settings.declared.containers[0].name, "db");
    let web = &settings.declared.containers[1].create;
    assert_eq!(web["Env"], json!(["A=1", "B=x"]));
    assert_eq!(web["NetworkingConfig"]["EndpointsConfig"], json!({ "back": {} }));
    assert_eq!(settings.declared.networks[0].create, json!({ "Name": "back", "Internal": true }));
    assert_eq!(settings.registry.logins[0].user, "me");
    let again: Settings = serde_json::from_str(&serde_json::to_string(&settings).unwrap()).unwrap();
    assert_eq!(again, settings);
}

#[test]
fn services_without_networks_share_one_of_the_project() {
    let declared = settings("name: shop\nservices:\n  aa: {image: x}\n").unwrap().declared;
    assert_eq!(declared.networks[0].name, "shop_default");
    let endpoints = &declared.containers[0].create["NetworkingConfig"]["EndpointsConfig"];
    assert_eq!(endpoints["shop_default"]["Aliases"], json!(["aa"]));
}

#[test]
fn what_is_not_known_is_refused_by_name_with_its_line_in_the_config() {
    let cases = [
        ("services:\n  web:\n    image: a\n    build: .\n", 6, "services.web.build"),
        ("services:\n  web:\n    imag: a\n", 5, "services.web"),
        ("servces: {}\n", 3, "servces"),
        ("services:\n  web: {image: a, ports: [x]}\n", 4, "services.web.ports"),
        ("services:\n  web:\n    image: a\n    mem_limit: lots\n", 6, "services.web.mem_limit"),
        ("services:\n  web: {image: a, networks: [nowhere]}\n", 4, "services.web.networks"),
        ("services:\n  web: {image: a, volumes: [\"./x:/y\"]}\n", 4, "services.web.volumes"),
        ("services:\n  web: {image: a, deploy: {replicas: 2}}\n", 4, "services.web.deploy.replicas"),
        ("services:\n  aa: {image: x, depends_on: [bb]}\n  bb: {image: x, depends_on: [aa]}\n", 4, "container"),
        ("services:\n  web:\n    image: a\n    image: b\n", 6, "services.web.image"),
    ];
    for (text, line, key) in cases {
        let error = refused(text);
        assert_eq!((error.line, error.key.as_deref()), (line, Some(key)), "{error}\n{text}");
    }
    for text in ["services: [", "a: *b\n", "services:\n  web: {image: \"${TAG}\"}\n", "{}\n---\n{}\n", ""] {
        let error = refused(text);
        assert!(error.line >= 2, "{error}");
    }
    let toml = parse("[[container]]\nname = \"aa\"\nimage = \"b\"\ncolour = 1").unwrap_err();
    assert_eq!((toml.line, toml.key.as_deref()), (4, Some("container.colour")), "{toml}");
    assert!(parse("[[container]]\nname = \"a/b\"\nimage = \"b\"").is_err());
    let twice = "[[container]]\nname = \"aa\"\nimage = \"b\"\n[[container]]\nname = \"aa\"\nimage = \"b\"";
    assert!(parse(twice).unwrap_err().reason.contains("twice"));
}

#[test]
fn values_mean_what_they_mean_in_compose() {
    let limits = one("    mem_limit: 1.5g\n    cpus: 1.5\n    stop_grace_period: 1m30s\n    shm_size: 64mb\n");
    let host = &limits["HostConfig"];
    assert_eq!((&host["Memory"], &host["NanoCpus"]), (&json!(1_610_612_736_u64), &json!(1_500_000_000)));
    assert_eq!((&limits["StopTimeout"], &host["ShmSize"]), (&json!(90), &json!(64 << 20)));
    let ranges = one("    ports: [\"8000-8001:80-81\", \"9000-9010:90\", \"7\"]\n");
    let bound = &ranges["HostConfig"]["PortBindings"];
    assert_eq!(
        (&bound["81/tcp"][0]["HostPort"], &bound["90/tcp"][0]["HostPort"]),
        (&json!("8001"), &json!("9000-9010"))
    );
    assert_eq!(bound["7/tcp"][0]["HostPort"], "");
    let hosts =
        one("    extra_hosts: {db: 10.0.0.1}\n    restart: \"no\"\n    ulimits: {nofile: {soft: 1, hard: 2}}\n");
    assert_eq!(hosts["HostConfig"]["ExtraHosts"], json!(["db:10.0.0.1"]));
    assert_eq!(hosts["HostConfig"]["RestartPolicy"]["Name"], "no");
    assert_eq!(hosts["HostConfig"]["Ulimits"], json!([{ "Name": "nofile", "Soft": 1, "Hard": 2 }]));
    let shared = settings("services:\n  aa: {image: x}\n  bb: {image: x, network_mode: \"service:aa\"}\n").unwrap();
    let b = &shared.declared.containers[1];
    assert_eq!((b.create["HostConfig"]["NetworkMode"].as_str(), b.depends_on.len()), (Some("container:aa"), 1));
}

#[test]
fn aliases_that_multiply_are_cut_off() {
    let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..9 {
        let before = format!("*a{}", level - 1);
        text.push_str(&format!("a{level}: &a{level} [{}]\n", vec![before; 10].join(", ")));
    }
    let error = refused(&text);
    assert!(error.reason.contains("more than 20000 values"), "{error}");
    assert!(refused(&"[".repeat(100)).reason.contains("nested deeper"), "depth");
}

proptest! {
    #[test]
    fn hostile_files_never_panic(text in "[ -~\n]{0,200}") {
        let _ = settings(&text.replace('\'', ""));
    }

    #[test]
    fn changes_of_a_good_file_never_panic(at in 0..WHOLE.len(), with in "[ -&(-~\n]{0,4}", cut in 0_usize..8) {
        if let (Some(before), Some(after)) = (WHOLE.get(..at), WHOLE.get((at + cut).min(WHOLE.len())..)) {
            let _ = settings(&format!("{before}{with}{after}"));
        }
    }
}
