//! The report of a copy, as text and as JSON.

use std::time::Duration;

use serde::Serialize;

use crate::cli::output::{grouped, sanitized};
use tools::transfer::{Compared, Comparison, Names, TransferReport};

#[derive(Serialize)]
pub(super) struct Document<'a> {
    from: &'a str,
    to: &'a str,
    resumed: bool,
    pairs: u64,
    retries: u64,
    seconds: f64,
    segments: usize,
    pub(super) lacking: usize,
    differences: Vec<Difference<'a>>,
}

#[derive(Serialize)]
struct Difference<'a> {
    segment: &'a str,
    source: u64,
    target: u64,
    comparison: Comparison,
}

impl Document<'_> {
    /// Whether there were no pairs to copy.
    pub(super) fn is_empty(&self) -> bool {
        self.pairs == 0 && self.segments == 0
    }
}

pub(super) fn document<'a>(
    names: &'a Names,
    report: &'a TransferReport,
    retries: u64,
    took: Duration,
) -> Document<'a> {
    let differs = |row: &&Compared| row.comparison != Comparison::Equal;
    let lacks = |row: &&Compared| row.comparison == Comparison::Less;
    let differences = report.compared.iter().filter(differs);
    Document {
        from: &names.from,
        to: &names.to,
        resumed: report.resumed,
        pairs: report.pairs,
        retries,
        seconds: took.as_secs_f64(),
        segments: report.compared.len(),
        lacking: report.compared.iter().filter(lacks).count(),
        differences: differences
            .map(|row| Difference {
                segment: row.segment.as_str(),
                source: row.source,
                target: row.target,
                comparison: row.comparison,
            })
            .collect(),
    }
}

pub(super) fn text(done: &Document<'_>) -> String {
    let rate = grouped((done.pairs as f64 / done.seconds.max(1e-6)).round() as u64);
    let mut text = format!("from      {}\n", sanitized(done.from));
    text += &format!("to        {}\n", sanitized(done.to));
    let resumed = if done.resumed { ", resumed" } else { "" };
    text += &format!(
        "copied    {} pairs in {:.1} s, {rate} pairs/s{resumed}\n",
        grouped(done.pairs),
        done.seconds
    );
    let equal = done.segments - done.differences.len();
    text += &format!(
        "compared  {} segments, {} equal\n",
        grouped(done.segments as u64),
        grouped(equal as u64)
    );
    for row in &done.differences {
        let what = match row.comparison {
            Comparison::Equal => "equal",
            Comparison::More => "the target had more, or the source lost some since",
            Comparison::Behind => "the source is still written to: copy again once it is idle",
            Comparison::Less => "users are MISSING",
        };
        text += &format!(
            "  {}: {} here, {} there: {what}\n",
            sanitized(row.segment),
            grouped(row.source),
            grouped(row.target)
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::Segment;

    #[test]
    fn people_and_scripts_read_what_became_of_it() {
        let names = Names {
            from: "influx at h".into(),
            to: "redis at h".into(),
        };
        let row = |name: &str, source, target, comparison| Compared {
            segment: Segment::new(name).unwrap(),
            source,
            target,
            comparison,
        };
        let report = TransferReport {
            resumed: true,
            pairs: 12_000,
            compared: vec![
                row("a", 7, 7, Comparison::Equal),
                row("b", 1_200, 1_199, Comparison::Less),
            ],
        };
        let done = document(&names, &report, 1, Duration::from_secs(2));
        assert_eq!(
            text(&done),
            "from      influx at h\nto        redis at h\n\
             copied    12,000 pairs in 2.0 s, 6,000 pairs/s, resumed\n\
             compared  2 segments, 1 equal\n  b: 1,200 here, 1,199 there: users are MISSING\n"
        );
        assert_eq!(
            serde_json::to_string(&done).unwrap(),
            r#"{"from":"influx at h","to":"redis at h","resumed":true,"pairs":12000,"retries":1,"seconds":2.0,"segments":2,"lacking":1,"differences":[{"segment":"b","source":1200,"target":1199,"comparison":"less"}]}"#
        );
    }
}
