//! Networks on the real kernel: each test in network namespaces of its own. Needs root, `ip` and `nft`.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use keel_net::{Error, Net, PortMap, Proto};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Runs a test as the host, in a new network namespace with an interface `up0` 198.51.100.1/24 to an outside that is
/// the namespace given to it.
fn on_a_host(test: impl FnOnce(OwnedFd) + Send + 'static) {
    let outside = new_namespace();
    std::thread::spawn(move || {
        unshare();
        let here = current();
        sh("ip link set lo up");
        in_namespace(&outside, move || {
            sh("ip link set lo up");
            sh("ip link add out0 type veth peer name up0");
            sh("ip addr add 198.51.100.2/24 dev out0 && ip link set out0 up");
            let index = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&here));
            sh(&format!("ip link set up0 netns {index}"));
        });
        sh("ip addr add 198.51.100.1/24 dev up0 && ip link set up0 up");
        test(outside);
    })
    .join()
    .unwrap();
}

// Only the calling thread, which shares nothing but memory with the others, moves.
fn unshare() {
    #[allow(unsafe_code)]
    // SAFETY: a network namespace has no part in memory safety.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

fn current() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}

fn new_namespace() -> OwnedFd {
    std::thread::spawn(|| {
        unshare();
        current()
    })
    .join()
    .unwrap()
}

fn in_namespace<T: Send + 'static>(ns: &OwnedFd, what: impl FnOnce() -> T + Send + 'static) -> T {
    let ns = ns.try_clone().unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        what()
    })
    .join()
    .unwrap()
}

fn sh(command: &str) -> String {
    let out = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

fn tcp(host_port: u16, container_port: u16) -> PortMap {
    PortMap { proto: Proto::Tcp, host_ip: None, host_port, container_port }
}

/// A server in a namespace that tells each client (up to `clients`) who it sees.
fn serve(ns: &OwnedFd, port: u16, clients: usize) {
    let listener = in_namespace(ns, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        for _ in 0..clients {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(peer.ip().to_string().as_bytes()).unwrap();
        }
    });
}

fn ask(address: &str) -> Result<String, std::io::Error> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

#[test]
fn a_published_port_is_reached_from_everywhere() {
    on_a_host(|outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let container = new_namespace();
        let endpoint = net.attach("c0ffee", container.as_fd(), "box", &[tcp(8080, 80), tcp(0, 81)]).unwrap();
        assert_eq!(endpoint.ip, Ipv4Addr::new(172, 20, 0, 2));
        assert!(endpoint.ports[1].host_port >= 49153);
        serve(&container, 80, 5);
        // From outside, with the client's own address; from the host, by its address and by loopback.
        assert_eq!(in_namespace(&outside, || ask("198.51.100.1:8080").unwrap()), "198.51.100.2");
        assert_eq!(ask("198.51.100.1:8080").unwrap(), "198.51.100.1");
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "172.20.0.1");
        // From another container, and from itself.
        let other = new_namespace();
        net.attach("other", other.as_fd(), "two", &[]).unwrap();
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
        assert!(!sh("ip link").contains("vc0ffee"));
        assert!(net.endpoint("c0ffee").is_none());
    });
}

#[test]
fn containers_reach_outside_under_the_hosts_address() {
    on_a_host(|outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let container = new_namespace();
        net.attach("c0ffee", container.as_fd(), "box", &[]).unwrap();
        serve(&outside, 80, 1);
        assert_eq!(in_namespace(&container, || ask("198.51.100.2:80").unwrap()), "198.51.100.1");
        let addresses = in_namespace(&container, || sh("ip -br addr; ip route; ip link show eth0"));
        for part in ["172.20.0.2/16", "default via 172.20.0.1 dev eth0", "02:6b:ac:14:00:02"] {
            assert!(addresses.contains(part), "{addresses}");
        }
    });
}

#[test]
fn a_restart_keeps_what_lives_and_removes_the_rest() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let (one, two) = (new_namespace(), new_namespace());
        {
            let net = Net::open(state.path()).unwrap();
            net.attach("one", one.as_fd(), "one", &[tcp(8081, 80)]).unwrap();
            net.attach("two", two.as_fd(), "two", &[tcp(8082, 80)]).unwrap();
        }
        sh("nft delete table ip keel");
        let net = Net::open(state.path()).unwrap();
        net.recover(&["one".into()]).unwrap();
        let rules = sh("nft list table ip keel");
        assert!(rules.contains("dnat to 172.20.0.2:80") && !rules.contains("172.20.0.3"), "{rules}");
        let links = sh("ip link");
        assert!(links.contains("vone") && !links.contains("vtwo"), "{links}");
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
        let error = net.attach("c0ffee", container.as_fd(), "box", &[tcp(8080, 80)]).unwrap_err();
        assert!(matches!(error, Error::PortTaken { .. }) && error.to_string().contains("8080/tcp"), "{error}");
        let twice = net.attach("c0ffee", container.as_fd(), "box", &[tcp(8081, 80), tcp(8081, 81)]).unwrap_err();
        assert!(matches!(twice, Error::PortTaken { .. }), "{twice}");
        assert_eq!(sh("nft list ruleset; ip -br link"), before);
        net.attach("c0ffee", container.as_fd(), "box", &[tcp(8081, 80)]).unwrap();
        let error = net.attach("two", new_namespace().as_fd(), "two", &[tcp(8081, 80)]).unwrap_err();
        assert!(error.to_string().contains("container c0ffee"), "{error}");
        let v6 = PortMap { host_ip: Some("::1".parse::<IpAddr>().unwrap()), ..tcp(9, 9) };
        assert!(matches!(net.attach("two", container.as_fd(), "", &[v6]), Err(Error::Refused { .. })));
    });
}

#[test]
fn a_network_that_the_host_routes_elsewhere_is_not_taken() {
    on_a_host(|_outside| {
        sh("ip route add 172.20.0.0/14 via 198.51.100.2");
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let endpoint = net.attach("c0ffee", new_namespace().as_fd(), "box", &[]).unwrap();
        assert_eq!(endpoint.ip, Ipv4Addr::new(172, 28, 0, 2));
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
        let error = net.attach("c0ffee", container.as_fd(), "box", &[tcp(8080, 80)]).unwrap_err();
        assert!(error.to_string().contains("vc0ffee"), "{error}");
        assert_eq!(sh("nft list ruleset; ip -br link"), before);
        assert!(net.endpoint("c0ffee").is_none());
    });
}
