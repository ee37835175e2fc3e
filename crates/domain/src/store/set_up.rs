//! What the set-up of a store did.

/// What a set-up did.
#[derive(Debug)]
pub struct SetUp {
    /// Each thing that the store needs, in the order in which they were looked at.
    pub steps: Vec<Step>,
    /// Secrets made now, which will not be told again.
    pub tokens: Vec<IssuedToken>,
    /// What is there and does harm, a sentence each.
    pub warnings: Vec<String>,
}

/// One thing that a store needs.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Step {
    /// What it is, as in `bucket "headcount"`.
    pub what: String,
    /// What became of it.
    pub change: Change,
}

/// What became of one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// It was missing.
    Created,
    /// It was there in another form.
    Updated,
    /// It was as it should be.
    Unchanged,
}

/// A new secret.
#[derive(Clone)]
pub struct IssuedToken {
    /// What it is for, in a word.
    pub role: &'static str,
    /// What it is for, as the store lists it.
    pub purpose: String,
    /// The secret.
    pub token: String,
}

impl std::fmt::Debug for IssuedToken {
    /// Everything but the secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IssuedToken")
            .field("purpose", &self.purpose)
            .finish_non_exhaustive()
    }
}
