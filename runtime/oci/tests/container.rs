//! Containers on the real kernel: namespaces, mounts, credentials and filter, with busybox as the image. Needs root.

mod common;

use std::io::Read;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use common::{Image, host_users, output, run, spec, try_create};
use keel_oci::spec::{Capabilities, Mount, Namespace, NamespaceKind, Root};
use keel_oci::{Error, caps};

#[test]
fn it_is_process_1_with_a_host_name_and_root_of_its_own() {
    let out = output("echo $$; hostname; id -u; ls /; cat /proc/self/uid_map");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(&lines[..3], ["1", "box", "0"], "{out}");
    assert_eq!(&lines[3..9], ["bin", "dev", "etc", "proc", "sys", "tmp"], "{out}");
    assert_eq!(lines[9].split_whitespace().collect::<Vec<_>>(), ["0", "100000", "65536"]);
}

#[test]
fn it_works_without_a_user_namespace() {
    let image = Image::new();
    let (code, out) = run(&image, &host_users(spec("id -u; cat /proc/self/uid_map; echo x >/dev/null; ls /dev/pts")));
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("4294967295"), "{out}");
}

#[test]
fn what_proc_tells_of_the_host_is_hidden_and_protected() {
    // Which of them exist depends on the kernel.
    let script = "for f in kcore keys timer_list interrupts; do [ -e /proc/$f ] && cat /proc/$f; done; \
        for d in /sys/firmware /proc/acpi /proc/scsi; do [ -e $d ] && ls $d; done; \
        echo 1 >/proc/sys/kernel/hostname; true";
    let out = output(script);
    assert_eq!(out.lines().count(), 1, "{out}");
    assert!(out.contains("Read-only file system"), "{out}");
}

#[test]
fn the_root_is_read_only_where_asked() {
    let image = Image::new();
    let mut s = spec("touch /tmp/x; echo ok >/dev/shm/x && cat /dev/shm/x");
    s.root = Some(Root { readonly: true, ..Root::default() });
    // The mount points must be there already, or be made before the root is sealed.
    let (_, out) = run(&image, &s);
    assert!(out.contains("Read-only file system") && out.ends_with("ok\n"), "{out}");
    let (code, out) = run(&image, &spec("touch /tmp/x"));
    assert_eq!((code, out.as_str()), (0, ""));
}

#[test]
fn no_descriptor_of_the_host_is_left_open() {
    let secret = std::fs::File::open("/etc/passwd").unwrap();
    rustix::io::fcntl_setfd(&secret, rustix::io::FdFlags::empty()).unwrap();
    let out = output("ls /proc/1/fd; true");
    assert_eq!(out.lines().filter(|l| l.parse::<u32>().is_ok()).collect::<Vec<_>>(), ["0", "1", "2"], "{out}");
}

#[test]
fn system_calls_outside_the_profile_fail() {
    let out = output("mount -t tmpfs x /tmp; unshare -U true; grep Seccomp: /proc/self/status");
    assert!(out.contains("mount: permission denied") || out.contains("Operation not permitted"), "{out}");
    assert!(out.contains("unshare"), "{out}");
    assert!(out.contains("Seccomp:\t2"), "{out}");
}

#[test]
fn capabilities_are_the_given_ones_and_no_more() {
    let out = output("grep Cap /proc/self/status");
    let expected = "00000000a80425fb";
    for set in ["CapPrm", "CapEff", "CapBnd"] {
        assert!(out.contains(&format!("{set}:\t{expected}")), "{out}");
    }
    assert!(out.contains("CapInh:\t0000000000000000"), "{out}");
    let mut s = spec("grep Cap /proc/self/status; id -u; id -g; id -G; grep NoNewPrivs /proc/self/status");
    s.process.user.uid = 1000;
    s.process.user.gid = 1001;
    s.process.user.additional_gids = vec![5, 7];
    s.process.no_new_privileges = true;
    let out = run(&Image::new(), &s).1;
    assert!(out.contains("CapEff:\t0000000000000000"), "{out}");
    assert!(out.contains("1000\n1001\n1001 5 7\n") && out.contains("NoNewPrivs:\t1"), "{out}");
}

#[test]
fn a_privileged_one_has_all_capabilities_and_no_filter() {
    let mut s = host_users(spec("grep -E 'CapEff|Seccomp:' /proc/self/status; mount -t tmpfs x /tmp && echo mounted"));
    s.linux.seccomp = None;
    let all = caps::all();
    s.process.capabilities =
        Some(Capabilities { bounding: all.clone(), effective: all.clone(), permitted: all, ..Capabilities::default() });
    let out = run(&Image::new(), &s).1;
    assert!(out.contains("Seccomp:\t0") && out.ends_with("mounted\n"), "{out}");
}

#[test]
fn a_missing_program_is_named() {
    let image = Image::new();
    let mut s = spec("");
    s.process.args = vec!["no-such-program".into()];
    let error = try_create(&image, &s).err().unwrap();
    assert!(error.is_program_missing() && error.to_string().contains("\"no-such-program\""), "{error}");
    assert!(error.to_string().contains("PATH=/nowhere:/bin"), "{error}");
    s.process.args = vec!["/etc".into()];
    assert!(try_create(&image, &s).err().unwrap().is_program_refused());
}

#[test]
fn a_link_in_the_image_cannot_lead_a_mount_out() {
    let image = Image::new();
    let outside = tempfile::tempdir().unwrap();
    let source = tempfile::tempdir().unwrap();
    std::fs::write(source.path().join("mark"), "x").unwrap();
    std::fs::set_permissions(source.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink(outside.path(), image.path("data")).unwrap();
    symlink("../../../../../..", image.path("up")).unwrap();
    let bind = |destination: &str| Mount {
        destination: destination.into(),
        kind: Some("bind".into()),
        source: Some(source.path().to_str().unwrap().into()),
        options: vec!["rbind".into(), "ro".into()],
        ..Mount::default()
    };
    let mut s = spec("cat /v/mark; touch /v/y");
    s.mounts.push(bind("/up/v"));
    let (_, out) = run(&image, &s);
    assert!(out.starts_with('x') && out.contains("Read-only"), "{out}");
    assert!(image.path("v").exists() && !outside.path().join("v").exists());
    let mut s = spec("true");
    s.mounts.push(bind("/data/deep"));
    let error = try_create(&image, &s).err();
    assert!(std::fs::read_dir(outside.path()).unwrap().next().is_none(), "{error:?}");
}

#[test]
fn nothing_is_mounted_over_proc() {
    let image = Image::new();
    symlink("/proc/sys", image.path("evil")).unwrap();
    for destination in ["/proc/sys", "/evil"] {
        let mut s = spec("true");
        s.mounts.push(Mount { destination: destination.into(), kind: Some("tmpfs".into()), ..Mount::default() });
        let error = try_create(&image, &s).err().unwrap().to_string();
        assert!(error.contains(&format!("mount {destination}")), "{error}");
    }
}

#[test]
fn a_file_can_be_bound_where_there_was_none_with_mapped_owners() {
    let image = Image::new();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "nameserver 192.0.2.1\n").unwrap();
    let mut s = spec("cat /etc/resolv.conf; stat -c %u /etc/resolv.conf");
    s.mounts.push(Mount {
        destination: "/etc/resolv.conf".into(),
        kind: Some("bind".into()),
        source: Some(file.path().to_str().unwrap().into()),
        options: vec!["bind".into(), "idmap".into()],
        ..Mount::default()
    });
    assert_eq!(run(&image, &s).1, "nameserver 192.0.2.1\n0\n");
}

#[test]
fn standard_output_can_be_opened_again() {
    let mut s = spec("echo again >/dev/stdout; ls -ln /dev/null");
    s.process.user.uid = 33;
    s.process.user.gid = 33;
    let out = run(&Image::new(), &s).1;
    assert!(out.starts_with("again\n") && out.contains("crw-rw-rw-"), "{out}");
}

#[test]
fn a_working_folder_is_made_and_entered() {
    let mut s = spec("pwd");
    s.process.cwd = "/etc/deep/er".into();
    assert_eq!(run(&Image::new(), &s).1, "/etc/deep/er\n");
}

#[test]
fn kernel_parameters_of_its_own_are_set_and_the_hosts_refused() {
    let image = Image::new();
    let mut s = spec("cat /proc/sys/net/ipv4/ip_unprivileged_port_start");
    s.linux.sysctl.insert("net.ipv4.ip_unprivileged_port_start".into(), "0".into());
    assert_eq!(run(&image, &s).1, "0\n");
    s.linux.sysctl.insert("kernel.panic".into(), "1".into());
    assert!(matches!(try_create(&image, &s).err(), Some(Error::Config { .. })));
}

#[test]
fn a_container_that_is_dropped_unstarted_is_gone() {
    let image = Image::new();
    let (created, mut reader) = try_create(&image, &spec("echo never")).unwrap();
    let pid = created.pid();
    assert!(created.net_ns().is_ok());
    drop(created);
    let mut out = String::new();
    reader.read_to_string(&mut out).unwrap();
    assert_eq!(out, "");
    assert!(!Path::new(&format!("/proc/{pid}/ns")).exists());
}

#[test]
fn a_network_namespace_of_another_container_can_be_joined() {
    let image = Image::new();
    let (first, _reader) = try_create(&image, &spec("true")).unwrap();
    let mut s = spec("ls -l /proc/self/ns/net");
    s.linux.namespaces.retain(|n| n.kind != NamespaceKind::Network);
    let path = format!("/proc/{}/ns/net", first.pid());
    let link = std::fs::read_link(&path).unwrap();
    s.linux.namespaces.push(Namespace { kind: NamespaceKind::Network, path: Some(path) });
    let out = run(&image, &s).1;
    assert!(out.contains(link.to_str().unwrap()), "{out}");
}

#[test]
fn signals_that_the_runtime_ignores_are_the_containers_again() {
    let mut s = spec("");
    s.process.args = ["grep", "-E", "SigIgn|SigBlk", "/proc/self/status"].map(String::from).to_vec();
    let out = run(&Image::new(), &s).1;
    assert!(out.contains("SigIgn:\t0000000000000000") && out.contains("SigBlk:\t0000000000000000"), "{out}");
}
