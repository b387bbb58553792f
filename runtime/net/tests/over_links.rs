//! Networks over the host's own link on the real kernel: each test in network namespaces of its own. Needs root, `ip`
//! and macvlan; the scenario `verbs` has the other kinds.

mod support;

use std::net::Ipv4Addr;
use std::os::fd::AsFd;

use keel_net::{Error, Net, NetworkSpec};
use support::*;

/// A host whose link to the outside is called as containers' are.
fn on_eth0(test: impl FnOnce(Net) + Send + 'static) {
    on_a_host(|_outside| {
        sh("ip link set up0 down && ip link set up0 name eth0 && ip link set eth0 up");
        let state = tempfile::tempdir().unwrap();
        test(Net::open(state.path()).unwrap());
    });
}

fn macvlan(name: &str, subnet: &str, options: &[(&str, &str)]) -> NetworkSpec {
    let options = options.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
    NetworkSpec { driver: "macvlan".into(), options, ..spec(name, &[subnet]) }
}

#[test]
fn a_link_is_called_eth0_inside_whatever_the_hosts_is_called() {
    on_eth0(|net| {
        let before = sh("ip -br link | cut -c1-16");
        net.create(macvlan("lan", "198.51.100.0/24", &[("parent", "eth0")])).unwrap();
        let (a, b) = (new_namespace(), new_namespace());
        let places = [(&a, "a", [198, 51, 100, 77]), (&b, "b", [198, 51, 100, 78])];
        for (ns, id, ip) in places {
            let mut request = request(&net, &["lan"], &[]);
            request.wanted[0].ip = Some(ip.into());
            net.attach(id, ns.as_fd(), &request).unwrap();
        }
        assert!(ping(&a, Ipv4Addr::new(198, 51, 100, 78)), "neighbours reach each other");
        assert!(ping(&a, Ipv4Addr::new(198, 51, 100, 2)), "and the host's neighbours");
        net.disconnect("a", a.as_fd(), "lan").unwrap();
        assert_eq!(in_namespace(&a, || sh("ip -br link | cut -d' ' -f1")), "lo\n");
        net.connect("a", a.as_fd(), &wanted(&net, "lan")).unwrap();
        assert!(ping(&a, Ipv4Addr::new(198, 51, 100, 78)), "after it was connected again");
        for (_, id, _) in places {
            net.detach(id).unwrap();
        }
        drop((a, b));
        net.remove("lan").unwrap();
        assert_eq!(sh("ip -br link | cut -c1-16"), before);
    });
}

#[test]
fn a_parent_that_cannot_be_is_refused_by_name_and_leaves_nothing() {
    on_eth0(|net| {
        let before = sh("ip -br link | cut -c1-16");
        let refused = |spec: NetworkSpec| net.create(spec).unwrap_err().to_string();
        let error = refused(macvlan("n", "10.9.0.0/24", &[("parent", "nosuch0.7")]));
        assert!(error.contains("no interface nosuch0"), "{error}");
        assert!(refused(macvlan("n", "10.9.0.0/24", &[("parent", "lo")])).contains("loopback"));
        net.create(macvlan("lan", "10.9.0.0/24", &[("parent", "eth0")])).unwrap();
        let shared = NetworkSpec { driver: "ipvlan".into(), ..macvlan("n", "10.8.0.0/24", &[("parent", "eth0")]) };
        assert!(matches!(net.create(shared), Err(Error::Forbidden(_))));
        net.create(macvlan("beside", "10.8.0.0/24", &[("parent", "eth0")])).unwrap();
        net.remove("beside").unwrap();
        net.remove("lan").unwrap();
        assert_eq!(sh("ip -br link | cut -c1-16"), before);
    });
}
