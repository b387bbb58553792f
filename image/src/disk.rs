//! The verb `disk`: a release in, a bootable disk image out.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use keel_spec::disk::{ESP_LABEL, Identity, STATE_LABEL, Sizes, Slot, new_table};
use keel_spec::gpt::{Entry, Guid, SECTOR_BYTES};
use keel_spec::paths::MACHINE_CONFIG;
use keel_spec::release::{Release, ReleaseFile, UkiName};
use keel_spec::verity::BLOCK_BYTES;

use crate::esp::{self, EspError};
use crate::files::{self, FileError, at};
use crate::progress::Steps;
use crate::release::{self, ReleaseError};
use crate::uki::{self, SigningKey};

/// Why a disk image can't be made.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// A file or program failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The EFI system partition can't be made.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// There is no usable release.
    #[error(transparent)]
    Release(#[from] ReleaseError),
    /// Something doesn't fit.
    #[error("{} does not fit into the partition {partition}", path.display())]
    TooLarge {
        /// What.
        path: PathBuf,
        /// Where.
        partition: String,
    },
}

/// What a disk image is made from.
#[derive(Debug)]
pub struct Order<'a> {
    /// Folder of the release.
    pub release: &'a Path,
    /// The boot loader, unsigned.
    pub boot_loader: &'a Path,
    /// Secure Boot key.
    pub key: SigningKey,
    /// Machine config to put on the EFI system partition.
    pub config: Option<&'a Path>,
}

/// `timeout 0` boots at once; no editor, because the command line is part of what is signed.
const LOADER_CONFIG: &str = "timeout 0\neditor no\nauto-firmware no\nconsole-mode keep\n";

/// Makes the image, sparse, unless it is newer than all it is made from.
pub fn make(order: &Order, out: &Path) -> Result<(), DiskError> {
    let (release, description) = release::read(order.release)?;
    if is_newer(out, [Some(description.as_path()), Some(order.boot_loader), order.config]) {
        log::info!("disk image {} is up to date", out.display());
        return Ok(());
    }
    let steps = Steps::new(4);
    let folder = out.parent().unwrap_or(Path::new("."));
    files::create_folder(folder)?;
    let temporary = out.with_extension("part");
    let file_of = |file: ReleaseFile| order.release.join(file.target_name(&release.profile, &release.version));

    steps.begin("partition table");
    let root_bytes = release.root_blocks.saturating_mul(BLOCK_BYTES as u64);
    let sizes = Sizes::CLOUD.holding(root_bytes, release.tree_bytes, release.uki_bytes);
    let table = new_table(&identity(&release), &sizes, &release.root_hash);
    let image = File::create(&temporary).map_err(at("create", &temporary))?;
    let sized = image.set_len(table.sectors * SECTOR_BYTES as u64);
    sized.map_err(at("size", &temporary))?;
    image.write_all_at(&table.primary(), 0).map_err(at("write", &temporary))?;
    let backup_at = table.backup_lba() * SECTOR_BYTES as u64;
    image.write_all_at(&table.backup(), backup_at).map_err(at("write", &temporary))?;

    let entry = |label: &str| {
        table.by_name(label).cloned().ok_or(DiskError::TooLarge { path: out.into(), partition: label.into() })
    };
    steps.begin("EFI system partition");
    let content = esp_content(order, &release, folder)?;
    let place = entry(ESP_LABEL)?;
    esp::make(&temporary, place.offset_bytes(), place.size_bytes(), &content)?;

    steps.begin("root and hash tree");
    copy_into(&file_of(ReleaseFile::Root), &image, &temporary, &entry(Slot::A.root_label())?)?;
    copy_into(&file_of(ReleaseFile::Tree), &image, &temporary, &entry(Slot::A.verity_label())?)?;

    steps.begin("state file system");
    let state = make_state(folder, &release)?;
    copy_into(&state, &image, &temporary, &entry(STATE_LABEL)?)?;
    std::fs::remove_file(&state).map_err(at("remove", &state))?;
    image.sync_all().map_err(at("write", &temporary))?;
    std::fs::rename(&temporary, out).map_err(at("write", out))?;
    steps.end(&format!("disk image {}", out.display()));
    Ok(())
}

fn is_newer<'a>(out: &Path, sources: impl IntoIterator<Item = Option<&'a Path>>) -> bool {
    let changed = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    let Some(made) = changed(out) else { return false };
    sources.into_iter().flatten().all(|path| changed(path).is_some_and(|time| time < made))
}

/// GUIDs follow from the release, so that equal releases make equal images.
fn identity(release: &Release) -> Identity {
    let guid = |purpose: &[u8]| {
        let digest = files::sha256(&[purpose, release.root_hash.as_bytes()]);
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        Guid::random(bytes)
    };
    Identity { disk: guid(b"disk"), esp: guid(b"esp"), state: guid(b"state") }
}

fn esp_content(order: &Order, release: &Release, folder: &Path) -> Result<Vec<(String, Vec<u8>)>, DiskError> {
    let signed = folder.join("boot-loader.signed");
    uki::sign(order.boot_loader, &order.key, &signed)?;
    let loader = files::read(&signed)?;
    std::fs::remove_file(&signed).map_err(at("remove", &signed))?;
    let uki_file = ReleaseFile::Uki.target_name(&release.profile, &release.version);
    let uki = files::read(&order.release.join(uki_file))?;
    let mut content = vec![
        ("EFI/BOOT/BOOTX64.EFI".into(), loader.clone()),
        ("EFI/systemd/systemd-bootx64.efi".into(), loader),
        ("loader/loader.conf".into(), LOADER_CONFIG.into()),
        (format!("{}/{}", UkiName::FOLDER, UkiName::good(release.version.clone())), uki),
    ];
    if let Some(config) = order.config {
        content.push((MACHINE_CONFIG.into(), files::read(config)?));
    }
    Ok(content)
}

/// The state file system: ext4 that the kernel can grow from 64 MiB to terabytes while it is mounted.
/// `meta_bg` without `resize_inode`, because reserved descriptor blocks would end growth at 1024 times the size;
/// a journal of 16 MiB, because it doesn't grow along; fs-verity wants 4 KiB blocks.
fn make_state(folder: &Path, release: &Release) -> Result<PathBuf, DiskError> {
    let path = folder.join("state.ext4");
    let file = File::create(&path).map_err(at("create", &path))?;
    file.set_len(Sizes::CLOUD.state_bytes).map_err(at("size", &path))?;
    let uuid = identity(release).state;
    let mut command = Command::new(files::sbin("mkfs.ext4"));
    command.env("E2FSPROGS_FAKE_TIME", release.built_unix_s.to_string());
    command.args(["-q", "-F", "-b", "4096", "-I", "256", "-i", "16384", "-m", "0", "-J", "size=16", "-L", STATE_LABEL]);
    command.args(["-O", "verity,metadata_csum,64bit,extent,meta_bg,^resize_inode"]);
    command.args(["-U", &uuid.to_string()]);
    command.args(["-E", &format!("root_owner=0:0,hash_seed={uuid},lazy_itable_init=0,lazy_journal_init=0,nodiscard")]);
    files::run(command.arg(&path))?;
    Ok(path)
}

/// Copies a file into a partition; blocks of zeros stay holes.
fn copy_into(from: &Path, image: &File, image_path: &Path, entry: &Entry) -> Result<(), DiskError> {
    let mut source = File::open(from).map_err(at("read", from))?;
    let size = source.seek(SeekFrom::End(0)).map_err(at("read", from))?;
    if size > entry.size_bytes() {
        return Err(DiskError::TooLarge { path: from.into(), partition: entry.name.clone() });
    }
    source.rewind().map_err(at("read", from))?;
    let mut buffer = vec![0; 1 << 20];
    let mut done = 0;
    while done < size {
        let count = source.read(&mut buffer).map_err(at("read", from))?;
        if count == 0 {
            break;
        }
        for (index, part) in buffer[..count].chunks(4096).enumerate() {
            if part.iter().any(|&byte| byte != 0) {
                let offset = entry.offset_bytes() + done + index as u64 * 4096;
                image.write_all_at(part, offset).map_err(at("write", image_path))?;
            }
        }
        done += count as u64;
    }
    let mut image = image;
    Ok(image.flush().map_err(at("write", image_path))?)
}
