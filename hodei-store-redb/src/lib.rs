//! Being written.
#![expect(missing_docs, reason = "x")]
