//! How the service is, in words.

use crate::app::Headcount;
use crate::readiness::Readiness;
use crate::words::rounded;

/// The state of the service.
pub(super) struct State {
    /// The whole in one sentence.
    pub(super) summary: &'static str,
    /// `good`, `worth-a-look` or `bad`.
    pub(super) kind: &'static str,
    /// Each part.
    pub(super) parts: Vec<Part>,
}

/// A part of the service.
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) ok: bool,
    pub(super) words: String,
}

/// How the service is now.
pub(super) async fn state(app: &Headcount) -> State {
    let readiness = app.readiness().await;
    let (summary, kind) = summary(&readiness);
    let mut parts: Vec<_> = readiness.components.iter().map(part).collect();
    parts.push(refresher(app));
    if !readiness.components.iter().any(|part| part.name == "spool") {
        parts.push(Part {
            name: "Spool",
            ok: true,
            words: match app.is_live() {
                true => "Not needed: the store is in this process.",
                false => "Off: while the store is away, pairs are refused.",
            }
            .to_owned(),
        });
    }
    State {
        summary,
        kind,
        parts,
    }
}

fn summary(readiness: &Readiness) -> (&'static str, &'static str) {
    let all_well = readiness.components.iter().all(|part| part.ok);
    match (readiness.writes, readiness.reads) {
        (true, true) if all_well => ("Everything works.", "good"),
        (true, true) => (
            "Pairs are taken and counts are answered, but not every part works.",
            "worth-a-look",
        ),
        (true, false) => (
            "Pairs are taken. Counts are those last known.",
            "worth-a-look",
        ),
        (false, true) => (
            "Counts are answered. Pairs can't be taken now.",
            "worth-a-look",
        ),
        (false, false) => (
            "Neither pairs nor counts can be served now; counts below are those last known.",
            "bad",
        ),
    }
}

fn part(component: &crate::readiness::Component) -> Part {
    let name = match component.name {
        "store" => "Store",
        "cache" => "Cache",
        "spool" => "Spool",
        other => other,
    };
    let words = match (&component.detail, component.ok) {
        (Some(detail), true) => format!("Works: {detail}."),
        (Some(detail), false) => format!("Does not work: {detail}."),
        (None, true) if component.name == "spool" => "Empty: nothing waits.".to_owned(),
        (None, true) => "Works.".to_owned(),
        (None, false) => "Does not work.".to_owned(),
    };
    Part {
        name,
        ok: component.ok,
        words,
    }
}

fn refresher(app: &Headcount) -> Part {
    let now = app.clock().now();
    let words = app.refreshed().map(|at| {
        let age = now.duration_since(at).unsigned_abs();
        format!("Recounted every segment {} ago.", rounded(age))
    });
    Part {
        name: "Refresher",
        ok: true,
        words: words.unwrap_or_else(|| "This instance has not recounted yet.".to_owned()),
    }
}
