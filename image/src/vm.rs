//! The verb `run`: a disk image in a virtual machine, through firmware and boot loader, serial console on stdio.

use std::fs::File;
use std::io::Read as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use keel_spec::paths::FW_CFG_MACHINE_CONFIG;

use crate::files::{self, FileError, at};

/// Why the machine can't be started.
#[derive(Debug, thiserror::Error)]
pub enum VmError {
    /// A file or program failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// A port on this workstation is taken.
    #[error(
        "port {port} of 127.0.0.1 is taken: stop what listens there, or choose another with `make run {variable}=NUMBER`"
    )]
    PortTaken {
        /// The port.
        port: u16,
        /// The Makefile's variable for it.
        variable: &'static str,
    },
    /// QEMU's firmware isn't installed.
    #[error("there is no firmware {}: `make deps` installs it", .0.display())]
    NoFirmware(PathBuf),
}

/// Bytes of the machine's disk, sparse: the host grows its state partition to the end.
const DISK_BYTES: u64 = 8 << 30;
/// For how long a probing guest may take to get to the end of its kernel's start; on KVM it takes one second.
const PROBE: Duration = Duration::from_secs(5);
/// MiB at the end of memory that are set to zero at each restart under emulation; see [`forget_code`].
const FORGOTTEN_MIB: u32 = 32;
const FIRMWARE: &str = "/usr/share/OVMF";
const QEMU: &str = "qemu-system-x86_64";

/// What to run.
#[derive(Debug)]
pub struct Order<'a> {
    /// The disk image; the machine gets a copy.
    pub disk: &'a Path,
    /// Folder of the machine's disk and firmware variables, kept from run to run.
    pub folder: &'a Path,
    /// Start with a new copy.
    pub fresh: bool,
    /// Machine config, handed over by fw_cfg.
    pub config: &'a Path,
    /// A kernel for finding out whether KVM works.
    pub kernel: &'a Path,
    /// Port of the API, in the machine and on the workstation alike, so that what the panel shows is true for both.
    pub api_port: u16,
    /// Workstation's port for the containers' port 8080.
    pub web_port: u16,
    /// MiB of memory.
    pub memory_mib: u32,
}

/// Starts the machine in the place of this process; returns only if that fails.
pub fn run(order: &Order) -> Result<(), VmError> {
    for (port, variable) in [(order.api_port, "PORT"), (order.web_port, "WEB_PORT")] {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map_err(|_| VmError::PortTaken { port, variable })?;
    }
    prepare(order)?;
    let (accelerator, emulated) = accelerator(order.kernel);
    let forget = if emulated { forget_code(order.folder, order.memory_mib)?.to_vec() } else { Vec::new() };
    log::info!(
        "starting the machine ({}); Ctrl-A X ends it; from here: export DOCKER_HOST=tcp://127.0.0.1:{} DOCKER_TLS_VERIFY=1 DOCKER_CERT_PATH=$PWD/build/certs",
        accelerator[1].split(',').next().unwrap_or_default(),
        order.api_port
    );
    let source = Command::new(QEMU).args(accelerator).args(forget).args(arguments(order)).exec();
    Err(FileError::Start { program: QEMU.into(), source }.into())
}

/// The machine's own disk and firmware variables.
fn prepare(order: &Order) -> Result<(), VmError> {
    let code = Path::new(FIRMWARE).join("OVMF_CODE_4M.fd");
    if !code.exists() {
        return Err(VmError::NoFirmware(code));
    }
    files::create_folder(order.folder)?;
    let (disk, variables) = (order.folder.join("disk.raw"), order.folder.join("vars.fd"));
    if order.fresh || !disk.exists() || !variables.exists() {
        let mut copy = Command::new("cp");
        files::run(copy.arg("--sparse=always").arg(order.disk).arg(&disk))?;
        let file = File::options().write(true).open(&disk).map_err(at("open", &disk))?;
        file.set_len(DISK_BYTES).map_err(at("size", &disk))?;
        files::copy(&Path::new(FIRMWARE).join("OVMF_VARS_4M.fd"), &variables, 0o644)?;
    } else {
        log::info!("going on with {}; FRESH=1 starts from the image again", disk.display());
    }
    Ok(())
}

fn arguments(order: &Order) -> Vec<String> {
    let (disk, variables) = (order.folder.join("disk.raw"), order.folder.join("vars.fd"));
    let drive = |unit, read_only, path: &Path| {
        format!("if=pflash,unit={unit},format=raw,readonly={read_only},file={}", path.display())
    };
    let words = [
        "-M",
        "q35",
        "-m",
        &order.memory_mib.to_string(),
        "-no-user-config",
        "-nodefaults",
        "-display",
        "none",
        "-serial",
        "mon:stdio",
        "-drive",
        &drive(0, "on", &Path::new(FIRMWARE).join("OVMF_CODE_4M.fd")),
        "-drive",
        &drive(1, "off", &variables),
        "-drive",
        &format!("if=none,id=disk,format=raw,discard=unmap,file={}", disk.display()),
        "-device",
        "virtio-blk-pci,drive=disk,bootindex=1",
        "-netdev",
        &format!(
            "user,id=net,hostfwd=tcp:127.0.0.1:{0}-:{0},hostfwd=tcp:127.0.0.1:{1}-:8080",
            order.api_port, order.web_port
        ),
        "-device",
        "virtio-net-pci,netdev=net,romfile=",
        "-device",
        "virtio-rng-pci",
        "-device",
        "i6300esb",
        "-action",
        "watchdog=reset",
        "-fw_cfg",
        &format!("name={FW_CFG_MACHINE_CONFIG},file={}", order.config.display()),
    ];
    words.into_iter().map(str::to_owned).collect()
}

/// KVM where a guest really runs on it, else emulation (`true`) with one processor: emulated kernels with several have
/// crashed.
fn accelerator(kernel: &Path) -> ([&'static str; 6], bool) {
    if kvm_works(kernel) {
        (["-accel", "kvm", "-cpu", "host", "-smp", "2"], false)
    } else {
        log::info!("KVM can't run guests here, so the machine is emulated; it will be slow");
        (["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "1"], true)
    }
}

/// QEMU's options by which an emulated machine begins each restart without the code of the system before it where
/// firmware has its stack. QEMU 7.2 keeps its translation of a page's code until the code's own bytes are written, and
/// until then each write to that page takes a way that is some hundred times longer. Where the kernel before a restart
/// had code in the page that is firmware's stack after it, unpacking the next kernel took minutes. A loader device
/// writes its file to memory at each reset, and zeros over the end of memory make QEMU forget.
///
/// The file is made in `folder`, whose path has no comma.
pub fn forget_code(folder: &Path, memory_mib: u32) -> Result<[String; 2], FileError> {
    let zeros = folder.join("zeros.bin");
    let file = File::create(&zeros).map_err(at("create", &zeros))?;
    file.set_len(u64::from(FORGOTTEN_MIB) << 20).map_err(at("size", &zeros))?;
    // From 2,816 MiB on, a q35 machine has 2 GiB of its memory below 4 GiB, where firmware is.
    let end_mib = if memory_mib >= 2816 { 2048 } else { memory_mib };
    let address = u64::from(end_mib.saturating_sub(FORGOTTEN_MIB)) << 20;
    Ok(["-device".into(), format!("loader,force-raw=on,addr={address:#x},file={}", zeros.display())])
}

/// Whether a kernel without any root gets as far as missing it. That `/dev/kvm` opens says little on a workstation
/// that is a guest itself.
pub fn kvm_works(kernel: &Path) -> bool {
    if File::options().read(true).write(true).open("/dev/kvm").is_err() {
        return false;
    }
    let mut command = Command::new(QEMU);
    command.args(["-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-no-user-config", "-nodefaults"]);
    command.args(["-display", "none", "-serial", "stdio", "-no-reboot", "-append", "console=ttyS0 panic=-1"]);
    command.arg("-kernel").arg(kernel).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let Ok(mut child) = command.spawn() else { return false };
    let Some(mut output) = child.stdout.take() else { return false };
    let reader = std::thread::spawn(move || {
        let mut text = Vec::new();
        // The guest's kernel prints some 50 KiB; more is not looked at.
        let _ = output.by_ref().take(1 << 20).read_to_end(&mut text);
        text
    });
    let deadline = Instant::now() + PROBE;
    while Instant::now() < deadline && matches!(child.try_wait(), Ok(None)) {
        std::thread::sleep(Duration::from_millis(50));
    }
    let _ = child.kill();
    let _ = child.wait();
    let text = reader.join().unwrap_or_default();
    String::from_utf8_lossy(&text).contains("Unable to mount root fs")
}
