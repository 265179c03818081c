//! A pipeline file after every check.

use std::{collections::BTreeMap, time::Duration};

/// A pipeline as its file describes it.
///
/// Every id is unique, every need is the id of another step, and the steps have no cycle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipelineFile {
    /// The pipeline's name: the `name` field, else the stem of the file's name.
    pub name: String,
    /// Variables for all steps.
    pub env: BTreeMap<String, String>,
    /// The steps in the order of the file; there is at least one.
    pub steps: Vec<Step>,
}

impl PipelineFile {
    /// Returns the variables of `step`: those of the pipeline, then its own, which win.
    #[must_use]
    pub fn env_of(&self, step: &Step) -> BTreeMap<String, String> {
        let own = step.env.iter();
        self.env.iter().chain(own).map(|(name, value)| (name.clone(), value.clone())).collect()
    }
}

/// One step of a pipeline.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The step's id, unique in the file.
    pub id: String,
    /// What the step runs.
    pub run: Run,
    /// Ids of the steps that must succeed before this one, as written, each once.
    pub needs: Vec<String>,
    /// Variables of this step alone.
    pub env: BTreeMap<String, String>,
    /// How long one attempt may take; never zero.
    pub timeout: Option<Duration>,
    /// How many times the step is tried again after a failure. Default: 0.
    pub retries: u32,
    /// What the step claims of its machine. Default: nothing.
    pub resources: Resources,
    /// Names that the step must write to `$HODEI_OUTPUT`, as written, each once.
    pub outputs: Vec<String>,
    /// The line of the file where the step begins, from 1.
    pub line: u64,
}

/// What a step runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Run {
    /// A script for `/bin/sh -eu -c`; never blank.
    Shell(String),
    /// A program and its arguments, with no shell between; the program is never empty.
    Argv(Vec<String>),
}

/// What a step claims of its machine; zero claims nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// Thousandths of a processor.
    pub cpu_millis: u64,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// Whole GPUs.
    pub gpus: u32,
}
