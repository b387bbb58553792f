//! Published ports on `::1` on the real kernel: each test in network namespaces of its own. Needs root, `ip` and `nft`.

mod support;

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use keel_net::{Error, Net, NetworkSpec, PortMap, Proto};
use support::*;

const PATIENCE: Option<Duration> = Some(Duration::from_secs(20));

fn on_loopback(port: PortMap) -> PortMap {
    PortMap { host_ip: Some(IpAddr::V6(Ipv6Addr::LOCALHOST)), ..port }
}

/// A server in a namespace that sends back what it gets, to each client until that one ends.
fn echo(ns: &OwnedFd, port: u16) {
    let listener = in_namespace(ns, move || TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut stream));
        }
    });
}

#[test]
fn a_published_port_answers_on_the_ipv6_loopback_and_goes_with_its_container() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let one = new_namespace();
        let wanted = request(&net, &["bridge"], &[tcp(8080, 80), on_loopback(tcp(8081, 80))]);
        net.attach("one", one.as_fd(), &wanted).unwrap();
        // Until somebody listens inside, a client is told so.
        let early = ask("[::1]:8080").unwrap_err();
        assert_eq!(early.kind(), ErrorKind::ConnectionReset, "{early}");
        serve(&one, 80, 6);
        assert_eq!(ask("[::1]:8080").unwrap(), "172.20.0.1");
        assert_eq!(ask("[::1]:8081").unwrap(), "172.20.0.1");
        assert_eq!(ask("127.0.0.1:8080").unwrap(), "172.20.0.1");
        assert!(ask("127.0.0.1:8081").is_err(), "published on ::1 alone");
        // Nobody else gets it.
        assert_eq!(TcpListener::bind("[::1]:8080").unwrap_err().kind(), ErrorKind::AddrInUse);
        let two = new_namespace();
        let error = net.attach("two", two.as_fd(), &request(&net, &["bridge"], &[on_loopback(tcp(8080, 80))]));
        assert!(matches!(&error, Err(Error::PortTaken { by, .. }) if by == "container one"), "{error:?}");
        // A start of the same container finds its ports free, at once.
        net.attach("one", one_again(&one).as_fd(), &wanted).unwrap();
        // The daemon ends and is back.
        drop(net);
        assert_eq!(ask("[::1]:8080").unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let net = Net::open(state.path()).unwrap();
        net.recover(&[("one".into(), one.try_clone().unwrap())]).unwrap();
        assert_eq!(ask("[::1]:8080").unwrap(), "172.20.0.1");
        assert_eq!(ask("[::1]:8081").unwrap(), "172.20.0.1");
        net.detach("one").unwrap();
        for port in ["[::1]:8080", "[::1]:8081"] {
            assert_eq!(ask(port).unwrap_err().kind(), ErrorKind::ConnectionRefused, "{port}");
        }
        net.attach("two", two.as_fd(), &request(&net, &["bridge"], &[tcp(8080, 80)])).unwrap();
        let sctp = on_loopback(PortMap { proto: Proto::Sctp, ..tcp(9, 9) });
        let error = net.attach("x", new_namespace().as_fd(), &request(&net, &["bridge"], &[sctp])).unwrap_err();
        assert!(error.to_string().contains("::1"), "{error}");
    });
}

/// The namespace, without the interface that a start would find new.
fn one_again(ns: &OwnedFd) -> OwnedFd {
    in_namespace(ns, || sh("ip link del eth0"));
    ns.try_clone().unwrap()
}

#[test]
fn much_is_carried_whole_and_slow_readers_slow_their_senders() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let one = new_namespace();
        net.attach("one", one.as_fd(), &request(&net, &["bridge"], &[tcp(8080, 80)])).unwrap();
        // Small buffers, so that what the relay keeps would be seen.
        let small = || sh("cd /proc/sys/net/ipv4; for n in tcp_rmem tcp_wmem; do echo 4096 65536 65536 >$n; done");
        small();
        in_namespace(&one, small);
        echo(&one, 80);
        let sent: Vec<u8> = (0..8u32 << 20).map(|i| (i ^ (i >> 11)) as u8).collect();
        let mut client = TcpStream::connect("[::1]:8080").unwrap();
        client.set_read_timeout(PATIENCE).unwrap();
        let mut writer = client.try_clone().unwrap();
        writer.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // Nothing is read: sooner or later nothing is taken any more.
        let mut taken = 0;
        let stuck = loop {
            match writer.write(&sent[taken..]) {
                Ok(count) => taken += count,
                Err(e) => break e,
            }
            assert!(taken < 2 << 20, "somebody keeps {taken} bytes");
        };
        assert_eq!(stuck.kind(), ErrorKind::WouldBlock);
        writer.set_write_timeout(PATIENCE).unwrap();
        let rest = sent[taken..].to_vec();
        let thread = std::thread::spawn(move || {
            writer.write_all(&rest).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        client.read_to_end(&mut back).unwrap();
        thread.join().unwrap();
        assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    });
}

#[test]
fn connections_of_one_port_are_bounded_and_end_with_it() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let one = new_namespace();
        net.attach("one", one.as_fd(), &request(&net, &["bridge"], &[tcp(8080, 80)])).unwrap();
        echo(&one, 80);
        let is_served = |stream: &mut TcpStream| {
            stream.set_read_timeout(PATIENCE).unwrap();
            stream.write_all(b"x").is_ok() && stream.read_exact(&mut [0]).is_ok()
        };
        let mut open: Vec<TcpStream> = (0..256).map(|_| TcpStream::connect("[::1]:8080").unwrap()).collect();
        assert!(open.iter_mut().all(is_served));
        assert!(!is_served(&mut TcpStream::connect("[::1]:8080").unwrap()), "one more");
        drop(open.pop());
        let begun = Instant::now();
        while !is_served(&mut TcpStream::connect("[::1]:8080").unwrap()) {
            assert!(begun.elapsed() < PATIENCE.unwrap(), "its place isn't free again");
        }
        net.detach("one").unwrap();
        let mut first = open.swap_remove(0);
        assert!(!is_served(&mut first), "connections end with the publication");
    });
}

#[test]
fn datagrams_find_their_way_there_and_back() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let one = new_namespace();
        let port = PortMap { proto: Proto::Udp, ..tcp(5300, 53) };
        net.attach("one", one.as_fd(), &request(&net, &["bridge"], &[port])).unwrap();
        let server = in_namespace(&one, || UdpSocket::bind("0.0.0.0:53").unwrap());
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok((count, peer)) = server.recv_from(&mut buffer) {
                server.send_to(&buffer[..count], peer).unwrap();
            }
        });
        let clients: Vec<UdpSocket> = (0..20).map(|_| UdpSocket::bind("[::1]:0").unwrap()).collect();
        for (number, client) in clients.iter().enumerate() {
            client.set_read_timeout(PATIENCE).unwrap();
            client.connect("[::1]:5300").unwrap();
            client.send(format!("from {number}").as_bytes()).unwrap();
        }
        for (number, client) in clients.iter().enumerate() {
            let mut buffer = [0; 64];
            let count = client.recv(&mut buffer).unwrap();
            assert_eq!(buffer[..count], *format!("from {number}").as_bytes());
        }
        net.detach("one").unwrap();
        UdpSocket::bind("[::1]:5300").unwrap();
    });
}

#[test]
fn one_that_listens_on_ipv6_alone_is_found_and_ports_follow_to_another_network() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        net.create(NetworkSpec { ipv6: true, ..spec("six", &["fd01::/64"]) }).unwrap();
        net.create(spec("alpha", &["10.1.0.0/24"])).unwrap();
        let one = new_namespace();
        net.attach("one", one.as_fd(), &request(&net, &["six"], &[tcp(8080, 80), tcp(8081, 81)])).unwrap();
        let listener = in_namespace(&one, || TcpListener::bind("[fd01::2]:81").unwrap());
        std::thread::spawn(move || listener.accept().unwrap().0.write_all(b"six").unwrap());
        assert_eq!(ask("[::1]:8081").unwrap(), "six");
        serve(&one, 80, 2);
        let before = ask("[::1]:8080").unwrap();
        net.connect("one", one.as_fd(), &wanted(&net, "alpha")).unwrap();
        assert_eq!(ask("[::1]:8080").unwrap(), "10.1.0.1");
        assert_ne!(before, "10.1.0.1");
    });
}
