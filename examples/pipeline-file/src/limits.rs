//! What a pipeline file may be at most.

use std::time::Duration;

/// The most that a pipeline file may hold; going above any of them is an error that names the limit.
///
/// The defaults are generous for files that people write and small for a machine that reads them.
///
/// # Examples
///
/// ```
/// use hodei_pipeline_file::{Limits, parse};
///
/// let limits = Limits { steps: 1, ..Limits::default() };
/// let two = b"steps: [{id: a, run: x}, {id: b, run: x}]";
/// let error = parse(two, "two.yaml", &limits).unwrap_err();
/// assert_eq!(error.to_string(), "two.yaml:1: the file has 2 steps, above the limit of 1");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file. Default: 1 MiB.
    pub file_bytes: usize,
    /// Lists and mappings inside one another. Default: 16; a valid file needs 5.
    /// Above 255 it no longer holds for `[` and `{`, where the scanner stops by itself.
    pub depth: usize,
    /// Nodes that all aliases together stand for. Default: 100,000.
    pub alias_nodes: usize,
    /// Bytes of text that all aliases together stand for. Default: 4 MiB.
    pub alias_bytes: usize,
    /// Bytes of one string, and of one `NAME=value` of the environment. Default: 131,071, the longest string
    /// that Linux passes to a program.
    pub string_bytes: usize,
    /// Steps of the file. Default: 10,000.
    pub steps: usize,
    /// Ids in the `needs` of one step. Default: 1,000.
    pub needs_per_step: usize,
    /// Variables in one `env`. Default: 256.
    pub env_entries: usize,
    /// Strings in a `run` that is a list. Default: 1,024.
    pub argv_items: usize,
    /// Names in the `outputs` of one step. Default: 256.
    pub outputs_per_step: usize,
    /// The longest `timeout`. Default: 7 days.
    pub timeout: Duration,
    /// The most `retries`. Default: 100.
    pub retries: u32,
    /// The most `cpu`, in thousandths of a processor. Default: 1,000,000 (1,000 processors).
    pub cpu_millis: u64,
    /// The most `memory`, in bytes. Default: 64 TiB.
    pub memory_bytes: u64,
    /// The most `gpu`. Default: 1,024.
    pub gpus: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            file_bytes: 1 << 20,
            depth: 16,
            alias_nodes: 100_000,
            alias_bytes: 4 << 20,
            string_bytes: (128 << 10) - 1,
            steps: 10_000,
            needs_per_step: 1_000,
            env_entries: 256,
            argv_items: 1_024,
            outputs_per_step: 256,
            timeout: Duration::from_secs(7 * 24 * 60 * 60),
            retries: 100,
            cpu_millis: 1_000_000,
            memory_bytes: 64 << 40,
            gpus: 1_024,
        }
    }
}
