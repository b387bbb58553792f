//! Networks of users' own on the real kernel: each test in network namespaces of its own. Needs root, `ip` and `nft`.

mod support;

use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use keel_net::{Error, Net, NetworkSpec, PoolSpec, PortMap, Request, Wanted};
use support::*;

#[test]
fn networks_are_apart_and_leave_nothing_behind() {
    on_a_host(|outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let before = sh("nft list ruleset; ip -br link | cut -c1-16; ip route");
        net.create(spec("one", &["10.1.0.0/24"])).unwrap();
        net.create(spec("two", &["10.2.0.0/24"])).unwrap();
        net.create(NetworkSpec { internal: true, ..spec("inner", &["10.3.0.0/24"]) }).unwrap();
        let (a, b, c, d) = (new_namespace(), new_namespace(), new_namespace(), new_namespace());
        net.attach("a", a.as_fd(), &request(&net, &["one"], &[])).unwrap();
        net.attach("b", b.as_fd(), &request(&net, &["one"], &[])).unwrap();
        net.attach("c", c.as_fd(), &request(&net, &["two"], &[tcp(8080, 80)])).unwrap();
        net.attach("d", d.as_fd(), &request(&net, &["inner", "two"], &[])).unwrap();
        assert!(ping(&a, Ipv4Addr::new(10, 1, 0, 3)), "neighbours reach each other");
        assert!(!ping(&a, Ipv4Addr::new(10, 2, 0, 2)), "other networks are out of reach");
        assert!(ping(&d, Ipv4Addr::new(10, 2, 0, 2)), "one that is in both is not");
        serve(&c, 80, 2);
        assert_eq!(in_namespace(&a, || ask("198.51.100.1:8080").unwrap()), "10.2.0.1");
        assert_eq!(in_namespace(&outside, || ask("198.51.100.1:8080").unwrap()), "198.51.100.2");
        // An internal network leads nowhere, not even by routes of a container's own.
        let inner = new_namespace();
        net.attach("e", inner.as_fd(), &request(&net, &["inner"], &[tcp(8081, 80)])).unwrap();
        assert_eq!(in_namespace(&inner, || sh("ip route show default")), "");
        in_namespace(&inner, || sh("ip route add default via 10.3.0.1"));
        assert!(!ping(&inner, Ipv4Addr::new(198, 51, 100, 2)) && !ping(&inner, Ipv4Addr::new(10, 2, 0, 2)));
        assert!(in_namespace(&inner, || ask("198.51.100.1:8080")).is_err());
        let error = net.remove("one").unwrap_err();
        assert!(matches!(&error, Error::Forbidden(text) if text.contains("active endpoints")), "{error}");
        for id in ["a", "b", "c", "d", "e"] {
            net.detach(id).unwrap();
        }
        for name in ["one", "two", "inner"] {
            net.remove(name).unwrap();
        }
        assert_eq!(sh("nft list ruleset; ip -br link | cut -c1-16; ip route"), before);
    });
}

#[test]
fn without_icc_containers_meet_only_at_published_ports() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let options = [("com.docker.network.bridge.enable_icc".into(), "false".into())].into();
        net.create(NetworkSpec { options, ..spec("shy", &["10.1.0.0/24"]) }).unwrap();
        let (a, b) = (new_namespace(), new_namespace());
        net.attach("a", a.as_fd(), &request(&net, &["shy"], &[tcp(8080, 80)])).unwrap();
        net.attach("b", b.as_fd(), &request(&net, &["shy"], &[])).unwrap();
        assert!(!ping(&b, Ipv4Addr::new(10, 1, 0, 2)));
        // Nor by way of the host.
        in_namespace(&b, || sh("ip route add 10.1.0.2 via 10.1.0.1"));
        assert!(!ping(&b, Ipv4Addr::new(10, 1, 0, 2)));
        serve(&a, 80, 1);
        let asked = in_namespace(&b, || ask("198.51.100.1:8080"));
        assert!(asked.is_ok());
    });
}

#[test]
fn neighbours_meet_at_link_local_addresses() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        net.create(spec("one", &["10.1.0.0/24"])).unwrap();
        let (a, b) = (new_namespace(), new_namespace());
        for (id, namespace, last) in [("a", &a, 7), ("b", &b, 8)] {
            let link_local = vec![IpAddr::from([169, 254, 3, last])];
            let wanted = vec![Wanted { link_local, ..wanted(&net, "one") }];
            net.attach(id, namespace.as_fd(), &Request { wanted, ..Request::default() }).unwrap();
        }
        assert!(ping(&a, Ipv4Addr::new(169, 254, 3, 8)) && ping(&b, Ipv4Addr::new(169, 254, 3, 7)));
        assert!(ping(&a, Ipv4Addr::new(10, 1, 0, 3)), "the address of the network stays the first");
        let shown = in_namespace(&a, || sh("ip -4 -br addr show eth0"));
        assert!(shown.contains("10.1.0.2/24 169.254.3.7/16"), "{shown}");
    });
}

#[test]
fn a_running_container_changes_networks_and_its_ports_follow() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        net.create(spec("alpha", &["10.1.0.0/24"])).unwrap();
        net.create(spec("beta", &["10.2.0.0/24"])).unwrap();
        let c = new_namespace();
        net.attach("c", c.as_fd(), &request(&net, &["beta"], &[tcp(8080, 80)])).unwrap();
        let before = sh("nft list ruleset; ip -br link | cut -c1-16");
        let default = |c: &_| in_namespace(c, || sh("ip route show default"));
        assert!(default(&c).contains("10.2.0.1 dev eth0"));
        let wanted = Wanted { ip: Some(Ipv4Addr::new(10, 1, 0, 77)), ..wanted(&net, "alpha") };
        net.connect("c", c.as_fd(), &wanted).unwrap();
        assert!(matches!(net.connect("c", c.as_fd(), &wanted), Err(Error::Forbidden(_))));
        assert!(default(&c).contains("10.1.0.1 dev eth1"), "{}", default(&c));
        assert!(sh("nft list ruleset").contains("10.1.0.77 . 80"));
        serve(&c, 80, 2);
        assert!(ask("127.0.0.1:8080").is_ok());
        net.disconnect("c", c.as_fd(), "alpha").unwrap();
        assert_eq!(sh("nft list ruleset; ip -br link | cut -c1-16"), before);
        assert!(default(&c).contains("10.2.0.1 dev eth0"));
        assert!(ask("127.0.0.1:8080").is_ok());
        net.disconnect("c", c.as_fd(), "beta").unwrap();
        assert!(!in_namespace(&c, || sh("ip -br link")).contains("eth"));
        assert!(matches!(net.disconnect("c", c.as_fd(), "beta"), Err(Error::Forbidden(_))));
    });
}

#[test]
fn ipv6_reaches_out_and_is_published_and_routers_are_not_heeded() {
    on_a_host(|outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let pools = vec![PoolSpec { subnet: "fd01::/64".into(), ..PoolSpec::default() }];
        net.create(NetworkSpec { ipv6: true, pools, ..spec("six", &[]) }).unwrap();
        net.create(NetworkSpec { ipv6: true, ..spec("chosen", &[]) }).unwrap();
        let pool = net.find("chosen").unwrap().pool(false).unwrap().clone();
        assert!(pool.subnet.to_string().starts_with("fd"), "{}", pool.subnet);
        let (a, b) = (new_namespace(), new_namespace());
        let loose = PortMap { host_port_end: 8090, ..tcp(8080, 80) };
        let sandbox = net.attach("a", a.as_fd(), &request(&net, &["six"], &[loose])).unwrap();
        assert_eq!(sandbox.endpoints[0].ip6.unwrap().to_string(), "fd01::2");
        net.attach("b", b.as_fd(), &request(&net, &["six"], &[])).unwrap();
        assert!(ping(&b, "fd01::2".parse::<IpAddr>().unwrap()));
        assert_eq!(in_namespace(&a, || sh("cat /proc/sys/net/ipv6/conf/eth0/accept_ra")).trim(), "0");
        serve(&outside, 80, 1);
        assert_eq!(in_namespace(&a, || ask("[fd99::2]:80").unwrap()), "fd99::1");
        serve(&a, 80, 4);
        assert_eq!(in_namespace(&outside, || ask("[fd99::1]:8080").unwrap()), "fd99::2");
        assert!(in_namespace(&b, || ask("[fd99::1]:8080")).is_ok());
        // From the container itself.
        assert!(in_namespace(&a, || ask("[fd99::1]:8080")).is_ok());
        assert!(ask("127.0.0.1:8080").is_ok());
        // Nobody outside gets past the published port.
        serve(&a, 90, 1);
        in_namespace(&outside, || sh("ip route add fd01::/64 via fd99::1"));
        assert!(in_namespace(&outside, || ask("[fd01::2]:90")).is_err());
    });
}

#[test]
fn what_overlaps_or_is_taken_is_refused_as_docker_does() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        net.create(spec("one", &["10.1.0.0/24"])).unwrap();
        let before = sh("nft list ruleset; ip -br link | cut -c1-16");
        assert!(matches!(net.create(spec("one", &[])), Err(Error::Conflict(_))));
        assert!(matches!(net.create(spec("other", &["10.1.0.128/25"])), Err(Error::Forbidden(_))));
        assert!(matches!(net.create(spec("other", &["172.20.0.0/16"])), Err(Error::Forbidden(_))));
        assert!(matches!(net.create(spec("other", &["fd00::/64"])), Err(Error::Invalid(_))));
        let taken = [("com.docker.network.bridge.name".into(), "up0".into())].into();
        assert!(net.create(NetworkSpec { options: taken, ..spec("other", &[]) }).is_err());
        assert!(matches!(net.remove("bridge"), Err(Error::Forbidden(_))));
        assert!(matches!(net.remove("nothing"), Err(Error::NotFound(_))));
        let fixed = |name: &str, ip: [u8; 4]| {
            let mut request = request(&net, &[name], &[]);
            request.wanted[0].ip = Some(ip.into());
            net.attach("x", new_namespace().as_fd(), &request).map(drop)
        };
        assert!(matches!(fixed("bridge", [172, 20, 0, 9]), Err(Error::Invalid(_))));
        assert!(matches!(fixed("one", [10, 9, 0, 9]), Err(Error::Invalid(_))));
        let holder = new_namespace();
        net.attach("holder", holder.as_fd(), &request(&net, &["one"], &[])).unwrap();
        assert!(matches!(fixed("one", [10, 1, 0, 2]), Err(Error::Forbidden(_))));
        net.detach("holder").unwrap();
        assert_eq!(sh("nft list ruleset; ip -br link | cut -c1-16"), before);
    });
}

#[test]
fn networks_come_back_after_the_host_has_lost_them() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let one = new_namespace();
        let id = {
            let net = Net::open(state.path()).unwrap();
            let id = net.create(spec("one", &["10.1.0.0/24"])).unwrap().id;
            net.attach("c", one.as_fd(), &request(&net, &["one"], &[tcp(8080, 80)])).unwrap();
            id
        };
        let before = sh("nft list ruleset; ip route");
        let bridge = format!("br-{}", &id[..12]);
        let net = Net::open(state.path()).unwrap();
        net.recover(&[("c".into(), one.try_clone().unwrap())]).unwrap();
        assert_eq!(sh("nft list ruleset; ip route"), before, "a restart of the daemon changes nothing");
        drop(net);
        sh(&format!("ip link del {bridge}; ip link del keel0; nft flush ruleset"));
        let net = Net::open(state.path()).unwrap();
        net.recover(&[]).unwrap();
        assert!(sh("ip -br addr").contains("10.1.0.1/24") && !sh("nft list ruleset").contains("8080"));
        net.attach("c", new_namespace().as_fd(), &request(&net, &["one"], &[tcp(8080, 80)])).unwrap();
    });
}

#[test]
fn a_thousand_ports_come_and_go_at_once() {
    on_a_host(|_outside| {
        let state = tempfile::tempdir().unwrap();
        let net = Net::open(state.path()).unwrap();
        let before = sh("nft list ruleset");
        let ports: Vec<PortMap> = (0..1000).map(|i| tcp(20_000 + i, 1 + i)).collect();
        let c = new_namespace();
        net.attach("c", c.as_fd(), &request(&net, &["bridge"], &ports)).unwrap();
        net.recover(&[("c".into(), c.try_clone().unwrap())]).unwrap();
        serve(&c, 700, 1);
        assert!(ask("127.0.0.1:20699").is_ok());
        drop(net);
        let net = Net::open(state.path()).unwrap();
        assert!(sh("nft list ruleset").contains("tcp . 20999"));
        net.detach("c").unwrap();
        assert_eq!(sh("nft list ruleset"), before);
    });
}
