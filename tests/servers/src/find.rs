//! Finding the programs of the distribution, and the account that a server runs under.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::StartError;

/// Finds a program on the path, or where Debian puts programs of administrators.
pub(crate) fn program(program: &'static str, package: &'static str) -> Result<PathBuf, StartError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from));
    first_with(folders, program).ok_or(StartError::Missing { program, package })
}

/// Finds a program of the PostgreSQL server, which is not on the path of Debian: the newest installed one.
pub(crate) fn postgres(program: &'static str) -> Result<PathBuf, StartError> {
    let told = Command::new("pg_config").arg("--bindir").output().ok();
    let told = told.filter(|output| output.status.success());
    let told = told.map(|output| PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = told.into_iter().chain(versions()).chain(std::env::split_paths(&path));
    first_with(folders, program).ok_or(StartError::Missing { program, package: "postgresql" })
}

/// The folders of the installed versions, the newest first.
fn versions() -> Vec<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    found.sort();
    found.into_iter().rev().map(|(_, folder)| folder).collect()
}

fn first_with(folders: impl IntoIterator<Item = PathBuf>, program: &str) -> Option<PathBuf> {
    folders.into_iter().map(|folder| folder.join(program)).find(|file| file.is_file())
}

/// An account of the machine.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Account {
    /// Its name.
    pub(crate) name: &'static str,
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account `postgres` for root, since neither PostgreSQL nor PgBouncer runs as root; else none.
    pub(crate) fn for_postgres() -> Result<Option<Self>, StartError> {
        if !rustix::process::geteuid().is_root() {
            return Ok(None);
        }
        let id = |what: &str| {
            let output = Command::new("id").args([what, "postgres"]).output().ok()?;
            String::from_utf8_lossy(&output.stdout).trim().parse().ok()
        };
        match (id("-u"), id("-g")) {
            (Some(uid), Some(gid)) => Ok(Some(Self { name: "postgres", uid, gid })),
            _ => Err(StartError::Missing { program: "the user postgres", package: "postgresql" }),
        }
    }

    /// Gives a file to the account.
    pub(crate) fn give(self, path: &Path) -> Result<(), StartError> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).map_err(StartError::io(format!(
            "give {} to {}",
            path.display(),
            self.name
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::{postgres, program};

    #[test]
    fn a_missing_program_is_named_with_its_package() {
        let error = program("hodei-no-such-server", "no-such-package").unwrap_err().to_string();
        assert!(error.contains("hodei-no-such-server") && error.contains("no-such-package"), "{error}");
        assert!(postgres("hodei-no-such-server").unwrap_err().to_string().contains("postgresql"));
    }
}
