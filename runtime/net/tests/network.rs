//! The default network on the real kernel: each test in network namespaces of its own. Needs root, `ip` and `nft`.

mod support;

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::fd::AsFd;

use keel_net::{Error, Net, PortMap, Request};
use support::*;

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_a_host(|outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let container = new_namespace();
        let endpoint =
            net.attach("c0ffee", container.as_fd(), &request(&net, &["bridge"], &[tcp(8080, 80), tcp(0, 81)])).unwrap();
        assert_eq!(endpoint.endpoints[0].ip, Ipv4Addr::new(172, 20, 0, 2));
        assert!(endpoint.ports[1].host_port >= 49153);
        serve(&container, 80, 5);
        // From outside, with the client's own address; from the host, by its address and by loopback.
        assert_eq!(in_namespace(&outside, || ask("198.51.100.1:8080").unwrap()), "198.51.100.2");
        assert_eq!(ask("198.51.100.1:8080").unwrap(), "198.51.100.1");
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "172.20.0.1");
        // From another container, and from itself.
        let other = new_namespace();
        net.attach("other", other.as_fd(), &request(&net, &["bridge"], &[])).unwrap();
        assert_eq!(in_namespace(&other, || ask("198.51.100.1:8080").unwrap()), "172.20.0.1");
        assert_eq!(in_namespace(&container, || ask("172.20.0.1:8080").unwrap()), "172.20.0.1");
        // Nobody outside gets past the published port.
        serve(&container, 90, 1);
        let direct = in_namespace(&outside, || {
            sh("ip route add 172.20.0.0/16 via 198.51.100.1");
            ask("172.20.0.2:90")
        });
        assert!(direct.is_err(), "{direct:?}");
        // Nor does a container reach the host's loopback.
        serve(&current(), 7070, 1);
        let loopback = in_namespace(&container, || {
            sh("echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet; ip addr del 127.0.0.1/8 dev lo; \
                ip route add 127.0.0.0/8 via 172.20.0.1");
            ask("127.0.0.1:7070")
        });
        assert!(loopback.is_err(), "{loopback:?}");
        net.detach("c0ffee").unwrap();
        assert!(ask("127.0.0.1:8080").is_err());
        assert_eq!(sh("ip -br link").matches("master keel0").count(), 0);
        assert_eq!(sh("ip -br link | grep -c ^v || true").trim(), "1");
        assert!(net.sandbox("c0ffee").is_none());
    });
}

#[test]
fn containers_reach_outside_under_the_hosts_address() {
    on_a_host(|outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let container = new_namespace();
        net.attach("c0ffee", container.as_fd(), &request(&net, &["bridge"], &[])).unwrap();
        serve(&outside, 80, 1);
        assert_eq!(in_namespace(&container, || ask("198.51.100.2:80").unwrap()), "198.51.100.1");
        let addresses = in_namespace(&container, || sh("ip -br addr; ip route; ip link show eth0"));
        for part in ["172.20.0.2/16", "default via 172.20.0.1 dev eth0", "02:6b:ac:14:00:02"] {
            assert!(addresses.contains(part), "{addresses}");
        }
    });
}

#[test]
fn only_the_parameters_asked_for_are_set_inside() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let container = new_namespace();
        let name = "net.ipv4.ping_group_range";
        let sysctls = vec![(name.into(), "0 77".into())];
        let request = Request { sysctls, ..request(&net, &["bridge"], &[]) };
        net.attach("c0ffee", container.as_fd(), &request).unwrap();
        let read = || sh("cd /proc/sys/net/ipv4; cat ping_group_range ip_unprivileged_port_start");
        assert_eq!(in_namespace(&container, read), "0\t77\n1024\n");
    });
}

#[test]
fn a_restart_keeps_what_lives_and_removes_the_rest() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let (one, two) = (new_namespace(), new_namespace());
        {
            let net = Net::open(state.path()).unwrap();
            net.attach("one", one.as_fd(), &request(&net, &["bridge"], &[tcp(8081, 80)])).unwrap();
            net.attach("two", two.as_fd(), &request(&net, &["bridge"], &[tcp(8082, 80)])).unwrap();
        }
        sh("nft delete table inet keel");
        let net = Net::open(state.path()).unwrap();
        net.recover(&[("one".into(), one.try_clone().unwrap())]).unwrap();
        let rules = sh("nft list table inet keel");
        assert!(rules.contains("tcp . 8081 : 172.20.0.2 . 80") && !rules.contains("172.20.0.3"), "{rules}");
        assert_eq!(sh("ip link show master keel0 | grep -c ^[0-9]").trim(), "1");
        serve(&one, 80, 1);
        assert_eq!(ask("127.0.0.1:8081").unwrap(), "172.20.0.1");
    });
}

#[test]
fn a_port_that_is_taken_is_refused_by_name_and_nothing_is_done() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let container = new_namespace();
        let before = sh("nft list ruleset; ip -br link");
        let _listener = TcpListener::bind("127.0.0.1:8080").unwrap();
        let error = net.attach("c0ffee", container.as_fd(), &request(&net, &["bridge"], &[tcp(8080, 80)])).unwrap_err();
        assert!(matches!(error, Error::PortTaken { .. }) && error.to_string().contains("8080/tcp"), "{error}");
        let twice = net
            .attach("c0ffee", container.as_fd(), &request(&net, &["bridge"], &[tcp(8081, 80), tcp(8081, 81)]))
            .unwrap_err();
        assert!(matches!(twice, Error::PortTaken { .. }), "{twice}");
        assert_eq!(sh("nft list ruleset; ip -br link"), before);
        net.attach("c0ffee", container.as_fd(), &request(&net, &["bridge"], &[tcp(8081, 80)])).unwrap();
        let error =
            net.attach("two", new_namespace().as_fd(), &request(&net, &["bridge"], &[tcp(8081, 80)])).unwrap_err();
        assert!(error.to_string().contains("container c0ffee"), "{error}");
        let v6 = PortMap { host_ip: Some("fd99::1".parse::<IpAddr>().unwrap()), ..tcp(9, 9) };
        let v6 = request(&net, &["bridge"], &[v6]);
        assert!(matches!(net.attach("two", container.as_fd(), &v6), Err(Error::Invalid(_))));
    });
}

#[test]
fn a_network_that_the_host_routes_elsewhere_is_not_taken() {
    on_a_host(|_outside| {
        sh("ip route add 172.20.0.0/14 via 198.51.100.2");
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let endpoint = net.attach("c0ffee", new_namespace().as_fd(), &request(&net, &["bridge"], &[])).unwrap();
        assert_eq!(endpoint.endpoints[0].ip, Ipv4Addr::new(172, 28, 0, 2));
    });
}

#[test]
fn a_failed_attachment_leaves_nothing_behind() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let container = new_namespace();
        in_namespace(&container, || sh("ip link add eth0 type bridge"));
        let before = sh("nft list ruleset; ip -br link");
        let error = net.attach("c0ffee", container.as_fd(), &request(&net, &["bridge"], &[tcp(8080, 80)])).unwrap_err();
        assert!(error.to_string().contains("eth0 of container c0ffee"), "{error}");
        assert_eq!(sh("nft list ruleset; ip -br link"), before);
        assert!(net.sandbox("c0ffee").is_none());
    });
}
