//! What to execute, and its translation into what the kernel reads.

use std::{
    ffi::{CString, OsStr, OsString, c_char},
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::PathBuf,
    ptr,
};

use super::SpawnError;

/// Where a program without a slash is looked for when the child's own environment has no `PATH`.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// Whether a program may gain rights by being executed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Privileges {
    /// Set-user-id bits and file capabilities are without effect (`PR_SET_NO_NEW_PRIVS`).
    ///
    /// The death signal depends on it too: the kernel clears it when such a program is executed.
    #[default]
    Fixed,
    /// `sudo` and the like work; such a process can outlive a killed agent and be unreachable to a sweep.
    MayGain,
}

/// A program to execute: the whole of it, nothing is inherited.
#[derive(Clone, Debug)]
pub(crate) struct Command {
    /// The program and its arguments. A program without a slash is looked for in the `PATH` of `env`.
    pub(crate) argv: Vec<OsString>,
    /// The whole environment of the child.
    pub(crate) env: Vec<(OsString, OsString)>,
    /// The working directory; a program or `PATH` entry that is relative is relative to it.
    pub(crate) cwd: PathBuf,
    /// Whether programs may gain rights.
    pub(crate) privileges: Privileges,
}

/// A command as `execve` wants it. Everything the child needs is allocated here, for the child itself must not.
pub(super) struct Prepared {
    /// The files to try, in order.
    pub(super) candidates: Vec<CString>,
    pub(super) argv: Strings,
    pub(super) env: Strings,
    pub(super) cwd: CString,
    pub(super) privileges: Privileges,
}

/// Strings with the null-terminated array of pointers to them.
pub(super) struct Strings {
    pointers: Vec<*const c_char>,
    /// Owns what `pointers` point at; a `CString` keeps its bytes in place when moved.
    _owned: Vec<CString>,
}

impl Strings {
    fn new(owned: Vec<CString>) -> Self {
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([ptr::null()]).collect();
        Self { pointers, _owned: owned }
    }

    /// The array, valid as long as `self`.
    pub(super) const fn as_ptr(&self) -> *const *const c_char {
        self.pointers.as_ptr()
    }
}

impl Command {
    /// Translates the command.
    ///
    /// # Errors
    ///
    /// [`SpawnError::Invalid`] for an empty `argv`, a NUL anywhere, or a variable without a proper name.
    pub(super) fn prepare(&self) -> Result<Prepared, SpawnError> {
        let program = self.argv.first().ok_or(SpawnError::Invalid("no program"))?;
        let argv = self.argv.iter().map(|arg| c_string(arg.as_bytes().to_vec())).collect::<Result<_, _>>()?;
        let env = self.env.iter().map(|(name, value)| assignment(name, value)).collect::<Result<_, _>>()?;
        Ok(Prepared {
            candidates: self.candidates(program)?,
            argv: Strings::new(argv),
            env: Strings::new(env),
            cwd: c_string(self.cwd.as_os_str().as_bytes().to_vec())?,
            privileges: self.privileges,
        })
    }

    /// The files a program name may mean. Empty entries of `PATH` are skipped: they mean the working directory,
    /// where a job finds whatever an earlier one left.
    fn candidates(&self, program: &OsStr) -> Result<Vec<CString>, SpawnError> {
        if program.is_empty() {
            return Err(SpawnError::Invalid("the program has no name"));
        }
        if program.as_bytes().contains(&b'/') {
            return Ok(vec![c_string(program.as_bytes().to_vec())?]);
        }
        let path = self.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.as_os_str());
        let path = path.unwrap_or_else(|| OsStr::new(DEFAULT_PATH));
        let entries = path.as_bytes().split(|byte| *byte == b':').filter(|entry| !entry.is_empty());
        let files: Vec<_> = entries
            .map(|entry| c_string([entry, b"/", program.as_bytes()].concat()))
            .collect::<Result<_, _>>()?;
        if files.is_empty() {
            return Err(SpawnError::Invalid("PATH is empty and the program has no slash"));
        }
        Ok(files)
    }
}

fn assignment(name: &OsStr, value: &OsStr) -> Result<CString, SpawnError> {
    if name.is_empty() || name.as_bytes().contains(&b'=') {
        return Err(SpawnError::Invalid("a variable's name is empty or contains an equals sign"));
    }
    let mut text = name.to_os_string().into_vec();
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    c_string(text)
}

fn c_string(bytes: Vec<u8>) -> Result<CString, SpawnError> {
    CString::new(bytes).map_err(|_| SpawnError::Invalid("a NUL byte in an argument, a variable or a path"))
}
