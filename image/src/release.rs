//! The verb `release`: programs and Debian's packages in, a signed release out.
//!
//! Equal inputs make equal files, but for the time in the UKI's signature. So a build whose inputs are those of the
//! release that is there already ends at once; the fingerprint of the inputs lies beside it.

use std::path::{Path, PathBuf};

use keel_spec::blocks::BlockList;
use keel_spec::cmdline::BootParameters;
use keel_spec::disk::{MAX_TREE_BYTES, Sizes};
use keel_spec::release::{Release, ReleaseFile, Version};
use keel_spec::verity::BLOCK_BYTES;

use crate::files::{self, FileError};
use crate::inputs::Inputs;
use crate::profile::{Catalogue, Profile, ProfileError};
use crate::progress::Steps;
use crate::root::{self, Plan, RootError};
use crate::tree::{self, HashError};
use crate::uki::{self, SigningKey, UkiError};

/// Why a release can't be made.
#[derive(Debug, thiserror::Error)]
pub enum ReleaseError {
    /// A file or program failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The profile can't be used.
    #[error(transparent)]
    Profile(#[from] ProfileError),
    /// The root can't be made.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The hash tree can't be made.
    #[error(transparent)]
    Hash(#[from] HashError),
    /// The UKI can't be made.
    #[error(transparent)]
    Uki(#[from] UkiError),
    /// The root is larger than hosts can handle.
    #[error(
        "the hash tree of the root has {bytes} bytes, but hosts handle no more than {MAX_TREE_BYTES}: make the root smaller"
    )]
    TooLarge {
        /// Bytes of the tree.
        bytes: u64,
    },
    /// The release in a folder can't be understood.
    #[error("cannot understand the release description {}", .0.display())]
    Description(PathBuf, #[source] serde_json::Error),
    /// A folder holds no release, or several.
    #[error("{} holds {} releases (keel-*.json): want exactly one", .0.display(), .1)]
    Count(PathBuf, usize),
}

/// What a release is made from.
#[derive(Debug)]
pub struct Order<'a> {
    /// Its version.
    pub version: Version,
    /// Name of the profile.
    pub profile_name: &'a str,
    /// The profile's file.
    pub profile: &'a Path,
    /// Folder with the programs.
    pub programs: &'a Path,
    /// Debian's packages.
    pub inputs: &'a Inputs,
    /// Secure Boot key.
    pub key: SigningKey,
    /// The update repository's root metadata to trust.
    pub tuf_root: PathBuf,
    /// Files of the root to be replaced: path in the root, file.
    pub replace: Vec<(String, PathBuf)>,
    /// Further kernel parameters.
    pub command_line: Option<String>,
    /// When it is built.
    pub built_unix_s: u64,
    /// Only a release of at least this version may be updated from directly.
    pub follows_at_least: Option<Version>,
}

/// Makes the release in `out`, where no other may be; an older one there is replaced.
pub fn make(order: &Order, out: &Path) -> Result<Release, ReleaseError> {
    let stamp = out.join("inputs.sha256");
    let fingerprint = order.fingerprint()?;
    if std::fs::read_to_string(&stamp).is_ok_and(|text| text == fingerprint) {
        log::info!("release {} in {} is up to date", order.version, out.display());
        return read(out).map(|(release, _)| release);
    }
    let steps = Steps::new(5);
    files::remove_folder(out)?;
    files::create_folder(out)?;
    let work = out.join("work");
    let file = |file: ReleaseFile| out.join(file.target_name(order.profile_name, &order.version));
    let os_release = uki::os_release(&order.version, order.profile_name, order.built_unix_s);

    steps.begin("choosing kernel modules");
    let profile = Profile::read(order.profile)?;
    let catalogue = Catalogue::read(&order.inputs.modules)?;
    let for_initrd = catalogue.select([&profile.initrd])?;
    let for_boot = catalogue.select([&profile.boot])?;
    let for_root = catalogue.select([&profile.initrd, &profile.boot, &profile.root])?;

    steps.begin("root file system");
    let mut plan = Plan::new(order.programs, order.inputs, &os_release, &order.tuf_root)?;
    for (path, replacement) in &order.replace {
        plan.replace(path, replacement)?;
    }
    let tree = work.join("root");
    files::create_folder(&tree)?;
    plan.stage(&tree)?;
    root::stage_modules(order.inputs, &for_root, &for_boot, &tree)?;
    root::make_erofs(&tree, &file(ReleaseFile::Root), order.built_unix_s)?;

    steps.begin("hash tree");
    let (root_hash, root_blocks) = tree::make(&file(ReleaseFile::Root), &file(ReleaseFile::Tree))?;
    let tree_bytes = size(&file(ReleaseFile::Tree))?;
    fits(root_blocks * BLOCK_BYTES as u64, tree_bytes)?;

    steps.begin("unified kernel image");
    let staged = work.join("initrd");
    let modules = root::stage_modules(order.inputs, &for_initrd, &for_initrd, &staged)?;
    let initrd = root::make_initrd(&order.programs.join("init"), &modules, &order.inputs.kernel_release)?;
    let parameters = BootParameters {
        root_hash,
        root_blocks,
        watchdog_s: BootParameters::DEFAULT_WATCHDOG_S,
        trial_s: BootParameters::DEFAULT_TRIAL_S,
    };
    let parts = uki::Parts {
        stub: &order.inputs.stub,
        os_release: &os_release,
        command_line: &uki::command_line(&parameters, order.command_line.as_deref()),
        kernel_release: &order.inputs.kernel_release,
        kernel: &uki::signed_kernel(&order.inputs.kernel, &order.key, order.key.folder())?,
        initrd: &initrd,
    };
    uki::make(&parts, &order.key, &file(ReleaseFile::Uki))?;
    let list = BlockList::of(&files::read(&file(ReleaseFile::Uki))?, &files::sha256).to_bytes();
    files::write(&file(ReleaseFile::UkiBlocks), &list, 0o644)?;

    steps.begin("release description");
    let release = Release {
        version: order.version.clone(),
        profile: order.profile_name.into(),
        built_unix_s: order.built_unix_s,
        root_hash,
        root_blocks,
        tree_bytes,
        uki_bytes: size(&file(ReleaseFile::Uki))?,
        uki_blocks_bytes: Some(list.len() as u64),
        follows_at_least: order.follows_at_least.clone(),
    };
    let description = file(ReleaseFile::Description);
    let text =
        serde_json::to_vec_pretty(&release).map_err(|error| ReleaseError::Description(description.clone(), error))?;
    files::write(&description, &text, 0o644)?;
    files::remove_folder(&work)?;
    files::write(&stamp, fingerprint.as_bytes(), 0o644)?;
    steps.end(&format!("release {} in {}", release.version, out.display()));
    Ok(release)
}

/// The one release in a folder, and its description's file.
pub fn read(folder: &Path) -> Result<(Release, PathBuf), ReleaseError> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(files::at("list", folder))? {
        let path = entry.map_err(files::at("list", folder))?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        if name.starts_with("keel-") && name.ends_with(".json") {
            found.push(path);
        }
    }
    let [path] = found.as_slice() else { return Err(ReleaseError::Count(folder.into(), found.len())) };
    let release = serde_json::from_slice(&files::read(path)?);
    Ok((release.map_err(|error| ReleaseError::Description(path.clone(), error))?, path.clone()))
}

/// Whether hosts can handle it, and whether they need free space on the disk for it.
fn fits(root_bytes: u64, tree_bytes: u64) -> Result<(), ReleaseError> {
    if tree_bytes > MAX_TREE_BYTES {
        return Err(ReleaseError::TooLarge { bytes: tree_bytes });
    }
    if root_bytes > Sizes::CLOUD.root_bytes {
        let (root_mib, slot_mib) = (root_bytes >> 20, Sizes::CLOUD.root_bytes >> 20);
        log::warn!(
            "a root of {root_mib} MiB: hosts whose slots have {slot_mib} MiB need free space on the disk for it"
        );
    }
    Ok(())
}

fn size(path: &Path) -> Result<u64, FileError> {
    Ok(std::fs::metadata(path).map_err(files::at("read", path))?.len())
}

impl Order<'_> {
    /// A hash over all that goes into the release, this program included.
    fn fingerprint(&self) -> Result<String, FileError> {
        let this_program = std::env::current_exe().map_err(files::at("find", Path::new("this program")))?;
        let mut paths = vec![this_program, self.profile.into(), self.key.key.clone(), self.key.certificate.clone()];
        paths.extend(root::PROGRAMS.map(|(name, _)| self.programs.join(name)));
        paths.extend(["kernel", "boot-loader", "certificates"].map(|role| self.inputs.stamp(role)));
        paths.push(self.tuf_root.clone());
        paths.extend(self.replace.iter().map(|(_, file)| file.clone()));
        let mut text = format!(
            "{} {} {} {:?} {:?}\n",
            self.version, self.profile_name, self.built_unix_s, self.command_line, self.follows_at_least
        );
        self.replace.iter().for_each(|(path, _)| text.push_str(&format!("replace {path}\n")));
        for path in paths {
            text.push_str(&files::sha256_of_file(&path)?);
            text.push('\n');
        }
        Ok(files::hex(&files::sha256(&[text.as_bytes()])))
    }
}
