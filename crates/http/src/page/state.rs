//! The state of the service in words for readers, without host names and error messages.

use std::time::Duration;

use super::graph::Moment;
use domain::Covered;
use domain::text::rounded;
use engine::Headcount;
use engine::readiness::{Component, Readiness};

/// The component that is described differently here: a completed round does not mean that anything was counted.
const REFRESHER: &str = "refresher";
/// A recount may fail or be skipped, but not for more than this many intervals.
const INTERVALS: u32 = 3;

/// The state of the service.
pub(super) struct State {
    /// A summary in one or two sentences.
    pub(super) summary: &'static str,
    /// `good`, `worth-a-look` or `bad`.
    pub(super) kind: &'static str,
    /// The components.
    pub(super) parts: Vec<Part>,
}

/// A part of the service.
pub(super) struct Part {
    pub(super) name: &'static str,
    /// `well`, `unwell`, or `unknown` for a part that was not checked.
    pub(super) kind: &'static str,
    pub(super) words: String,
}

/// The state of the service. `has_counts` is whether the page has counts to show.
pub(super) fn state(app: &Headcount, readiness: &Readiness, has_counts: bool) -> State {
    let (summary, kind) = summary(readiness, has_counts);
    let components = readiness.components.iter();
    let store_responds = store_responds(readiness);
    let mut parts: Vec<_> = components
        .filter(|component| component.name != REFRESHER)
        .map(|component| part(component, store_responds))
        .collect();
    let since = app.refreshed().map(|at| {
        let age = app.clock().now().duration_since(at);
        Duration::try_from(age).unwrap_or_default()
    });
    let can_recount = match (store_responds, readiness.recounts) {
        (false, _) => Err("Can't recount: the store does not respond."),
        (true, false) => Err("No recount was completed for too long."),
        (true, true) => Ok(()),
    };
    parts.push(completeness(app.covered(app.frame().full_window())));
    parts.push(refresher(since, app.refresh_interval(), can_recount));
    State {
        summary,
        kind,
        parts,
    }
}

fn store_responds(readiness: &Readiness) -> bool {
    let mut components = readiness.components.iter();
    components.any(|part| part.name == "store" && part.ok)
}

fn summary(readiness: &Readiness, has_counts: bool) -> (&'static str, &'static str) {
    let all_well = readiness.components.iter().all(|part| part.ok);
    match (readiness.writes, has_counts) {
        (true, true) if all_well => ("Everything works.", "good"),
        (true, true) if readiness.reads && store_responds(readiness) => (
            "Pairs are accepted and counts are served. Not every component works.",
            "worth-a-look",
        ),
        (true, true) => (
            "Pairs are accepted. Not every component works: counts may be the last known ones.",
            "worth-a-look",
        ),
        (true, false) => ("Pairs are accepted. Counts are not available.", "bad"),
        (false, true) => (
            "Counts are the last known ones. Pairs can't be accepted now.",
            "bad",
        ),
        (false, false) => ("Neither pairs nor counts can be served now.", "bad"),
    }
}

fn part(component: &Component, store_responds: bool) -> Part {
    let name = match component.name {
        "store" => "Store",
        "cache" => "Cache",
        "spool" => "Spool",
        "clock" => "Clock",
        "live" => "Live counts",
        "tokens_file" => "Tokens",
        "jwt_keys" => "JWT keys",
        "foreign_points" => "Other programs",
        other => other,
    };
    let words = match (component.name, &component.detail, component.ok) {
        // The detail of a working part is shown. The detail of a broken part may be a system error, and is not.
        (_, Some(detail), true) => format!("Works: {detail}."),
        ("spool", None, true) => "Empty: no pairs wait.".to_owned(),
        (_, None, true) => "Works.".to_owned(),
        ("store", _, false) => "Does not respond.".to_owned(),
        ("cache", _, false) if store_responds => {
            "Does not respond: counts come from the store.".to_owned()
        }
        ("cache", _, false) => "Does not respond.".to_owned(),
        // The detail names neither hosts nor errors.
        ("live", Some(detail), false) => format!("Not all counts are live: {detail}."),
        ("spool", _, false) => "Can't store pairs.".to_owned(),
        ("clock", _, false) => {
            "Is behind the newest pairs: counts are as of a later time.".to_owned()
        }
        ("tokens_file" | "jwt_keys", _, false) => {
            "The file can't be used: previously loaded content stays valid, and revocations have no effect."
                .to_owned()
        }
        ("foreign_points", _, false) => {
            "Another program writes into the store: pairs of some days are refused.".to_owned()
        }
        (_, _, false) => "Does not work: see the log of the service.".to_owned(),
    };
    Part {
        name,
        kind: if component.ok { "well" } else { "unwell" },
        words,
    }
}

/// Whether counts over the configured window include every pair.
fn completeness(covered: Covered) -> Part {
    let since = covered
        .since
        .map(|since| Moment::of(since.as_second()).words);
    let (kind, words) = match (since, covered.complete) {
        (Some(since), true) => ("well", format!("Every pair since {since} UTC is counted.")),
        (Some(since), false) => (
            "unknown",
            format!("Pairs from before {since} UTC may be missing."),
        ),
        (None, _) => (
            "unknown",
            "Since when every pair is counted is not known.".to_owned(),
        ),
    };
    Part {
        name: "Completeness",
        kind,
        words,
    }
}

/// The refresher. `since` is the time since this process last recounted every segment without a failure. `interval` is the
/// refresh interval of this process, if it refreshes by itself.
fn refresher(
    since: Option<Duration>,
    interval: Option<Duration>,
    can_recount: Result<(), &str>,
) -> Part {
    let recounted = |age| format!("Recounted every segment {} ago.", rounded(age));
    if let Err(why) = can_recount {
        return Part {
            name: "Refresher",
            kind: "unwell",
            words: why.to_owned(),
        };
    }
    let (kind, words) = match (since, interval) {
        (Some(age), Some(interval)) if age <= interval * INTERVALS => ("well", recounted(age)),
        // Another instance may have recounted meanwhile.
        (Some(age), _) => ("unknown", recounted(age)),
        (None, Some(_)) => ("unknown", "This instance has not recounted yet.".to_owned()),
        (None, None) => (
            "unknown",
            "This instance does not recount: another process or a scheduler does.".to_owned(),
        ),
    };
    Part {
        name: "Refresher",
        kind,
        words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refresher_is_well_only_when_it_recounted_lately() {
        let minute = Duration::from_secs(60);
        for (since, interval, can_recount, kind) in [
            (Some(minute), Some(minute), Ok(()), "well"),
            (Some(minute * 4), Some(minute), Ok(()), "unknown"),
            (Some(minute), Some(minute), Err("why"), "unwell"),
            (Some(minute), None, Ok(()), "unknown"),
            (None, Some(minute), Ok(()), "unknown"),
            (None, None, Ok(()), "unknown"),
            (None, Some(minute), Err("why"), "unwell"),
        ] {
            let part = refresher(since, interval, can_recount);
            assert_eq!(part.kind, kind, "{since:?} {interval:?} {can_recount:?}");
        }
    }

    #[test]
    fn counts_are_complete_only_if_that_is_known() {
        let since = domain::Timestamp::from_second(1_795_262_400).ok();
        for (since, complete, kind) in [
            (since, true, "well"),
            (since, false, "unknown"),
            (None, false, "unknown"),
        ] {
            let part = completeness(Covered { since, complete });
            assert_eq!(part.kind, kind);
            assert_eq!(
                part.words.contains("21 Nov 2026, 12:00 UTC"),
                since.is_some()
            );
        }
    }

    #[test]
    fn errors_of_the_system_are_not_for_readers() {
        let component = |name, ok| Component {
            name,
            ok,
            age: Duration::ZERO,
            detail: Some("tcp connect error: 10.0.0.7:8086 refused".to_owned()),
        };
        for name in [
            "store",
            "cache",
            "spool",
            "tokens_file",
            "foreign_points",
            "another",
        ] {
            let part = part(&component(name, false), true);
            assert_eq!(part.kind, "unwell");
            assert!(!part.words.contains("10.0.0.7"), "{}", part.words);
        }
    }

    #[test]
    fn no_part_is_said_to_stand_in_for_another_that_is_away() {
        let cache = Component {
            name: "cache",
            ok: false,
            age: Duration::ZERO,
            detail: None,
        };
        assert!(part(&cache, true).words.contains("from the store"));
        assert!(!part(&cache, false).words.contains("from the store"));
    }

    #[test]
    fn without_counts_nobody_says_that_counts_are_answered() {
        let component = Component {
            name: "cache",
            ok: true,
            age: Duration::ZERO,
            detail: None,
        };
        for writes in [true, false] {
            let readiness = Readiness {
                writes,
                // A cache that responds but is empty.
                reads: true,
                recounts: true,
                live: false,
                components: vec![component.clone()],
            };
            let (words, kind) = summary(&readiness, false);
            assert!(kind == "bad" && !words.contains("are served"), "{words}");
        }
    }
}
