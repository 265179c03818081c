//! NATS servers that let in only those whom they know, and such as encrypt.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use hodei_bus::nats::{NatsBus, NatsOptions, NatsTls};
use hodei_core::bus::{Delivery, EventBus, EventFilter, SubscribeOptions};
use hodei_core::event::{Event, Progress};
use hodei_core::job::{Epoch, Secret};
use hodei_core::{Error, ErrorKind, JobId, Tenant};
use hodei_test_servers::Nats;

/// How long a test waits before it fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Connects, and says how that was refused. A busy machine may take longer than a request has.
async fn connected(url: &str, options: NatsOptions) -> Result<NatsBus, Error> {
    let end = Instant::now() + PATIENCE;
    loop {
        match NatsBus::connect(url, options.clone()).await {
            Err(error) if error.is_retryable() && Instant::now() < end => {}
            done => return done,
        }
    }
}

async fn refused(url: &str, options: NatsOptions) -> ErrorKind {
    connected(url, options).await.expect_err("it is let in").kind()
}

/// Publishes, and hears it.
async fn works(bus: &NatsBus) {
    let mut hears = bus.subscribe(EventFilter::all(), SubscribeOptions::default());
    let tenant = Tenant::default();
    let job = JobId::from_parts(1, tenant.slot(), 0);
    let event = Event::Progress(Progress { job, tenant, epoch: Epoch::from_number(1), done: 1, total: 2 });
    bus.publish(vec![event.clone()], PATIENCE).await.unwrap();
    let heard = tokio::time::timeout(PATIENCE, hears.recv(1)).await.expect("it comes");
    assert_eq!(heard, [Delivery::Event(event)]);
}

fn secret(text: &str) -> Secret {
    Secret::new(text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lets_in_whom_it_knows() {
    let server = Nats::start_with("authorization { user: hodei, password: \"p4ss word\" }").unwrap();
    let url = server.url();
    let options = NatsOptions::default().max_bytes(1 << 20).replicas(1);
    let known = options.clone().user("hodei", secret("p4ss word"));
    works(&connected(&url, known.clone()).await.unwrap()).await;
    assert!(!format!("{known:?}").contains("p4ss"), "nobody sees it: {known:?}");
    assert_eq!(refused(&url, options.clone()).await, ErrorKind::Unauthenticated);
    assert_eq!(
        refused(&url, options.clone().user("hodei", secret("pass"))).await,
        ErrorKind::Unauthenticated
    );
    let no_text = Secret::new(vec![0xff]);
    assert_eq!(refused(&url, options.user("hodei", no_text)).await, ErrorKind::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_lets_in_whoever_has_its_token() {
    let server = Nats::start_with("authorization { token: \"t0ken\" }").unwrap();
    let options = NatsOptions::default();
    works(&connected(&server.url(), options.clone().token(secret("t0ken"))).await.unwrap()).await;
    assert_eq!(refused(&server.url(), options.token(secret("other"))).await, ErrorKind::Unauthenticated);
}

/// Certificates, in a directory that goes with them.
struct Authority(PathBuf);

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left of it is in the directory for such things.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl Authority {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("hodei-nats-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let authority = Self(directory);
        let ca = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -keyout ca.key -out ca.pem";
        authority.openssl(&format!("{ca} -subj /CN={name}"));
        authority
    }

    /// Makes a certificate for the loopback address, and the key to it.
    fn certify(&self, whom: &str) -> (PathBuf, PathBuf) {
        let key = "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
        self.openssl(&format!("{key} -subj /CN={whom} -keyout {whom}.key -out {whom}.csr"));
        std::fs::write(self.0.join("names"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n")
            .unwrap();
        let sign = "x509 -req -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names";
        self.openssl(&format!("{sign} -in {whom}.csr -out {whom}.pem"));
        (self.0.join(format!("{whom}.pem")), self.0.join(format!("{whom}.key")))
    }

    fn root(&self) -> PathBuf {
        self.0.join("ca.pem")
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let ended = command.args(arguments.split_whitespace()).current_dir(&self.0).output();
        let ended = ended.expect("missing: openssl, which makes certificates; scripts/test installs it");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

fn quoted(path: &Path) -> String {
    format!("\"{}\"", path.display())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_trusted_by_the_authority_that_was_named() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let ((certificate, key), (mine, my_key)) = (ours.certify("server"), ours.certify("node"));
    let server = Nats::start_with(&format!(
        "tls {{ cert_file: {}, key_file: {}, ca_file: {}, verify: true }}",
        quoted(&certificate),
        quoted(&key),
        quoted(&ours.root()),
    ))
    .unwrap();
    let url = server.url();
    let tls = NatsTls::new().roots(ours.root()).client(&mine, &my_key);
    works(&connected(&url, NatsOptions::default().tls(tls)).await.unwrap()).await;
    let other = NatsTls::new().roots(theirs.root()).client(mine, my_key);
    let other = NatsBus::connect(&url, NatsOptions::default().tls(other)).await;
    assert!(other.is_err(), "it does not trust that server");
    let nobody = NatsTls::new().roots(ours.root());
    let nobody = NatsBus::connect(&url, NatsOptions::default().tls(nobody)).await;
    assert!(nobody.is_err(), "the server asks for a certificate");
}
