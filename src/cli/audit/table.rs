//! The result of an audit, as a table and as JSON.

use clap::ValueEnum;
use serde::Serialize;

use crate::cli::output::{grouped, sanitized};
use crate::config::StoreKind;
use domain::Window;
use domain::text::duration_text;
use tools::audit::{Finding, Verdict};

/// The sample of segments that was audited.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Sample {
    /// Reproduces the sample, if the segments are the same.
    pub(super) seed: u64,
    /// The number of segments it was drawn from.
    pub(super) of: usize,
}

/// The findings of an audit, and its parameters.
pub(super) struct Account<'a> {
    pub(super) window: Window,
    pub(super) against: Option<StoreKind>,
    pub(super) sample: Option<Sample>,
    pub(super) findings: &'a [Finding],
    /// What other programs wrote into the store.
    pub(super) strangers: &'a [String],
}

#[derive(Serialize)]
pub(super) struct Document<'a> {
    window_seconds: u64,
    against: Option<StoreKind>,
    sample: Option<Sample>,
    unexplained: usize,
    not_cached: usize,
    strangers: &'a [String],
    segments: Vec<Row<'a>>,
}

#[derive(Serialize)]
struct Row<'a> {
    segment: &'a str,
    cached: Option<u64>,
    recounted: u64,
    difference: Option<i64>,
    age_seconds: Option<f64>,
    as_of: String,
    verdict: &'static str,
    against: Option<u64>,
    agrees: Option<bool>,
    explained: bool,
}

fn row(finding: &Finding) -> Row<'_> {
    let cached = finding.cached;
    let recounted = finding.recount.users;
    let age = cached.map(|cached| {
        let age = finding.recount.as_of.duration_since(cached.as_of);
        age.as_millis().max(0) as f64 / 1000.0
    });
    Row {
        segment: finding.segment.as_str(),
        cached: cached.map(|cached| cached.users),
        recounted,
        difference: cached.map(|cached| signed(cached.users, recounted)),
        age_seconds: age,
        as_of: finding.recount.as_of.to_string(),
        verdict: finding.verdict.name(),
        against: finding.against.map(|against| against.users),
        agrees: finding.against.map(|against| against.agrees),
        explained: finding.is_explained(),
    }
}

/// How much more `to` is than `from`.
fn signed(from: u64, to: u64) -> i64 {
    let size = i64::try_from(from.abs_diff(to)).unwrap_or(i64::MAX);
    if to < from { -size } else { size }
}

impl Account<'_> {
    pub(super) fn unexplained(&self) -> usize {
        let all = self.findings.iter();
        all.filter(|finding| !finding.is_explained()).count()
    }

    /// The number of segments without a cached count.
    pub(super) fn not_cached(&self) -> usize {
        let is_missing = |finding: &&Finding| finding.verdict == Verdict::NotCached;
        self.findings.iter().filter(is_missing).count()
    }

    /// Whether no segment had two counts to compare.
    pub(super) fn compares_nothing(&self) -> bool {
        self.findings.is_empty()
            || (self.against.is_none() && self.not_cached() == self.findings.len())
    }

    pub(super) fn document(&self) -> Document<'_> {
        Document {
            window_seconds: self.window.seconds(),
            against: self.against,
            sample: self.sample,
            unexplained: self.unexplained(),
            not_cached: self.not_cached(),
            strangers: self.strangers,
            segments: self.findings.iter().map(row).collect(),
        }
    }

    /// The table. Names are the last column, since their display width is unknown.
    pub(super) fn text(&self) -> String {
        let other = self.against.and_then(|kind| kind.to_possible_value());
        let mut head = vec!["CACHED", "RECOUNTED", "DIFFERENCE", "AGE"];
        let against = other.map(|value| value.get_name().to_uppercase());
        if let Some(against) = &against {
            head.push(against);
        }
        head.push("EXPLANATION");
        let mut lines = vec![head.into_iter().map(str::to_owned).collect::<Vec<_>>()];
        lines.extend(self.findings.iter().map(|finding| self.cells(finding)));
        let names = self.findings.iter().map(|finding| finding.segment.as_str());
        let mut text = String::new();
        for (cells, name) in lines.iter().zip(std::iter::once("SEGMENT").chain(names)) {
            for (column, cell) in cells.iter().enumerate() {
                let widths = lines.iter().map(|cells| cells[column].chars().count());
                let width = widths.max().unwrap_or(0);
                let is_last = column + 1 == cells.len();
                text += &match is_last {
                    true => format!("{cell:width$}  "),
                    false => format!("{cell:>width$}  "),
                };
            }
            text += &sanitized(name);
            text.push('\n');
        }
        text + &self.summary()
    }

    fn cells(&self, finding: &Finding) -> Vec<String> {
        let row = row(finding);
        let missing = || "-".to_owned();
        let difference = row.difference.map(|difference| match difference {
            0 => "0".to_owned(),
            more @ 1.. => format!("+{}", grouped(more.unsigned_abs())),
            less => format!("-{}", grouped(less.unsigned_abs())),
        });
        let mut cells = vec![
            row.cached.map_or_else(missing, grouped),
            grouped(row.recounted),
            difference.unwrap_or_else(missing),
            row.age_seconds
                .map_or_else(missing, |age| format!("{age:.1} s")),
        ];
        let mut explanation = finding.verdict.to_string();
        if self.against.is_some() {
            cells.push(row.against.map_or_else(missing, grouped));
            if row.agrees == Some(false) {
                explanation += "; UNEXPLAINED: the stores differ";
            }
        }
        cells.push(explanation);
        cells
    }

    fn summary(&self) -> String {
        let segments = self.findings.len();
        let sample = match self.sample {
            Some(Sample { seed, of }) => format!(" (a sample of {of}, seed {seed})"),
            None => String::new(),
        };
        let not_cached = match self.not_cached() {
            0 => String::new(),
            some => format!(", {} not cached", grouped(some as u64)),
        };
        format!(
            "{} segments{sample} over {}: {} unexplained{not_cached}\n",
            grouped(segments as u64),
            duration_text(self.window.seconds()),
            grouped(self.unexplained() as u64)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::store::conformance::frame;
    use domain::{Count, Segment, Timestamp};
    use tools::audit::Against;

    fn count(users: u64, second: i64) -> Count {
        Count {
            users,
            as_of: Timestamp::from_second(1_800_000_000 + second).unwrap(),
        }
    }

    fn finding(name: &str, cached: Option<u64>, users: u64, verdict: Verdict) -> Finding {
        Finding {
            segment: Segment::new(name).unwrap(),
            cached: cached.map(|users| count(users, 0)),
            recount: count(users, 12),
            verdict,
            against: None,
        }
    }

    #[test]
    fn people_and_scripts_read_the_same() {
        let mut findings = vec![
            finding("a b", Some(1_200), 1_202, Verdict::Seen(5)),
            finding("🏀", Some(9), 3, Verdict::TooHigh(6)),
            finding("new", None, 1, Verdict::NotCached),
        ];
        let window = frame(60).full_window();
        let account = Account {
            window,
            against: None,
            sample: Some(Sample { seed: 7, of: 40 }),
            findings: &findings,
            strangers: &[],
        };
        assert_eq!(
            account.text(),
            "CACHED  RECOUNTED  DIFFERENCE     AGE  EXPLANATION              SEGMENT\n \
             1,200      1,202          +2  12.0 s  up to 5 seen since       a b\n     \
             9          3          -6  12.0 s  UNEXPLAINED: 6 too high  🏀\n     \
             -          1           -       -  not cached               new\n\
             3 segments (a sample of 40, seed 7) over 1h: 1 unexplained, 1 not cached\n"
        );
        let document = serde_json::to_value(account.document()).unwrap();
        assert_eq!(
            (&document["unexplained"], &document["not_cached"]),
            (&1.into(), &1.into())
        );
        assert!(!account.compares_nothing());
        assert_eq!(document["sample"]["seed"], 7);
        let row = &document["segments"][1];
        assert_eq!(
            (&row["verdict"], &row["difference"]),
            (&"too_high".into(), &(-6).into())
        );
        assert_eq!(row["explained"], false);

        findings[0].against = Some(Against {
            users: 1_100,
            agrees: false,
        });
        let account = Account {
            window,
            against: Some(StoreKind::Influx),
            sample: None,
            findings: &findings[..1],
            strangers: &[],
        };
        let text = account.text();
        assert!(
            text.contains("INFLUX") && text.contains("the stores differ"),
            "{text}"
        );
    }
}
