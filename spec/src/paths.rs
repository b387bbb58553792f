//! Where things are on a host. Sockets first: programs talk over these, never by sharing files.

/// PID 1's control socket (`SOCK_SEQPACKET`), for host programs alone. See [`crate::control`].
pub const CONTROL_SOCKET: &str = "/run/keel/control";
/// D-Bus of the host services, peer to peer. See `bus::Host`.
pub const HOST_BUS: &str = "/run/keel/host";
/// D-Bus of the updater, peer to peer. See `bus::Updater`.
pub const UPDATER_BUS: &str = "/run/keel/updater";
/// The Docker Engine API and `/keel/v1/` on the host itself.
pub const API_SOCKET: &str = "/run/keel/api.sock";
/// Resolver configuration written by the network service; `/etc/resolv.conf` is a link to it.
pub const RESOLV_CONF: &str = "/run/keel/resolv.conf";

/// Folder of the host programs on the verified root.
pub const PROGRAMS: &str = "/usr/lib/keel";
/// Description of the running release, in the format of os-release(5).
pub const OS_RELEASE: &str = "/usr/lib/os-release";
/// The root metadata of The Update Framework that the running release trusts.
pub const TUF_ROOT: &str = "/usr/share/keel/tuf/root.json";
/// Certificate authorities of the running release, PEM.
pub const CA_CERTIFICATES: &str = "/etc/ssl/certs/ca-certificates.crt";
/// Where kernel modules are: `<this>/<kernel release>/`.
pub const MODULES: &str = "/usr/lib/modules";

/// Where the state partition is mounted.
pub const STATE_MOUNT: &str = "/var";
/// State of the provisioning service: the last good machine config.
pub const HOST_STATE: &str = "/var/lib/keel/host";
/// What PID 1 leaves for the next boot: [`crate::last_words`].
pub const LAST_WORDS: &str = "/var/lib/keel/init/last-words";
/// State of the updater.
pub const UPDATER_STATE: &str = "/var/lib/keel/updater";
/// State of the runtime: images, containers, TLS keys.
pub const RUNTIME_STATE: &str = "/var/lib/keel/runtime";
/// Where the EFI system partition is mounted while a program needs it; not at other times.
pub const ESP_MOUNT: &str = "/run/keel/esp";
/// Name of the machine config on the EFI system partition, and of a config drive.
pub const MACHINE_CONFIG: &str = "keel.toml";
/// Name of the machine config among QEMU's fw_cfg files.
pub const FW_CFG_MACHINE_CONFIG: &str = "opt/org.keel/keel.toml";
/// EFI variable in which systemd-boot names the booted entry while it still counts its tries
/// (systemd Boot Loader Interface), as efivarfs shows it.
pub const EFI_BOOT_COUNT_PATH: &str =
    "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// EFI variable in which systemd-boot names the booted entry, as efivarfs shows it.
pub const EFI_ENTRY_SELECTED: &str =
    "/sys/firmware/efi/efivars/LoaderEntrySelected-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// cgroup v2 folder of host services; each has a child of its name.
pub const CGROUP_SERVICES: &str = "/sys/fs/cgroup/keel";
/// cgroup v2 folder of containers; each has a child named by its ID.
pub const CGROUP_CONTAINERS: &str = "/sys/fs/cgroup/containers";
