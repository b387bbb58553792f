//! Wrong requests and what they are answered: status and words as Docker's daemon has them, since clients and people's
//! scripts match on both. Sent as bytes, for no client lets most of them through.

mod common;

use common::Daemon;
use common::http::{Api, Row};

/// Beside `box:1` there are the containers `stopped` (which has run), `running` and `fresh` (which never did).
#[rustfmt::skip]
const TABLE: &[Row] = &[
    // Versions and paths.
    ("GET", "/v1.10/info", "", 400, "client version 1.10 is too old. Minimum supported API version is 1.24"),
    ("GET", "/v1.99/info", "", 400, "client version 1.99 is too new. Maximum supported API version is 1.47"),
    ("GET", "/nonsense", "", 404, "page not found"),
    ("GET", "/plugins", "", 200, ""),
    ("GET", "/images/json?filters=%7B", "", 400, "filter"),
    ("GET", "/images/json?x=%zz", "", 400, ""),
    // Containers that aren't there.
    ("GET", "/containers/nope/json", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/start", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/stop", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/restart", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/kill", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/pause", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/rename?name=other", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/wait", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/attach?stream=1&stdout=1", "", 404, "No such container: nope"),
    ("POST", "/containers/nope/update", "{}", 404, "No such container: nope"),
    ("POST", "/containers/nope/exec", r#"{"Cmd":["a"]}"#, 404, "No such container: nope"),
    ("GET", "/containers/nope/logs?stdout=1", "", 404, "No such container: nope"),
    ("GET", "/containers/nope/stats?stream=0", "", 404, "No such container: nope"),
    ("GET", "/containers/nope/top", "", 404, "No such container: nope"),
    ("GET", "/containers/nope/changes", "", 404, "No such container: nope"),
    ("GET", "/containers/nope/export", "", 404, "No such container: nope"),
    ("GET", "/containers/nope/archive?path=/", "", 404, "No such container: nope"),
    ("DELETE", "/containers/nope", "", 404, "No such container: nope"),
    // What can't be created.
    ("POST", "/containers/create", "", 400, "invalid JSON: got EOF while reading request body"),
    ("POST", "/containers/create", "{", 400, "invalid JSON"),
    ("POST", "/containers/create", "{}", 400, "config cannot be empty in order to create a container"),
    ("POST", "/containers/create", r#"{"Image":"nope"}"#, 404, "No such image: nope"),
    ("POST", "/containers/create?name=running", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"},"Cmd":["a"]}"#, 409, "is already in use by container"),
    ("POST", "/containers/create?platform=linux/s390x", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"},"Cmd":["a"]}"#, 404, "was found but does not match the specified platform: wanted linux/s390x"),
    ("POST", "/containers/create", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none","Runtime":"gvisor"},"Cmd":["a"]}"#, 400, "unknown or invalid runtime name: gvisor"),
    ("POST", "/containers/create?name=a%20b", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"},"Cmd":["a"]}"#, 400, "Invalid container name (a b)"),
    ("POST", "/containers/create", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"}}"#, 400, "no command specified"),
    ("POST", "/containers/create", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"},"Cmd":["a"],"WorkingDir":"x"}"#, 400, "it needs to be an absolute path"),
    ("POST", "/containers/create", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"},"Cmd":["a"],"StopSignal":"FOO"}"#, 400, "nvalid signal: FOO"),
    ("POST", "/containers/create", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"},"Cmd":["a"],"Hostname":"a b"}"#, 400, "invalid hostname"),
    ("POST", "/containers/create", r#"{"Image":"box:1","HostConfig":{"NetworkMode":"none"},"Cmd":["a"],"Healthcheck":{"Test":["CMD","x"],"Interval":5}}"#, 400, "Interval in Healthcheck cannot be less than 1ms"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","Memory":1}}"#, 400, "Minimum memory limit allowed is 6MB"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","Memory":9000000,"MemorySwap":8000000}}"#, 400, "Minimum memoryswap limit should be larger than memory limit, see usage"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","MemorySwap":8000000}}"#, 400, "You should always set the Memory limit when using Memoryswap limit, see usage"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","Memory":8000000,"MemoryReservation":9000000}}"#, 400, "Minimum memory limit can not be less than memory reservation limit, see usage"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","NanoCpus":1000000000,"CpuQuota":5000}}"#, 400, "Conflicting options: Nano CPUs"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","CpuPeriod":5}}"#, 400, "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","CpuQuota":5}}"#, 400, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","CpusetCpus":"x"}}"#, 400, "Invalid value x for cpuset cpus"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","BlkioWeight":5}}"#, 400, "Range of blkio weight is from 10 to 1000"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","ShmSize":-1}}"#, 400, "SHM size can not be less than 0"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","OomScoreAdj":2000}}"#, 400, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","AutoRemove":true,"RestartPolicy":{"Name":"always"}}}"#, 400, "can't create 'AutoRemove' container with restart policy"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","RestartPolicy":{"Name":"always","MaximumRetryCount":2}}}"#, 400, "invalid restart policy: maximum retry count can only be used with 'on-failure'"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","RestartPolicy":{"Name":"on-failure","MaximumRetryCount":-2}}}"#, 400, "invalid restart policy: maximum retry count cannot be negative"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","CapAdd":["FLY"]}}"#, 400, "unknown capability: \"CAP_FLY\""),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","SecurityOpt":["nonsense=1"]}}"#, 400, "invalid --security-opt"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","SecurityOpt":["seccomp={"]}}"#, 400, "Decoding seccomp profile failed"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","PidMode":"container:"}}"#, 400, "invalid PID mode"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","IpcMode":"odd"}}"#, 400, "invalid IPC mode: odd"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"container:"}}"#, 400, "invalid container format container:<name|id>"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","VolumesFrom":["nope"]}}"#, 404, "No such container: nope"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","LogConfig":{"Type":"syslog"}}}"#, 400, "logger: no log driver named 'syslog' is registered"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","LogConfig":{"Config":{"odd":"1"}}}}"#, 400, "unknown log opt 'odd' for json-file log driver"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","Binds":["/a:b"]}}"#, 400, "mount path must be absolute"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","Binds":["/x:/a","/y:/a"]}}"#, 400, "Duplicate mount point: /a"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","Binds":["a%b:/a"]}}"#, 400, "includes invalid characters for a local volume name"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","Binds":["/x:/"]}}"#, 400, "destination can't be '/'"),
    ("POST", "/containers/create", r#"{"Image":"box:1","Cmd":["a"],"HostConfig":{"NetworkMode":"none","DeviceRequests":[{"Count":1}]}}"#, 400, "could not select device driver"),
    // What a state doesn't allow.
    ("POST", "/containers/running/start", "", 304, ""),
    ("POST", "/containers/stopped/stop", "", 304, ""),
    ("POST", "/containers/stopped/kill", "", 409, "is not running"),
    ("POST", "/containers/running/kill?signal=FOO", "", 400, "nvalid signal: FOO"),
    ("POST", "/containers/stopped/pause", "", 409, "is not running"),
    ("POST", "/containers/running/unpause", "", 409, "is not paused"),
    ("DELETE", "/containers/running", "", 409, "cannot remove container \"/running\": container is running: stop the container before removing or force remove"),
    ("POST", "/containers/running/rename?name=running", "", 400, "Renaming a container with the same name as its current name"),
    ("POST", "/containers/running/rename?name=stopped", "", 409, "is already in use by container"),
    ("POST", "/containers/running/rename?name=", "", 400, ""),
    ("POST", "/containers/stopped/exec", r#"{"Cmd":["a"]}"#, 409, "is not running"),
    ("POST", "/containers/running/exec", "{}", 400, "No exec command specified"),
    ("POST", "/exec/nope/start", "{}", 404, "No such exec instance: nope"),
    ("GET", "/exec/nope/json", "", 404, "No such exec instance: nope"),
    ("GET", "/containers/stopped/top", "", 409, "is not running"),
    ("GET", "/containers/running/logs", "", 400, "you must choose at least one stream"),
    ("GET", "/containers/running/archive", "", 400, ""),
    ("GET", "/containers/running/archive?path=/nope", "", 404, "Could not find the file /nope in container running"),
    ("POST", "/containers/running/wait?condition=odd", "", 400, "invalid condition: \"odd\""),
    ("POST", "/containers/running/resize?h=x&w=1", "", 400, ""),
    ("POST", "/containers/running/update", r#"{"Memory":1}"#, 400, "Minimum memory limit allowed is 6MB"),
    ("GET", "/containers/json?filters=%7B%22color%22%3A%5B%22red%22%5D%7D", "", 400, "invalid filter 'color'"),
    ("GET", "/containers/json?limit=x", "", 400, ""),
    // Images.
    ("GET", "/images/nope/json", "", 404, "No such image: nope"),
    ("GET", "/images/nope/history", "", 404, "No such image: nope"),
    ("DELETE", "/images/nope", "", 404, "No such image: nope"),
    ("POST", "/images/nope/tag?repo=x", "", 404, "No such image: nope"),
    ("POST", "/images/box:1/tag?repo=UPPER", "", 400, "invalid reference format"),
    ("POST", "/images/create?fromImage=UPPER", "", 400, "invalid reference format"),
    ("GET", "/images/json?filters=%7B%22color%22%3A%5B%22red%22%5D%7D", "", 400, "invalid filter 'color'"),
    ("DELETE", "/images/box:1", "", 409, "container"),
    // Volumes and networks.
    ("GET", "/volumes/nope", "", 404, "no such volume"),
    ("DELETE", "/volumes/nope", "", 404, "no such volume"),
    ("POST", "/volumes/create", r#"{"Name":"a/b"}"#, 400, "includes invalid characters for a local volume name"),
    ("GET", "/volumes?filters=%7B%22color%22%3A%5B%22red%22%5D%7D", "", 400, "invalid filter 'color'"),
    ("GET", "/networks/nope", "", 404, "network nope not found"),
    ("GET", "/networks?filters=%7B%22color%22%3A%5B%22red%22%5D%7D", "", 400, "invalid filter 'color'"),
    ("POST", "/networks/create", "", 400, "invalid JSON: got EOF while reading request body"),
    // The rest.
    ("GET", "/events?since=5&until=1", "", 400, "`since` time cannot be after `until` time"),
    ("GET", "/events?filters=%7B%22color%22%3A%5B%22red%22%5D%7D", "", 400, "invalid filter 'color'"),
    ("POST", "/swarm/init", "{}", 501, "does not serve"),
    ("GET", "/nodes/x", "", 404, ""),
];

#[test]
fn wrong_requests_are_answered_as_dockers_daemon_does() {
    let daemon = Daemon::start();
    daemon.import_busybox();
    daemon.ok(&["run", "--name", "stopped", "--network", "none", "box:1", "sleep", "0"]);
    daemon.ok(&["run", "-d", "--name", "running", "--network", "none", "box:1", "sleep", "600"]);
    daemon.ok(&["create", "--name", "fresh", "--network", "none", "box:1", "sleep", "0"]);
    let api = Api::new(&daemon.socket());
    let wrong = api.differences(TABLE);
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), TABLE.len(), wrong.join("\n"));
    let all = daemon.ok(&["ps", "-a", "--format", "{{.Names}}"]);
    assert_eq!(all.lines().count(), 3, "nothing refused leaves anything behind: {all}");
}

#[test]
fn bytes_that_are_no_request_end_their_connection_and_no_other() {
    let daemon = Daemon::start();
    let api = Api::new(&daemon.socket());
    for bytes in [&b"\x16\x03\x01\x02\x00\x01"[..], b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", &[0; 4096]] {
        if let Ok(answer) = api.raw(bytes) {
            assert!(answer.status >= 400, "{answer:?}");
        }
    }
    let long = format!("GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", "a".repeat(5000));
    assert_eq!(api.raw(long.as_bytes()).unwrap().status, 400);
    let body = format!(r#"{{"Image":"{}"}}"#, "a".repeat(5 << 20));
    assert_eq!(api.try_call("POST", "/containers/create", &body).map_or(400, |answer| answer.status), 400);
    assert_eq!(api.call("GET", "/_ping", "").body, "OK");
}
