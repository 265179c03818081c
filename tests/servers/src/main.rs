//! Runs private servers until it is interrupted, and prints where they are, a line each:
//!
//! ```sh
//! cargo run -p hodei-test-servers -- postgres redis nats pgbouncer
//! ```
#![forbid(unsafe_code)]

use std::error::Error;
use std::io::{Write, stdout};
use std::thread;

use hodei_test_servers::{Nats, PgBouncer, Pooling, Postgres, Redis, Server};

/// The servers behind a URL.
type Servers = Vec<Box<dyn Server>>;

fn main() -> Result<(), Box<dyn Error>> {
    let mut running = Servers::new();
    for name in std::env::args().skip(1) {
        let (url, servers) = start(&name)?;
        let pids = servers.iter().filter_map(|server| server.pid()).map(|pid| pid.to_string());
        writeln!(stdout(), "{name} {url} {}", pids.collect::<Vec<_>>().join(" "))?;
        running.extend(servers);
    }
    writeln!(stdout(), "ready")?;
    loop {
        thread::park();
    }
}

/// Starts what `name` says; the first of the servers is the one that the URL leads to.
fn start(name: &str) -> Result<(String, Servers), Box<dyn Error>> {
    match name {
        "postgres" => {
            let server = Postgres::start()?;
            Ok((server.database()?.url(), vec![Box::new(server)]))
        }
        "pgbouncer" => {
            let server = Postgres::start()?;
            let bouncer = PgBouncer::start(&server, Pooling::Transaction)?;
            Ok((bouncer.url(&server.database()?), vec![Box::new(bouncer), Box::new(server)]))
        }
        "redis" => {
            let server = Redis::start()?;
            Ok((server.url(), vec![Box::new(server)]))
        }
        "nats" => {
            let server = Nats::start()?;
            Ok((server.url(), vec![Box::new(server)]))
        }
        other => {
            Err(format!("no server is called {other}; there are postgres, redis, nats and pgbouncer").into())
        }
    }
}
