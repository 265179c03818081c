//! The cache before a store: held to the conformance suite, and to never being older than it may be.

mod exclusive;
mod scripted;
mod shared;
mod suite;
mod threads;
mod tier;
mod world;
