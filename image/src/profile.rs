//! Profiles: which kernel modules go where, `profiles/<name>.toml`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::files::{FileError, at};

/// Why a profile can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ProfileError {
    /// A file can't be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The profile can't be understood.
    #[error("cannot understand the profile {}", .0.display())]
    Parse(PathBuf, #[source] toml::de::Error),
    /// Modules that the kernel doesn't have.
    #[error("this kernel has no module {0}: correct the profile, or list it under `optional`")]
    NoModule(String),
}

/// A selection of kernel modules.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Modules for the initrd.
    pub initrd: Selection,
    /// Modules for the root that every boot loads: they lie there unpacked.
    pub boot: Selection,
    /// More modules for the root; those of the initrd are there too.
    pub root: Selection,
}

/// Names of modules.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Selection {
    /// The kernel must have these, built in or as modules.
    pub modules: Vec<String>,
    /// Taken where the kernel has them.
    #[serde(default)]
    pub optional: Vec<String>,
}

impl Profile {
    /// Reads a profile.
    pub fn read(path: &Path) -> Result<Self, ProfileError> {
        let text = fs::read_to_string(path).map_err(at("read", path))?;
        toml::from_str(&text).map_err(|error| ProfileError::Parse(path.into(), error))
    }
}

/// What kmod's index files say of a kernel's modules. Names have underscores, as in `/proc/modules`.
#[derive(Debug, Default)]
pub struct Catalogue {
    /// Name to file, relative to the modules' folder.
    files: BTreeMap<String, String>,
    /// Name to the files it needs.
    needs: BTreeMap<String, Vec<String>>,
    /// Name to the names it wants loaded with it.
    soft: BTreeMap<String, Vec<String>>,
    builtin: BTreeSet<String>,
}

impl Catalogue {
    /// Reads `modules.dep`, `modules.softdep` and `modules.builtin` in a modules' folder.
    pub fn read(folder: &Path) -> Result<Self, FileError> {
        let text = |name: &str| {
            let path = folder.join(name);
            fs::read_to_string(&path).map_err(at("read", &path))
        };
        Ok(Self::parse(&text("modules.dep")?, &text("modules.softdep")?, &text("modules.builtin")?))
    }

    fn parse(dependencies: &str, soft_dependencies: &str, builtin: &str) -> Self {
        let mut catalogue = Self::default();
        for (file, needs) in dependencies.lines().filter_map(|line| line.split_once(':')) {
            catalogue.files.insert(name_of(file), file.into());
            catalogue.needs.insert(name_of(file), needs.split_whitespace().map(str::to_owned).collect());
        }
        for line in soft_dependencies.lines() {
            let mut words = line.split_whitespace();
            if let (Some("softdep"), Some(module)) = (words.next(), words.next()) {
                let wanted = words.filter(|word| !word.ends_with(':')).map(|word| word.replace('-', "_"));
                catalogue.soft.entry(module.replace('-', "_")).or_default().extend(wanted);
            }
        }
        catalogue.builtin = builtin.lines().map(name_of).collect();
        catalogue
    }

    /// Files of the selected modules and of all that they need, relative to the modules' folder.
    pub fn select<'a>(
        &self,
        selections: impl IntoIterator<Item = &'a Selection>,
    ) -> Result<BTreeSet<String>, ProfileError> {
        let mut waiting = Vec::new();
        for selection in selections {
            for module in &selection.modules {
                let name = module.replace('-', "_");
                if !self.files.contains_key(&name) && !self.builtin.contains(&name) {
                    return Err(ProfileError::NoModule(module.clone()));
                }
                waiting.push(name);
            }
            waiting.extend(selection.optional.iter().map(|module| module.replace('-', "_")));
        }
        let mut chosen = BTreeSet::new();
        // Ends: a module's needs are looked at once, when it is chosen.
        while let Some(name) = waiting.pop() {
            let Some(file) = self.files.get(&name).filter(|file| chosen.insert((*file).clone())) else { continue };
            waiting.extend(self.needs[&name_of(file)].iter().map(|file| name_of(file)));
            waiting.extend(self.soft.get(&name).into_iter().flatten().cloned());
        }
        Ok(chosen)
    }
}

/// A module's name from its file's: `kernel/fs/nls/nls-x.ko.xz` is `nls_x`.
fn name_of(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    name.split('.').next().unwrap_or(name).replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEPENDENCIES: &str = "kernel/a/dm-verity.ko.xz: kernel/a/dm-bufio.ko.xz\nkernel/a/dm-bufio.ko.xz:\n\
                                kernel/b/other.ko.xz:\nkernel/b/helper.ko.xz:\n";

    fn selection(modules: &[&str], optional: &[&str]) -> Selection {
        let own = |names: &[&str]| names.iter().map(|name| name.to_string()).collect();
        Selection { modules: own(modules), optional: own(optional) }
    }

    #[test]
    fn what_a_module_needs_comes_with_it() {
        let catalogue = Catalogue::parse(DEPENDENCIES, "softdep dm_verity pre: helper\n", "kernel/x/nvme.ko\n");
        let chosen = catalogue.select([&selection(&["dm-verity", "nvme"], &["absent"])]).unwrap();
        let chosen: Vec<_> = chosen.iter().map(String::as_str).collect();
        assert_eq!(chosen, ["kernel/a/dm-bufio.ko.xz", "kernel/a/dm-verity.ko.xz", "kernel/b/helper.ko.xz"]);
    }

    #[test]
    fn a_module_that_the_kernel_lacks_is_named() {
        let catalogue = Catalogue::parse(DEPENDENCIES, "", "");
        let error = catalogue.select([&selection(&["e1000"], &[])]).unwrap_err();
        assert!(error.to_string().contains("no module e1000"), "{error}");
    }
}
