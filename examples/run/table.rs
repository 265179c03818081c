//! The summary of a run.

use std::fmt::Write as _;
use std::time::Duration;

use hodei_core::job::{Exit, FailureClass, Job, Outcome, State};

/// Makes the table: a line per step, with its state, its attempts, its time and its exit code.
pub(crate) fn table(steps: &[Job]) -> String {
    let width = steps.iter().map(|step| step.spec.name().as_str().len()).max().unwrap_or(0).max(4);
    let mut text = format!("{:width$}  {:9}  {:>8}  {:>9}  exit\n", "step", "state", "attempts", "time");
    for step in steps {
        let (name, state) = (step.spec.name().as_str(), step.state.name());
        let time = took(step).map_or_else(|| "-".to_owned(), |took| format!("{:.3} s", took.as_secs_f64()));
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{name:width$}  {state:9}  {:>8}  {time:>9}  {}", step.attempt, exit(step));
    }
    text
}

/// How long the last run took.
fn took(step: &Job) -> Option<Duration> {
    let settled = step.settled.as_ref().filter(|_| step.attempt > 0)?;
    Some(settled.at.saturating_since(step.started_at?))
}

fn exit(step: &Job) -> String {
    match (step.state, step.outcome()) {
        (State::Succeeded, _) => "0".to_owned(),
        (_, Some(Outcome::Failed(failure))) => match failure.exit {
            Some(Exit::Code(code)) if failure.class == FailureClass::Exit => code.to_string(),
            Some(Exit::Code(code)) => format!("{code}: {failure}"),
            Some(Exit::Signal(signal)) => format!("signal {signal}: {failure}"),
            None => failure.to_string(),
        },
        _ => "-".to_owned(),
    }
}
