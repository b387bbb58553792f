//! Networks on a whole machine: bridges, links over the host's own (macvlan, ipvlan), and SCTP, whose modules a
//! workstation's kernel may lack; UDP.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use super::verbs::{prints, refuses, told};
use crate::clients::Host;
use crate::machine::WORKSTATION_IN_GUEST;
use crate::{bare, images};

/// The server's address in networks over links.
const SERVER: &str = "10.91.0.9";
/// What servers of other protocols say.
const GREETING: &str = "hello from afar";

/// Bridges of users' own, links, published ports.
pub(super) fn bridges(host: &Host, web: &str) -> Result<()> {
    host.docker_ok(&["network", "create", "--subnet", "10.77.0.0/24", "near"])?;
    host.docker_ok(&["network", "create", "--internal", "far"])?;
    refuses(host, &["network", "create", "--subnet", "10.77.0.0/25", "clash"], "overlap")?;
    let words = ["run", "-d", "--name", "srv", "--network", "near", "--ip", "10.77.0.9", "--network-alias", "other"];
    let further = ["--link-local-ip", "169.254.77.9"];
    host.docker_ok(&[&words[..], &further, &["-p", "8090-8091:80-81", "-p", "9000:9000/udp", web]].concat())?;
    let get = |network: &str, name: &str| {
        let url = format!("http://{name}/");
        host.docker(&["run", "--rm", "--network", network, web, "busybox", "timeout", "5", "wget", "-qO-", &url])
            .output()
    };
    let page = |output: Output| String::from_utf8_lossy(&output.stdout).into_owned();
    for name in ["srv", "other", "10.77.0.9"] {
        ensure!(page(get("near", name)?).starts_with("hello"), "{name} on its own network");
    }
    let neighbour = ["run", "--rm", "--network", "near", "--link-local-ip", "169.254.77.10", web];
    let fetch = ["busybox", "timeout", "5", "wget", "-qO-", "http://169.254.77.9/"];
    ensure!(host.docker_ok(&[&neighbour[..], &fetch].concat())?.starts_with("hello"), "a link-local address");
    ensure!(!get("far", "10.77.0.9")?.status.success(), "a network is reached from another");
    host.docker_ok(&["network", "connect", "far", "srv"])?;
    ensure!(page(get("far", "srv")?).starts_with("hello"), "srv after it was connected");
    host.docker_ok(&["network", "disconnect", "far", "srv"])?;
    ensure!(!get("far", "srv")?.status.success(), "srv after it was disconnected");
    let shared = ["run", "--rm", "--network", "container:srv", web, "wget", "-qO-", "http://127.0.0.1/"];
    ensure!(host.docker_ok(&shared)?.starts_with("hello"), "a shared network namespace");
    let hairpin = ["exec", "srv", "busybox", "timeout", "5", "wget", "-qO-", "http://10.77.0.1:8090/"];
    ensure!(host.docker_ok(&hairpin)?.starts_with("hello"), "a container at its own published port");
    host.docker_ok(&["run", "-d", "--name", "plain", web])?;
    let linked = ["run", "--rm", "--link", "plain:server", web, "wget", "-qO-", "http://server/"];
    ensure!(host.docker_ok(&linked)?.starts_with("hello"), "a link");
    host.docker_ok(&["rm", "-f", "plain"])?;
    refuses(host, &["run", "--rm", "-p", "8090:80", web, "true"], "8090")?;
    host.docker_ok(&["rm", "-f", "srv"])?;
    host.docker_ok(&["network", "create", "--ipv6", "--subnet", "fd77::/64", "six"])?;
    host.docker_ok(&["run", "-d", "--name", "srv", "--network", "six", "--ip6", "fd77::9", web])?;
    ensure!(page(get("six", "[fd77::9]")?).starts_with("hello"), "a server over IPv6");
    host.docker_ok(&["rm", "-f", "srv"])?;
    host.docker_ok(&["network", "rm", "near", "far", "six"]).map(drop)
}

/// Networks over links, in each way that they can share one: drivers and options.
const OVER_LINKS: [(&str, &[&str]); 8] = [
    ("macvlan", &["parent"]),
    ("macvlan", &["parent", "macvlan_mode=bridge"]),
    ("macvlan", &[]),
    ("macvlan", &["parent.7"]),
    ("ipvlan", &["parent"]),
    ("ipvlan", &["parent", "ipvlan_mode=l3"]),
    ("ipvlan", &["parent", "ipvlan_mode=l3s"]),
    ("ipvlan", &[]),
];

/// Containers over links reach each other, and outside where the network is the machine's own; nothing stays behind.
pub(super) fn over_links(host: &Host, web: &str) -> Result<()> {
    let (link, _) = way_out(host, web)?;
    let before = interfaces(host, web)?;
    let mut failed = Vec::new();
    for (driver, options) in OVER_LINKS {
        let options: Vec<String> = options.iter().map(|option| named_parent(option, &link)).collect();
        let tried = pair(host, web, driver, &options).and_then(|()| same_interfaces(host, web, &before));
        if let Err(e) = tried {
            failed.push(format!("{driver} {options:?}: {e:#}"));
            // Out of the others' way.
            let _ = host.docker(&["rm", "-f", "srv"]).output();
            let _ = host.docker(&["network", "rm", "linked"]).output();
        }
    }
    for driver in ["macvlan", "ipvlan"] {
        let tried = outside(host, web, driver, &link);
        failed.extend(tried.err().map(|e| format!("{driver} to the outside: {e:#}")));
        let _ = host.docker(&["network", "rm", "own"]).output();
    }
    let tried = refused(host, &link).and_then(|()| same_interfaces(host, web, &before));
    failed.extend(tried.err().map(|e| format!("what is refused: {e:#}")));
    told(failed, String::new)
}

fn same_interfaces(host: &Host, web: &str, before: &str) -> Result<()> {
    let after = interfaces(host, web)?;
    ensure!(after == before, "the host's interfaces were {before:?} and are {after:?}");
    Ok(())
}

/// `parent` and `parent.7` become options that name the machine's interface.
fn named_parent(option: &str, link: &str) -> String {
    option.strip_prefix("parent").map_or(option.to_owned(), |vlan| format!("parent={link}{vlan}"))
}

/// Two containers in a network of this kind.
fn pair(host: &Host, web: &str, driver: &str, options: &[String]) -> Result<()> {
    let mut words = vec!["network", "create", "-d", driver, "--subnet", "10.91.0.0/24"];
    options.iter().for_each(|option| words.extend(["-o", option.as_str()]));
    host.docker_ok(&[&words[..], &["linked"]].concat())?;
    let parent = options.iter().find_map(|option| option.strip_prefix("parent="));
    let wanted = format!("{driver} {}", parent.unwrap_or("<no value>"));
    prints(host, &["network", "inspect", "-f", "{{.Driver}} {{.Options.parent}}", "linked"], &wanted)?;
    host.docker_ok(&["run", "-d", "--name", "srv", "--network", "linked", "--ip", SERVER, web])?;
    for name in [SERVER, "srv"] {
        let url = format!("http://{name}/");
        let client = ["run", "--rm", "--network", "linked", "--ip", "10.91.0.10", web];
        let page = host.docker_ok(&[&client[..], &["busybox", "timeout", "9", "wget", "-qO-", &url]].concat())?;
        ensure!(page.starts_with("hello"), "{name} answered {page:?}");
    }
    addresses(host, driver)?;
    refuses(host, &["network", "rm", "linked"], "active endpoints")?;
    // A container changes networks of this kind while it runs.
    host.docker_ok(&["network", "disconnect", "linked", "srv"])?;
    prints(host, &["exec", "srv", "ls", "/sys/class/net"], "lo")?;
    host.docker_ok(&["network", "connect", "--ip", SERVER, "linked", "srv"])?;
    addresses(host, driver)?;
    host.docker_ok(&["rm", "-f", "srv"])?;
    host.docker_ok(&["network", "rm", "linked"]).map(drop)
}

/// What is told of the server's addresses is so.
fn addresses(host: &Host, driver: &str) -> Result<()> {
    let shown = host.docker_ok(&["exec", "srv", "ip", "addr", "show", "eth0"])?;
    ensure!(shown.contains(&format!("inet {SERVER}/24")), "the server has {shown:?}");
    let told = host.docker_ok(&["inspect", "-f", "{{.NetworkSettings.Networks.linked.MacAddress}}", "srv"])?;
    // Those of ipvlan have their parent's.
    let is_so = if driver == "ipvlan" { told.is_empty() } else { shown.contains(&format!("ether {told}")) };
    ensure!(is_so, "inspection tells of Ethernet address {told:?}, the server has {shown:?}");
    Ok(())
}

/// A container in the machine's own network reaches the workstation without the host's translating its address.
fn outside(host: &Host, web: &str, driver: &str, link: &str) -> Result<()> {
    let registry = web.split('/').next().context("the registry's address")?;
    let (parent, gateway) = (format!("parent={link}"), format!("--gateway={WORKSTATION_IN_GUEST}"));
    let create = ["network", "create", "-d", driver, "--subnet", "10.0.2.0/24", &gateway, "-o", &parent, "own"];
    host.docker_ok(&create)?;
    let url = format!("http://{registry}/v2/");
    let fetch = ["run", "--rm", "--network", "own", "--ip", "10.0.2.77", web, "busybox", "timeout", "9"];
    prints(host, &[&fetch[..], &["wget", "-qO-", &url]].concat(), "{}")
}

/// What can't be is refused when the network is made, in Docker's words where it has any.
fn refused(host: &Host, link: &str) -> Result<()> {
    let create = |name: &'static str, driver: &'static str, more: &[&str]| {
        let words = [&["network", "create", "-d", driver], more, &[name]].concat();
        words.into_iter().map(str::to_owned).collect::<Vec<String>>()
    };
    let refuses = |words: Vec<String>, why: &str| {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        refuses(host, &words, why)
    };
    let parent = format!("parent={link}");
    let first = create("first", "macvlan", &["--subnet", "10.91.0.0/24", "-o", &parent]);
    host.docker_ok(&first.iter().map(String::as_str).collect::<Vec<_>>())?;
    refuses(create("second", "macvlan", &["--subnet", "10.91.0.0/25", "-o", &parent]), "Pool overlaps")?;
    let alone = ["--subnet", "10.92.0.0/24", "-o", &parent, "-o", "macvlan_mode=passthru"];
    refuses(create("second", "macvlan", &alone), "cannot use mode passthru")?;
    refuses(create("second", "ipvlan", &["--subnet", "10.92.0.0/24", "-o", &parent]), "macvlan")?;
    host.docker_ok(&["network", "rm", "first"])?;
    for driver in ["macvlan", "ipvlan"] {
        refuses(create("second", driver, &["-o", "parent=nosuch0"]), "nosuch0")?;
        refuses(create("second", driver, &["-o", "parent=nosuch0.7"]), "nosuch0")?;
        refuses(create("second", driver, &["-o", "parent=lo"]), "loopback")?;
    }
    let named = host.docker_ok(&["network", "ls", "-q", "--filter", "name=second"])?;
    ensure!(named.is_empty(), "a network that was refused is there: {named}");
    Ok(())
}

/// The interface that leads out of the machine, and the machine's address on it.
fn way_out(host: &Host, web: &str) -> Result<(String, String)> {
    let after = |text: &str, word: &str| {
        let mut words = text.split_whitespace().map(str::to_owned);
        words.find(|other| other == word).and_then(|_| words.next())
    };
    let on_host = ["run", "--rm", "--network", "host", web, "ip"];
    let routes = host.docker_ok(&[&on_host[..], &["route", "show", "default"]].concat())?;
    let link = after(&routes, "dev").with_context(|| format!("the machine's way out: {routes:?}"))?;
    let shown = host.docker_ok(&[&on_host[..], &["-4", "addr", "show", "dev", &link]].concat())?;
    let address = after(&shown, "inet").with_context(|| format!("the machine's address: {shown:?}"))?;
    Ok((link, address.split('/').next().unwrap_or_default().to_owned()))
}

/// The host's interfaces.
fn interfaces(host: &Host, web: &str) -> Result<String> {
    host.docker_ok(&["run", "--rm", "--network", "host", web, "ls", "/sys/class/net"])
}

/// Servers over SCTP and UDP answer at their own address and at their published port.
pub(super) fn protocols(host: &Host, dir: &Path) -> Result<()> {
    let archive = socat_image(dir)?;
    host.docker_ok(&["load", "-q", "-i", archive.to_str().context("path")?])?;
    let image = "socat:1";
    host.docker_ok(&["network", "create", "elsewhere"])?;
    // The first call may come before the server listens.
    let sctp =
        |address: &str| format!("busybox timeout 30 socat -u SCTP4-CONNECT:{address}:9000,retry=20,interval=0.5 -");
    protocol(host, image, "sctp", "SCTP4-LISTEN:9000,fork,reuseaddr", &sctp)?;
    // A datagram that nobody takes is lost.
    let udp = |address: &str| {
        let ask = format!("echo ask | busybox timeout 5 socat -t 1 - UDP4:{address}:9000");
        format!("for i in $(busybox seq 20); do answer=$({ask}); [ -n \"$answer\" ] && break; done; echo $answer")
    };
    protocol(host, image, "udp", "UDP4-LISTEN:9000,fork,reuseaddr", &udp)?;
    host.docker_ok(&["network", "rm", "elsewhere"])?;
    host.docker_ok(&["rmi", image]).map(drop)
}

fn protocol(host: &Host, image: &str, name: &str, listen: &str, ask: &dyn Fn(&str) -> String) -> Result<()> {
    let port = format!("9000:9000/{name}");
    let server = ["socat", "-U", listen, "OPEN:/greeting,rdonly"];
    host.docker_ok(&[&["run", "-d", "--name", name, "-p", &port, image][..], &server].concat())?;
    prints(host, &["port", name], &format!("9000/{name} -> 0.0.0.0:9000"))?;
    let own = host.docker_ok(&["inspect", "-f", "{{.NetworkSettings.Networks.bridge.IPAddress}}", name])?;
    let (_, outer) = way_out(host, image)?;
    for (network, address) in [("bridge", &own), ("bridge", &outer), ("elsewhere", &outer)] {
        let script = ask(address);
        let client = ["run", "--rm", "--network", network, image, "busybox", "sh", "-c", &script];
        prints(host, &client, GREETING).with_context(|| format!("{address}:9000/{name} from {network}"))?;
    }
    refuses(host, &["run", "--rm", "-p", &port, image, "true"], "9000")?;
    host.docker_ok(&["rm", "-f", name]).map(drop)
}

/// An image of Debian's `socat` and busybox.
fn socat_image(dir: &Path) -> Result<PathBuf> {
    let socat = Path::new("/usr/bin/socat");
    ensure!(socat.exists(), "{} is missing: is socat installed?", socat.display());
    let root = dir.join("socat-root");
    for (target, source) in bare::with_libraries(socat)? {
        let target = root.join(target.trim_start_matches('/'));
        fs::create_dir_all(target.parent().context("a file of an image has a folder")?)?;
        fs::copy(source, target)?;
    }
    for folder in ["etc", "tmp", "proc", "dev", "sys"] {
        fs::create_dir_all(root.join(folder))?;
    }
    fs::copy("/bin/busybox", root.join("bin/busybox")).context("copy /bin/busybox: is busybox-static installed?")?;
    for applet in ["ip", "true"] {
        std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
    }
    fs::write(root.join("greeting"), format!("{GREETING}\n"))?;
    let image = images::pack(dir, "socat", &root, &json!({ "Env": ["PATH=/bin"] }))?;
    fs::remove_dir_all(&root)?;
    Ok(image)
}
