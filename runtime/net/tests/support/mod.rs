//! A host, an outside and containers, as network namespaces.

#![allow(dead_code, reason = "each file of tests uses a part")]

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::time::Duration;

use keel_net::{Net, NetworkSpec, PoolSpec, PortMap, Proto, Request, Wanted};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

/// Runs a test as the host, in a new network namespace with an interface `up0` 198.51.100.1/24 to an outside that is
/// the namespace given to it.
pub fn on_a_host(test: impl FnOnce(OwnedFd) + Send + 'static) {
    let outside = new_namespace();
    std::thread::spawn(move || {
        unshare();
        let here = current();
        sh("ip link set lo up");
        in_namespace(&outside, move || {
            sh("ip link set lo up");
            sh("ip link add out0 type veth peer name up0");
            sh("ip addr add 198.51.100.2/24 dev out0 && ip addr add fd99::2/64 dev out0 nodad && ip link set out0 up");
            let index = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&here));
            sh(&format!("ip link set up0 netns {index}"));
        });
        sh("ip addr add 198.51.100.1/24 dev up0 && ip link set up0 up");
        sh("ip addr add fd99::1/64 dev up0 nodad");
        test(outside);
    })
    .join()
    .unwrap();
}

// Only the calling thread, which shares nothing but memory with the others, moves.
pub fn unshare() {
    #[allow(unsafe_code)]
    // SAFETY: a network namespace has no part in memory safety.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

pub fn current() -> OwnedFd {
    std::fs::File::open("/proc/thread-self/ns/net").unwrap().into()
}

pub fn new_namespace() -> OwnedFd {
    std::thread::spawn(|| {
        unshare();
        current()
    })
    .join()
    .unwrap()
}

pub fn in_namespace<T: Send + 'static>(ns: &OwnedFd, what: impl FnOnce() -> T + Send + 'static) -> T {
    let ns = ns.try_clone().unwrap();
    std::thread::spawn(move || {
        move_into_link_name_space(ns.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
        what()
    })
    .join()
    .unwrap()
}

pub fn sh(command: &str) -> String {
    let out = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(out.status.success(), "{command}: {}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

pub fn tcp(host_port: u16, container_port: u16) -> PortMap {
    PortMap { proto: Proto::Tcp, host_ip: None, host_port, host_port_end: 0, container_port }
}

/// A server in a namespace that tells each client (up to `clients`) who it sees.
pub fn serve(ns: &OwnedFd, port: u16, clients: usize) {
    let listener = in_namespace(ns, move || TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        for _ in 0..clients {
            let (mut stream, peer) = listener.accept().unwrap();
            stream.write_all(peer.ip().to_canonical().to_string().as_bytes()).unwrap();
        }
    });
}

pub fn ask(address: &str) -> Result<String, std::io::Error> {
    let address: SocketAddr = address.parse().unwrap();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    Ok(text)
}

/// A request for places in these networks.
pub fn request(net: &Net, networks: &[&str], ports: &[PortMap]) -> Request {
    let wanted = networks.iter().map(|name| wanted(net, name)).collect();
    Request { wanted, ports: ports.to_vec(), ..Request::default() }
}

pub fn wanted(net: &Net, network: &str) -> Wanted {
    Wanted { network: net.find(network).unwrap().id, ..Wanted::default() }
}

pub fn spec(name: &str, subnets: &[&str]) -> NetworkSpec {
    let pool = |subnet: &&str| PoolSpec { subnet: (*subnet).into(), ..PoolSpec::default() };
    NetworkSpec { name: name.into(), pools: subnets.iter().map(pool).collect(), ..NetworkSpec::default() }
}

pub fn ping(ns: &OwnedFd, ip: impl Into<IpAddr>) -> bool {
    // No program: a connection is refused only by a neighbour that is there.
    let address = SocketAddr::new(ip.into(), 9);
    let answer = in_namespace(ns, move || TcpStream::connect_timeout(&address, Duration::from_millis(700)));
    matches!(answer, Err(e) if e.kind() == std::io::ErrorKind::ConnectionRefused)
}
