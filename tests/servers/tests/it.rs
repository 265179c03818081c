//! Each server starts, answers, dies as told, comes back with its data, and ends with its owner.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use hodei_test_servers::{Nats, PATIENCE, PgBouncer, Pooling, Postgres, Proxy, Redis, Server, StartError};

/// Long enough for a server on this machine to have answered.
const A_WHILE: Duration = Duration::from_millis(300);

/// What the server at `address` answers to `question`, if it does in `time`.
fn ask(address: SocketAddr, question: &[u8], length: usize, time: Duration) -> Option<Vec<u8>> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(time)).ok()?;
    stream.write_all(question).ok()?;
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer).ok().map(|()| answer)
}

/// PostgreSQL's first question, which it answers with one letter: may we speak TLS?
const MAY_WE_SPEAK_TLS: [u8; 8] = [0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

/// What Redis says to whom it does not know.
const NO_AUTH: &[u8; 34] = b"-NOAUTH Authentication required.\r\n";

/// Fails unless `done` comes in time.
#[track_caller]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < end, "{what} did not come");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn databases_of_postgres_are_apart_and_durable() {
    let postgres = Postgres::shared().unwrap();
    let (one, other) = (postgres.database().unwrap(), postgres.database().unwrap());
    postgres.sql(one.name(), "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").unwrap();
    assert_eq!(postgres.sql(one.name(), "SELECT n, n + 1 FROM t").unwrap(), "7|8");
    assert!(matches!(postgres.sql(other.name(), "SELECT n FROM t"), Err(StartError::Failed { .. })));
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(postgres.sql("postgres", &format!("SHOW {setting}")).unwrap(), "on", "{setting}");
    }
}

#[test]
fn postgres_comes_back_from_every_end_with_its_rows() {
    let postgres = Postgres::builder().setting("max_connections", "20").start().unwrap();
    assert_eq!(postgres.sql("postgres", "SHOW max_connections").unwrap(), "20");
    postgres.sql("postgres", "CREATE TABLE t (n int)").unwrap();
    let ends = [Server::kill9, Server::stop_immediate, Server::stop_fast];
    for (count, end) in (1..).zip(ends) {
        postgres.sql("postgres", "INSERT INTO t VALUES (1)").unwrap();
        let before = (postgres.address(), postgres.pid());
        end(&postgres);
        assert_eq!(postgres.pid(), None, "after end {count}");
        assert!(postgres.sql("postgres", "SELECT 1").is_err(), "after end {count}");
        postgres.restart().unwrap();
        assert_eq!(postgres.address(), before.0);
        assert_ne!(postgres.pid(), before.1);
        assert_eq!(
            postgres.sql("postgres", "SELECT sum(n) FROM t").unwrap(),
            count.to_string(),
            "after end {count}"
        );
    }
}

#[test]
fn a_frozen_postgres_is_silent_until_it_thaws() {
    let postgres = Postgres::start().unwrap();
    assert_eq!(ask(postgres.address(), &MAY_WE_SPEAK_TLS, 1, PATIENCE).unwrap(), b"N");
    postgres.freeze();
    assert_eq!(ask(postgres.address(), &MAY_WE_SPEAK_TLS, 1, A_WHILE), None);
    postgres.thaw();
    assert_eq!(ask(postgres.address(), &MAY_WE_SPEAK_TLS, 1, PATIENCE).unwrap(), b"N");
    postgres.freeze();
    postgres.stop_fast();
    assert_eq!(postgres.pid(), None, "a frozen server can be stopped");
}

#[test]
fn a_bouncer_leads_to_its_server() {
    let postgres = Postgres::shared().unwrap();
    let database = postgres.database().unwrap();
    let bouncer = PgBouncer::start(postgres, Pooling::Transaction).unwrap();
    let ask = |sql: &str| {
        let output = Command::new("psql").args(["-XqAtc", sql, &bouncer.url(&database)]).output().unwrap();
        output.status.success().then(|| String::from_utf8(output.stdout).unwrap().trim().to_owned())
    };
    assert_eq!(ask("SELECT current_database()").as_deref(), Some(database.name()));
    bouncer.kill9();
    assert_eq!(ask("SELECT 1"), None);
    bouncer.restart().unwrap();
    assert_eq!(ask("SELECT 1").as_deref(), Some("1"));
}

#[test]
fn redis_forgets_when_it_dies_and_asks_for_its_password() {
    let redis = Redis::start_with(&[("maxmemory", "64mb")]).unwrap();
    let password = redis.url().split([':', '@']).nth(2).unwrap().to_owned();
    let say = |words: &str, length| {
        ask(redis.address(), format!("AUTH {password}\r\n{words}\r\n").as_bytes(), length, PATIENCE)
    };
    assert_eq!(say("SET k v", 10).unwrap(), b"+OK\r\n+OK\r\n");
    assert_eq!(ask(redis.address(), b"GET k\r\n", 7, PATIENCE).unwrap(), b"-NOAUTH");
    redis.freeze();
    assert_eq!(ask(redis.address(), b"PING\r\n", 1, A_WHILE), None);
    redis.thaw();
    redis.kill9();
    assert_eq!(ask(redis.address(), b"PING\r\n", 1, A_WHILE), None);
    redis.restart().unwrap();
    assert_eq!(say("GET k", 10).unwrap(), b"+OK\r\n$-1\r\n");
}

#[test]
fn nats_keeps_its_streams_over_a_kill() {
    let nats = Nats::start().unwrap();
    let jetstream = |subject: &str, body: &str| {
        let mut stream = TcpStream::connect(nats.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        let words = format!(
            "CONNECT {{\"verbose\":false}}\r\nSUB reply 1\r\nPUB $JS.API.{subject} reply {length}\r\n{body}\r\n"
        );
        stream.write_all(words.as_bytes()).unwrap();
        BufReader::new(stream).lines().map(Result::unwrap).find(|line| line.starts_with('{')).unwrap()
    };
    let made = jetstream("STREAM.CREATE.s", r#"{"name":"s","subjects":["a"],"storage":"file"}"#);
    assert!(made.contains(r#""name":"s""#), "{made}");
    nats.kill9();
    assert!(TcpStream::connect(nats.address()).is_err());
    nats.restart().unwrap();
    let told = jetstream("STREAM.NAMES", "");
    assert!(told.contains(r#""streams":["s"]"#), "{told}");
}

#[test]
fn a_proxy_holds_cuts_and_swallows_answers() {
    let redis = Redis::start().unwrap();
    let proxy = Proxy::start(redis.address()).unwrap();
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    let mut say = |words: &[u8], time: Duration| {
        stream.set_read_timeout(Some(time)).unwrap();
        stream.write_all(words)?;
        let mut answer = [0; NO_AUTH.len()];
        stream.read_exact(&mut answer).map(|()| answer)
    };
    assert_eq!(&say(b"PING\r\n", PATIENCE).unwrap(), NO_AUTH);
    assert_eq!(proxy.passed(), 6 + 34);
    proxy.hold();
    assert_eq!(say(b"PING\r\n", A_WHILE).unwrap_err().kind(), ErrorKind::WouldBlock);
    proxy.release();
    assert!(say(b"", PATIENCE).is_ok(), "what was held arrives");
    proxy.cut_before(b"NOAUTH");
    assert!(ask(proxy.address(), b"PING\r\n", 1, PATIENCE).is_none());
    assert_eq!(proxy.cuts(), 1);
    assert!(ask(proxy.address(), b"PING\r\n", 1, PATIENCE).is_some(), "once");
    proxy.cut_after(34);
    assert!(ask(proxy.address(), b"PING\r\n", 34, PATIENCE).is_some());
    assert!(ask(proxy.address(), b"PING\r\n", 1, PATIENCE).is_none());
    assert_eq!(proxy.cuts(), 2);
    proxy.cut();
    assert!(say(b"PING\r\n", PATIENCE).is_err());
    proxy.refuse();
    assert!(ask(proxy.address(), b"PING\r\n", 1, PATIENCE).is_none());
    proxy.admit();
    proxy.delay(A_WHILE);
    let began = Instant::now();
    assert!(ask(proxy.address(), b"PING\r\n", 1, PATIENCE).is_some());
    assert!(began.elapsed() >= 2 * A_WHILE);
}

#[test]
fn a_dropped_server_leaves_nothing() {
    let redis = Redis::start().unwrap();
    let process = format!("/proc/{}", redis.pid().unwrap());
    let directory = std::fs::read_link(format!("{process}/cwd")).unwrap();
    drop(redis);
    assert!(!Path::new(&process).exists() && !directory.exists());
}

/// A process that has servers. It is killed when the value goes.
struct Owner(Child);

impl Owner {
    fn start(servers: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_hodei-test-servers"));
        Self(command.args(servers).stdout(Stdio::piped()).spawn().expect("the program starts"))
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.kill().expect("the owner is a child");
        self.0.wait().expect("the owner is a child");
    }
}

#[test]
fn servers_end_with_a_process_that_is_killed() {
    let mut owner = Owner::start(&["pgbouncer", "redis", "nats"]);
    let lines = BufReader::new(owner.0.stdout.take().unwrap()).lines().map(Result::unwrap);
    let lines: Vec<String> = lines.take_while(|line| line != "ready").collect();
    let pids = lines.iter().flat_map(|line| line.split(' ').skip(2));
    let processes: Vec<String> = pids.map(|pid| format!("/proc/{pid}")).collect();
    assert_eq!(processes.len(), 4, "{lines:?}");
    let words =
        processes.iter().map(|process| std::fs::read_to_string(format!("{process}/cmdline")).unwrap());
    let words: Vec<String> =
        words.flat_map(|words| words.split('\0').map(str::to_owned).collect::<Vec<_>>()).collect();
    let is_there = |word: &&String| word.contains("/hodei-") && Path::new(word).exists();
    let directories: Vec<&String> = words.iter().filter(is_there).collect();
    assert!(directories.len() >= 3, "{words:?}");
    drop(owner);
    eventually("the end of the servers", || processes.iter().all(|process| !Path::new(process).exists()));
    eventually("the end of the directories", || directories.iter().all(|path| !Path::new(path).exists()));
}
