//! What handlers return.

use std::fmt::Display;
use std::time::Duration;

use bytes::Bytes;
use hodei_core::gateway::News;
use hodei_core::job::{Failure, FailureClass, Finish, OUTPUT_INLINE_MAX, Output};

/// How a handler's run ends.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Outcome {
    /// It is done and gives this back.
    Done(Bytes),
    /// It failed; retried as its policy says.
    Failed(Failure),
    /// It wants to be called again after a while; costs no attempt.
    Snooze(Duration),
    /// It gives up: the job ends cancelled.
    Cancel,
}

impl Outcome {
    /// It failed, and its policy says whether it is retried.
    #[must_use]
    pub fn failed(message: impl Display) -> Self {
        Self::Failed(Failure::new(FailureClass::Error, message.to_string()))
    }

    /// It failed, and no retry can help.
    #[must_use]
    pub fn fatal(message: impl Display) -> Self {
        Self::Failed(Failure::new(FailureClass::Fatal, message.to_string()))
    }

    /// It needs more memory than was set aside for it ([`Context::memory`](crate::Context::memory)). Its policy says whether it
    /// is retried, and the next run has more, where a worker has it.
    #[must_use]
    pub fn out_of_memory(message: impl Display) -> Self {
        Self::Failed(Failure::new(FailureClass::OutOfMemory, message.to_string()))
    }

    pub(super) fn news(self) -> News {
        let finish = match self {
            Self::Snooze(wait) => return News::Snoozed(wait),
            Self::Done(output) if output.len() > OUTPUT_INLINE_MAX => {
                let message =
                    format!("the output has {} bytes, at most {OUTPUT_INLINE_MAX} are kept", output.len());
                Finish::failed(Failure::new(FailureClass::BadOutput, message))
            }
            Self::Done(output) => Finish::succeeded(Output::Inline(output)),
            Self::Failed(failure) => Finish::failed(failure),
            Self::Cancel => Finish::cancelled(),
        };
        News::Ended(Box::new(finish))
    }
}

/// What a handler may return.
#[diagnostic::on_unimplemented(
    message = "a handler cannot return `{Self}`",
    note = "return (), a string, Json(value), an Outcome, or a Result of one of them"
)]
pub trait IntoOutcome {
    /// Says how the run ends.
    fn into_outcome(self) -> Outcome;
}

/// A value that is given back as JSON.
#[derive(Clone, Copy, Debug)]
pub struct Json<T>(pub T);

impl IntoOutcome for () {
    fn into_outcome(self) -> Outcome {
        Outcome::Done(Bytes::new())
    }
}

impl IntoOutcome for Outcome {
    fn into_outcome(self) -> Outcome {
        self
    }
}

impl IntoOutcome for String {
    fn into_outcome(self) -> Outcome {
        Json(self).into_outcome()
    }
}

impl IntoOutcome for &'static str {
    fn into_outcome(self) -> Outcome {
        Json(self).into_outcome()
    }
}

impl<T: serde::Serialize> IntoOutcome for Json<T> {
    fn into_outcome(self) -> Outcome {
        match serde_json::to_vec(&self.0) {
            Ok(bytes) => Outcome::Done(bytes.into()),
            Err(error) => Outcome::Failed(Failure::new(
                FailureClass::BadOutput,
                format!("the output is not JSON: {error}"),
            )),
        }
    }
}

impl<T: IntoOutcome, E: Display> IntoOutcome for Result<T, E> {
    fn into_outcome(self) -> Outcome {
        match self {
            Ok(value) => value.into_outcome(),
            Err(error) => Outcome::failed(error),
        }
    }
}
