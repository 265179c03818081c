//! A private NATS server with JetStream.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::directory::Directory;
use crate::process::{Process, Recipe};
use crate::server::{Running, Server, on_free_port};
use crate::{StartError, find};

/// How long an answer to a probe may take.
const PROBE: Duration = Duration::from_millis(200);

/// A private NATS server, with JetStream in a directory of its own that lasts over restarts.
#[derive(Debug)]
pub struct Nats {
    running: Running,
    _directory: Directory,
}

impl Nats {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// [`StartError::Missing`] without `nats-server`, else what kept it from starting.
    pub fn start() -> Result<Self, StartError> {
        Self::start_with("")
    }

    /// Starts one with further lines of configuration, as `nats-server.conf` has them.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(configuration: &str) -> Result<Self, StartError> {
        let program = find::program("nats-server", "nats-server")?;
        let directory = Directory::new("nats", None)?;
        let file = directory.path().join("nats.conf");
        let running = on_free_port(|address| {
            let text = format!(
                "listen: \"{address}\"\njetstream {{ store_dir: \"{}\" }}\n{configuration}\n",
                directory.path().join("jetstream").display(),
            );
            std::fs::write(&file, text).map_err(StartError::io("write nats.conf"))?;
            let process = Process::start(Recipe {
                name: "nats-server",
                program: program.clone(),
                args: vec!["--config".into(), file.display().to_string()],
                account: None,
                log: directory.path().join("log"),
                answers: Box::new(move |_| answers(address).is_some()),
            })?;
            Ok(Running { process, address, fast: Signal::TERM, immediate: None })
        })?;
        Ok(Self { running, _directory: directory })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("nats://{}", self.address())
    }
}

impl Server for Nats {
    fn process(&self) -> &Running {
        &self.running
    }
}

/// Whether it greets a client; it does when JetStream has recovered.
fn answers(address: SocketAddr) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE).ok()?;
    stream.set_read_timeout(Some(PROBE)).ok()?;
    let mut greeting = [0; 5];
    stream.read_exact(&mut greeting).ok()?;
    (&greeting == b"INFO ").then_some(())
}
