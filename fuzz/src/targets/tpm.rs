//! Answers of a TPM.

use keel_updater::tpm::wire::{Error, Public, Reader, kind, parameters};
use keel_updater::tpm::{Keeping, Transport, keeping};

use super::answer;
use crate::runner::Target;

pub const TARGETS: [Target; 3] = [
    Target { name: "tpm_answer", seeds: answer_seeds, make: || Box::new(one), share: 1000 },
    Target { name: "tpm_record", seeds: record_seeds, make: || Box::new(record), share: 1000 },
    Target { name: "tpm_hostile", seeds: hostile_seeds, make: || Box::new(hostile), share: 1000 },
];

/// The answers to TPM2_NV_ReadPublic and TPM2_NV_Read, and a refusal.
fn answer_seeds() -> Vec<Vec<u8>> {
    let mut public = vec![0x80, 1, 0, 0, 0, 62, 0, 0, 0, 0, 0, 14, 1, 0x80, 0x4b, 0x46, 0, 11, 0x22, 6, 0, 0x16];
    public.extend([0, 0, 0, 8, 0, 34, 0, 11]);
    public.resize(62, 7);
    let mut read = vec![0x80, 2, 0, 0, 0, 29, 0, 0, 0, 0, 0, 0, 0, 10, 0, 8, 0, 0, 0, 0, 0, 0, 0, 9];
    read.extend([0, 0, 1, 0, 0]);
    vec![public, read, vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x8b]]
}

fn one(bytes: &[u8]) -> String {
    for sessions in [false, true] {
        match parameters(bytes, sessions) {
            Ok(parameters) => {
                assert!(parameters.len() < bytes.len(), "parameters are a part of the answer");
                let _ = Reader(parameters).sized(8).map(|bytes| assert!(bytes.len() <= 8));
                return Public::read(parameters).map_or_else(|error| error.to_string(), |_| "accepted".into());
            }
            Err(Error::Refused { code }) => return format!("refused {:#x}", kind(code) & 0xf0),
            Err(_) => {}
        }
    }
    "malformed".into()
}

fn record_seeds() -> Vec<Vec<u8>> {
    vec![b"keelmin\x01\0\0\0\0\0\0\0\x07\x051.2.3\0\0\0".to_vec()]
}

fn record(bytes: &[u8]) -> String {
    answer(keeping::parse(bytes).map(|record| assert!(record.version.to_string().len() <= 64)).ok_or("none"))
}

/// A TPM that answers with one stretch of the input after the other, each after its length.
struct Hostile<'a>(&'a [u8]);

impl Transport for Hostile<'_> {
    fn exchange(&mut self, _: &[u8]) -> std::io::Result<Vec<u8>> {
        let (count, rest) = self.0.split_first().ok_or(std::io::ErrorKind::TimedOut)?;
        let (answer, rest) = rest.split_at_checked(usize::from(*count)).ok_or(std::io::ErrorKind::UnexpectedEof)?;
        self.0 = rest;
        Ok(answer.to_vec())
    }
}

fn hostile_seeds() -> Vec<Vec<u8>> {
    let script = |answers: &[&Vec<u8>]| {
        let parts = answers.iter().flat_map(|answer| [vec![answer.len() as u8], answer.to_vec()].concat());
        parts.collect::<Vec<u8>>()
    };
    let answers = answer_seeds();
    let [public, read, refused] = [&answers[0], &answers[1], &answers[2]];
    vec![script(&[public, read, refused]), script(&[refused, refused]), script(&[public, refused])]
}

fn hostile(bytes: &[u8]) -> String {
    // An answer "busy" is waited after, which takes long; the waits themselves are bounded.
    let busy = [0x908u32, 0x90a, 0x920, 0x922, 0x923].map(u32::to_be_bytes);
    if bytes.windows(4).any(|window| busy.iter().any(|code| code == window)) {
        return "busy".into();
    }
    answer(Keeping(&mut Hostile(bytes)).read())
}
