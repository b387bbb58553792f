//! Starting what boots next without the firmware (kexec).
//!
//! What firmware, boot loader and stub do otherwise is done here: the UKI that the boot loader would choose is taken, all
//! of it has to be what was published under the keys of the running release, and the try is counted in its name before
//! it begins. A try that panics or hangs ends in the firmware, where the boot loader goes on counting.
//!
//! The kernel has the last word: under lockdown, which releases set, it takes no other kernel than one signed by a key
//! that the firmware's `db` holds. Then a restart goes the usual way.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::fd::{AsFd as _, AsRawFd as _};

use keel_spec::api::ErrorCode;
use keel_spec::cmdline::KEXEC_ENTRY;
use keel_spec::release::{UkiName, Version};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::esp::{Esp, Reader};
use crate::failure::{Failure, Result};
use crate::plan::Target;
use crate::rollback::Installed;
use crate::sys;
use crate::tuf::keys::to_hex;
use crate::uki::{self, MAX_HEADERS};

/// Longest command line that a kernel takes (x86: `COMMAND_LINE_SIZE`), its final zero included.
const MAX_CMDLINE_BYTES: usize = 2048;
/// Bytes that are read at once; the headers are in the first piece.
const PIECE_BYTES: usize = 64 << 10;
/// Sections of a UKI: kernel, initrd, command line.
const SECTIONS: [&str; 3] = [".linux", ".initrd", ".cmdline"];

fn refused(why: impl std::fmt::Display) -> Failure {
    Failure::new(ErrorCode::Conflict, format!("skip the firmware: {why}"))
}

/// A UKI to start, and the name that counts the try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Next {
    /// Its release.
    pub version: Version,
    /// Its name now.
    pub from: UkiName,
    /// Its name once it is being tried.
    pub to: UkiName,
}

/// What the boot loader would start.
pub fn decide(installed: &Installed) -> Result<Next> {
    let version = installed.next_boot();
    let uki = installed.running_uki().into_iter().chain(installed.other()).find(|uki| uki.name.version == version);
    let Some(uki) = uki else {
        return Err(refused(format!("the EFI system partition has no UKI of {version}")));
    };
    let from = uki.name.clone();
    let to = match from.tries_left {
        None => from.clone(),
        Some(0) => return Err(refused(format!("{version} has no tries left"))),
        Some(left) => {
            UkiName { tries_left: Some(left - 1), tries_done: from.tries_done.saturating_add(1), ..from.clone() }
        }
    };
    Ok(Next { version, from, to })
}

/// Loads a UKI that is to be `target`, byte for byte.
pub fn load(esp: &Esp, next: &Next, target: &Target) -> Result<()> {
    let doing = format!("skip the firmware: read {} on the EFI system partition", next.from);
    let area = esp.file(&next.from.to_string()).map_err(Failure::io(&doing))?;
    let (mut kernel, mut initrd) = (memory("kernel")?, memory("initrd")?);
    let mut cmdline = Vec::new();
    take_apart(&mut Reader::new(area), target, [&mut kernel, &mut initrd, &mut cmdline])?;
    let cmdline = with_entry(cmdline, &next.to)?;
    let (kernel, initrd) = (read_only(kernel)?, read_only(initrd)?);
    sys::kexec_file_load(kernel.as_fd(), initrd.as_fd(), &cmdline).map_err(|error| refused(explain(&error)))
}

/// Copies the sections out of a UKI on its way through the digest, so that what is used is what was checked.
fn take_apart(uki: &mut impl Read, target: &Target, into: [&mut dyn Write; 3]) -> Result<()> {
    let doing = || Failure::io(format!("skip the firmware: take {} apart", target.name));
    let wrong =
        || Failure::new(ErrorCode::Digest, format!("skip the firmware: {} isn't what was published", target.name));
    let mut places: Option<[Range<u64>; 3]> = None;
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    let (mut piece, mut at, mut into) = (Vec::with_capacity(PIECE_BYTES), 0, into);
    loop {
        piece.clear();
        uki.by_ref().take(PIECE_BYTES as u64).read_to_end(&mut piece).map_err(doing())?;
        if piece.is_empty() {
            break;
        }
        context.update(&piece);
        let places = match places {
            Some(ref places) => places,
            None => &*places.insert(sections(&piece, target.length).ok_or_else(wrong)?),
        };
        let end = at + piece.len() as u64;
        if end > target.length {
            return Err(wrong());
        }
        for (place, into) in places.iter().zip(&mut into) {
            let (from, to) = (place.start.max(at), place.end.min(end));
            if from < to {
                into.write_all(&piece[(from - at) as usize..(to - at) as usize]).map_err(doing())?;
            }
        }
        at = end;
    }
    match at == target.length && to_hex(context.finish().as_ref()) == target.sha256 {
        true => Ok(()),
        false => Err(wrong()),
    }
}

/// Where the sections are, if all are there and none is empty or reaches beyond the file.
fn sections(first_piece: &[u8], length: u64) -> Option<[Range<u64>; 3]> {
    let headers = &first_piece[..first_piece.len().min(MAX_HEADERS as usize)];
    let mut found: [Range<u64>; 3] = [const { 0..0 }; 3];
    for (place, name) in found.iter_mut().zip(SECTIONS) {
        let (offset, bytes) = uki::find_section(headers, name)?;
        *place = offset..offset.checked_add(bytes)?;
        if place.is_empty() || place.end > length {
            return None;
        }
    }
    let [_, _, cmdline] = &found;
    (cmdline.end - cmdline.start <= MAX_CMDLINE_BYTES as u64).then_some(found)
}

/// The command line, with the name that the kernel is started under.
fn with_entry(cmdline: Vec<u8>, name: &UkiName) -> Result<CString> {
    let text = String::from_utf8(cmdline).map_err(|_| refused("its command line isn't text"))?;
    let text = text.trim_end_matches(['\0', '\n']);
    let line =
        CString::new(format!("{text} {KEXEC_ENTRY}={name}")).map_err(|_| refused("its command line has a zero"))?;
    if line.as_bytes_with_nul().len() > MAX_CMDLINE_BYTES {
        return Err(refused(format!("its command line is longer than {MAX_CMDLINE_BYTES} bytes")));
    }
    Ok(line)
}

/// A file in memory.
fn memory(name: &str) -> Result<File> {
    let made = memfd_create(name, MemfdFlags::CLOEXEC);
    Ok(File::from(made.map_err(Failure::io("skip the firmware: make a file in memory"))?))
}

/// The same file, which nobody can write any more: the kernel takes no other.
fn read_only(file: File) -> Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    File::open(&path).map_err(Failure::io(format!("skip the firmware: open {path}")))
}

/// Why the kernel refuses (kexec_file_load(2); kernel: `kimage_validate_signature`).
fn explain(error: &io::Error) -> String {
    let untrusted =
        [libc::EPERM, libc::ENOKEY, libc::EKEYREJECTED, libc::ENODATA, libc::EKEYREVOKED, libc::EKEYEXPIRED];
    match error.raw_os_error() {
        Some(code) if untrusted.contains(&code) => format!(
            "the running kernel is locked down and no key that it trusts has signed the next one ({error}): enrol the \
             Secure Boot key of the releases in the firmware's db"
        ),
        Some(libc::ENOSYS) => "the running kernel has no kexec".into(),
        Some(libc::ENOMEM | libc::EADDRNOTAVAIL) => format!("there is no room in memory for the next kernel ({error})"),
        _ => format!("load the next kernel: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::sha256;
    use crate::esp::Uki;
    use keel_spec::disk::{Identity, Sizes, new_table, root_guid, verity_guid};
    use keel_spec::gpt::Guid;
    use keel_spec::verity::RootHash;

    /// A UKI with these sections, the second one across several pieces.
    fn uki(sections: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut file = uki::with_sections(sections);
        file.extend([7; 100]);
        file
    }

    fn target(bytes: &[u8]) -> Target {
        Target { name: "it.efi".into(), length: bytes.len() as u64, sha256: to_hex(&sha256(&[bytes])) }
    }

    fn parts(bytes: &[u8], target: &Target) -> Result<[Vec<u8>; 3]> {
        let mut out = [const { Vec::new() }; 3];
        let [kernel, initrd, cmdline] = &mut out;
        take_apart(&mut io::Cursor::new(bytes), target, [kernel, initrd, cmdline])?;
        Ok(out)
    }

    fn three() -> Vec<(&'static str, Vec<u8>)> {
        let initrd = (0..200_001u32).map(|number| (number % 251) as u8).collect();
        vec![(".cmdline", b"roothash=1 quiet".to_vec()), (".initrd", initrd), (".linux", vec![9; 70_003])]
    }

    #[test]
    fn what_the_boot_loader_would_start_is_taken_and_its_try_is_counted() {
        let (old, new) = (RootHash::new([1; 32]), RootHash::new([2; 32]));
        let identity = Identity { disk: Guid::from_u128(1), esp: Guid::from_u128(2), state: Guid::from_u128(3) };
        let mut table = new_table(&identity, &Sizes::CLOUD, &old);
        table.set_unique("root-b", root_guid(&new)).unwrap();
        table.set_unique("verity-b", verity_guid(&new)).unwrap();
        let next = |running: &str, names: [&str; 2]| {
            let uki = |(name, hash): (&str, RootHash)| Uki {
                name: name.parse().unwrap(),
                size_bytes: 1,
                root_hash: Some(hash),
            };
            let ukis = [uki((names[0], old)), uki((names[1], new))];
            let running_root = if running == "1.0.0" { &old } else { &new };
            let running = &running.parse().unwrap();
            decide(&Installed { running, running_root, table: &table, ukis: &ukis }).map(|next| next.to.to_string())
        };
        assert_eq!(next("1.0.0", ["keel_1.0.0.efi", "keel_1.1.0+3.efi"]).unwrap(), "keel_1.1.0+2-1.efi");
        assert_eq!(next("1.1.0", ["keel_1.0.0.efi", "keel_1.1.0+1-2.efi"]).unwrap(), "keel_1.1.0+0-3.efi");
        assert_eq!(next("1.1.0", ["keel_1.0.0.efi", "keel_1.1.0.efi"]).unwrap(), "keel_1.1.0.efi");
        assert_eq!(next("1.1.0", ["keel_1.0.0.efi", "keel_1.1.0+0-1.efi"]).unwrap(), "keel_1.0.0.efi");
        assert!(next("1.0.0", ["keel_1.0.0+0-1.efi", "keel_1.1.0+0-3.efi"]).is_err());
    }

    #[test]
    fn the_sections_come_out_as_they_went_in() {
        let bytes = uki(&three());
        let [kernel, initrd, cmdline] = parts(&bytes, &target(&bytes)).unwrap();
        assert_eq!(
            (kernel, &initrd, cmdline.as_slice()),
            (three()[2].1.clone(), &three()[1].1, &b"roothash=1 quiet"[..])
        );
    }

    #[test]
    fn what_was_not_published_is_refused() {
        let bytes = uki(&three());
        let published = target(&bytes);
        for at in [0, 0x46, 5000, 150_000, bytes.len() - 1] {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(parts(&changed, &published).unwrap_err().code, ErrorCode::Digest, "{at}");
        }
        for other in [&bytes[..bytes.len() - 1], &[bytes.as_slice(), &[0]].concat(), b"MZ", b""] {
            assert!(parts(other, &published).is_err());
        }
        // Even if it was published, it has to have all the parts, within the file.
        for missing in 0..3 {
            let mut two = three();
            two.remove(missing);
            let bytes = uki(&two);
            assert!(parts(&bytes, &target(&bytes)).is_err(), "{missing}");
        }
        let cut = &bytes[..bytes.len() - 1000];
        assert!(parts(cut, &target(cut)).is_err());
    }

    #[test]
    fn the_try_is_in_the_name_that_the_kernel_is_told() {
        let name: UkiName = "keel_1.1.0+2-1.efi".parse().unwrap();
        let line = with_entry(b"roothash=1 quiet\n\0".to_vec(), &name).unwrap();
        assert_eq!(line.to_str().unwrap(), "roothash=1 quiet keel.entry=keel_1.1.0+2-1.efi");
        assert!(with_entry(vec![b'x'; 2020], &name).is_err());
        assert!(with_entry(vec![0xff], &name).is_err());
    }

    #[test]
    fn lockdown_is_named_as_the_reason() {
        assert!(explain(&io::Error::from_raw_os_error(libc::EPERM)).contains("locked down"));
        assert!(!explain(&io::Error::from_raw_os_error(libc::EBUSY)).contains("locked down"));
    }

    #[test]
    fn files_in_memory_are_read_from_their_start_and_cannot_be_written() {
        let mut file = memory("test").unwrap();
        file.write_all(b"kernel").unwrap();
        let mut file = read_only(file).unwrap();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "kernel");
        assert!(file.write_all(b"x").is_err());
    }
}
