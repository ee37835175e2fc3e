//! Formatting for people, in a terminal and on the page: numbers, durations, URLs and name suggestions.

use std::time::Duration;

/// Formats a number with thousands separators: `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Formats a duration in its largest whole unit: `59 s`, `3 min`, `5 h`, `14 d`.
pub fn rounded(length: Duration) -> String {
    let seconds = length.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Redacts a URL that may contain a password or a token: everything before the last `@`, and the query. The URL need not
/// be valid, so the function may redact more than the secret.
pub fn without_credentials(url: &str) -> String {
    let (start, rest) = match url.split_once("://") {
        Some((scheme, rest)) => (format!("{scheme}://"), rest),
        None => (String::new(), url),
    };
    let (rest, hidden_end) = match rest.find(['?', '#']) {
        Some(end) => (&rest[..end], "?***"),
        None => (rest, ""),
    };
    let (hidden_start, rest) = match rest.rsplit_once('@') {
        Some((_, rest)) => ("***@", rest),
        None => ("", rest),
    };
    format!("{start}{hidden_start}{rest}{hidden_end}")
}

/// A duration in the largest unit of `humantime` that gives a whole number, such as `14d` or `90s`.
pub fn duration_text(seconds: u64) -> String {
    let units = [(86_400, 'd'), (3_600, 'h'), (60, 'm')];
    match units
        .iter()
        .find(|(unit, _)| seconds > 0 && seconds.is_multiple_of(*unit))
    {
        Some((unit, name)) => format!("{}{name}", seconds / unit),
        None => format!("{seconds}s"),
    }
}

/// The name in `known` that `name` may be a misspelling of, if one has at least the similarity `alike`, from 0 to 1.
pub fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
    alike: f64,
) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    known
        .into_iter()
        .map(|known| (known, strsim::normalized_damerau_levenshtein(known, &name)))
        .filter(|(_, similarity)| *similarity >= alike)
        .max_by(|(_, a), (_, b)| a.total_cmp(b))
        .map(|(known, _)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        let texts = [0, 999, 1_000, 1_234_567].map(grouped);
        assert_eq!(texts, ["0", "999", "1,000", "1,234,567"]);
    }

    #[test]
    fn slips_of_the_pen_have_a_nearest_name() {
        let known = ["window", "fresh", "segment", "user_id"];
        for (name, expected) in [
            ("windw", Some("window")),
            ("Window", Some("window")),
            ("segments", Some("segment")),
            ("user-id", Some("user_id")),
            ("limit", None),
            ("", None),
        ] {
            assert_eq!(nearest(name, known, 0.7), expected, "{name}");
        }
    }

    #[test]
    fn lengths_are_told_in_their_largest_unit() {
        let texts = [0, 59, 119, 7_199, 172_799, 1_209_600];
        let texts = texts.map(|seconds| rounded(Duration::from_secs(seconds)));
        assert_eq!(texts, ["0 s", "59 s", "1 min", "1 h", "47 h", "14 d"]);
    }

    #[test]
    fn urls_are_shown_without_what_may_be_secret() {
        for (url, shown) in [
            ("http://host:8086/path", "http://host:8086/path"),
            ("http://u:hunter2@host", "http://***@host"),
            ("http://u:hun@te/r2@host/x", "http://***@host/x"),
            ("u:hunter2@host", "***@host"),
            ("https://host/?token=hunter2", "https://host/?***"),
            ("https://host#hunter2@x", "https://host?***"),
            ("", ""),
        ] {
            assert_eq!(without_credentials(url), shown);
        }
    }
}
