//! A private Redis.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use rustix::process::Signal;

use crate::directory::Directory;
use crate::process::{Process, Recipe};
use crate::secret::secret;
use crate::server::{Running, Server, on_free_port};
use crate::{StartError, find};

/// How long an answer to a probe may take.
const PROBE: Duration = Duration::from_millis(200);

/// A private Redis without files: what it holds is gone when it restarts. It asks for a password, so that no other user
/// of the machine can use it.
#[derive(Debug)]
pub struct Redis {
    running: Running,
    password: String,
    _directory: Directory,
}

impl Redis {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// [`StartError::Missing`] without `redis-server`, else what kept it from starting.
    pub fn start() -> Result<Self, StartError> {
        Self::start_with(&[])
    }

    /// Starts one with further settings, as `redis.conf` has them.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self, StartError> {
        let program = find::program("redis-server", "redis-server")?;
        let directory = Directory::new("redis", None)?;
        let password = secret()?;
        let file = directory.path().join("redis.conf");
        let running = on_free_port(|address| {
            let mut text = format!(
                "bind 127.0.0.1\nport {}\nrequirepass {password}\nsave \"\"\nappendonly no\ndir {}\n",
                address.port(),
                directory.path().display(),
            );
            text.extend(settings.iter().map(|(name, value)| format!("{name} {value}\n")));
            std::fs::write(&file, text).map_err(StartError::io("write redis.conf"))?;
            let secret = password.clone();
            let process = Process::start(Recipe {
                name: "redis-server",
                program: program.clone(),
                args: vec![file.display().to_string()],
                account: None,
                log: directory.path().join("log"),
                answers: Box::new(move |_| answers(address, &secret).is_some()),
            })?;
            Ok(Running { process, address, fast: Signal::TERM, immediate: None })
        })?;
        Ok(Self { running, password, _directory: directory })
    }

    /// Its URL, with the password.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.address())
    }

    /// Its URL through something that listens at `address` in front of it.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("redis://:{}@{address}/", self.password)
    }
}

impl Server for Redis {
    fn process(&self) -> &Running {
        &self.running
    }
}

/// Whether it lets us in and has loaded its data.
fn answers(address: SocketAddr, password: &str) -> Option<()> {
    let mut stream = TcpStream::connect_timeout(&address, PROBE).ok()?;
    stream.set_read_timeout(Some(PROBE)).ok()?;
    stream.write_all(format!("AUTH {password}\r\nPING\r\n").as_bytes()).ok()?;
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).ok()?;
    (&answer == b"+OK\r\n+PONG\r\n").then_some(())
}
