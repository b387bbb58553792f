//! A static file server with byte ranges on loopback, as update repositories need, with faults on request.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result};

/// What a server does to a file besides serving it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// One bit of the byte at this offset is turned round.
    FlipBit(u64),
    /// One bit in every block of 4096 bytes is turned round, so that a delta meets one, whichever blocks it fetches.
    FlipBlocks,
    /// The connection ends after this many bytes of the body.
    CutAfter(u64),
}

/// A running server. Its thread ends with the process.
pub struct Server {
    port: u16,
    faults: Arc<Mutex<HashMap<String, Fault>>>,
    /// Bytes of bodies that were sent.
    served: Arc<AtomicU64>,
}

impl Server {
    /// Serves the files below `dir`.
    pub fn start(dir: &Path) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("listen on loopback")?;
        let port = listener.local_addr()?.port();
        let faults: Arc<Mutex<HashMap<String, Fault>>> = Arc::default();
        let served: Arc<AtomicU64> = Arc::default();
        let (dir, for_threads, counter) = (dir.to_owned(), faults.clone(), served.clone());
        std::thread::spawn(move || {
            for connection in listener.incoming().flatten() {
                let (dir, faults, served) = (dir.clone(), for_threads.clone(), counter.clone());
                std::thread::spawn(move || {
                    let _ = serve(connection, &dir, &faults, &served);
                });
            }
        });
        Ok(Self { port, faults, served })
    }

    /// Port on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Bytes of bodies that were sent so far.
    pub fn served_bytes(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    /// From now on every file whose path contains `part` has this fault; `None` makes it whole again.
    pub fn set_fault(&self, part: &str, fault: Option<Fault>) {
        let mut faults = self.faults.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        match fault {
            Some(fault) => faults.insert(part.into(), fault),
            None => faults.remove(part),
        };
    }
}

/// Answers the requests of one connection.
fn serve(connection: TcpStream, dir: &Path, faults: &Mutex<HashMap<String, Fault>>, served: &AtomicU64) -> Result<()> {
    let mut writer = connection.try_clone()?;
    let mut reader = BufReader::new(connection);
    loop {
        let mut request = String::new();
        if reader.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut range = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let header = header.trim().to_ascii_lowercase();
            if header.is_empty() {
                break;
            }
            if let Some(value) = header.strip_prefix("range: bytes=") {
                range = parse_range(value);
            }
        }
        let mut words = request.split(' ');
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or("").trim_start_matches('/'));
        let Some(file) = file_below(dir, target) else {
            write!(writer, "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")?;
            continue;
        };
        let fault = faults
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
            .iter()
            .find(|(part, _)| target.contains(part.as_str()))
            .map(|(_, fault)| *fault);
        if !send(&mut writer, &file, range, method == "HEAD", fault, served)? {
            return Ok(());
        }
    }
}

/// Sends a file or a range of it. `false`: the connection is to be closed.
fn send(
    writer: &mut TcpStream,
    path: &Path,
    range: Option<(u64, Option<u64>)>,
    head: bool,
    fault: Option<Fault>,
    served: &AtomicU64,
) -> Result<bool> {
    let mut file = File::open(path)?;
    let length = file.metadata()?.len();
    let (first, last) = match range {
        Some((first, last)) if first < length => (first, last.unwrap_or(u64::MAX).min(length - 1)),
        Some(_) => {
            write!(writer, "HTTP/1.1 416 Range Not Satisfiable\r\nContent-Length: 0\r\n\r\n")?;
            return Ok(true);
        }
        None => (0, length.saturating_sub(1)),
    };
    let count = if length == 0 { 0 } else { last - first + 1 };
    if range.is_some() {
        write!(writer, "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {first}-{last}/{length}\r\n")?;
    } else {
        write!(writer, "HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\n")?;
    }
    write!(writer, "Content-Length: {count}\r\n\r\n")?;
    if head {
        return Ok(true);
    }
    file.seek(SeekFrom::Start(first))?;
    let (mut at, end) = (first, first + count);
    let mut buffer = vec![0; 64 << 10];
    while at < end {
        let want = buffer.len().min((end - at) as usize);
        let got = file.read(&mut buffer[..want])?;
        if got == 0 {
            return Ok(false);
        }
        let part = &mut buffer[..got];
        match fault {
            Some(Fault::FlipBit(offset)) if (at..at + got as u64).contains(&offset) => {
                part[(offset - at) as usize] ^= 1
            }
            Some(Fault::FlipBlocks) => {
                let first = (4096 - at % 4096) % 4096;
                part.iter_mut().skip(first as usize).step_by(4096).for_each(|byte| *byte ^= 1);
            }
            Some(Fault::CutAfter(limit)) if at + got as u64 > limit => {
                writer.write_all(&part[..limit.saturating_sub(at) as usize])?;
                return Ok(false);
            }
            _ => {}
        }
        writer.write_all(part)?;
        served.fetch_add(got as u64, Ordering::Relaxed);
        at += got as u64;
    }
    Ok(true)
}

/// One range; several aren't honoured, and the whole file is sent, as many servers do.
fn parse_range(value: &str) -> Option<(u64, Option<u64>)> {
    if value.contains(',') {
        return None;
    }
    let (first, last) = value.split_once('-')?;
    Some((first.parse().ok()?, last.parse().ok()))
}

/// The file that a request's path names, if it is below `dir`.
fn file_below(dir: &Path, target: &str) -> Option<PathBuf> {
    if target.split('/').any(|part| part.is_empty() || part == "..") {
        return None;
    }
    Some(dir.join(target)).filter(|path| path.is_file())
}
