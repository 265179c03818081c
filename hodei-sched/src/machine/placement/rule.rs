//! On which workers the jobs of a queue may run.

use hodei_core::job::Selector;

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
