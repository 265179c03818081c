//! Reads a pipeline file: YAML in, checked steps out, or one line that says what is wrong and where.
//!
//! ```yaml
//! name: build                      # optional; the file stem otherwise
//! env: {CC: cc}                    # optional, for all steps
//! steps:
//!   - id: compile                  # [A-Za-z0-9_.-]{1,128}
//!     run: cc -o x x.c             # a string is /bin/sh -eu -c; a list is an argv
//!     env: {A: "1"}
//!     timeout: 1h30m               # 500ms, 30s, 5m, 2h, 1h30m or a number of seconds
//!     retries: 2
//!     resources: {cpu: 500m, memory: 256MiB, gpu: 1}
//!     outputs: [binary]            # names the step must write to $HODEI_OUTPUT
//!   - id: test
//!     run: [./x, --self-test]
//!     needs: [compile]
//! ```
//!
//! The path of a file through the crate is the order of its modules: `text` admits the bytes, `tree` turns
//! them into nodes with lines, `decode` turns nodes into steps, `graph` checks what the steps need.
//!
//! **Invariant:** no input makes [`parse`] panic, recurse without bound, or use memory that [`Limits`] does
//! not bound. **Invariant:** the [`Display`](std::fmt::Display) of a [`FileError`] is one line.
//!
//! # Strictness
//!
//! The file is YAML 1.2 in UTF-8, one document, with the core schema. A string is a string: `id: 1` is
//! refused, `id: "1"` is not. Quantities (`timeout`, `cpu`, `memory`) may be written either way. Unknown
//! fields, duplicate keys, tags and merge keys are refused; anchors and aliases work within limits.
//!
//! # Examples
//!
//! ```
//! use hodei_pipeline_file::{Limits, Run, parse};
//!
//! let file = parse(b"steps: [{id: hello, run: [echo, hi]}]", "greet.yaml", &Limits::default())?;
//! assert_eq!(file.name, "greet");
//! assert_eq!(file.steps[0].run, Run::Argv(vec!["echo".into(), "hi".into()]));
//!
//! let error = parse(b"steps:\n- id: a\n  run: 'true'\n  needs: [b]", "bad.yaml", &Limits::default()).unwrap_err();
//! assert_eq!(error.to_string(), r#"bad.yaml:4: step "a" needs "b", which no step has"#);
//! # Ok::<(), hodei_pipeline_file::FileError>(())
//! ```

mod decode;
mod error;
mod graph;
mod limits;
mod name;
mod pipeline;
mod quantity;
mod read;
mod scalar;
mod text;
mod tree;
mod value;

pub use error::FileError;
pub use limits::Limits;
pub use pipeline::{PipelineFile, Resources, Run, Step};
pub use read::{load, parse, read};
