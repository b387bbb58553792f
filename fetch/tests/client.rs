//! The client against small real servers on loopback, honest and lying.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use keel_fetch::{Client, Error, LeastRate, Method, Options, Proxies, Request};

const CAP: u64 = 1 << 20;

fn options() -> Options {
    Options {
        ca_file: "/nonexistent/ca.pem".into(),
        connect_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_millis(500),
        resolv_conf: "/nonexistent/resolv.conf".into(),
        hosts: "/nonexistent/hosts".into(),
        ..Options::default()
    }
}

fn client() -> Client {
    Client::new(options()).unwrap()
}

/// Reads one request's head (and body by Content-Length); `None` at the end of the connection.
fn read_request(stream: &mut impl Read) -> Option<String> {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let mut text = String::from_utf8(head).unwrap();
    let length =
        text.to_ascii_lowercase().split("content-length: ").nth(1).and_then(|rest| rest.lines().next()?.parse().ok());
    let mut body = vec![0; length.unwrap_or(0)];
    stream.read_exact(&mut body).ok()?;
    text.push_str(&String::from_utf8(body).unwrap());
    Some(text)
}

/// A server that answers each request on each connection with the bytes of `reply`; its address.
fn serve(reply: impl Fn(&str, &mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let reply = Arc::new(reply);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, reply) = (stream.unwrap(), Arc::clone(&reply));
            thread::spawn(move || {
                while let Some(request) = read_request(&mut stream) {
                    reply(&request, &mut stream);
                }
            });
        }
    });
    address
}

/// A server whose every answer is this text.
fn always(reply: &'static str) -> String {
    serve(move |_, stream| stream.write_all(reply.as_bytes()).unwrap())
}

fn body_error(url: &str, cap: u64) -> Error {
    client().get(&Request::new(url, cap)).unwrap().bytes().unwrap_err()
}

#[test]
fn bodies_headers_and_connection_reuse() {
    let connections = Arc::new(AtomicUsize::new(0));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/x", listener.local_addr().unwrap());
    let counter = Arc::clone(&connections);
    thread::spawn(move || {
        for stream in listener.incoming() {
            counter.fetch_add(1, Ordering::SeqCst);
            let mut stream = stream.unwrap();
            while let Some(request) = read_request(&mut stream) {
                assert!(request.contains("x-test: 1"), "{request}");
                stream.write_all(b"HTTP/1.1 200 OK\r\nX-Reply: yes\r\nContent-Length: 5\r\n\r\nhello").unwrap();
            }
        }
    });
    let client = client();
    for _ in 0..3 {
        let response = client.get(&Request::new(&url, CAP).headers(&[("x-test", "1")])).unwrap();
        assert_eq!((response.status, response.length, response.header("x-reply")), (200, Some(5), Some("yes")));
        assert_eq!(response.bytes().unwrap(), b"hello");
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[test]
fn ranges_are_checked() {
    let url = serve(|request, stream| {
        let reply = if request.starts_with("GET /good") {
            assert!(request.contains("range: bytes=2-4\r\n"), "{request}");
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes 2-4/10\r\nContent-Length: 3\r\n\r\ncde"
        } else if request.starts_with("GET /other") {
            "HTTP/1.1 206 Partial\r\nContent-Range: bytes 3-5/10\r\nContent-Length: 3\r\n\r\ndef"
        } else {
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcdefghij"
        };
        stream.write_all(reply.as_bytes()).unwrap();
    });
    let get = |path: &str| client().get(&Request::new(&format!("{url}{path}"), CAP).range(2..5));
    let good = get("/good").unwrap();
    assert_eq!(good.status, 206);
    assert_eq!(good.bytes().unwrap(), b"cde");
    assert_eq!(get("/whole").unwrap().status, 200);
    let error = get("/other").unwrap_err();
    assert!(matches!(error, Error::Protocol { .. }) && error.to_string().contains("/other"), "{error}");
}

#[test]
fn a_cut_body_is_an_error_with_its_position() {
    let url = serve(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello").unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    });
    let error = body_error(&url, CAP);
    assert!(matches!(error, Error::Cut { got: 5, .. }) && error.is_transient(), "{error}");
}

#[test]
fn a_stalled_body_fails_though_no_total_time_is_set() {
    let url = always("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhello");
    let start = Instant::now();
    let error = body_error(&url, CAP);
    assert!(matches!(error, Error::Timeout { .. }) && error.is_transient(), "{error}");
    assert!(start.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_slow_body_lives_as_long_as_it_moves() {
    let url = serve(|_, stream| {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n").unwrap();
        for _ in 0..8 {
            thread::sleep(Duration::from_millis(100));
            stream.write_all(b"x").unwrap();
        }
    });
    assert_eq!(client().get(&Request::new(&url, CAP)).unwrap().bytes().unwrap(), b"xxxxxxxx");
}

/// Bytes that come one at a time, quicker than the longest wait for the next one, for longer than a test may take.
fn drip(stream: &mut impl Write, byte: u8) {
    for _ in 0..1000 {
        if stream.write_all(&[byte]).and_then(|()| stream.flush()).is_err() {
            return;
        }
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_server_that_drips_is_left_wherever_it_drips() {
    let least_rate = Some(LeastRate { bytes: 1000, within: Duration::from_millis(300) });
    let heads = [
        "HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",
        // In the head of a chunk, of which no byte is the body's.
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;",
        // In the head.
        "HTTP/1.1 200 OK\r\nX: ",
        // In a TLS record, here that of a handshake.
        "\x16\x03\x03\x20\x00",
    ];
    for head in heads {
        let mut url = serve(move |_, stream| {
            let _ = stream.write_all(head.as_bytes());
            drip(stream, b'x');
        });
        let mut options = Options { least_rate, ..options() };
        if head.starts_with('\x16') {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            url = format!("https://{}", listener.local_addr().unwrap());
            options.extra_ca_pem = Some(serve_tls("").1);
            thread::spawn(move || {
                let mut stream = listener.accept().unwrap().0;
                let _ = stream.write_all(head.as_bytes());
                drip(&mut stream, 0);
            });
        }
        let start = Instant::now();
        let error = Client::new(options).unwrap().get(&Request::new(&url, CAP)).and_then(|answer| answer.bytes());
        let error = error.unwrap_err();
        assert!(matches!(error, Error::Slow { .. }) && error.is_transient(), "{head:?}: {error}");
        assert!(start.elapsed() < Duration::from_secs(5), "{head:?}");
    }
}

#[test]
fn a_connection_that_is_used_again_begins_anew() {
    let url = serve(|_, stream| {
        thread::sleep(Duration::from_millis(100));
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    // Each answer alone comes in time; together they would be too slow.
    let least_rate = Some(LeastRate { bytes: 1000, within: Duration::from_millis(350) });
    let client = Client::new(Options { least_rate, ..options() }).unwrap();
    for _ in 0..8 {
        assert_eq!(client.get(&Request::new(&url, CAP)).unwrap().bytes().unwrap(), b"ok");
    }
}

#[test]
fn bodies_are_capped_by_header_and_by_count() {
    let long = always("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world");
    assert!(matches!(client().get(&Request::new(&long, 10)).unwrap_err(), Error::TooLong { max_bytes: 10, .. }));
    let chunked = always("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n");
    assert!(matches!(body_error(&chunked, 10), Error::TooLong { .. }));
    assert_eq!(client().get(&Request::new(&chunked, 11)).unwrap().bytes().unwrap(), b"hello world");
}

#[test]
fn statuses_come_back_and_success_turns_them_into_errors() {
    let url = always("HTTP/1.1 404 No\r\nContent-Length: 9\r\n\r\nnot\nhere\n");
    let response = client().get(&Request::new(&url, CAP)).unwrap();
    let error = response.success().unwrap_err();
    assert!(
        matches!(error, Error::Status { status: 404, .. }) && error.to_string().ends_with("404: not here"),
        "{error}"
    );
}

#[test]
fn head_and_post() {
    let url = serve(|request, stream| {
        let reply: &[u8] = if request.starts_with("HEAD") {
            b"HTTP/1.1 200 OK\r\nContent-Length: 5000000\r\n\r\n"
        } else {
            assert!(request.starts_with("POST") && request.ends_with("a=b"), "{request}");
            b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
        };
        stream.write_all(reply).unwrap();
    });
    let head = client().request(Method::Head, &Request::new(&url, 10)).unwrap();
    assert_eq!(head.length, Some(5_000_000));
    assert!(head.bytes().unwrap().is_empty());
    assert_eq!(client().request(Method::Post, &Request::new(&url, 10).body(b"a=b")).unwrap().status, 201);
}

#[test]
fn a_proxy_is_asked_for_the_whole_address_and_redirects_go_through_it_too() {
    let proxy = serve(|request, stream| {
        let head = request.to_ascii_lowercase();
        assert!(head.contains("\r\nproxy-authorization: basic bwu6chc=\r\n"), "{request}");
        let answer = if request.starts_with("GET http://a.invalid/x?y=1 HTTP/1.1\r\n") {
            assert!(head.contains("\r\nhost: a.invalid\r\n") && head.contains("\r\nauthorization: t\r\n"), "{request}");
            "HTTP/1.1 302 Found\r\nLocation: http://b.invalid:81/z\r\nContent-Length: 0\r\n\r\n"
        } else {
            assert!(request.starts_with("GET http://b.invalid:81/z HTTP/1.1\r\n"), "{request}");
            assert!(head.contains("\r\nhost: b.invalid:81\r\n") && !head.contains("\r\nauthorization:"), "{request}");
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
        };
        stream.write_all(answer.as_bytes()).unwrap();
    });
    let proxy = proxy.replace("http://", "http://me:pw@");
    let proxies = Proxies { http: Some(proxy), ..Proxies::default() };
    let client = Client::new(Options { proxies, ..options() }).unwrap();
    let headers = [("authorization", "t")];
    let request = Request { headers: &headers, ..Request::new("http://a.invalid/x?y=1", CAP) };
    let mut text = String::new();
    client.get(&request).unwrap().body.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hi");
}

#[test]
fn redirects_are_followed_without_the_token_and_circles_end() {
    let other = serve(|request, stream| {
        assert!(!request.to_ascii_lowercase().contains("authorization"), "{request}");
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").unwrap();
    });
    let url = serve(move |request, stream| {
        let target = if request.starts_with("GET /round") { "/round" } else { &other };
        assert!(
            request.contains("Authorization: Bearer t") || request.contains("authorization: Bearer t"),
            "{request}"
        );
        stream
            .write_all(format!("HTTP/1.1 307 Go\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n").as_bytes())
            .unwrap();
    });
    let headers = [("Authorization", "Bearer t")];
    let response = client().get(&Request::new(&url, CAP).headers(&headers)).unwrap();
    assert_eq!(response.bytes().unwrap(), b"ok");
    let round = format!("{url}/round");
    let error = client().get(&Request::new(&round, CAP).headers(&headers)).unwrap_err();
    assert!(error.to_string().contains("more than 5 redirects"), "{error}");
}

#[test]
fn unreachable_servers_and_broken_http_are_named() {
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}/x?token=secret");
    let error = client().get(&Request::new(&url, CAP)).unwrap_err();
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
    assert!(error.to_string().contains("/x") && !error.to_string().contains("secret"), "{error}");
    let broken = always("SSH-2.0-x\r\n\r\n");
    assert!(matches!(client().get(&Request::new(&broken, CAP)).unwrap_err(), Error::Protocol { .. }));
    let error = client().get(&Request::new("http://name.test/", CAP)).unwrap_err();
    assert!(matches!(error, Error::Resolve { .. }), "{error:?}");
}

/// An authority and a TLS server with a certificate of it for 127.0.0.1 that answers everything with `reply`.
fn serve_tls(reply: &'static str) -> (String, String) {
    use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(vec![]).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_pem = ca.self_signed(&ca_key).unwrap().pem();
    let key = KeyPair::generate().unwrap();
    let leaf = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
    let leaf = leaf.signed_by(&key, &Issuer::new(ca, ca_key)).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![leaf.der().clone()], key.serialize_der().try_into().unwrap())
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    thread::spawn(move || {
        for stream in listener.incoming() {
            let session = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(session, stream.unwrap());
            thread::spawn(move || {
                while read_request(&mut stream).is_some() {
                    stream.write_all(reply.as_bytes()).unwrap();
                }
            });
        }
    });
    (url, ca_pem)
}

#[test]
fn tls_with_the_right_authority_and_with_a_wrong_one() {
    let (url, ca_pem) = serve_tls("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let trusting = Client::new(Options { extra_ca_pem: Some(ca_pem), ..options() }).unwrap();
    assert_eq!(trusting.get(&Request::new(&url, CAP)).unwrap().bytes().unwrap(), b"ok");
    let (_, other_pem) = serve_tls("");
    let doubting = Client::new(Options { extra_ca_pem: Some(other_pem), ..options() }).unwrap();
    let error = doubting.get(&Request::new(&url, CAP)).unwrap_err();
    assert!(matches!(error, Error::Tls { .. }), "{error:?}");
    let error = client().get(&Request::new(&url, CAP)).unwrap_err();
    assert!(matches!(error, Error::Setup { .. }) && error.to_string().contains("/nonexistent/ca.pem"), "{error}");
}

#[test]
fn no_redirect_leads_from_https_to_http() {
    let (url, ca_pem) = serve_tls("HTTP/1.1 302 Go\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    let client = Client::new(Options { extra_ca_pem: Some(ca_pem), ..options() }).unwrap();
    let error = client.get(&Request::new(&url, CAP)).unwrap_err();
    assert!(error.to_string().contains("refused a redirect from https"), "{error}");
}

#[test]
fn junk_instead_of_authorities_is_refused_at_once() {
    for pem in ["", "junk", "-----BEGIN CERTIFICATE-----\n!!\n-----END CERTIFICATE-----\n"] {
        assert!(Client::new(Options { extra_ca_pem: Some(pem.into()), ..options() }).is_err(), "{pem}");
    }
}

#[test]
fn a_plain_server_on_an_https_address_is_a_tls_error() {
    let url = always("HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n").replace("http:", "https:");
    let (_, pem) = serve_tls("");
    let client = Client::new(Options { extra_ca_pem: Some(pem), ..options() }).unwrap();
    let error = client.get(&Request::new(&url, CAP)).unwrap_err();
    assert!(matches!(error, Error::Tls { .. } | Error::Timeout { .. }), "{error:?}");
}
