//! The store and what belongs to it, against private servers that these tests start.

mod audit;
mod cache;
