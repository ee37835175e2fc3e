//! The health of the numbers on a page: the banner under its header, and the colour of its status dot.

use std::time::Duration;

use domain::text::rounded;
use engine::readiness::Readiness;

/// The content of the banner of a page.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Health {
    /// `good`, `old` or `failed`. Only with `good` is anything on the page green.
    pub(super) kind: &'static str,
    /// The text for readers: what is unavailable or out of date. It has no host names and no error messages.
    pub(super) words: Option<String>,
}

/// The state of the numbers of a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Numbers {
    /// All are available and up to date.
    Good,
    /// Some are unavailable.
    Partly,
    /// They are the last known ones. The oldest has this age.
    Old(Duration),
    /// All are unavailable.
    Failed,
}

impl Health {
    pub(super) fn of(readiness: &Readiness, numbers: Numbers) -> Self {
        let (kind, words) = judge(readiness, numbers);
        Self { kind, words }
    }
}

fn judge(readiness: &Readiness, numbers: Numbers) -> (&'static str, Option<String>) {
    let store_responds = readiness
        .components
        .iter()
        .all(|part| part.name != "store" || part.ok);
    let numbers = match (numbers, store_responds) {
        (Numbers::Failed, _) => {
            let words = "Counts are not available right now. This page retries automatically.";
            return ("failed", Some(and_writes(words.to_owned(), readiness)));
        }
        (Numbers::Old(age), _) => Some(format!(
            "The store does not respond. These are the last known numbers, up to {} old.",
            rounded(age)
        )),
        (Numbers::Partly, false) => Some(
            "The store does not respond. Some numbers are not available, others are the last known."
                .to_owned(),
        ),
        (Numbers::Partly, true) => Some("Some numbers are not available right now.".to_owned()),
        (Numbers::Good, false) if readiness.live => Some("The store does not respond.".to_owned()),
        (Numbers::Good, false) => Some(
            "The store does not respond. Numbers are the last known and may be out of date."
                .to_owned(),
        ),
        (Numbers::Good, true) if !readiness.writes => Some(String::new()),
        (Numbers::Good, true) => None,
    };
    match numbers {
        Some(words) => ("old", Some(and_writes(words, readiness))),
        None => ("good", None),
    }
}

/// Adds the state of writes.
fn and_writes(words: String, readiness: &Readiness) -> String {
    let store = readiness
        .components
        .iter()
        .find(|part| part.name == "store");
    let rest = match readiness.writes {
        false => "New visits are not accepted at the moment.",
        true if store.is_some_and(|store| !store.ok) => {
            "New visits are stored, and are counted once the store responds."
        }
        true => return words,
    };
    match words.is_empty() {
        true => rest.to_owned(),
        false => format!("{words} {rest}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use engine::readiness::Component;

    fn readiness(store: bool, writes: bool) -> Readiness {
        let store = Component {
            name: "store",
            ok: store,
            age: Duration::ZERO,
            detail: (!store).then(|| "tcp connect error: 10.0.0.7:8086".to_owned()),
        };
        Readiness {
            writes,
            reads: true,
            recounts: true,
            live: false,
            components: vec![store],
        }
    }

    #[test]
    fn only_what_is_well_is_good() {
        let minute = Duration::from_secs(60);
        for (store, writes, numbers, kind) in [
            (true, true, Numbers::Good, "good"),
            (false, true, Numbers::Good, "old"),
            (true, false, Numbers::Good, "old"),
            (true, true, Numbers::Partly, "old"),
            (true, true, Numbers::Old(minute), "old"),
            (true, true, Numbers::Failed, "failed"),
            (false, false, Numbers::Failed, "failed"),
        ] {
            let (found, words) = judge(&readiness(store, writes), numbers);
            assert_eq!(found, kind, "{store} {writes} {numbers:?}");
            assert_eq!(words.is_none(), kind == "good");
            let words = words.unwrap_or_default();
            assert!(
                !words.contains("10.0.0.7") && !words.starts_with(' '),
                "{words}"
            );
        }
    }

    #[test]
    fn live_numbers_are_not_called_old() {
        let readiness = Readiness {
            live: true,
            ..readiness(false, true)
        };
        let (kind, words) = judge(&readiness, Numbers::Good);
        let words = words.unwrap();
        assert_eq!(kind, "old");
        assert_eq!(
            words,
            "The store does not respond. New visits are stored, and are counted once the store responds."
        );
    }
}
