//! The report of a store's set-up.

/// The result of a set-up.
#[derive(Debug)]
pub struct SetUp {
    /// The objects that the store needs, in the order in which the set-up checked them.
    pub steps: Vec<Step>,
    /// Secrets created by this run. They can't be read again later.
    pub tokens: Vec<IssuedToken>,
    /// Harmful existing data or settings, one sentence each.
    pub warnings: Vec<String>,
}

/// One object that a store needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// Its kind and name, as in `bucket "headcount"`.
    pub what: String,
    /// The change that the set-up made to it.
    pub change: Change,
}

/// The change that a set-up made to one object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// The object was missing.
    Created,
    /// The object existed with other properties.
    Updated,
    /// The object was correct.
    Unchanged,
}

/// A newly issued token.
#[derive(Clone)]
pub struct IssuedToken {
    /// Its role, in one word.
    pub role: &'static str,
    /// Its description, as the store lists it.
    pub purpose: String,
    /// The secret itself.
    pub token: String,
}

impl std::fmt::Debug for IssuedToken {
    /// Omits the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken")
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
