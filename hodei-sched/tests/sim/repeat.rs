//! The same seed gives the same trace.
