//! Lookups against name servers on loopback, good and bad.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{A, AAAA};
use hickory_proto::rr::{RData, Record, RecordType};

use super::*;

const LIMIT: Duration = Duration::from_secs(5);

/// Answers a question as `a.example` with one address of each kind and everything else with NXDOMAIN.
fn answer(bytes: &[u8]) -> Message {
    let question = Message::from_vec(bytes).unwrap();
    let query = question.queries[0].clone();
    let mut reply = Message::response(question.metadata.id, OpCode::Query);
    reply.add_query(query.clone());
    if query.name().to_string() != "a.example." {
        reply.metadata.response_code = ResponseCode::NXDomain;
        return reply;
    }
    let data = match query.query_type() {
        RecordType::A => RData::A(A([192, 0, 2, 1].into())),
        _ => RData::AAAA(AAAA("2001:db8::1".parse().unwrap())),
    };
    reply.add_answer(Record::from_rdata(query.name().clone(), 60, data));
    reply
}

/// A name server on `address` (the port is shared by all servers of a test) that treats each datagram with `reply`.
fn serve(socket: UdpSocket, reply: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) {
    thread::spawn(move || {
        let mut buffer = [0; 512];
        while let Ok((count, peer)) = socket.recv_from(&mut buffer) {
            for bytes in reply(&buffer[..count]) {
                socket.send_to(&bytes, peer).unwrap();
            }
        }
    });
}

/// A resolver whose servers are these loopback addresses, with the sockets bound to them.
fn names(servers: &[&str]) -> (Names, Vec<UdpSocket>, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let first = UdpSocket::bind((servers[0], 0)).unwrap();
    let port = first.local_addr().unwrap().port();
    let mut sockets = vec![first];
    sockets.extend(servers[1..].iter().map(|server| UdpSocket::bind((*server, port)).unwrap()));
    let text: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    std::fs::write(folder.path().join("resolv.conf"), text).unwrap();
    let mut names = Names::new(folder.path().join("resolv.conf"), folder.path().join("hosts"));
    names.port = port;
    (names, sockets, folder)
}

fn both() -> Vec<IpAddr> {
    vec!["192.0.2.1".parse().unwrap(), "2001:db8::1".parse().unwrap()]
}

#[test]
fn both_kinds_are_found_and_remembered() {
    let (names, mut sockets, folder) = names(&["127.0.0.1"]);
    serve(sockets.remove(0), |bytes| vec![answer(bytes).to_vec().unwrap()]);
    assert_eq!(names.lookup("A.example.", LIMIT).unwrap(), both());
    std::fs::remove_file(folder.path().join("resolv.conf")).unwrap();
    assert_eq!(names.lookup("a.example", LIMIT).unwrap(), both(), "from memory");
    assert!(matches!(names.lookup("b.example", LIMIT), Err(Error::Config { .. })));
}

#[test]
fn a_dead_first_server_does_not_hinder() {
    let (names, mut sockets, _folder) = names(&["127.0.0.1", "127.0.0.2"]);
    serve(sockets.remove(1), |bytes| vec![answer(bytes).to_vec().unwrap()]);
    drop(sockets.remove(0));
    assert_eq!(names.lookup("a.example", LIMIT).unwrap(), both());
}

#[test]
fn forged_and_broken_replies_are_passed_over() {
    let (names, mut sockets, _folder) = names(&["127.0.0.1"]);
    serve(sockets.remove(0), |bytes| {
        let good = answer(bytes);
        let mut forged = good.clone();
        forged.metadata.id = forged.metadata.id.wrapping_add(1);
        vec![forged.to_vec().unwrap(), b"junk".to_vec(), good.to_vec().unwrap()]
    });
    assert_eq!(names.lookup("a.example", LIMIT).unwrap(), both());
}

#[test]
fn a_missing_name_is_told_apart_from_silence() {
    let (names, mut sockets, _folder) = names(&["127.0.0.1"]);
    serve(sockets.remove(0), |bytes| vec![answer(bytes).to_vec().unwrap()]);
    let error = names.lookup("b.example", LIMIT).unwrap_err();
    assert!(matches!(error, Error::NoSuchName { .. }) && !error.is_transient(), "{error}");
}

#[test]
fn silence_ends_in_time_and_names_the_server() {
    let (names, _sockets, _folder) = names(&["127.0.0.1"]);
    let start = Instant::now();
    let error = names.lookup("a.example", Duration::from_millis(200)).unwrap_err();
    assert!(error.to_string().contains("127.0.0.1") && error.is_transient(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(2));
}

#[test]
fn ipv4_does_not_wait_for_a_lost_ipv6_answer() {
    let (names, mut sockets, _folder) = names(&["127.0.0.1"]);
    serve(sockets.remove(0), |bytes| {
        let reply = answer(bytes);
        if reply.queries[0].query_type() == RecordType::AAAA { vec![] } else { vec![reply.to_vec().unwrap()] }
    });
    let start = Instant::now();
    assert_eq!(names.lookup("a.example", LIMIT).unwrap(), both()[..1]);
    assert!(start.elapsed() < SERVER_TIMEOUT);
}

#[test]
fn truncated_answers_are_fetched_over_tcp() {
    let (names, mut sockets, _folder) = names(&["127.0.0.1"]);
    let socket = sockets.remove(0);
    let listener = TcpListener::bind(socket.local_addr().unwrap()).unwrap();
    serve(socket, |bytes| {
        let mut reply = answer(bytes);
        reply.metadata.truncation = true;
        vec![reply.to_vec().unwrap()]
    });
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            let mut length = [0; 2];
            stream.read_exact(&mut length).unwrap();
            let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut bytes).unwrap();
            let reply = answer(&bytes).to_vec().unwrap();
            stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
            // In two pieces, as a network may bring it.
            stream.write_all(&reply[..7]).unwrap();
            stream.write_all(&reply[7..]).unwrap();
        }
    });
    assert_eq!(names.lookup("a.example", LIMIT).unwrap(), both());
}

#[test]
fn literals_hosts_and_localhost_need_no_server() {
    let folder = tempfile::tempdir().unwrap();
    let hosts = folder.path().join("hosts");
    std::fs::write(&hosts, "192.0.2.7 registry.test\n").unwrap();
    let names = Names::new(folder.path().join("none"), hosts);
    for (host, want) in [("192.0.2.9", "192.0.2.9"), ("[2001:db8::2]", "2001:db8::2"), ("registry.test", "192.0.2.7")] {
        assert_eq!(names.lookup(host, LIMIT).unwrap(), [want.parse::<IpAddr>().unwrap()]);
    }
    assert_eq!(names.lookup("localhost", LIMIT).unwrap().len(), 2);
    assert!(matches!(names.lookup("not a host", LIMIT), Err(Error::BadName { .. })));
}
