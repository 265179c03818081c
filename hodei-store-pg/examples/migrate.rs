//! Makes the schema of a database, or brings it up to date:
//! `cargo run -p hodei-store-pg --example migrate -- postgres://user:password@host/database`

use std::io::Write;
use std::process::ExitCode;

use hodei_store_pg::PgStore;

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut out = std::io::stdout();
    let Some(url) = std::env::args().nth(1) else {
        drop(writeln!(std::io::stderr(), "the url of a database is missing"));
        return ExitCode::from(2);
    };
    match PgStore::migrate(&PgStore::builder(url)).await {
        Ok(done) if done.from == done.to => {
            drop(writeln!(out, "schema {} is up to date", done.to));
            ExitCode::SUCCESS
        }
        Ok(done) => {
            drop(writeln!(out, "schema {} is now {}", done.from, done.to));
            ExitCode::SUCCESS
        }
        Err(error) => {
            drop(writeln!(std::io::stderr(), "failed to migrate: {error}"));
            ExitCode::FAILURE
        }
    }
}
