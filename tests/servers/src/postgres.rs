//! A private PostgreSQL server.

use std::fs::Permissions;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::process::Signal;

use crate::directory::Directory;
use crate::find::Account;
use crate::process::{Process, Recipe};
use crate::secret::secret;
use crate::server::{Running, Server, on_free_port};
use crate::wait::until;
use crate::{StartError, find};

/// How long a statement of a test may wait for a lock, as the server reads it.
const LOCK_TIMEOUT: &str = "120s";

/// The superuser of every private server.
pub(crate) const USER: &str = "postgres";

/// A private PostgreSQL server with the durability of a real one: fsync, full-page writes and synchronous commits are on.
///
/// It listens on the loopback and asks for a password.
#[derive(Debug)]
pub struct Postgres {
    running: Running,
    password: String,
    psql: PathBuf,
    databases: AtomicU64,
    pub(crate) directory: Directory,
}

/// How a private server is to be; made by [`Postgres::builder`].
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PostgresBuilder {
    settings: Vec<(String, String)>,
    files: Vec<(String, Vec<u8>)>,
}

/// A database of its own for one test. It stays until its server goes.
#[derive(Clone, Debug)]
pub struct Database {
    name: String,
    address: SocketAddr,
    password: String,
}

impl Postgres {
    /// Starts one with its default settings.
    ///
    /// # Errors
    ///
    /// [`StartError::Missing`] without PostgreSQL, else what kept it from starting.
    pub fn start() -> Result<Self, StartError> {
        Self::builder().start()
    }

    /// Begins to describe one.
    pub fn builder() -> PostgresBuilder {
        PostgresBuilder::default()
    }

    /// The server that the tests of this process share: it starts with the first call and ends with the process. Tests that
    /// stop or freeze their server start their own.
    ///
    /// # Errors
    ///
    /// As [`Self::start`], at each call again.
    pub fn shared() -> Result<&'static Self, &'static StartError> {
        static SHARED: OnceLock<Result<Postgres, StartError>> = OnceLock::new();
        SHARED.get_or_init(Self::start).as_ref()
    }

    /// Makes a fresh, empty database.
    ///
    /// # Errors
    ///
    /// [`StartError::Failed`] when the server refuses.
    ///
    /// # Performance
    ///
    /// A copy of the template: some 50 ms.
    pub fn database(&self) -> Result<Database, StartError> {
        // The number only has to differ from the others.
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(Database { name, address: self.address(), password: self.password.clone() })
    }

    /// Runs SQL as the superuser in a database and returns its rows, columns parted by `|`.
    ///
    /// # Errors
    ///
    /// [`StartError::Failed`] with what the server said.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String, StartError> {
        let mut command = Command::new(&self.psql);
        command.args(["-X", "-q", "-A", "-t", "-w", "-v", "ON_ERROR_STOP=1", "-h", "127.0.0.1", "-U", USER]);
        command.args(["-p", &self.address().port().to_string(), "-d", database, "-c", sql]);
        // What waits for a lock that is never released fails, instead of holding up its test for ever.
        command.env("PGCONNECT_TIMEOUT", "60").env("PGOPTIONS", format!("-c lock_timeout={LOCK_TIMEOUT}"));
        let output = command.env("PGPASSWORD", &self.password).output();
        let output = told("psql", output.map_err(StartError::io("start psql"))?)?;
        Ok(String::from_utf8_lossy(&output.stdout).trim_end().to_owned())
    }

    /// Starts a standby of this server, which takes from it, byte for byte, what it writes. It has the same databases and the
    /// same password, and answers what only reads.
    ///
    /// # Errors
    ///
    /// As [`Self::start`].
    ///
    /// # Performance
    ///
    /// A second or two: the data is copied.
    pub fn standby(&self) -> Result<Self, StartError> {
        let account = Account::for_postgres()?;
        let directory = Directory::new("postgres", account)?;
        let copy = find::postgres("pg_basebackup")?;
        let mut command = under(account, &copy);
        command.args(["-h", "127.0.0.1", "-U", USER, "-w", "-X", "stream", "-c", "fast", "-R", "-p"]);
        command.arg(self.address().port().to_string()).arg("-D").arg(data_of(&directory));
        // Without syncs: what is copied here is written again by the next test.
        command.arg("--no-sync").env("PGPASSWORD", &self.password).current_dir("/");
        told("pg_basebackup", command.output().map_err(StartError::io("start pg_basebackup"))?)?;
        PostgresBuilder::default().run(directory, account, self.password.clone())
    }

    /// Has a standby take over: from its answer on it can be written to.
    ///
    /// # Errors
    ///
    /// [`StartError::Failed`] with what the server said.
    pub fn promote(&self) -> Result<(), StartError> {
        self.sql("postgres", "SELECT pg_promote(true)").map(drop)
    }

    /// Sets a parameter of the running server for all sessions, and returns when it is in force.
    ///
    /// # Errors
    ///
    /// [`StartError::Failed`] with what the server said, or when it does not take it.
    pub fn set(&self, name: &str, value: &str) -> Result<(), StartError> {
        self.sql("postgres", &format!("ALTER SYSTEM SET {name} = '{value}'"))?;
        self.sql("postgres", "SELECT pg_reload_conf()")?;
        let shown = || self.sql("postgres", &format!("SHOW {name}")).is_ok_and(|shown| shown == value);
        let refused = format!("{name} is not {value}");
        let failed = || StartError::Failed { program: "postgres".to_owned(), output: refused };
        if until(shown) { Ok(()) } else { Err(failed()) }
    }

    /// The password of the superuser `postgres`.
    #[must_use]
    pub fn password(&self) -> &str {
        &self.password
    }

    /// Where its data lies.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        data_of(&self.directory)
    }
}

impl Server for Postgres {
    fn process(&self) -> &Running {
        &self.running
    }
}

impl Database {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its URL, as the superuser.
    #[must_use]
    pub fn url(&self) -> String {
        self.url_at(self.address)
    }

    /// Its URL through something that listens at `address` in front of the server.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        format!("postgres://{USER}:{}@{address}/{}", self.password, self.name)
    }

    /// Its URL as another role.
    #[must_use]
    pub fn url_as(&self, role: &str, password: &str) -> String {
        format!("postgres://{role}:{password}@{}/{}", self.address, self.name)
    }
}

impl PostgresBuilder {
    /// Sets a parameter of the server, as `postgresql.conf` has them.
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Puts a file into the data directory before the start, for its owner alone: a certificate and its key, for example.
    pub fn file(mut self, name: &str, content: &[u8]) -> Self {
        self.files.push((name.to_owned(), content.to_vec()));
        self
    }

    /// Starts the server.
    ///
    /// # Errors
    ///
    /// As [`Postgres::start`].
    ///
    /// # Performance
    ///
    /// Most of a second, mainly for `initdb`.
    pub fn start(self) -> Result<Postgres, StartError> {
        let account = Account::for_postgres()?;
        let directory = Directory::new("postgres", account)?;
        let password = secret()?;
        initialise(&directory, account, &password)?;
        let data = data_of(&directory);
        for (name, content) in &self.files {
            put(&data.join(name), content, account)?;
        }
        self.run(directory, account, password)
    }

    /// Starts a server on the files that are there.
    fn run(
        self,
        directory: Directory,
        account: Option<Account>,
        password: String,
    ) -> Result<Postgres, StartError> {
        let program = find::postgres("postgres")?;
        let psql = find::program("psql", "postgresql-client").or_else(|_| find::postgres("psql"))?;
        let data = data_of(&directory);
        let running = on_free_port(|address| {
            let process = Process::start(Recipe {
                name: "postgres",
                program: program.clone(),
                args: self.arguments(&directory, address),
                account,
                log: directory.path().join("log"),
                answers: {
                    let data = data.clone();
                    Box::new(move |pid| is_ready(&data, pid))
                },
            })?;
            Ok(Running { process, address, fast: Signal::INT, immediate: Some(Signal::QUIT) })
        })?;
        Ok(Postgres { running, password, psql, databases: AtomicU64::new(0), directory })
    }

    fn arguments(&self, directory: &Directory, address: SocketAddr) -> Vec<String> {
        let own = [
            ("listen_addresses", address.ip().to_string()),
            ("port", address.port().to_string()),
            ("unix_socket_directories", directory.path().display().to_string()),
        ];
        let own = own.into_iter().map(|(name, value)| format!("{name}={value}"));
        let settings = own.chain(self.settings.iter().map(|(name, value)| format!("{name}={value}")));
        let mut arguments = vec!["-D".to_owned(), data_of(directory).display().to_string()];
        arguments.extend(settings.flat_map(|setting| ["-c".to_owned(), setting]));
        arguments
    }
}

fn data_of(directory: &Directory) -> PathBuf {
    directory.path().join("data")
}

/// Writes a file that only the account of the server may read.
pub(crate) fn put(path: &Path, content: &[u8], account: Option<Account>) -> Result<(), StartError> {
    let what = || format!("write {}", path.display());
    std::fs::write(path, content).map_err(StartError::io(what()))?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(StartError::io(what()))?;
    account.map_or(Ok(()), |account| account.give(path))
}

/// Makes the files of a cluster.
fn initialise(directory: &Directory, account: Option<Account>, password: &str) -> Result<(), StartError> {
    let initdb = find::postgres("initdb")?;
    let file = directory.path().join("password");
    put(&file, password.as_bytes(), account)?;
    let mut command = under(account, &initdb);
    // MD5, since the tests open thousands of connections and SCRAM is slow by design. What is written here needs no sync:
    // a test that loses the machine's power starts anew.
    command.args(["--auth=md5", "--username", USER, "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync"]);
    command.arg("--pwfile").arg(&file).arg("--pgdata").arg(data_of(directory)).current_dir("/");
    told("initdb", command.output().map_err(StartError::io("start initdb"))?).map(drop)
}

/// A program that runs under the account of the server.
fn under(account: Option<Account>, program: &Path) -> Command {
    let Some(account) = account else { return Command::new(program) };
    let mut command = Command::new("setpriv");
    command.args(["--reuid", account.name, "--regid", account.name, "--init-groups", "--"]).arg(program);
    command
}

/// What a program said, unless it failed.
fn told(program: &str, output: Output) -> Result<Output, StartError> {
    if output.status.success() {
        return Ok(output);
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).trim().to_owned();
    Err(StartError::Failed { program: program.to_owned(), output: said })
}

/// Whether the server with this process id takes connections: it says so in its lock file, in which a server that was killed
/// may have left its own id.
fn is_ready(data: &Path, pid: i32) -> bool {
    let text = std::fs::read_to_string(data.join("postmaster.pid")).unwrap_or_default();
    let mut lines = text.lines();
    lines.next() == Some(&pid.to_string())
        && lines.nth(6).is_some_and(|status| matches!(status.trim(), "ready" | "standby"))
}
