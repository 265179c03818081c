//! What the labels of a worker must say.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::text::TextMap;

/// What a worker's labels must say.
///
/// ```
/// use hodei_core::job::Selector;
/// use hodei_core::text::TextMap;
///
/// let labels = TextMap::new([("zone", "north")]).expect("texts without NUL");
/// assert!(Selector::is("zone", "north").applies(&labels));
/// assert!(Selector::Lacks("spot".into()).applies(&labels));
/// ```
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Selector {
    /// The label has one of these values.
    In(String, Vec<String>),
    /// The label is absent or has none of these values.
    NotIn(String, Vec<String>),
    /// The label is there.
    Has(String),
    /// The label is absent.
    Lacks(String),
}

impl Selector {
    /// The label has this value.
    pub fn is(label: impl Into<String>, value: impl Into<String>) -> Self {
        Self::In(label.into(), vec![value.into()])
    }

    /// Says whether it applies to a worker with these labels.
    #[must_use]
    pub fn applies(&self, labels: &TextMap) -> bool {
        let value = labels.get(self.label());
        let among = |value: &str| self.values().iter().any(|one| one == value);
        match self {
            Self::In(..) => value.is_some_and(among),
            Self::NotIn(..) => !value.is_some_and(among),
            Self::Has(_) => value.is_some(),
            Self::Lacks(_) => value.is_none(),
        }
    }

    /// Returns the label that it looks at.
    #[must_use]
    pub fn label(&self) -> &str {
        let (Self::In(label, _) | Self::NotIn(label, _) | Self::Has(label) | Self::Lacks(label)) = self;
        label
    }

    /// Returns the values that it names; none where it asks for none.
    #[must_use]
    pub fn values(&self) -> &[String] {
        match self {
            Self::In(_, values) | Self::NotIn(_, values) => values,
            Self::Has(_) | Self::Lacks(_) => &[],
        }
    }

    /// Says whether values belong to it.
    pub(super) fn names_values(&self) -> bool {
        matches!(self, Self::In(..) | Self::NotIn(..))
    }

    /// Returns the same with its values in order, each once: what selects the same is the same.
    pub(super) fn in_order(mut self) -> Self {
        if let Self::In(_, values) | Self::NotIn(_, values) = &mut self {
            values.sort_unstable();
            values.dedup();
        }
        self
    }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = self.label();
        match self {
            Self::In(_, values) if values.len() == 1 => write!(f, "{label} is {}", values[0]),
            Self::In(_, values) => write!(f, "{label} is one of {}", values.join(", ")),
            Self::NotIn(_, values) => write!(f, "{label} is none of {}", values.join(", ")),
            Self::Has(_) => write!(f, "{label} is there"),
            Self::Lacks(_) => write!(f, "{label} is absent"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_applies_by_what_the_labels_say() {
        let labels = TextMap::new([("zone", "a"), ("disk", "")]).unwrap();
        let values = |values: &[&str]| values.iter().map(|value| (*value).to_owned()).collect();
        for (selector, applies) in [
            (Selector::is("zone", "a"), true),
            (Selector::is("zone", "b"), false),
            (Selector::is("gpu", "a"), false),
            (Selector::In("zone".into(), values(&["b", "a"])), true),
            (Selector::In("zone".into(), values(&[])), false),
            (Selector::NotIn("zone".into(), values(&["b"])), true),
            (Selector::NotIn("zone".into(), values(&["b", "a"])), false),
            (Selector::NotIn("gpu".into(), values(&["a"])), true),
            (Selector::Has("disk".into()), true),
            (Selector::Has("gpu".into()), false),
            (Selector::Lacks("disk".into()), false),
            (Selector::Lacks("gpu".into()), true),
        ] {
            assert_eq!(selector.applies(&labels), applies, "{selector}");
        }
    }
}
