//! Wrong requests for networks and volumes, and what they are answered: status and words as Docker's daemon has them. Where
//! that blames itself (500) for what its client got wrong, a status of the client's stands here, with Docker's words.

mod common;

use common::http::{Api, Row};
use common::machine::Machine;

/// Beside `box:1` there are the networks `mine` (10.55.0.0/24), `chosen` (a subnet that nobody asked for) and `empty`; the
/// containers `running` (in `mine`, as 10.55.0.9), `other` (in `chosen`), `hosted`, `alone` (`--network none`), `sharing` (in
/// that of `running`), which run, and `stopped` (in `mine`), which doesn't; and the volume `used`, which `running` has.
#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Networks that can't be.
    ("POST", "/networks/create", "{", 400, "invalid JSON"),
    ("POST", "/networks/create", r#"{"Name":""}"#, 400, "invalid network name"),
    ("POST", "/networks/create", r#"{"Name":"mine"}"#, 409, "network with name mine already exists"),
    ("POST", "/networks/create", r#"{"Name":"bridge"}"#, 403, "operation is not permitted on predefined bridge network"),
    ("POST", "/networks/create", r#"{"Name":"none"}"#, 403, "operation is not permitted on predefined none network"),
    ("POST", "/networks/create", r#"{"Name":"x","Driver":"host"}"#, 403, "only one instance of \"host\" network is allowed"),
    ("POST", "/networks/create", r#"{"Name":"x","Driver":"null"}"#, 403, "only one instance of \"null\" network is allowed"),
    ("POST", "/networks/create", r#"{"Name":"x","Driver":"nope"}"#, 404, "plugin \"nope\" not found"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Driver":"nope"}}"#, 404, "plugin \"nope\" not found"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0"}]}}"#, 400, "invalid subnet 10.66.0.0: invalid CIDR block notation"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Gateway":"10.66.0.1"}]}}"#, 400, "invalid subnet : invalid CIDR block notation"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.5/24"}]}}"#, 400, "invalid subnet 10.66.0.5/24: it should be 10.66.0.0/24"),
    ("POST", "/networks/create", r#"{"Name":"x","EnableIPv6":true,"IPAM":{"Config":[{"Subnet":"fd00:66::1/64"}]}}"#, 400, "invalid subnet fd00:66::1/64: it should be fd00:66::/64"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.55.0.128/25"}]}}"#, 403, "invalid pool request: Pool overlaps with other one on this address space"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","Gateway":"10.1.1.1"}]}}"#, 400, "invalid gateway 10.1.1.1: parent subnet 10.66.0.0/24 doesn't contain this address"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","Gateway":"way"}]}}"#, 400, "invalid gateway way: invalid address"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","Gateway":"fd00::1"}]}}"#, 400, "invalid gateway fd00::1: parent subnet is an IPv4 block"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","IPRange":"10.66.0.0"}]}}"#, 400, "invalid ip-range 10.66.0.0: invalid CIDR block notation"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","IPRange":"10.66.0.0/16"}]}}"#, 400, "invalid ip-range 10.66.0.0/16: CIDR block is bigger than its parent subnet 10.66.0.0/24"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","IPRange":"10.67.0.0/25"}]}}"#, 400, "invalid ip-range 10.67.0.0/25: parent subnet 10.66.0.0/24 doesn't contain ip-range"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","IPRange":"fd00::/80"}]}}"#, 400, "invalid ip-range fd00::/80: parent subnet is an IPv4 block"),
    ("POST", "/networks/create", r#"{"Name":"x","IPAM":{"Config":[{"Subnet":"10.66.0.0/24","AuxiliaryAddresses":{"a":"10.1.1.1"}}]}}"#, 400, "invalid auxiliary address a: parent subnet 10.66.0.0/24 doesn't contain this address"),
    ("POST", "/networks/create", r#"{"Name":"x","Options":{"com.docker.network.driver.mtu":"wide"}}"#, 400, "failed to parse com.docker.network.driver.mtu value: wide"),
    ("POST", "/networks/create", r#"{"Name":"x","Options":{"com.docker.network.bridge.enable_icc":"maybe"}}"#, 400, "failed to parse com.docker.network.bridge.enable_icc value: maybe"),
    ("POST", "/networks/create", r#"{"Name":"x","Driver":"macvlan","Options":{"parent":"lo"}}"#, 400, "loopback interface is not a valid macvlan parent link"),
    ("POST", "/networks/create", r#"{"Name":"x","Driver":"macvlan","Options":{"macvlan_mode":"odd"}}"#, 400, "requested macvlan mode 'odd' is not valid, 'bridge' mode is the macvlan driver default"),
    ("POST", "/networks/create", r#"{"Name":"x","Driver":"ipvlan","Options":{"ipvlan_mode":"odd"}}"#, 400, "requested ipvlan mode 'odd' is not valid, 'l2' mode is the ipvlan driver default"),
    // Places in networks.
    ("POST", "/networks/nope/connect", r#"{"Container":"running"}"#, 404, "network nope not found"),
    ("POST", "/networks/mine/connect", r#"{"Container":"nope"}"#, 404, "No such container: nope"),
    ("POST", "/networks/mine/connect", "", 400, "invalid JSON: got EOF while reading request body"),
    ("POST", "/networks/mine/connect", r#"{"Container":"running"}"#, 403, "endpoint with name running already exists in network mine"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.9.9.9"}}}"#, 400, "no configured subnet or ip-range contain the IP address 10.9.9.9"),
    ("POST", "/networks/mine/connect", r#"{"Container":"stopped","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.9.9.9"}}}"#, 400, "no configured subnet or ip-range contain the IP address 10.9.9.9"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.55.0.9"}}}"#, 403, "Address already in use"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.55.0.1"}}}"#, 403, "Address already in use"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.55.0"}}}"#, 400, "invalid IPv4 address: 10.55.0"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"IPAMConfig":{"IPv6Address":"fd00:zz"}}}"#, 400, "invalid IPv6 address: fd00:zz"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"IPAMConfig":{"IPv6Address":"fd00::9"}}}"#, 400, "user specified IP address is supported only when connecting to networks with user configured subnets"),
    ("POST", "/networks/chosen/connect", r#"{"Container":"stopped","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.9.9.9"}}}"#, 400, "user specified IP address is supported only when connecting to networks with user configured subnets"),
    ("POST", "/networks/bridge/connect", r#"{"Container":"other","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.9.9.9"}}}"#, 400, "user specified IP address is supported on user defined networks only"),
    ("POST", "/networks/bridge/connect", r#"{"Container":"other","EndpointConfig":{"Aliases":["a"]}}"#, 400, "network-scoped alias is supported only for containers in user defined networks"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"MacAddress":"zz"}}"#, 400, "invalid MAC address zz"),
    ("POST", "/networks/mine/connect", r#"{"Container":"other","EndpointConfig":{"Aliases":["a..b"]}}"#, 400, "invalid network alias"),
    ("POST", "/networks/mine/connect", r#"{"Container":"alone"}"#, 400, "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
    ("POST", "/networks/none/connect", r#"{"Container":"other"}"#, 400, "container cannot be connected to multiple networks with one of the networks in private (none) mode"),
    ("POST", "/networks/mine/connect", r#"{"Container":"sharing"}"#, 400, "container sharing network namespace with another container or host cannot be connected to any other network"),
    ("POST", "/networks/mine/connect", r#"{"Container":"hosted"}"#, 400, "container sharing network namespace with another container or host cannot be connected to any other network"),
    ("POST", "/networks/host/connect", r#"{"Container":"other"}"#, 400, "cannot connect container to host network"),
    ("POST", "/networks/host/disconnect", r#"{"Container":"hosted"}"#, 400, "cannot disconnect container from host network - container was created in host network mode"),
    ("POST", "/networks/nope/disconnect", r#"{"Container":"running"}"#, 404, "network nope not found"),
    ("POST", "/networks/mine/disconnect", r#"{"Container":"nope"}"#, 404, "No such container: nope"),
    ("POST", "/networks/mine/disconnect", r#"{"Container":"other"}"#, 403, "is not connected to network mine"),
    ("POST", "/networks/chosen/disconnect", r#"{"Container":"stopped"}"#, 403, "is not connected to the network chosen"),
    // Removals and lists.
    ("DELETE", "/networks/mine", "", 403, "has active endpoints"),
    ("DELETE", "/networks/bridge", "", 403, "bridge is a pre-defined network and cannot be removed"),
    ("DELETE", "/networks/nope", "", 404, "network nope not found"),
    ("GET", "/networks?filters=%7B%22dangling%22%3A%5B%22maybe%22%5D%7D", "", 400, "invalid filter 'dangling=[maybe]'"),
    ("GET", "/networks?filters=%7B%22type%22%3A%5B%22odd%22%5D%7D", "", 400, "invalid filter: 'type'='odd'"),
    ("POST", "/networks/prune?filters=%7B%22color%22%3A%5B%22red%22%5D%7D", "", 400, "invalid filter 'color'"),
    ("POST", "/networks/prune?filters=%7B%22until%22%3A%5B%22long%22%5D%7D", "", 400, "until"),
    // Volumes.
    ("POST", "/volumes/create", "", 400, "invalid JSON: got EOF while reading request body"),
    ("POST", "/volumes/create", "[", 400, "invalid JSON"),
    ("POST", "/volumes/create", r#"{"Name":"x"}"#, 400, "create x: volume name is too short, names should be at least two alphanumeric characters"),
    ("POST", "/volumes/create", r#"{"Name":"vol","Driver":"nope"}"#, 404, "create vol: error looking up volume plugin nope: plugin \"nope\" not found"),
    ("POST", "/volumes/create", r#"{"Name":"vol","DriverOpts":{"odd":"1"}}"#, 400, "create vol: invalid option: \"odd\""),
    ("POST", "/volumes/create", r#"{"Name":"vol","DriverOpts":{"device":"/x"}}"#, 400, "create vol: missing required option: \"type\""),
    ("DELETE", "/volumes/used", "", 409, "remove used: volume is in use - ["),
    ("DELETE", "/volumes/used?force=1", "", 409, "remove used: volume is in use - ["),
    ("GET", "/volumes?filters=%7B%22dangling%22%3A%5B%22maybe%22%5D%7D", "", 400, "invalid filter 'dangling=[maybe]'"),
    ("POST", "/volumes/prune?filters=%7B%22color%22%3A%5B%22red%22%5D%7D", "", 400, "invalid filter 'color'"),
];

/// A container that sleeps, started unless it is to stay as it was made.
fn sleeper(api: &Api, name: &str, host: &str, endpoints: &str, start: bool) {
    let body = format!(
        r#"{{"Image":"box:1","Cmd":["sleep","600"],"HostConfig":{{{host}}},"NetworkingConfig":{{"EndpointsConfig":{{{endpoints}}}}}}}"#
    );
    let made = api.call("POST", &format!("/containers/create?name={name}"), &body);
    assert_eq!(made.status, 201, "{made:?}");
    if start {
        let started = api.call("POST", &format!("/containers/{name}/start"), "");
        assert_eq!(started.status, 204, "{started:?}");
    }
}

#[test]
fn wrong_requests_for_networks_and_volumes_are_answered_as_dockers_daemon_does() {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    let subnet = r#"{"Name":"mine","IPAM":{"Config":[{"Subnet":"10.55.0.0/24","Gateway":"10.55.0.1"}]}}"#;
    for body in [subnet, r#"{"Name":"chosen"}"#, r#"{"Name":"empty"}"#] {
        assert_eq!(api.call("POST", "/networks/create", body).status, 201, "{body}");
    }
    let place = r#""mine":{"IPAMConfig":{"IPv4Address":"10.55.0.9"}}"#;
    sleeper(&api, "running", r#""NetworkMode":"mine","Binds":["used:/used"]"#, place, true);
    sleeper(&api, "other", r#""NetworkMode":"chosen""#, "", true);
    sleeper(&api, "hosted", r#""NetworkMode":"host""#, "", true);
    sleeper(&api, "alone", r#""NetworkMode":"none""#, "", true);
    sleeper(&api, "sharing", r#""NetworkMode":"container:running""#, "", true);
    sleeper(&api, "stopped", r#""NetworkMode":"mine""#, "", false);
    let state = |path: &str| api.call("GET", path, "").json();
    let seen = ["/networks", "/networks/mine", "/networks/chosen", "/volumes", "/containers/stopped/json"];
    let before = seen.map(state);
    let wrong = api.differences(TABLE);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TABLE.len(), wrong.join("\n"));
    for (path, before) in seen.iter().zip(before) {
        assert_eq!(state(path), before, "nothing refused changes {path}");
    }
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}

#[test]
fn a_container_that_does_not_run_is_put_into_a_network_anew() {
    let machine = Machine::new();
    let (mut daemon, api) = machine.daemon();
    machine.import_busybox(&api);
    let subnet = r#"{"Name":"mine","IPAM":{"Config":[{"Subnet":"10.55.0.0/24"}]}}"#;
    assert_eq!(api.call("POST", "/networks/create", subnet).status, 201);
    sleeper(&api, "one", r#""NetworkMode":"mine""#, "", false);
    let settings =
        r#"{"Container":"one","EndpointConfig":{"IPAMConfig":{"IPv4Address":"10.55.0.7"},"Aliases":["first"]}}"#;
    for _ in 0..2 {
        assert_eq!(api.call("POST", "/networks/mine/connect", settings).status, 200);
    }
    assert_eq!(api.call("POST", "/containers/one/start", "").status, 204);
    let found = &api.call("GET", "/containers/one/json", "").json()["NetworkSettings"]["Networks"];
    assert_eq!((found.as_object().unwrap().len(), &found["mine"]["IPAddress"]), (1, &"10.55.0.7".into()), "{found}");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
}
