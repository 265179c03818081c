//! The load on effectum 0.7, which is a program of its own: two peers link SQLite, and a build can link one.

use std::path::{Path, PathBuf};

use hodei_benches::load::{Load, Rates};
use tokio::process::Command;

/// How its file is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Mode {
    /// As it comes: with a rollback journal, since its pragma is misspelt.
    Shipped,
    /// With the write-ahead log that its authors meant, which they sync at checkpoints only: what it acknowledged may be
    /// lost with the power. Its documentation knows no way to get there, so that no goal is about it.
    Wal,
}

/// The program, built.
#[derive(Debug)]
pub(crate) struct Peer(PathBuf);

impl Peer {
    /// Builds the program, as its lock file says.
    pub(crate) async fn build() -> Result<Self, String> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("effectum");
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--release", "--locked", "--quiet", "--target-dir"]).arg(folder.join("target"));
        let built = build.current_dir(&folder).status().await.map_err(|error| error.to_string())?;
        let program = folder.join("target/release/hodei-compare-effectum");
        if built.success() { Ok(Self(program)) } else { Err(format!("effectum was not built: {built}")) }
    }

    /// Measures the whole load.
    pub(crate) async fn rates(&self, mode: Mode, load: Load) -> Result<Rates, String> {
        let mode = match mode {
            Mode::Shipped => "shipped",
            Mode::Wal => "wal",
        };
        let mut run = Command::new(&self.0);
        run.arg(mode).args(load.to_string().split(' ')).stderr(std::process::Stdio::inherit());
        let ran = run.output().await.map_err(|error| error.to_string())?;
        if !ran.status.success() {
            return Err(format!("effectum ended with {}", ran.status));
        }
        String::from_utf8_lossy(&ran.stdout).parse()
    }
}
