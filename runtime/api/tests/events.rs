//! What `events` tells of images, volumes and networks, and what its filters let through, over the API.

mod common;

use std::time::{SystemTime, UNIX_EPOCH};

use common::http::Api;
use common::machine::Machine;
use serde_json::Value;

/// All events that passed the filter until now: Docker's JSON of filters in a query's escapes.
fn told(api: &Api, filters: &str) -> Vec<Value> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let until = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let escaped = filters.replace('{', "%7B").replace('}', "%7D").replace('"', "%22");
    let answer = api.call("GET", &format!("/events?since=1&until={until}&filters={escaped}"), "");
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.body.lines().filter(|line| !line.is_empty()).map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Their actions.
fn actions(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["Action"].as_str().unwrap()).collect()
}

fn ok(api: &Api, method: &str, path: &str, body: &str) -> Value {
    let answer = api.call(method, path, body);
    assert!(answer.status < 300, "{method} {path}: {answer:?}");
    serde_json::from_str(&answer.body).unwrap_or_default()
}

#[test]
fn images_volumes_and_networks_are_told_with_dockers_actors_and_attributes() {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    images(&api);
    volumes_and_networks(&api);
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

fn images(api: &Api) {
    let id = ok(api, "GET", "/images/box:1/json", "")["Id"].as_str().unwrap().to_owned();
    ok(api, "POST", "/images/box:1/tag?repo=other&tag=2", "");
    ok(api, "GET", "/images/box:1/get", "");
    ok(api, "DELETE", "/images/other:2", "");
    ok(api, "POST", "/images/create?fromSrc=-&repo=empty&changes=LABEL%20a%3Db", &"\0".repeat(1024));
    ok(api, "DELETE", "/images/empty", "");
    ok(api, "POST", "/images/prune", "");
    let events = told(api, r#"{"type":["image"]}"#);
    let wanted = ["import", "tag", "save", "untag", "import", "untag", "delete", "prune"];
    assert_eq!(actions(&events), wanted);
    assert_eq!((&events[1]["Actor"]["ID"], &events[1]["id"]), (&id.clone().into(), &id.clone().into()));
    assert_eq!(events[1]["Actor"]["Attributes"]["name"], "other:2");
    assert_eq!(events[3]["Actor"]["Attributes"]["name"], id.as_str());
    assert_eq!(events[4]["Actor"]["Attributes"]["a"], "b", "labels of the image");
    assert!(events[7]["Actor"]["Attributes"]["reclaimed"].is_string());
    assert_eq!(actions(&told(api, r#"{"image":["other"]}"#)), ["tag"]);
    let of_id = format!("{{\"image\":[\"{}\"]}}", &id["sha256:".len()..][..12]);
    assert_eq!(actions(&told(api, &of_id)), ["import", "tag", "save", "untag"]);
    assert_eq!(actions(&told(api, r#"{"label":["a=b"]}"#)), ["import"], "labels are told while the image is there");
}

fn volumes_and_networks(api: &Api) {
    ok(api, "POST", "/volumes/create", r#"{"Name":"data"}"#);
    ok(api, "POST", "/volumes/create", r#"{"Name":"data"}"#);
    let network = ok(api, "POST", "/networks/create", r#"{"Name":"front"}"#)["Id"].as_str().unwrap().to_owned();
    ok(api, "POST", "/networks/create", r#"{"Name":"back"}"#);
    let body = r#"{"Image":"box:1","Cmd":["sleep","99"],
        "HostConfig":{"Binds":["data:/data:ro","made:/made"],"NetworkMode":"front"}}"#;
    let id = ok(api, "POST", "/containers/create?name=web", body)["Id"].as_str().unwrap().to_owned();
    ok(api, "POST", "/containers/web/start", "");
    ok(api, "POST", "/networks/back/connect", r#"{"Container":"web"}"#);
    ok(api, "POST", "/networks/back/disconnect", r#"{"Container":"web"}"#);
    ok(api, "DELETE", "/containers/web?force=1", "");
    ok(api, "DELETE", "/networks/front", "");
    ok(api, "DELETE", "/volumes/data", "");
    ok(api, "POST", "/volumes/prune?filters=%7B%22all%22%3A%5B%22true%22%5D%7D", "");
    ok(api, "POST", "/networks/prune", "");

    let volumes = told(api, r#"{"type":["volume"]}"#);
    let wanted = ["create", "create", "mount", "mount", "unmount", "unmount", "destroy", "destroy", "prune"];
    assert_eq!(actions(&volumes), wanted);
    assert_eq!(
        (&volumes[0]["Actor"]["ID"], &volumes[0]["Actor"]["Attributes"]["driver"]),
        (&"data".into(), &"local".into())
    );
    let mount = &volumes[2]["Actor"]["Attributes"];
    assert_eq!((&mount["container"], &mount["destination"]), (&id.as_str().into(), &"/data".into()));
    assert_eq!(mount["read/write"], "false");
    assert_eq!(actions(&told(api, r#"{"volume":["made"]}"#)), ["create", "mount", "unmount", "destroy"]);

    let of_front = told(api, r#"{"network":["front"]}"#);
    assert_eq!(actions(&of_front), ["create", "connect", "disconnect", "destroy"]);
    assert_eq!((&of_front[1]["Actor"]["ID"], &of_front[1]["status"]), (&network.as_str().into(), &Value::Null));
    let attributes = &of_front[1]["Actor"]["Attributes"];
    assert_eq!((&attributes["name"], &attributes["type"]), (&"front".into(), &"bridge".into()));
    assert_eq!(attributes["container"], id.as_str());
    let networks = told(api, r#"{"type":["network"]}"#);
    assert_eq!(actions(&networks).last(), Some(&"prune"));
    assert_eq!(
        actions(&told(api, r#"{"type":["network"],"network":["back"]}"#)),
        ["create", "connect", "disconnect", "destroy"]
    );
    let run = told(api, r#"{"type":["container","network"],"event":["connect","start","die","disconnect"]}"#);
    assert_eq!(actions(&run), ["connect", "start", "connect", "disconnect", "die", "disconnect"]);
}
