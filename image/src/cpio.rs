//! Archives for the kernel's initramfs: cpio, format "newc" (kernel: `Documentation/driver-api/early-userspace/buffer-format.rst`).

/// An archive being written. Owner is always root, and no time is stored, so equal content makes equal bytes.
#[derive(Default)]
pub struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    /// Adds a folder.
    pub fn folder(&mut self, path: &str) {
        self.entry(path, 0o040755, &[]);
    }

    /// Adds a regular file.
    pub fn file(&mut self, path: &str, permissions: u32, content: &[u8]) {
        self.entry(path, 0o100000 | permissions, content);
    }

    /// Adds the console's device node, which the kernel opens for init before any file system is mounted.
    pub fn console(&mut self) {
        self.header("dev/console", 0o020600, 0, (5, 1));
    }

    /// The whole archive.
    pub fn finish(mut self) -> Vec<u8> {
        self.inodes = 0;
        self.header("TRAILER!!!", 0, 0, (0, 0));
        self.bytes
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.header(path, mode, content.len(), (0, 0));
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn header(&mut self, path: &str, mode: u32, size: usize, device: (u32, u32)) {
        self.inodes += 1;
        let links = if mode & 0o170000 == 0o040000 { 2 } else { 1 };
        let name_bytes = path.len() as u32 + 1;
        let fields = [self.inodes, mode, 0, 0, links, 0, size as u32, 0, 0, device.0, device.1, name_bytes, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn cpio_reads_what_is_written() {
        let mut archive = Archive::default();
        archive.folder("usr");
        archive.file("usr/file", 0o644, b"content");
        archive.console();
        let mut child = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(&archive.finish()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success());
        let modes: Vec<_> = text.lines().map(|line| &line[..10]).collect();
        assert_eq!(modes, ["drwxr-xr-x", "-rw-r--r--", "crw-------"], "{text}");
    }
}
