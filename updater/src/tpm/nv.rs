//! Commands on the non-volatile memory (Part 3, 31), each with the empty password.

use std::time::Duration;

use super::Transport;
use super::wire::{Command, Error, Public, Reader, kind, parameters, rc};

/// `TPM_RH_OWNER` (Part 2, 7.4), on whose behalf an index is defined.
const OWNER: u32 = 0x4000_0001;
/// How often a command is tried that the TPM is too busy for, and the pause between.
const TRIES: u32 = 8;
const PAUSE: Duration = Duration::from_millis(250);

/// Sends a command; returns its answer's parameters.
fn run(tpm: &mut dyn Transport, command: Command) -> Result<Vec<u8>, Error> {
    let (command, sessions) = command.finish();
    let mut outcome = Err(Error::Refused { code: rc::BUSY[0] });
    for attempt in 0..TRIES {
        let answer = tpm.exchange(&command)?;
        outcome = parameters(&answer, sessions).map(<[u8]>::to_vec);
        let again = |code: &u32| rc::BUSY.contains(code) || *code == rc::NV_RATE || *code == rc::NV_UNAVAILABLE;
        if !matches!(&outcome, Err(Error::Refused { code }) if again(code)) || attempt + 1 == TRIES {
            break;
        }
        std::thread::sleep(PAUSE);
    }
    outcome
}

/// Says what an index is; `None`: it isn't defined (TPM2_NV_ReadPublic).
pub fn read_public(tpm: &mut dyn Transport, index: u32) -> Result<Option<Public>, Error> {
    match run(tpm, Command::new(0x169, &[index], false)) {
        Ok(parameters) => {
            let public = Public::read(&parameters)?;
            if public.index != index {
                return Err(Error::Malformed("about another index"));
            }
            Ok(Some(public))
        }
        Err(Error::Refused { code }) if kind(code) == rc::HANDLE => Ok(None),
        Err(error) => Err(error),
    }
}

/// Defines an index whose password is the empty one (TPM2_NV_DefineSpace).
pub fn define(tpm: &mut dyn Transport, public: &Public) -> Result<(), Error> {
    let mut command = Command::new(0x12A, &[OWNER], true);
    command.sized(&[]);
    public.write(&mut command);
    run(tpm, command).map(drop)
}

/// Adds one to a counter (TPM2_NV_Increment). The first time, it becomes one more than any counter of this TPM ever was.
pub fn increment(tpm: &mut dyn Transport, index: u32) -> Result<(), Error> {
    run(tpm, Command::new(0x134, &[index, index], true)).map(drop)
}

/// Writes an index from its beginning (TPM2_NV_Write).
pub fn write(tpm: &mut dyn Transport, index: u32, bytes: &[u8]) -> Result<(), Error> {
    let mut command = Command::new(0x137, &[index, index], true);
    command.sized(bytes).u16(0);
    run(tpm, command).map(drop)
}

/// Reads so many bytes of an index from its beginning; `None`: nothing was ever written there (TPM2_NV_Read).
pub fn read(tpm: &mut dyn Transport, index: u32, count: u16) -> Result<Option<Vec<u8>>, Error> {
    let mut command = Command::new(0x14E, &[index, index], true);
    command.u16(count).u16(0);
    let parameters = match run(tpm, command) {
        Ok(parameters) => parameters,
        Err(Error::Refused { code: rc::NV_UNINITIALIZED }) => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut reader = Reader(&parameters);
    let bytes = reader.sized(usize::from(count))?;
    reader.end()?;
    if bytes.len() != usize::from(count) {
        return Err(Error::Malformed("fewer bytes than were asked for"));
    }
    Ok(Some(bytes.to_vec()))
}
