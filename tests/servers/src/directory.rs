//! The directory of a server, which is gone when its owner is, however that ends.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::find::Account;
use crate::{StartError, spawner};

/// Waits for the end of its input, that is of the owner, and removes the directory; again while a dying server still
/// writes there.
const JANITOR: &str =
    r#"read -r _; n=0; while ! rm -rf -- "$1" 2>/dev/null && [ $n -lt 100 ]; do n=$((n+1)); sleep 0.1; done"#;

/// A directory that ends with its owner: a shell beside the owner removes it when the owner is gone.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    janitor: Child,
}

impl Directory {
    /// Makes a directory for a server, which belongs to `account`.
    pub(crate) fn new(server: &str, account: Option<Account>) -> Result<Self, StartError> {
        let own = Permissions::from_mode(0o700);
        let made = tempfile::Builder::new().prefix(&format!("hodei-{server}-")).permissions(own).tempdir();
        let made = made.map_err(StartError::io("make a temporary directory"))?;
        if let Some(account) = account {
            account.give(made.path())?;
        }
        let mut janitor = Command::new("sh");
        janitor.args(["-c", JANITOR, "sh"]).arg(made.path());
        janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A signal to the group of the test, such as Ctrl-C, must not end it before its work.
        janitor.process_group(0);
        let janitor = spawner::spawn(janitor).map_err(StartError::io("start sh"))?;
        Ok(Self { path: made.keep(), janitor })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // The end of its input lets it begin; that it is gone matters to nobody if it cannot be waited for.
        drop(self.janitor.stdin.take());
        let _ = self.janitor.wait();
    }
}
