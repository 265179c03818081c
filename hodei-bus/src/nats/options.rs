//! How a server is used: which stream, and who is let in.

use std::path::PathBuf;
use std::time::Duration;

use async_nats::ConnectOptions;
use hodei_core::job::Secret;
use hodei_core::{Error, Fault, Result};

use super::place::Place;

/// How to use a server.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsOptions {
    /// The name of the stream, made when it is not there. Its subject is `<stream>.events`. Default: `hodei`.
    pub stream: String,
    /// How many events wait to be sent at most while the server is away. Default: 65,536.
    pub capacity: usize,
    /// How many bytes the stream keeps; the oldest messages go first. Default: 1 GiB. Looked at when the stream is made.
    pub max_bytes: i64,
    /// Where to begin to read. Default: behind what is there.
    pub start: Start,
    /// How long a message waits for blocking subscribers that are full; then they get a gap. Default: 30 s.
    pub wait: Duration,
    /// On how many servers of a cluster the stream is kept. Default: 1. Looked at when the stream is made.
    pub replicas: usize,
    /// Who the process is to the server. Default: nobody.
    pub login: NatsLogin,
    /// How connections are encrypted. Default: not, unless the server asks for it, and then by the roots of the system.
    pub tls: Option<NatsTls>,
}

/// Who a process is to a server. Nothing of it is shown by `Debug`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum NatsLogin {
    /// Nobody, or whoever the url names.
    #[default]
    Nobody,
    /// A user with a password.
    User {
        /// The name.
        name: String,
        /// The password.
        password: Secret,
    },
    /// Whoever has this token.
    Token(Secret),
}

/// How connections to a server are encrypted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NatsTls {
    /// A file of certificates of authorities that are trusted, beside those of the system.
    pub roots: Option<PathBuf>,
    /// The files of the certificate of this process and of its key, where the server asks for one.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Where to begin to read a stream.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    /// Behind what is there.
    #[default]
    Now,
    /// With the oldest message that is kept. Nothing is read before somebody subscribes.
    Oldest,
    /// Behind a message: what [`NatsBus::place`] returned in an earlier life. Nothing is read before somebody subscribes. In
    /// another stream of the same name it begins with the oldest message, and tells of a gap.
    ///
    /// [`NatsBus::place`]: super::NatsBus::place
    After(Place),
}

impl Default for NatsOptions {
    fn default() -> Self {
        Self {
            stream: "hodei".to_owned(),
            capacity: 1 << 16,
            max_bytes: 1 << 30,
            start: Start::Now,
            wait: Duration::from_secs(30),
            replicas: 1,
            login: NatsLogin::Nobody,
            tls: None,
        }
    }
}

impl NatsOptions {
    /// Names the stream.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = name.into();
        self
    }

    /// Bounds how many events wait while the server is away.
    #[must_use]
    pub const fn capacity(mut self, events: usize) -> Self {
        self.capacity = events;
        self
    }

    /// Says where to begin.
    #[must_use]
    pub const fn start(mut self, start: Start) -> Self {
        self.start = start;
        self
    }

    /// Bounds how long a message waits for blocking subscribers.
    #[must_use]
    pub const fn wait(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }

    /// Bounds how many bytes the stream keeps, when it is made.
    #[must_use]
    pub const fn max_bytes(mut self, bytes: i64) -> Self {
        self.max_bytes = bytes;
        self
    }

    /// Says on how many servers of a cluster the stream is kept, when it is made.
    #[must_use]
    pub const fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Logs in as a user.
    #[must_use]
    pub fn user(mut self, name: impl Into<String>, password: Secret) -> Self {
        self.login = NatsLogin::User { name: name.into(), password };
        self
    }

    /// Logs in with a token.
    #[must_use]
    pub fn token(mut self, token: Secret) -> Self {
        self.login = NatsLogin::Token(token);
        self
    }

    /// Encrypts, and connects to no server that does not.
    #[must_use]
    pub fn tls(mut self, tls: NatsTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Turns what is said of the connection into what the client takes.
    pub(super) fn connection(&self) -> Result<ConnectOptions> {
        let text = |secret: &Secret| {
            let text = std::str::from_utf8(secret.expose()).map(str::to_owned);
            text.map_err(|_| Error::invalid("nats.connect", vec![Fault::new("login", "not_utf8")]))
        };
        let options = match &self.login {
            NatsLogin::Nobody => ConnectOptions::new(),
            NatsLogin::User { name, password } => {
                ConnectOptions::with_user_and_password(name.clone(), text(password)?)
            }
            NatsLogin::Token(token) => ConnectOptions::with_token(text(token)?),
        };
        let Some(NatsTls { roots, client }) = &self.tls else { return Ok(options) };
        choose_cryptography();
        let options = options.require_tls(true);
        let options = roots.iter().cloned().fold(options, ConnectOptions::add_root_certificates);
        Ok(client
            .iter()
            .cloned()
            .fold(options, |options, (certificate, key)| options.add_client_certificate(certificate, key)))
    }
}

impl NatsTls {
    /// Trusts the authorities of the system alone.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Trusts the authorities of a file too.
    #[must_use]
    pub fn roots(mut self, file: impl Into<PathBuf>) -> Self {
        self.roots = Some(file.into());
        self
    }

    /// Shows the server a certificate of this process.
    #[must_use]
    pub fn client(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client = Some((certificate.into(), key.into()));
        self
    }
}

/// Gives this process a provider of cryptography, unless it has chosen one: where crates beside this one bring another, rustls
/// would not choose and would panic.
fn choose_cryptography() {
    use async_nats::rustls::crypto::{CryptoProvider, ring};

    if CryptoProvider::get_default().is_none() {
        // Somebody who did so meanwhile has chosen.
        let _ = ring::default_provider().install_default();
    }
}
