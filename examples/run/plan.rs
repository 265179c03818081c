//! From a pipeline file to a pipeline of jobs.

use std::path::Path;

use hodei_core::job::{JobSpec, JobSpecBuilder, Resources, RetryPolicy};
use hodei_core::pipeline::{Pipeline, Step};
use hodei_pipeline_file::{PipelineFile, Run};

/// The label that carries the hash of the file's bytes.
pub(crate) const FILE_LABEL: &str = "file";

/// What the machine has.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    pub(crate) capacity: Resources,
}

/// Makes the pipeline; refuses steps that this machine can never run.
pub(crate) fn plan(
    path: &Path,
    file: &PipelineFile,
    hash: &str,
    machine: &Machine,
) -> Result<Pipeline, String> {
    let directory = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let directory = std::path::absolute(directory).map_err(|error| format!("{}: {error}", path.display()))?;
    let Some(directory) = directory.to_str() else {
        return Err(format!("{}: its directory is not UTF-8", path.display()));
    };
    let mut builder = Pipeline::builder(file.name.as_str());
    for step in &file.steps {
        let resources = resources(step.resources);
        if let Some((what, needs, has)) = resources.missing(&machine.capacity) {
            let line = step.line;
            return Err(format!(
                "{}:{line}: step {:?} needs {needs} {what}, this machine has {has}",
                path.display(),
                step.id
            ));
        }
        let mut spec = command(&step.run)
            .cwd(directory)
            .resources(resources)
            .retry(RetryPolicy::attempts(step.retries + 1))
            .label(FILE_LABEL, hash);
        for (name, value) in file.env_of(step) {
            spec = spec.env(name, value);
        }
        for output in &step.outputs {
            spec = spec.output(output);
        }
        if let Some(timeout) = step.timeout {
            spec = spec.timeout(timeout);
        }
        let mut planned = Step::new(step.id.as_str(), spec);
        for need in &step.needs {
            planned = planned.needs(need.as_str());
        }
        builder = builder.step(planned);
    }
    builder.build().map_err(|error| format!("{}: {error}", path.display()))
}

fn command(run: &Run) -> JobSpecBuilder {
    match run {
        Run::Shell(script) => JobSpec::shell(script),
        Run::Argv(argv) => JobSpec::command(argv),
    }
}

fn resources(asked: hodei_pipeline_file::Resources) -> Resources {
    Resources::none().cpu_millis(asked.cpu_millis).memory(asked.memory_bytes).gpus(asked.gpus)
}
