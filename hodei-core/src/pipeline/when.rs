//! Conditions on the outputs of the steps before a step.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Fault, Result};
use crate::store::Input;

/// A condition on the output of a direct parent: one value of it is, or is not, another.
///
/// ```
/// use hodei_core::pipeline::When;
///
/// let condition = When::is("test", "/coverage/ok", true);
/// # let _ = condition;
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct When {
    step: String,
    at: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is: Option<Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    is_not: Option<Value>,
}

impl When {
    /// The label under which a job carries its conditions, as JSON.
    pub const LABEL: &'static str = "hodei.when";

    /// Holds when the value at a place in a step's output is this one. The place is a JSON pointer: `/a/0`, or nothing for
    /// the whole. What is not there is null, and so is the output of a step that did not succeed.
    #[must_use]
    pub fn is(step: impl Into<String>, at: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { step: step.into(), at: at.into(), is: Some(value.into()), is_not: None }
    }

    /// Holds when the value there is another one.
    #[must_use]
    pub fn is_not(step: impl Into<String>, at: impl Into<String>, value: impl Into<Value>) -> Self {
        Self { step: step.into(), at: at.into(), is: None, is_not: Some(value.into()) }
    }

    /// Writes conditions as the value of the label.
    #[must_use]
    pub fn text(conditions: impl IntoIterator<Item = Self>) -> String {
        let conditions: Vec<Self> = conditions.into_iter().collect();
        // Values and texts are always written.
        serde_json::to_string(&conditions).unwrap_or_default()
    }

    /// Says whether all conditions of a label hold.
    ///
    /// # Errors
    ///
    /// `Invalid`: `when: not_understood` for a text that is no list of conditions, `unknown_step` for a step that is no
    /// direct parent, `not_json` for an output that cannot be read.
    pub fn all_hold(text: &str, inputs: &[Input]) -> Result<bool> {
        let wrong = |code| Error::invalid("pipeline.when", vec![Fault::new("when", code)]);
        let conditions: Vec<Self> =
            serde_json::from_str(text).map_err(|source| wrong("not_understood").source_error(source))?;
        for condition in conditions {
            let input = inputs.iter().find(|input| input.name.as_str() == condition.step);
            let output = input.ok_or_else(|| wrong("unknown_step"))?.output.inline();
            let value = match output.filter(|bytes| !bytes.is_empty()) {
                Some(bytes) => {
                    serde_json::from_slice(bytes).map_err(|source| wrong("not_json").source_error(source))?
                }
                None => Value::Null,
            };
            let found = value.pointer(&condition.at).unwrap_or(&Value::Null);
            let holds = condition.is.as_ref().is_none_or(|wanted| wanted == found)
                && condition.is_not.as_ref().is_none_or(|other| other != found);
            if !holds {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{JobId, Name, Tenant};
    use crate::job::Output;

    fn input(name: &'static str, output: &'static str) -> Input {
        let job = JobId::from_parts(1, Tenant::default().slot(), 0);
        Input { job, name: Name::literal(name), output: Output::Inline(output.into()) }
    }

    #[test]
    fn conditions_are_held_against_outputs() {
        let inputs =
            [input("test", r#"{"ok":true,"failed":["a"]}"#), input("skipped", ""), input("text", "\"hi\"")];
        for (condition, expected) in [
            (When::is("test", "/ok", true), true),
            (When::is("test", "/ok", false), false),
            (When::is_not("test", "/failed/0", "b"), true),
            (When::is_not("test", "/failed/0", "a"), false),
            (When::is("test", "/missing", Value::Null), true),
            (When::is_not("skipped", "", Value::Null), false),
            (When::is("text", "", "hi"), true),
        ] {
            let text = When::text([condition]);
            assert_eq!(When::all_hold(&text, &inputs).unwrap(), expected, "{text}");
        }
        let both = When::text([When::is("test", "/ok", true), When::is("text", "", "ho")]);
        assert!(!When::all_hold(&both, &inputs).unwrap(), "all must hold");
    }

    #[test]
    fn what_cannot_be_told_is_an_error() {
        let inputs = [input("raw", "not json")];
        for (text, code) in [
            (When::text([When::is("other", "", 1)]), "unknown_step"),
            (When::text([When::is("raw", "", 1)]), "not_json"),
            ("[{\"step\":\"raw\",\"at\":\"\",\"above\":1}]".to_owned(), "not_understood"),
            ("yes".to_owned(), "not_understood"),
        ] {
            assert_eq!(When::all_hold(&text, &inputs).unwrap_err().faults()[0].code, code, "{text}");
        }
    }
}
