//! What is told of code that panicked.

use std::any::Any;

use hodei_core::job::{Failure, FailureClass};

/// Makes the failure of a panic, with its message where it has one.
pub(crate) fn panicked(who: &str, panic: &(dyn Any + Send)) -> Failure {
    let text =
        panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    let message = match text {
        Some(text) => format!("the {who} panicked: {text}"),
        None => format!("the {who} panicked"),
    };
    Failure::new(FailureClass::Panic, message)
}
