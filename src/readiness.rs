//! What can be served now, and which part is to blame when something can't.

/// The state of the service by component.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Readiness {
    /// Whether pairs can be kept.
    pub writes: bool,
    /// Whether counts can be answered from a live source.
    pub reads: bool,
    /// Each part that was probed.
    pub components: Vec<Component>,
}

/// The state of one part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name: `store`, `cache`.
    pub name: &'static str,
    /// Whether it answered.
    pub ok: bool,
    /// What is wrong, or what is worth knowing.
    pub detail: Option<String>,
}
