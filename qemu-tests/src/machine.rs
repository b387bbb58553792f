//! A virtual machine: QEMU with UEFI firmware, one disk, user-mode network, a hardware watchdog and a serial console.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, ErrorKind, Read, Write};
use std::net::TcpListener;
use std::os::unix::fs::FileExt as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use keel_image::vm;
use keel_spec::gpt::{SECTOR_BYTES, Table};
use serde_json::{Value, json};

use crate::build::Build;
use crate::tpm::Tpm;

/// Firmware of Debian's `ovmf` package.
pub const FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// Its variable store, copied for each machine.
pub const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";
/// Firmware that enforces Secure Boot, which needs system management mode.
const SECURE_FIRMWARE_CODE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
/// A variable store in which Debian's test key is enrolled, as PK, KEK and `db`; the key, and the word that opens it.
pub const SNAKEOIL_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.snakeoil.fd";
/// Its private key, PEM, and beside it the certificate, `.pem`.
pub const SNAKEOIL_KEY: &str = "/usr/share/ovmf/PkKek-1-snakeoil.key";
/// The word that opens the private key.
pub const SNAKEOIL_PASSWORD: &str = "snakeoil";
/// How the guest reaches the workstation's loopback through QEMU's user network.
pub const WORKSTATION_IN_GUEST: &str = "10.0.2.2";

/// Most events of QEMU's between a command and its answer.
const MAX_EVENTS: usize = 1000;

/// How guest time passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As on the workstation.
    Real,
    /// A nanosecond an instruction (`-icount shift=0`), for figures that repeat.
    Instructions,
}

impl Clock {
    /// Longest wait for a machine to be healthy, with another one beside it under software emulation.
    pub const fn boot_limit(self) -> Duration {
        match self {
            Self::Real => Duration::from_secs(240),
            // Nothing is left to chance in such a guest, so it may take its time.
            Self::Instructions => Duration::from_secs(1200),
        }
    }
}

impl Clock {
    /// What a watchdog that isn't fed does. A clock of instructions leaps while the guest waits for its disk: on a busy
    /// workstation that took for a hang what was none.
    fn watchdog(self) -> &'static str {
        match self {
            Self::Real => "watchdog=reset",
            Self::Instructions => "watchdog=none",
        }
    }
}

/// What a machine is made of. The disk and the firmware's variables lie in `dir` and outlive the machine.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Folder of this machine's files.
    pub dir: PathBuf,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// How guest time passes.
    pub clock: Clock,
    /// A kernel for finding out whether KVM works.
    pub kernel: PathBuf,
    /// Guest TCP ports that are reached on the workstation's loopback.
    pub guest_ports: Vec<u16>,
    /// Text of `keel.toml`, handed over as a fw_cfg file; empty: none.
    pub config: String,
    /// A file that everything is recorded in that reaches the disk; see [`crate::writes`]. Each power-on begins anew.
    pub recording: Option<PathBuf>,
    /// Whether the firmware starts only what is signed by a key in its variables; see [`SNAKEOIL_VARIABLES`].
    pub secure_boot: bool,
    /// Whether there is a TPM; what it holds outlives the machine, too.
    pub tpm: bool,
    /// The image of a second disk, which can't be written.
    pub plugged: Option<PathBuf>,
}

impl Hardware {
    /// A machine of the usual size, with a disk of its own copied from `disk` and grown to `disk_bytes` (sparse).
    pub fn with_disk(build: &Build, dir: &Path, disk: &Path, disk_bytes: u64) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
        let copy = dir.join("disk.raw");
        let done = Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .args([disk, copy.as_path()])
            .status()
            .context("run cp")?;
        if !done.success() {
            bail!("cp {} {} failed: {done}", disk.display(), copy.display());
        }
        let file = File::options().write(true).open(&copy)?;
        if file.metadata()?.len() < disk_bytes {
            file.set_len(disk_bytes)?;
        }
        let hardware = Self {
            dir: dir.to_owned(),
            memory_mib: 1024,
            clock: Clock::Real,
            kernel: build.kernel()?,
            guest_ports: vec![2376, 8080],
            config: String::new(),
            recording: None,
            secure_boot: false,
            tpm: false,
            plugged: None,
        };
        hardware.set_variables(FIRMWARE_VARIABLES)?;
        Ok(hardware)
    }

    /// The machine's disk.
    pub fn disk(&self) -> PathBuf {
        self.dir.join("disk.raw")
    }

    /// The disk's partition table, and the disk, for tests that change it while the machine is off.
    pub fn partition_table(&self) -> Result<(Table, File)> {
        Self::table_of(&self.disk())
    }

    /// Writes both copies of a partition table.
    pub fn put_table(table: &Table, disk: &File) -> Result<()> {
        disk.write_all_at(&table.primary(), 0)?;
        Ok(disk.write_all_at(&table.backup(), table.backup_lba() * SECTOR_BYTES as u64)?)
    }

    /// The partition table of a disk's image, and the image.
    pub fn table_of(path: &Path) -> Result<(Table, File)> {
        let disk = File::options().read(true).write(true).open(path);
        let disk = disk.with_context(|| format!("open {}", path.display()))?;
        let (mut primary, mut backup) = ([0; 34 * SECTOR_BYTES], [0; 33 * SECTOR_BYTES]);
        disk.read_exact_at(&mut primary, 0)?;
        // Where the backup is, the primary header says (UEFI 2.10, 5.3.2): the disk may have grown since.
        let at = u64::from_le_bytes(primary[SECTOR_BYTES + 32..SECTOR_BYTES + 40].try_into()?);
        let backup_lba = at.checked_sub(32).context("place of the backup table")?;
        disk.read_exact_at(&mut backup, backup_lba.saturating_mul(SECTOR_BYTES as u64))?;
        let (table, _) = Table::read(&primary, &backup)?;
        Ok((table, disk))
    }

    /// The machine's kind and its firmware.
    fn firmware(&self) -> Result<Vec<String>> {
        let (kind, code) = match self.secure_boot {
            false => ("q35,smm=off", FIRMWARE_CODE),
            true => ("q35,smm=on", SECURE_FIRMWARE_CODE),
        };
        let flash = |unit, options: &str, file: &str| format!("if=pflash,format=raw,unit={unit}{options},file={file}");
        let variables = self.dir.join("variables.fd");
        let (code, variables) = (flash(0, ",readonly=on", code), flash(1, "", path(&variables)?));
        let mut arguments = vec!["-M", kind, "-drive", &code, "-drive", &variables];
        if self.secure_boot {
            // Only from system management mode may the variables be written.
            arguments.extend(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
        }
        Ok(arguments.into_iter().map(str::to_owned).collect())
    }

    /// What an emulated machine forgets at a restart.
    fn forget_code(&self) -> Result<Vec<String>> {
        path(&self.dir)?;
        let emulated = !has_kvm(self.clock, &self.kernel);
        Ok(if emulated { vm::forget_code(&self.dir, self.memory_mib)?.into() } else { Vec::new() })
    }

    /// The disk as QEMU's block layer has it, by the name `disk`.
    fn block_devices(&self) -> Result<Vec<String>> {
        let disk = self.disk();
        let file = path(&disk)?;
        let Some(recording) = &self.recording else {
            return Ok(vec!["-drive".into(), format!("if=none,id=disk,format=raw,discard=unmap,file={file}")]);
        };
        File::create(recording).with_context(|| format!("create {}", recording.display()))?;
        let nodes = [
            format!("driver=file,node-name=disk-file,discard=unmap,filename={file}"),
            format!("driver=file,node-name=log-file,filename={}", path(recording)?),
            "driver=blklogwrites,node-name=disk,discard=unmap,file=disk-file,log=log-file".into(),
        ];
        Ok(nodes.into_iter().flat_map(|node| ["-blockdev".into(), node]).collect())
    }

    /// Replaces the firmware's variables; the machine is off.
    pub fn set_variables(&self, store: &str) -> Result<()> {
        let done = fs::copy(store, self.dir.join("variables.fd"));
        done.map(drop).with_context(|| format!("copy {store}: is the package ovmf installed?"))
    }

    /// Switches the machine on.
    pub fn power_on(&self) -> Result<Machine> {
        Machine::start(self)
    }
}

/// A machine that is switched on. Dropping it cuts the power.
pub struct Machine {
    qemu: Child,
    /// What the serial console has shown.
    serial: PathBuf,
    /// Socket on which it can be typed at.
    typing: PathBuf,
    monitor: PathBuf,
    forwards: Vec<(u16, u16)>,
    /// Held for as long as the machine runs.
    _tpm: Option<Tpm>,
}

impl Machine {
    fn start(hardware: &Hardware) -> Result<Self> {
        let dir = &hardware.dir;
        let serial = dir.join("serial.log");
        let (monitor, typing) = (dir.join("monitor.sock"), dir.join("serial.sock"));
        for socket in [&monitor, &typing] {
            let _ = fs::remove_file(socket);
        }
        let forwards = free_ports(&hardware.guest_ports)?;
        let config = dir.join("keel.toml");
        fs::write(&config, &hardware.config)?;
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-nodefaults", "-no-user-config", "-display", "none"])
            .args(hardware.firmware()?)
            .args(["-m", &hardware.memory_mib.to_string()])
            .args(accelerator(hardware.clock, &hardware.kernel))
            .args(hardware.forget_code()?)
            .args(hardware.block_devices()?)
            .args(["-device", "virtio-blk-pci,drive=disk,bootindex=0"])
            .args(["-netdev", &network(&forwards), "-device", "virtio-net-pci,netdev=net,romfile="])
            .args(["-device", "i6300esb", "-action", hardware.clock.watchdog(), "-device", "virtio-rng-pci"])
            .args(["-chardev", &serial_device(&typing, &serial)?])
            .args(["-serial", "chardev:serial"])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", path(&monitor)?)]);
        if !hardware.config.is_empty() {
            command.args(["-fw_cfg", &format!("name=opt/org.keel/keel.toml,file={}", path(&config)?)]);
        }
        if let Some(plugged) = &hardware.plugged {
            let drive = format!("if=none,id=plugged,format=raw,readonly=on,file={}", path(plugged)?);
            command.args(["-drive", &drive, "-device", "virtio-blk-pci,drive=plugged"]);
        }
        let tpm = hardware.tpm.then(|| Tpm::start(dir)).transpose()?;
        command.args(tpm.iter().flat_map(|(_, arguments)| arguments));
        let messages = File::create(dir.join("qemu.log"))?;
        let qemu = command
            .stdin(Stdio::null())
            .stdout(messages.try_clone()?)
            .stderr(messages)
            .spawn()
            .context("start qemu-system-x86_64: is the package qemu-system-x86 installed?")?;
        Ok(Self { qemu, serial, typing, monitor, forwards, _tpm: tpm.map(|(tpm, _)| tpm) })
    }

    /// The workstation's port behind which a guest port is.
    pub fn port(&self, guest_port: u16) -> Result<u16> {
        self.forwards
            .iter()
            .find(|(guest, _)| *guest == guest_port)
            .map(|(_, host)| *host)
            .with_context(|| format!("guest port {guest_port} isn't forwarded"))
    }

    /// All that the serial console has shown in this folder's life, over several power-ons.
    pub fn console(&self) -> String {
        fs::read(&self.serial).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// Process ID of QEMU.
    pub fn pid(&self) -> u32 {
        self.qemu.id()
    }

    /// Waits until the console shows `text` after its first `skip_bytes`; the end of the console is in the error.
    pub fn wait_console(&mut self, text: &str, skip_bytes: usize, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            let console = self.console();
            if console.get(skip_bytes.min(console.len())..).is_some_and(|new| new.contains(text)) {
                return Ok(());
            }
            if let Some(status) = self.qemu.try_wait()? {
                bail!("QEMU ended ({status}) before its console showed {text:?}:\n{}", tail(&console));
            }
            if begun.elapsed() > limit {
                bail!("console didn't show {text:?} within {limit:?}:\n{}", tail(&console));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Types a line at the serial console and waits until `answer` is shown after it. Returns what was shown.
    pub fn type_line(&mut self, line: &str, answer: &str, limit: Duration) -> Result<String> {
        let before = self.console().len();
        let mut keyboard = UnixStream::connect(&self.typing).context("connect to the serial console")?;
        keyboard.set_read_timeout(Some(Duration::from_millis(50)))?;
        keyboard.write_all(format!("{line}\r").as_bytes())?;
        let begun = Instant::now();
        loop {
            // The connection is kept and read until the answer is there: what isn't read would hold the guest up.
            let closed = match keyboard.read(&mut [0; 4096]) {
                Ok(count) => count == 0,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => false,
                Err(error) => return Err(error).context("read the serial console"),
            };
            let console = self.console();
            let shown = console.get(before.min(console.len())..).unwrap_or_default();
            if shown.contains(answer) {
                return Ok(shown.to_owned());
            }
            if closed || begun.elapsed() > limit {
                bail!("{line:?}, typed at the console, didn't bring {answer:?} within {limit:?}:\n{}", tail(&console));
            }
        }
    }

    /// Waits until the guest has powered itself off.
    pub fn wait_off(&mut self, limit: Duration) -> Result<()> {
        let begun = Instant::now();
        while self.qemu.try_wait()?.is_none() {
            if begun.elapsed() > limit {
                bail!("machine didn't power off within {limit:?}:\n{}", tail(&self.console()));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Cuts the power: QEMU is killed, whatever the guest was doing.
    pub fn cut_power(mut self) -> Result<()> {
        self.qemu.kill()?;
        self.qemu.wait()?;
        Ok(())
    }

    /// Presses the reset button.
    pub fn reset(&self) -> Result<()> {
        self.ask("system_reset").map(drop)
    }

    /// Instructions that the guest has executed; only with [`Clock::Instructions`].
    pub fn instructions(&self) -> Result<u64> {
        let answer = self.ask("query-replay")?;
        answer["icount"].as_u64().with_context(|| format!("QEMU's count of instructions: {answer}"))
    }

    /// Whether QEMU lets the machine run, and where its processor is, twice: what a machine that says nothing hangs at.
    /// For error messages.
    pub fn whereabouts(&self) -> String {
        let look = || {
            let command = json!({ "command-line": "info registers" });
            let registers = self.order("human-monitor-command", &command)?;
            let lines = registers.as_str().unwrap_or_default().lines();
            let telling = lines.filter(|line| ["RIP=", "CR0="].iter().any(|name| line.contains(name)));
            Ok::<_, anyhow::Error>(telling.map(str::trim).collect::<Vec<_>>().join(" "))
        };
        let state = || self.ask("query-status").map(|status| status["status"].to_string());
        let first = look();
        std::thread::sleep(Duration::from_millis(500));
        [state(), first, look()].map(|seen| seen.unwrap_or_else(|error| format!("{error:#}"))).join("\n")
    }

    /// Gives QEMU's monitor a command without arguments.
    fn ask(&self, command: &str) -> Result<Value> {
        self.order(command, &json!({}))
    }

    /// Gives QEMU's monitor a command (QMP); returns its answer.
    fn order(&self, command: &str, arguments: &Value) -> Result<Value> {
        let mut monitor = UnixStream::connect(&self.monitor).context("connect to QEMU's monitor")?;
        monitor.set_read_timeout(Some(Duration::from_secs(10)))?;
        let mut lines = BufReader::new(monitor.try_clone()?).lines();
        for (next, arguments) in [("qmp_capabilities", &json!({})), (command, arguments)] {
            writeln!(monitor, "{}", json!({ "execute": next, "arguments": arguments }))?;
            // The greeting, and what happens meanwhile, come between.
            for line in lines.by_ref().take(MAX_EVENTS) {
                let answer: Value = serde_json::from_str(&line.with_context(|| format!("QEMU's answer to {next}"))?)?;
                ensure!(answer.get("error").is_none(), "QEMU's answer to {next}: {answer}");
                match answer.get("return") {
                    Some(done) if next == command => return Ok(done.clone()),
                    Some(_) => break,
                    None => {}
                }
            }
        }
        bail!("QEMU doesn't answer {command}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// The last lines of a console, for error messages.
pub fn tail(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(60)..].join("\n")
}

/// KVM where a guest runs on it, which is found out once. Else software emulation, of one processor: with several,
/// QEMU 7.2 was seen to break guests that patch their own code. The processor has a thread of its own (`multi`), as it
/// has for QEMU's users: with the round-robin loop (`single`) machines were seen to stand still after a warm restart,
/// their clock too.
pub(crate) fn accelerator(clock: Clock, kernel: &Path) -> Vec<&'static str> {
    if has_kvm(clock, kernel) {
        return vec!["-accel", "kvm", "-cpu", "host", "-smp", "2"];
    }
    let processor = ["-cpu", "max", "-smp", "1"];
    match clock {
        Clock::Real => [&["-accel", "tcg,thread=multi"][..], &processor].concat(),
        // Instructions can only be counted in the round-robin loop.
        Clock::Instructions => {
            [&["-accel", "tcg,thread=single"][..], &processor, &["-icount", "shift=0,sleep=off"]].concat()
        }
    }
}

/// Whether a machine runs on KVM.
fn has_kvm(clock: Clock, kernel: &Path) -> bool {
    static KVM: OnceLock<bool> = OnceLock::new();
    clock == Clock::Real && *KVM.get_or_init(|| vm::kvm_works(kernel))
}

/// A serial line that keeps what it shows in a file, and that can be typed at through a socket.
fn serial_device(socket: &Path, log: &Path) -> Result<String> {
    Ok(format!("socket,id=serial,path={},server=on,wait=off,logfile={},logappend=on", path(socket)?, path(log)?))
}

fn network(forwards: &[(u16, u16)]) -> String {
    let forwards: String =
        forwards.iter().map(|(guest, host)| format!(",hostfwd=tcp:127.0.0.1:{host}-:{guest}")).collect();
    format!("user,id=net{forwards}")
}

/// QEMU's option syntax takes a comma in a path for the end of a value.
pub(crate) fn path(path: &Path) -> Result<&str> {
    let text = path.to_str().with_context(|| format!("{} isn't UTF-8", path.display()))?;
    if text.contains(',') {
        bail!("{text}: QEMU can't take a path with a comma");
    }
    Ok(text)
}

/// Chooses a free port of the workstation for each guest port. All are held until all are chosen.
fn free_ports(guest_ports: &[u16]) -> Result<Vec<(u16, u16)>> {
    let held: Vec<(u16, TcpListener)> = guest_ports
        .iter()
        .map(|guest| Ok((*guest, TcpListener::bind(("127.0.0.1", 0))?)))
        .collect::<Result<_>>()
        .context("choose free ports on loopback")?;
    held.iter().map(|(guest, listener)| Ok((*guest, listener.local_addr()?.port()))).collect()
}
