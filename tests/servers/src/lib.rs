//! Private servers for tests: PostgreSQL, Redis, NATS and PgBouncer, and a proxy that breaks connections.
//!
//! Each `start()` finds the program of the distribution, runs it on a free port of the loopback in a directory of its
//! own, and returns when it answers. What it started ends with the value, and with the process of the test however that
//! dies; so does its directory. No service of the machine is touched.
//!
//! | server | program | Debian package |
//! |---|---|---|
//! | [`Postgres`] | `initdb`, `postgres`, `psql` | postgresql |
//! | [`Redis`] | `redis-server` | redis-server |
//! | [`Nats`] | `nats-server` | nats-server |
//! | [`PgBouncer`] | `pgbouncer` | pgbouncer |
//!
//! A program that is not there is an error that names its package. [`Server`] is what one can do to each of them:
//! kill it, stop it, freeze it, start it again on the same port and data.
//!
//! All calls block: none takes longer than [`PATIENCE`], most some milliseconds.
#![forbid(unsafe_code)]

mod directory;
mod error;
mod find;
mod nats;
mod pgbouncer;
mod postgres;
mod process;
mod proxy;
mod redis;
mod secret;
mod server;
mod spawner;
mod wait;

pub use error::StartError;
pub use nats::Nats;
pub use pgbouncer::{PgBouncer, Pooling};
pub use postgres::{Database, Postgres, PostgresBuilder};
pub use proxy::Proxy;
pub use redis::Redis;
pub use server::{Running, Server};
pub use wait::PATIENCE;
