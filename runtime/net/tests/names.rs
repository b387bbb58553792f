//! Containers find each other by name, on the real kernel. Needs root, `ip` and `nft`.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use keel_net::{Net, NetworkSpec, Request};
use support::*;

const SERVER: (Ipv4Addr, u16) = (Ipv4Addr::new(127, 0, 0, 11), 53);

fn query(name: &str, kind: u8) -> Vec<u8> {
    let mut message = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, kind, 0, 1]);
    message
}

/// The last bytes of the answer to a question asked inside, and its code.
fn ask_udp(ns: &OwnedFd, name: &str, kind: u8) -> (u8, Vec<u8>) {
    let query = query(name, kind);
    in_namespace(ns, move || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let mut buffer = [0; 512];
        socket.send_to(&query, SERVER).unwrap();
        let (len, from) = socket.recv_from(&mut buffer).unwrap();
        assert_eq!(from, SERVER.into(), "it comes from where it was asked for");
        (buffer[3] & 15, buffer[query.len()..len].to_vec())
    })
}

fn ask_tcp(ns: &OwnedFd, name: &str) -> Vec<u8> {
    let query = query(name, 1);
    in_namespace(ns, move || {
        let mut stream = TcpStream::connect(SERVER).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.write_all(&[&[0, query.len() as u8][..], &query].concat()).unwrap();
        let mut len = [0; 2];
        stream.read_exact(&mut len).unwrap();
        let mut answer = vec![0; u16::from_be_bytes(len).into()];
        stream.read_exact(&mut answer).unwrap();
        answer
    })
}

/// A name server outside that says 9.9.9.9 to everything.
fn upstream(outside: &OwnedFd) {
    let answer = |query: &[u8]| {
        let mut message = query.to_vec();
        message[2] |= 0x80;
        message[7] = 1;
        message.extend([0xC0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 9, 9, 9, 9]);
        message
    };
    let (udp, tcp) = in_namespace(outside, || {
        (UdpSocket::bind("198.51.100.2:53").unwrap(), TcpListener::bind("198.51.100.2:53").unwrap())
    });
    std::thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((len, from)) = udp.recv_from(&mut buffer) {
            udp.send_to(&answer(&buffer[..len]), from).unwrap();
        }
    });
    std::thread::spawn(move || {
        for mut stream in tcp.incoming().flatten() {
            let mut len = [0; 2];
            stream.read_exact(&mut len).unwrap();
            let mut query = vec![0; u16::from_be_bytes(len).into()];
            stream.read_exact(&mut query).unwrap();
            let answer = answer(&query);
            stream.write_all(&[&[0, answer.len() as u8][..], &answer].concat()).unwrap();
        }
    });
}

fn named(net: &Net, network: &str, names: &[&str]) -> Request {
    let mut request = request(net, &[network], &[]);
    request.wanted[0].names = names.iter().map(|name| (*name).into()).collect();
    // The first is nobody.
    request.servers = vec!["198.51.100.77".parse().unwrap(), "198.51.100.2".parse().unwrap()];
    request
}

#[test]
fn names_are_answered_inside_and_others_are_passed_on() {
    on_a_host(|outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        net.create(spec("mine", &["10.1.0.0/24"])).unwrap();
        net.create(NetworkSpec { internal: true, ..spec("inner", &["10.2.0.0/24"]) }).unwrap();
        upstream(&outside);
        let (a, b, c) = (new_namespace(), new_namespace(), new_namespace());
        net.attach("a", a.as_fd(), &named(&net, "mine", &["one", "web"])).unwrap();
        net.attach("b", b.as_fd(), &named(&net, "mine", &["two", "web"])).unwrap();
        net.attach("c", c.as_fd(), &named(&net, "inner", &["three"])).unwrap();
        assert!(ask_udp(&a, "TWO", 1).1.ends_with(&[10, 1, 0, 3]));
        assert!(ask_udp(&b, "one.mine", 1).1.ends_with(&[10, 1, 0, 2]));
        assert_eq!(ask_udp(&b, "web", 1).1.len(), 32, "both that share a name");
        assert_eq!(ask_udp(&b, "one", 28), (0, vec![]), "no IPv6 address, but the name is there");
        assert!(ask_udp(&b, "2.0.1.10.in-addr.arpa", 12).1.ends_with(b"\x03one\x04mine\0"));
        assert!(ask_tcp(&a, "two").ends_with(&[10, 1, 0, 3]));
        // Others are asked, after the one that is nobody; a container without a way out gets nothing.
        assert!(ask_udp(&a, "example.org", 1).1.ends_with(&[9, 9, 9, 9]));
        assert_eq!(ask_udp(&c, "example.org", 1).0, 2);
        assert_eq!(ask_udp(&c, "one", 1).0, 2, "networks are apart in names, too");
        // A container can be a name server itself.
        in_namespace(&a, || (UdpSocket::bind("0.0.0.0:53").unwrap(), TcpListener::bind("0.0.0.0:53").unwrap()));
        // Names come and go with networks.
        let mut wanted = wanted(&net, "inner");
        wanted.names = vec!["late".into()];
        net.connect("b", b.as_fd(), &wanted).unwrap();
        assert!(ask_udp(&c, "late", 1).1.ends_with(&[10, 2, 0, 3]));
        net.disconnect("b", b.as_fd(), "inner").unwrap();
        assert_eq!(ask_udp(&c, "late", 1).0, 2);
        net.detach("a").unwrap();
        assert!(ask_udp(&b, "one", 1).1.ends_with(&[9, 9, 9, 9]));
    });
}

#[test]
fn names_are_answered_again_after_a_restart() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let (a, b) = (new_namespace(), new_namespace());
        {
            let net = Net::open(state.path()).unwrap();
            net.create(spec("mine", &["10.1.0.0/24"])).unwrap();
            net.attach("a", a.as_fd(), &named(&net, "mine", &["one"])).unwrap();
            net.attach("b", b.as_fd(), &named(&net, "mine", &["two"])).unwrap();
        }
        let net = Net::open(state.path()).unwrap();
        net.recover(&[("a".into(), a.try_clone().unwrap()), ("b".into(), b.try_clone().unwrap())]).unwrap();
        assert!(ask_udp(&a, "two", 1).1.ends_with(&[10, 1, 0, 3]));
        assert!(ask_tcp(&b, "one").ends_with(&[10, 1, 0, 2]));
    });
}
