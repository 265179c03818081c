//! Types, rules and ports of Hodei, a job orchestration engine that an application links in.
//!
//! A job walks once through the house: **submit → store → claim → place → assign → execute → report → apply →
//! publish.** This crate holds what every hop agrees on and nothing that runs by itself: no runtime, no database,
//! no wire format.
//!
//! | to learn | read |
//! |---|---|
//! | what is submitted | [`job::JobSpec`], [`job::NewJob`], [`pipeline::Pipeline`] |
//! | which moves a job may make | [`job::State`], [`job::Cause`], [`job::next`] |
//! | how a store must behave | [`store::JobStore`], [`store::Coordination`], [`store::Policies`] and the suite in `testkit` |
//! | how work reaches an agent and comes back | [`gateway::WorkerGateway`] |
//! | how everyone learns of it | [`event::Event`], [`bus::EventBus`], [`store::Change`] |
//!
//! # Features
//!
//! | feature | default | adds |
//! |---|---|---|
//! | `cache` | no | `store::CachedStore`, and the second tier behind it |
//! | `codec` | no | `codec::Compress` and `codec::Encrypt`: arguments are compressed and encrypted |
//! | `lines` | no | `store::LineWriter` and `store::LineReader`: what a store keeps as lines of JSON |
//! | `testkit` | no | the store conformance suite, the history recorder and checker, `typical_spec()` |
#![forbid(unsafe_code)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod blob;
pub mod bus;
pub mod checkpoint;
pub mod codec;
pub mod error;
pub mod event;
pub mod gateway;
pub mod id;
pub mod job;
pub mod log;
pub mod map;
pub mod pipeline;
pub mod security;
pub mod store;
#[cfg(feature = "testkit")]
#[cfg_attr(docsrs, doc(cfg(feature = "testkit")))]
pub mod testkit;
pub mod text;
pub mod time;
pub mod turn;

pub use error::{Error, ErrorKind, Fault, Result};
pub use id::{JobId, Name, OwnerId, PipelineId, Slot, Tenant};
pub use time::{Clock, ManualClock, SystemClock, Timestamp};
