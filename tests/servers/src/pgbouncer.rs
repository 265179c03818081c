//! A private PgBouncer in front of a private PostgreSQL.

use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;

use crate::directory::Directory;
use crate::find::Account;
use crate::postgres::{USER, put};
use crate::process::{Process, Recipe};
use crate::server::{Running, Server, on_free_port};
use crate::{Database, Postgres, StartError, find};

/// How long a connection for a probe may take.
const PROBE: Duration = Duration::from_millis(200);

/// When a connection to the server is given to another client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Pooling {
    /// When its client goes.
    Session,
    /// After each transaction.
    Transaction,
    /// After each statement.
    Statement,
}

impl Pooling {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

/// A private PgBouncer. It knows every database of its server, and the superuser.
#[derive(Debug)]
pub struct PgBouncer {
    running: Running,
    _directory: Directory,
}

impl PgBouncer {
    /// Starts one in front of `server`.
    ///
    /// # Errors
    ///
    /// [`StartError::Missing`] without `pgbouncer`, else what kept it from starting.
    pub fn start(server: &Postgres, pooling: Pooling) -> Result<Self, StartError> {
        Self::start_with(server, pooling, &[])
    }

    /// Starts one with further settings, as `pgbouncer.ini` has them.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    pub fn start_with(
        server: &Postgres,
        pooling: Pooling,
        settings: &[(&str, &str)],
    ) -> Result<Self, StartError> {
        let program = find::program("pgbouncer", "pgbouncer")?;
        let account = Account::for_postgres()?;
        let directory = Directory::new("pgbouncer", account)?;
        let users = directory.path().join("users");
        put(&users, format!("\"{USER}\" \"{}\"\n", server.password()).as_bytes(), account)?;
        let file = directory.path().join("pgbouncer.ini");
        let running = on_free_port(|address| {
            let mut text = format!(
                "[databases]\n* = host=127.0.0.1 port={}\n[pgbouncer]\nlisten_addr = {}\nlisten_port = {}\n\
                 auth_type = md5\nauth_file = {}\npool_mode = {}\nunix_socket_dir =\nmax_client_conn = 1000\n\
                 ignore_startup_parameters = extra_float_digits\n",
                server.address().port(),
                address.ip(),
                address.port(),
                users.display(),
                pooling.name(),
            );
            text.extend(settings.iter().map(|(name, value)| format!("{name} = {value}\n")));
            put(&file, text.as_bytes(), account)?;
            let process = Process::start(Recipe {
                name: "pgbouncer",
                program: program.clone(),
                args: vec![file.display().to_string()],
                account,
                log: directory.path().join("log"),
                answers: Box::new(move |_| TcpStream::connect_timeout(&address, PROBE).is_ok()),
            })?;
            Ok(Running { process, address, fast: Signal::INT, immediate: Some(Signal::TERM) })
        })?;
        Ok(Self { running, _directory: directory })
    }

    /// The URL of a database of its server, through it.
    #[must_use]
    pub fn url(&self, database: &Database) -> String {
        database.url_at(self.address())
    }
}

impl Server for PgBouncer {
    fn process(&self) -> &Running {
        &self.running
    }
}
