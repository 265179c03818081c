//! On which workers the jobs of a queue may run.

use hodei_core::text::TextMap;

/// What a worker's labels must say.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
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

    /// Whether it applies to a worker with these labels.
    #[must_use]
    pub fn applies(&self, labels: &TextMap) -> bool {
        let among = |values: &[String], value: &str| values.iter().any(|one| one == value);
        match self {
            Self::In(label, values) => labels.get(label).is_some_and(|value| among(values, value)),
            Self::NotIn(label, values) => labels.get(label).is_none_or(|value| !among(values, value)),
            Self::Has(label) => labels.get(label).is_some(),
            Self::Lacks(label) => labels.get(label).is_none(),
        }
    }
}

/// Where the jobs of a queue are placed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Rule {
    /// Only workers to which all of these apply.
    pub require: Vec<Selector>,
    /// Workers to which all of these apply come first.
    pub prefer: Vec<Selector>,
    /// No worker runs two jobs under this rule at once.
    pub apart: bool,
}

impl Rule {
    /// Places jobs anywhere.
    #[must_use]
    pub fn anywhere() -> Self {
        Self::default()
    }

    /// Asks for workers to which a selector applies.
    #[must_use]
    pub fn require(mut self, selector: Selector) -> Self {
        self.require.push(selector);
        self
    }

    /// Takes workers first to which a selector applies.
    #[must_use]
    pub fn prefer(mut self, selector: Selector) -> Self {
        self.prefer.push(selector);
        self
    }

    /// Has at most one job under this rule on a worker at a time.
    #[must_use]
    pub fn apart(mut self) -> Self {
        self.apart = true;
        self
    }
}
