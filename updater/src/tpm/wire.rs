//! Bytes of commands and answers (Part 1, 18 "Command/Response Structure"; Part 2).
//!
//! Everything is big-endian. A command with a password session is: tag, size, code, handles, the size of the session's
//! area, that area, parameters; its answer: tag, size, code, the size of the parameters, these, and the session's.

/// Longest answer that is read; the longest wanted here has some 150 bytes.
pub const MAX_ANSWER_BYTES: usize = 4096;
/// Longest digest in a structure (SHA-512).
const MAX_DIGEST_BYTES: usize = 64;

/// `TPM_ST_NO_SESSIONS` (Part 2, 6.9).
const TAG_PLAIN: u16 = 0x8001;
/// `TPM_ST_SESSIONS`.
const TAG_SESSIONS: u16 = 0x8002;
/// `TPM_RS_PW` (Part 2, 7.4): the session that carries a password; here always the empty one.
const PASSWORD_SESSION: u32 = 0x4000_0009;
/// `TPM_ALG_SHA256` (Part 2, 6.3).
const SHA256: u16 = 0x000B;

/// What is wrong with an answer, or what it says.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The device failed.
    #[error(transparent)]
    Device(#[from] std::io::Error),
    /// The answer isn't one.
    #[error("it answers {0}: the device or its driver is broken")]
    Malformed(&'static str),
    /// It refuses.
    #[error("{text} (code {code:#x})", text = code_text(*code))]
    Refused {
        /// `TPM_RC`.
        code: u32,
    },
    /// An index that is to be ours is somebody else's.
    #[error("its index {0:#x} is in use for something else")]
    Foreign(u32),
}

/// `TPM_RC` in words, of those that are to be expected (Part 2, 6.6).
fn code_text(code: u32) -> &'static str {
    match kind(code) {
        rc::NV_SPACE => "its memory is full",
        rc::NV_UNAVAILABLE | rc::NV_RATE => "its memory can't be written now",
        rc::NV_LOCKED => "its index is locked until the next start",
        rc::AUTH_FAIL | rc::BAD_AUTH => "it wants an owner's password, which this host hasn't",
        rc::LOCKOUT => "it is locked out after wrong passwords",
        rc::HANDLE => "it has no such index",
        rc::INITIALIZE => "the firmware hasn't started it",
        code if rc::BUSY.contains(&code) => "it is busy",
        rc::COMMAND_CODE => "it doesn't know the command",
        _ => "it refuses",
    }
}

/// Codes of answers (Part 2, 6.6.3), without what says which handle, parameter or session is meant.
pub mod rc {
    /// Done.
    pub const SUCCESS: u32 = 0;
    /// The index isn't defined.
    pub const HANDLE: u32 = 0x08B;
    /// Authorisation with counting of failures.
    pub const AUTH_FAIL: u32 = 0x08E;
    /// Authorisation without.
    pub const BAD_AUTH: u32 = 0x0A2;
    /// Nobody started it.
    pub const INITIALIZE: u32 = 0x100;
    /// A command that this TPM doesn't have.
    pub const COMMAND_CODE: u32 = 0x143;
    /// Written to after it was locked.
    pub const NV_LOCKED: u32 = 0x148;
    /// Read before it was written.
    pub const NV_UNINITIALIZED: u32 = 0x14A;
    /// No room.
    pub const NV_SPACE: u32 = 0x14B;
    /// The index is defined already.
    pub const NV_DEFINED: u32 = 0x14C;
    /// Written too often.
    pub const NV_RATE: u32 = 0x920;
    /// Too many wrong passwords.
    pub const LOCKOUT: u32 = 0x921;
    /// `TPM_RC_YIELDED`, `_TESTING`, `_RETRY`: to be tried again.
    pub const BUSY: [u32; 3] = [0x908, 0x90A, 0x922];
    /// The memory can't be reached for now.
    pub const NV_UNAVAILABLE: u32 = 0x923;
}

/// A code without its number of handle, parameter or session (Part 2, 6.6.2: bit 7 says whether there is one).
pub fn kind(code: u32) -> u32 {
    if code & 0x080 != 0 { code & 0x0BF } else { code }
}

/// A command that is being put together.
pub struct Command {
    bytes: Vec<u8>,
    sessions: bool,
}

impl Command {
    /// With its handles; `authorised`: the first of them is used with the empty password.
    pub fn new(code: u32, handles: &[u32], authorised: bool) -> Self {
        let mut command = Self { bytes: Vec::with_capacity(160), sessions: authorised };
        command.u16(if authorised { TAG_SESSIONS } else { TAG_PLAIN });
        // The size, which `finish` fills in.
        command.u32(0).u32(code);
        for handle in handles {
            command.u32(*handle);
        }
        if authorised {
            // TPMS_AUTH_COMMAND (Part 2, 10.13.2): session, no nonce, continueSession, an empty password.
            command.u32(9).u32(PASSWORD_SESSION).u16(0).u8(1).u16(0);
        }
        command
    }

    /// A byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.push(value);
        self
    }

    /// Two.
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// Four.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.extend(value.to_be_bytes());
        self
    }

    /// A `TPM2B`: bytes after their number; more than fit into a command are cut off.
    pub fn sized(&mut self, bytes: &[u8]) -> &mut Self {
        let bytes = &bytes[..bytes.len().min(1024)];
        self.u16(bytes.len() as u16).bytes.extend(bytes);
        self
    }

    /// The command's bytes.
    pub fn finish(mut self) -> (Vec<u8>, bool) {
        let size = (self.bytes.len() as u32).to_be_bytes();
        self.bytes[2..6].copy_from_slice(&size);
        (self.bytes, self.sessions)
    }
}

/// The parameters of an answer.
pub fn parameters(answer: &[u8], sessions: bool) -> Result<&[u8], Error> {
    let mut reader = Reader(answer);
    let (tag, size, code) = (reader.u16()?, reader.u32()?, reader.u32()?);
    if size as usize != answer.len() {
        return Err(Error::Malformed("another number of bytes than it says"));
    }
    if code != rc::SUCCESS {
        return Err(Error::Refused { code });
    }
    if tag != if sessions { TAG_SESSIONS } else { TAG_PLAIN } {
        return Err(Error::Malformed("with another tag than it was asked with"));
    }
    if !sessions {
        return Ok(reader.0);
    }
    let size = reader.u32()? as usize;
    reader.take(size)
}

/// Reads what an answer carries.
pub struct Reader<'a>(pub &'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Error::Malformed("too few bytes"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(Error::Malformed("too few bytes"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, Error> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four.
    pub fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight.
    pub fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_be_bytes)
    }

    /// A `TPM2B` of at most `most` bytes.
    pub fn sized(&mut self, most: usize) -> Result<&'a [u8], Error> {
        let count = usize::from(self.u16()?);
        if count > most {
            return Err(Error::Malformed("more bytes than were asked for"));
        }
        self.take(count)
    }

    /// There is nothing more.
    pub fn end(&self) -> Result<(), Error> {
        if self.0.is_empty() { Ok(()) } else { Err(Error::Malformed("bytes after the end")) }
    }
}

/// `TPMS_NV_PUBLIC` (Part 2, 13.5): what an index is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Public {
    /// Its handle.
    pub index: u32,
    /// `TPMA_NV` (Part 2, 13.4).
    pub attributes: u32,
    /// Bytes in it.
    pub size_bytes: u16,
}

impl Public {
    /// As a command carries it.
    pub fn write(&self, command: &mut Command) {
        // The structure's own size; no policy.
        command.u16(14).u32(self.index).u16(SHA256).u32(self.attributes).u16(0).u16(self.size_bytes);
    }

    /// From the parameters of TPM2_NV_ReadPublic's answer; the index's name comes after it.
    pub fn read(parameters: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader(parameters);
        let mut public = Reader(reader.sized(14 + MAX_DIGEST_BYTES)?);
        let (index, _algorithm, attributes) = (public.u32()?, public.u16()?, public.u32()?);
        public.sized(MAX_DIGEST_BYTES)?;
        let size_bytes = public.u16()?;
        public.end()?;
        reader.sized(2 + MAX_DIGEST_BYTES)?;
        reader.end()?;
        Ok(Self { index, attributes, size_bytes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_its_size_and_an_empty_password() {
        let (bytes, sessions) = Command::new(0x134, &[0x0180_0001, 0x0180_0001], true).finish();
        assert!(sessions);
        let wanted = "80020000001f00000134018000010180000100000009400000090000010000";
        assert_eq!(crate::tuf::keys::to_hex(&bytes), wanted);
        let (bytes, _) = Command::new(0x169, &[0x0180_0001], false).finish();
        assert_eq!(crate::tuf::keys::to_hex(&bytes), "80010000000e0000016901800001");
    }

    #[test]
    fn answers_that_lie_about_their_size_or_tag_are_refused() {
        let good = [0x80, 1, 0, 0, 0, 12, 0, 0, 0, 0, 7, 8];
        assert_eq!(parameters(&good, false).unwrap(), [7, 8]);
        assert!(matches!(parameters(&good[..11], false), Err(Error::Malformed(_))));
        assert!(matches!(parameters(&good, true), Err(Error::Malformed(_))));
        // Parameters that reach beyond the answer.
        let long = [0x80, 2, 0, 0, 0, 16, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0];
        assert!(matches!(parameters(&long, true), Err(Error::Malformed(_))));
        assert!(matches!(parameters(&[], true), Err(Error::Malformed(_))));
    }

    #[test]
    fn refusals_say_what_they_mean_whichever_handle_is_meant() {
        let refused = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x8b];
        let error = parameters(&refused, true).unwrap_err();
        assert!(matches!(error, Error::Refused { code } if kind(code) == rc::HANDLE));
        assert!(error.to_string().contains("no such index"), "{error}");
        assert_eq!(kind(0x9a2), rc::BAD_AUTH);
        assert_eq!(kind(0x14b), rc::NV_SPACE);
    }
}
