//! Passwords, so that no other user of the machine can use a private server.

use std::fs::File;
use std::io::Read;

use crate::StartError;

/// A password that nobody guesses.
pub(crate) fn secret() -> Result<String, StartError> {
    let mut bytes = [0; 16];
    let read = File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    read.map_err(StartError::io("read /dev/urandom"))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
