//! The lines printed each minute, and the report at the end.

use std::fmt::Write;
use std::time::Duration;

use crate::open_loop::Tally;
use crate::other_clients::Totals;
use crate::process::Usage;
use crate::traffic::PAIRS_PER_POST;
use crate::verify::Verdict;

/// The columns of a minute's line.
pub(crate) const HEAD: &str = "\
| minute | RSS MiB | files | threads | disk MiB | requests/s | write p50 ms | p99 | p99.9 | max | read p50 ms | p99 | p99.9 | max | late p99 ms | events MB | not 200 | broken | load |
|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|---|";
/// A change over the whole run below this fraction of the mean counts as flat.
const FLAT: f64 = 0.1;

/// The measurements of a minute.
pub(crate) struct Minute {
    pub(crate) writes: Tally,
    pub(crate) reads: Tally,
    pub(crate) usage: Usage,
    pub(crate) other_clients: Totals,
}

/// The result after kill -9.
pub(crate) struct Restarted {
    /// The time from the kill until the service listens again.
    pub(crate) took: Duration,
    pub(crate) verdict: Verdict,
}

/// The measurements of all minutes.
pub(crate) struct Report {
    rate: f64,
    window: u64,
    minutes: Vec<Minute>,
    lines: Vec<String>,
}

/// A figure of a minute, with its name.
type Figure = (&'static str, fn(&Minute) -> f64);

const FIGURES: [Figure; 8] = [
    ("RSS, MiB", |minute| minute.usage.resident_mib),
    ("open files", |minute| minute.usage.files as f64),
    ("threads", |minute| minute.usage.threads as f64),
    ("disk, MiB", |minute| minute.usage.disk_mib),
    ("write p50, ms", |minute| minute.writes.latency_ms(0.5)),
    ("write p99, ms", |minute| minute.writes.latency_ms(0.99)),
    ("read p50, ms", |minute| minute.reads.latency_ms(0.5)),
    ("read p99, ms", |minute| minute.reads.latency_ms(0.99)),
];

impl Report {
    pub(crate) fn new(rate: f64, window: u64) -> Self {
        Self {
            rate,
            window,
            minutes: Vec::new(),
            lines: Vec::new(),
        }
    }

    /// Adds a minute and returns its line.
    pub(crate) fn add(&mut self, minute: Minute) -> String {
        let number = self.minutes.len() + 1;
        let line = line(number, &minute);
        self.minutes.push(minute);
        self.lines.push(line.clone());
        line
    }

    /// The result as a section in Markdown.
    pub(crate) fn markdown(&self, before: &Verdict, after: &Restarted, log: &[String]) -> String {
        let mut text = String::new();
        self.write(&mut text, before, after, log).unwrap();
        text
    }

    fn write(
        &self,
        text: &mut String,
        before: &Verdict,
        after: &Restarted,
        log: &[String],
    ) -> std::fmt::Result {
        let minutes = self.minutes.len();
        let rate = self.rate;
        writeln!(
            text,
            "## Soak: {minutes} minutes at {rate:.0} requests a second\n"
        )?;
        writeln!(
            text,
            "Half of the requests are posts: three of four have {PAIRS_PER_POST} pairs, the fourth has one. The others are reads. 20 \
             clients listen to events permanently, one connects and disconnects each second, and /metrics is scraped. A user is active \
             for {} s only, so memory use is stable after the first two windows at the earliest. Latency is measured from the instant at \
             which a request was due.\n",
            self.window
        )?;
        let mut all = (Tally::default(), Tally::default());
        for minute in &self.minutes {
            all.0.add(&minute.writes);
            all.1.add(&minute.reads);
        }
        writeln!(text, "- Writes: {}", all.0)?;
        writeln!(text, "- Reads: {}", all.1)?;
        writeln!(text, "- Counts at the end: {before}.")?;
        let Restarted { took, verdict } = after;
        writeln!(
            text,
            "- Counts after kill -9 and a restart of {:.1} s: {verdict}.",
            took.as_secs_f64()
        )?;
        writeln!(text, "- Warnings and errors in the log: {}.", log.len())?;
        for line in log.iter().take(10) {
            writeln!(text, "  - `{line}`")?;
        }
        self.write_slopes(text)?;
        writeln!(text, "\n{HEAD}")?;
        for line in &self.lines {
            writeln!(text, "{line}")?;
        }
        Ok(())
    }

    fn write_slopes(&self, text: &mut String) -> std::fmt::Result {
        // Before that, the number of pairs is still growing.
        let settled = (self.window * 2).div_ceil(60) as usize;
        let minutes = self.minutes.get(settled..).unwrap_or_default();
        if minutes.len() < 3 {
            return writeln!(text, "- Too short to determine trends.");
        }
        writeln!(
            text,
            "\nFrom minute {} on, linear regression over the minutes:\n\n| | mean | min | max | change per hour | |\n|---|---|---|---|---|---|",
            settled + 1
        )?;
        for (name, figure) in FIGURES {
            let values: Vec<f64> = minutes.iter().map(figure).collect();
            let mean = values.iter().sum::<f64>() / values.len() as f64;
            let min = values.iter().copied().fold(f64::INFINITY, f64::min);
            let max = values.iter().copied().fold(0.0, f64::max);
            let slope = slope(&values, mean);
            let change = slope * values.len() as f64;
            let trend = match change / mean {
                change if change > FLAT => "**rises**",
                change if change < -FLAT => "falls",
                _ => "flat",
            };
            let per_hour = slope * 60.0;
            writeln!(
                text,
                "| {name} | {mean:.2} | {min:.2} | {max:.2} | {per_hour:+.2} | {trend} |"
            )?;
        }
        Ok(())
    }
}

fn line(number: usize, minute: &Minute) -> String {
    let Minute {
        writes,
        reads,
        usage,
        other_clients,
    } = minute;
    let responses = writes.answers() + reads.answers();
    let ok = writes.of_status(200) + reads.of_status(200);
    let lost = writes.failed + reads.failed + writes.unsent + reads.unsent;
    let quantiles = |tally: &Tally| {
        [0.5, 0.99, 0.999, 1.0]
            .map(|quantile| format!("{:.2}", tally.latency_ms(quantile)))
            .join(" | ")
    };
    format!(
        "| {number} | {:.0} | {} | {} | {:.0} | {} | {} | {} | {:.2} | {:.1} | {} | {} | {:.1} |",
        usage.resident_mib,
        usage.files,
        usage.threads,
        usage.disk_mib,
        responses / 60,
        quantiles(writes),
        quantiles(reads),
        writes.lateness_ms(0.99).max(reads.lateness_ms(0.99)),
        other_clients.event_bytes as f64 / 1e6,
        responses - ok + lost,
        other_clients.broken,
        usage.load,
    )
}

/// The slope per minute, by least squares.
fn slope(values: &[f64], mean: f64) -> f64 {
    let middle = (values.len() as f64 - 1.0) / 2.0;
    let (mut numerator, mut denominator) = (0.0, 0.0);
    for (minute, value) in values.iter().enumerate() {
        let distance = minute as f64 - middle;
        numerator += distance * (value - mean);
        denominator += distance * distance;
    }
    numerator / denominator
}
