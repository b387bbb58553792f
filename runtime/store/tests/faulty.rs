//! Pulling from registries that cut, stall, lie, redirect, ask for tokens and want to be left alone.

mod common;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use common::fake::{Asked, Held, Reply, Server};
use common::{archive_of_file, assert_nothing_left, noise};
use keel_store::{Auth, Error, ImageId, Options, Proxies, Pull, Reference, Status, Store};

fn held() -> Held {
    Held::new(archive_of_file("file", &noise(300_000)))
}

fn options(server: &Server) -> Options {
    Options {
        insecure_registries: vec![server.address.clone()],
        stall_limit: Some(Duration::from_millis(300)),
        ..Options::default()
    }
}

fn open(folder: &Path, options: Options) -> Store {
    Store::open(&folder.join("store"), options).unwrap()
}

fn pull_with(store: &Store, name: &str, pull: &Pull<'_>) -> Result<(ImageId, Vec<Status>), Error> {
    let mut told = Vec::new();
    let reference: Reference = name.parse().unwrap();
    let id = store.pull(&reference, pull, &mut |progress| told.push(progress.status))?;
    Ok((id, told))
}

/// Pulls from a server and returns what was told; where it fails, nothing may be left.
fn pull(server: &Server, pull: &Pull<'_>) -> Result<Vec<Status>, Error> {
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), options(server));
    let result = pull_with(&store, &format!("{}/a/b:1", server.address), pull);
    if result.is_err() {
        assert_nothing_left(folder.path());
    }
    result.map(|(_, told)| told)
}

fn retries(told: &[Status]) -> usize {
    told.iter().filter(|status| matches!(status, Status::Retrying { .. })).count()
}

#[test]
fn a_layer_that_is_cut_or_stalls_goes_on_where_it_broke_off() {
    let held = held();
    let server = Server::start(move |asked, before| {
        let reply = held.answer(asked);
        match (asked.path.ends_with(&held.layer_digest()), before) {
            (true, 0) => Reply { cut_after: Some(100_000), ..reply },
            (true, 1) => Reply { stall_after: Some(50_000), ..reply },
            _ => reply,
        }
    });
    assert_eq!(retries(&pull(&server, &Pull::default()).unwrap()), 2);
    let asked = server.asked.lock().unwrap();
    let ranges: Vec<_> = asked.iter().map(|asked| asked.header("range")).filter(|range| !range.is_empty()).collect();
    assert!(ranges[0].starts_with("bytes=100000-") && ranges[1].starts_with("bytes=150000-"), "{ranges:?}");
}

#[test]
fn a_server_without_ranges_is_read_from_the_start() {
    let held = held();
    let server = Server::start(move |asked, before| match asked.path.ends_with(&held.layer_digest()) {
        true if before == 0 => Reply { cut_after: Some(100_000), ..Reply::ok(held.layer.clone()) },
        true => Reply::ok(held.layer.clone()),
        false => held.answer(asked),
    });
    pull(&server, &Pull::default()).unwrap();
}

#[test]
fn a_layer_that_never_comes_whole_is_given_up() {
    let held = held();
    let server = Server::start(move |asked, _| match asked.path.ends_with(&held.layer_digest()) {
        true => Reply { cut_after: Some(0), ..held.answer(asked) },
        false => held.answer(asked),
    });
    let error = pull(&server, &Pull::default()).unwrap_err();
    assert!(matches!(error, Error::Read { .. }), "{error:?}");
    assert_eq!(server.count("/blobs/") - 1, 4, "tries are bounded");
}

#[test]
fn a_registry_that_wants_to_be_left_alone_is() {
    let held = held();
    let server = Server::start(move |asked, before| match (asked.path.as_str(), before) {
        (path, 0) if path.contains("/manifests/") => Reply::status(429).header("Retry-After", "1"),
        (path, 0) if path.ends_with(&held.layer_digest()) => Reply::status(503).header("Retry-After", "1"),
        _ => held.answer(asked),
    });
    let begun = Instant::now();
    pull(&server, &Pull::default()).unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn lies_are_told_by_name_and_leave_nothing() {
    let honest = held();
    let other = Held::new(archive_of_file("file", b"other"));
    let index = |entries: &str| format!(r#"{{"schemaVersion":2,"manifests":[{entries}]}}"#).into_bytes();
    let arm = r#"{"digest":"sha256:0000000000000000000000000000000000000000000000000000000000000000","size":1,
        "platform":{"os":"linux","architecture":"arm64"}}"#;
    type Lie = Box<dyn Fn(&Held, &Asked) -> Option<Reply> + Send + Sync>;
    let wrong = other.clone();
    let lies: Vec<(&str, Lie)> = vec![
        ("damaged or forged", {
            let wrong = wrong.clone();
            Box::new(move |held, asked| {
                let mut layer = held.layer.clone();
                layer[..wrong.layer.len()].copy_from_slice(&wrong.layer);
                asked.path.ends_with(&held.layer_digest()).then(|| Reply::ok(layer))
            })
        }),
        ("bytes where the manifest says", {
            let wrong = wrong.clone();
            Box::new(move |held, asked| {
                asked.path.ends_with(&held.layer_digest()).then(|| Reply::ok(wrong.layer.clone()))
            })
        }),
        ("damaged or forged", {
            let wrong = wrong.clone();
            Box::new(move |held, asked| {
                let is_config = asked.path.contains("/blobs/") && !asked.path.ends_with(&held.layer_digest());
                is_config.then(|| Reply::ok(wrong.config.clone()))
            })
        }),
        ("not a manifest", Box::new(|_, asked| asked.path.contains("/manifests/").then(|| Reply::ok("{")))),
        ("no matching manifest", {
            let index = index(arm);
            Box::new(move |_, asked| asked.path.contains("/manifests/").then(|| Reply::ok(index.clone())))
        }),
        (
            "redirects",
            Box::new(|_, asked| {
                let reply = Reply::status(307).header("Location", asked.path.clone());
                asked.path.contains("/manifests/").then_some(reply)
            }),
        ),
        (
            "longer than",
            Box::new(|_, asked| asked.path.contains("/manifests/").then(|| Reply::ok(vec![b' '; 5 << 20]))),
        ),
    ];
    for (reason, lie) in lies {
        let honest = honest.clone();
        let server = Server::start(move |asked, _| lie(&honest, asked).unwrap_or_else(|| honest.answer(asked)));
        let error = pull(&server, &Pull::default()).expect_err(reason);
        let text = [error.to_string(), std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default()];
        let deep = format!("{text:?} {error:?}");
        assert!(deep.contains(reason), "{reason}: {deep}");
    }
}

#[test]
fn a_manifest_asked_for_by_digest_must_be_that_one() {
    let held = held();
    let server = Server::start(move |asked, _| held.answer(asked));
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), options(&server));
    let name = format!("{}/a@sha256:{}", server.address, "0".repeat(64));
    assert!(matches!(pull_with(&store, &name, &Pull::default()), Err(Error::Digest { .. })));
}

#[test]
fn tokens_are_fetched_with_credentials_that_no_other_host_sees() {
    let held = held();
    let storage = {
        let held = held.clone();
        Server::start(move |asked, _| {
            assert_eq!(asked.header("authorization"), "", "the storage sees no credentials");
            held.answer(asked)
        })
    };
    let (layer, storage_address) = (held.layer_digest(), storage.address.clone());
    let server = Server::start(move |asked, _| {
        let basic = format!("Basic {}", base64::engine::general_purpose::STANDARD.encode("me:secret"));
        if asked.path.starts_with("/token") {
            let body = String::from_utf8_lossy(&asked.body).into_owned();
            let by_password =
                asked.header("authorization") == basic && asked.path.contains("scope=repository%3Aa%2Fb%3Apull");
            let by_identity = asked.method == "POST" && body.contains("refresh_token=identity%2B1");
            return match by_password || by_identity {
                true => Reply::ok(r#"{"token":"good"}"#),
                false => Reply::status(401),
            };
        }
        if asked.header("authorization") != "Bearer good" {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"here\"", asked.header("host"));
            return Reply::status(401).header("WWW-Authenticate", realm);
        }
        match asked.path.ends_with(&layer) {
            true => Reply::status(307).header("Location", format!("http://{storage_address}{}", asked.path)),
            false => held.answer(asked),
        }
    });
    let basic = |password: &str| Auth::Basic { user: "me".into(), password: password.into() };
    let tried = |auth: &Auth| pull(&server, &Pull { auth: Some(auth), platform: None });
    tried(&basic("secret")).unwrap();
    tried(&Auth::Identity("identity+1".into())).unwrap();
    tried(&Auth::Bearer("good".into())).unwrap();
    assert!(matches!(tried(&basic("wrong")), Err(Error::Denied { .. })));
    assert!(matches!(pull(&server, &Pull::default()), Err(Error::Denied { .. })));
    assert_eq!(storage.count("/blobs/"), 3);
}

#[test]
fn mirrors_are_looked_at_first_and_passed_over_when_they_fail() {
    let held = held();
    let (good, bad) = {
        let (good, forged) = (held.clone(), Held::new(archive_of_file("file", b"forged")));
        (
            Server::start(move |asked, _| good.answer(asked)),
            Server::start(move |asked, _| match asked.path.contains("/manifests/") {
                true => Reply::ok(good_manifest(&forged)),
                false => Reply::status(404),
            }),
        )
    };
    let registry = Server::start(move |asked, _| held.answer(asked));
    for (mirrors, from_mirror) in [
        (vec![format!("http://{}", good.address)], true),
        (vec!["http://127.0.0.1:1".to_owned(), format!("http://{}", good.address)], true),
        (vec![format!("http://{}", bad.address)], false),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let before = registry.count("/blobs/");
        let mirrors = mirrors.into_iter().map(|url| (registry.address.clone(), url)).collect();
        let store = open(folder.path(), Options { mirrors, ..options(&registry) });
        pull_with(&store, &format!("{}/a/b:1", registry.address), &Pull::default()).unwrap();
        assert_eq!(registry.count("/blobs/") == before, from_mirror);
    }
}

fn good_manifest(held: &Held) -> Vec<u8> {
    held.manifest.clone()
}

/// A proxy that knows one name; returns its address.
fn proxy(name: &'static str, target: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let target = target.clone();
            std::thread::spawn(move || forward(client, name, &target));
        }
    });
    address
}

/// Passes requests without a body on, each with its path alone.
fn forward(mut client: TcpStream, name: &str, target: &str) {
    let mut server = TcpStream::connect(target).unwrap();
    let (mut from, mut to) = (server.try_clone().unwrap(), client.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut from, &mut to));
    loop {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && client.read(&mut byte).unwrap_or(0) == 1 {
            head.push(byte[0]);
        }
        if head.is_empty() {
            return;
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        assert!(head.starts_with(&format!("GET http://{name}/")), "{head}");
        assert!(head.to_ascii_lowercase().contains("proxy-authorization: basic bwu6chc="), "{head}");
        server.write_all(head.replacen(&format!("http://{name}"), "", 1).as_bytes()).unwrap();
    }
}

#[test]
fn a_proxy_resolves_names_that_this_host_cannot() {
    let held = held();
    let server = Server::start(move |asked, _| held.answer(asked));
    let proxy = proxy("registry.invalid:5000", server.address.clone());
    let folder = tempfile::tempdir().unwrap();
    let proxies = Proxies { http: Some(format!("http://me:pw@{proxy}")), ..Proxies::default() };
    let insecure_registries = vec!["registry.invalid:5000".into()];
    let store = open(folder.path(), Options { proxies, insecure_registries, ..Options::default() });
    pull_with(&store, "registry.invalid:5000/a/b:1", &Pull::default()).unwrap();
}

#[test]
fn a_policy_of_digests_refuses_tags() {
    let held = held();
    let digest = keel_store::Digest::of(&held.manifest);
    let server = Server::start(move |asked, _| held.answer(asked));
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), Options { require_digest: true, ..options(&server) });
    let tagged = format!("{}/a/b:1", server.address);
    assert!(matches!(pull_with(&store, &tagged, &Pull::default()), Err(Error::Policy { .. })));
    assert!(server.asked.lock().unwrap().is_empty());
    let by_digest = format!("{}/a/b@{digest}", server.address);
    let (id, _) = pull_with(&store, &by_digest, &Pull::default()).unwrap();
    store.tag(&id.to_string(), &"mine:1".parse().unwrap()).unwrap();
    assert!(store.image_to_run(&by_digest).is_ok() && store.image_to_run(&id.to_string()).is_ok());
    assert!(matches!(store.image_to_run("mine:1"), Err(Error::Policy { .. })));
}

#[test]
fn searches_find_where_there_is_a_search_and_are_refused_where_not() {
    let server = Server::start(|asked, _| match asked.path.as_str() {
        "/v1/search?q=web&n=5" => Reply::ok(r#"{"results":[{"name":"web","star_count":3,"description":"d"}]}"#),
        _ => Reply::status(404),
    });
    let folder = tempfile::tempdir().unwrap();
    let store = open(folder.path(), options(&server));
    let found = store.search(&format!("{}/web", server.address), 5, None).unwrap();
    assert_eq!((found[0].name.as_str(), found[0].star_count), ("web", 3));
    let error = store.search(&format!("{}/other", server.address), 5, None).unwrap_err();
    assert!(error.to_string().contains("no search"), "{error}");
}
