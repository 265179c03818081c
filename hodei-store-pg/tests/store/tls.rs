//! Encrypted connections to a server whose certificate comes from an authority that nobody else knows.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use futures_util::StreamExt;
use hodei_core::store::{Coordination, JobStore, SubmitOptions};
use hodei_core::{ErrorKind, OwnerId};
use hodei_store_pg::{PgAudit, PgStore};
use hodei_test_servers::{Database, Postgres};

use crate::env::job;

/// Certificates, in a directory that goes with them.
struct Authority {
    directory: PathBuf,
}

impl Drop for Authority {
    fn drop(&mut self) {
        // What is left of it is in the directory for such things.
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

impl Authority {
    fn new(name: &str) -> Self {
        let directory = std::env::temp_dir().join(format!("hodei-tls-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        let authority = Self { directory };
        authority.openssl(&format!(
            "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN={name} -keyout ca.key -out ca.pem"
        ));
        authority
    }

    /// Makes the certificate of the server, for its address and no name, and the key to it.
    fn certify(&self) -> (Vec<u8>, Vec<u8>) {
        self.openssl(
            "req -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=server -keyout server.key -out server.csr",
        );
        let names = self.path("names");
        std::fs::write(names, "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").expect("a file");
        self.openssl(
            "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile names -out server.pem",
        );
        let read = |name| std::fs::read(self.path(name)).expect("openssl made it");
        (read("server.pem"), read("server.key"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn openssl(&self, arguments: &str) {
        let mut command = Command::new("openssl");
        let ended = command.args(arguments.split_whitespace()).current_dir(&self.directory).output();
        let ended = ended.expect("missing: openssl, which makes certificates; scripts/test installs it");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }
}

/// A server that speaks to nobody who does not encrypt.
fn server(authority: &Authority) -> Postgres {
    let (certificate, key) = authority.certify();
    let postgres = Postgres::builder()
        .setting("ssl", "on")
        .file("server.crt", &certificate)
        .file("server.key", &key)
        .file("pg_hba.conf", b"hostssl all all 127.0.0.1/32 md5\n");
    postgres.start().expect("PostgreSQL")
}

/// A url that asks for a mode, and perhaps knows an authority.
fn url(database: &Database, mode: &str, authority: Option<&Path>) -> String {
    let known = authority.map(|path| format!("&sslrootcert={}", path.display())).unwrap_or_default();
    format!("{}?sslmode={mode}{known}", database.url())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_trusts_the_authority_that_it_was_told_of_and_no_other() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let server = server(&ours);
    let database = server.database().expect("a database");
    let (known, other) = (ours.path("ca.pem"), theirs.path("ca.pem"));
    for (url, refused) in [
        (url(&database, "verify-full", Some(&known)), None),
        (url(&database, "verify-ca", Some(&known)), None),
        (url(&database, "require", None), None),
        (url(&database, "verify-full", Some(&other)), Some(ErrorKind::Config)),
        (url(&database, "verify-full", None), Some(ErrorKind::Config)),
        // The certificate is of an address, not of this name.
        (
            url(&database, "verify-full", Some(&known)).replace("127.0.0.1", "localhost"),
            Some(ErrorKind::Config),
        ),
        (url(&database, "verify-ca", Some(&known)).replace("127.0.0.1", "localhost"), None),
        (url(&database, "disable", None), Some(ErrorKind::Unauthenticated)),
    ] {
        let opened = PgStore::builder(&url).connect().await;
        let kind = opened.as_ref().err().map(hodei_core::Error::kind);
        let mode = url.split_once('?').map(|(_, mode)| mode);
        assert_eq!(kind, refused, "{mode:?} {:?}", opened.err().map(|error| error.to_string()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_store_has_to_do_with_its_server_is_encrypted() {
    let authority = Authority::new("all");
    let server = server(&authority);
    let database = server.database().expect("a database");
    let url = url(&database, "verify-full", Some(&authority.path("ca.pem")));
    let open = || PgStore::builder(&url).connect();
    let (here, there) = (open().await.expect("it opens"), open().await.expect("it opens"));
    let audit = PgAudit::builder(&url, [7; 32]).connect().await.expect("it opens");
    let owner = OwnerId::new("node").expect("a name");
    let owner = here.register(&owner, Duration::from_secs(60)).await.expect("register");
    assert!(here.beat(vec![owner], Duration::from_secs(60)).await.expect("a heartbeat")[0].alive);
    let listening = "SELECT count(*) FROM pg_stat_activity JOIN pg_stat_ssl USING (pid) WHERE ssl AND query LIKE 'LISTEN%'";
    for _ in 0..500 {
        if server.sql(database.name(), listening).expect("a count") == "2" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(server.sql(database.name(), listening).expect("a count"), "2");
    let mut wakeups = there.wakeups();
    here.submit(vec![job()], SubmitOptions::each()).await.expect("submit");
    tokio::time::timeout(Duration::from_secs(20), wakeups.next()).await.expect("it hears of it");
    let open =
        "SELECT count(*) FILTER (WHERE ssl) >= 7, count(*) FILTER (WHERE NOT ssl) FROM pg_stat_activity
        JOIN pg_stat_ssl USING (pid) WHERE application_name LIKE 'hodei%'";
    assert_eq!(server.sql(database.name(), open).expect("counts"), "t|0");
    here.close().await;
    there.close().await;
    drop(audit);
}
