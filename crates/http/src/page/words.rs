//! Numbers and durations as readers expect them: plurals, percentages, changes.

use domain::text::grouped;

const HOUR: u64 = 3_600;
const DAY: u64 = 24 * HOUR;

/// A number with its noun: `1 user`, `1,234 users`.
pub(super) fn plural(number: u64, one: &str) -> String {
    match number {
        1 => format!("1 {one}"),
        many => format!("{} {one}s", grouped(many)),
    }
}

/// A duration in the largest unit that divides it: `1 hour`, `3 days`, `90 minutes`. A day is `24 hours`.
pub(super) fn length(seconds: u64) -> String {
    let units = [(DAY, "day"), (HOUR, "hour"), (60, "minute"), (1, "second")];
    let whole = units.iter().find(|(unit, _)| seconds.is_multiple_of(*unit));
    let (unit, name) = whole.copied().unwrap_or((1, "second"));
    match (seconds / unit, name) {
        (1, "day") => "24 hours".to_owned(),
        (number, name) => plural(number, name),
    }
}

/// `part` of `whole` in per cent: `12.3%`, `<0.1%`. `None` if `whole` is zero.
pub(super) fn percent(part: u64, whole: u64) -> Option<String> {
    if whole == 0 {
        return None;
    }
    let percent = part as f64 / whole as f64 * 100.0;
    Some(match part {
        0 => "0%".to_owned(),
        _ if part == whole => "100%".to_owned(),
        _ if percent < 0.1 => "<0.1%".to_owned(),
        // Only all of them are 100%.
        _ if part < whole && percent > 99.9 => ">99.9%".to_owned(),
        _ => format!("{percent:.1}%"),
    })
}

/// A change between two counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// `+1,234`, `−5`, `0`, or a dash if the earlier count is unknown.
    pub(super) users: String,
    /// `+3.2%`. Empty if the earlier count is unknown or zero.
    pub(super) percent: String,
    /// `up`, `down`, `same`, `unknown` if no count of that time is stored, `withheld` or `failed`.
    pub(super) kind: &'static str,
}

impl Change {
    pub(super) fn between(before: Option<u64>, now: u64) -> Self {
        let Some(before) = before else {
            return Self::without_numbers("unknown");
        };
        let difference = grouped(now.abs_diff(before));
        let (users, sign, kind) = match now.cmp(&before) {
            std::cmp::Ordering::Equal => ("0".to_owned(), "", "same"),
            std::cmp::Ordering::Greater => (format!("+{difference}"), "+", "up"),
            std::cmp::Ordering::Less => (format!("−{difference}"), "−", "down"),
        };
        let percent = match before {
            0 => String::new(),
            before => {
                let percent = now.abs_diff(before) as f64 / before as f64 * 100.0;
                match percent {
                    1_000.0.. => format!("{sign}{}%", grouped(percent.round() as u64)),
                    _ => format!("{sign}{percent:.1}%"),
                }
            }
        };
        Self {
            users,
            percent,
            kind,
        }
    }

    /// A change whose history could not be loaded.
    pub(super) fn failed() -> Self {
        Self::without_numbers("failed")
    }

    /// A change of a count that is withheld.
    pub(super) fn withheld() -> Self {
        Self::without_numbers("withheld")
    }

    fn without_numbers(kind: &'static str) -> Self {
        Self {
            users: "–".to_owned(),
            percent: String::new(),
            kind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plurals_and_lengths() {
        let texts = [0, 1, 2_000].map(|number| plural(number, "user"));
        assert_eq!(texts, ["0 users", "1 user", "2,000 users"]);
        let texts = [3_600, 86_400, 259_200, 5_400, 61].map(length);
        assert_eq!(
            texts,
            ["1 hour", "24 hours", "3 days", "90 minutes", "61 seconds"]
        );
    }

    #[test]
    fn percentages_round_to_all_or_nothing_only_where_it_is_so() {
        for (part, whole, text) in [
            (0, 5, "0%"),
            (5, 5, "100%"),
            (1, 3, "33.3%"),
            (1, 10_000, "<0.1%"),
            (9_999, 10_000, ">99.9%"),
            (6, 5, "120.0%"),
        ] {
            assert_eq!(percent(part, whole).as_deref(), Some(text));
        }
        assert_eq!(percent(0, 0), None);
    }

    #[test]
    fn changes_are_shown_as_users_and_in_per_cent() {
        for (before, now, users, percent, kind) in [
            (None, 5, "–", "", "unknown"),
            (Some(5), 5, "0", "0.0%", "same"),
            (Some(1_000), 2_234, "+1,234", "+123.4%", "up"),
            (Some(200), 195, "−5", "−2.5%", "down"),
            (Some(0), 7, "+7", "", "up"),
            (Some(1), 100, "+99", "+9,900%", "up"),
        ] {
            let change = Change::between(before, now);
            assert_eq!((&*change.users, &*change.percent), (users, percent));
            assert_eq!(change.kind, kind);
        }
    }
}
