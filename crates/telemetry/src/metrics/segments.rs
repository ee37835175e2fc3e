//! Counts of segments as metrics. Each request renders its own, from the counts that it may see: they are not in the registry.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::{Registry, Unit};

use super::exposition;

/// The labels of a sample.
type Labels<'a, const N: usize> = [(&'static str, &'a str); N];

/// The count of a segment.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentSample {
    /// Its name.
    pub segment: String,
    /// The window that was counted, such as `14d`.
    pub window: String,
    /// Distinct users.
    pub users: u64,
    /// Unix time for which that is exact, in seconds.
    pub as_of: f64,
    /// How many users entered and left it over the configured window, since this process counts that, if it does.
    pub flow: Option<(u64, u64)>,
}

/// All counts over a window together.
#[derive(Debug, Clone, PartialEq)]
pub struct WindowSample {
    /// The window, such as `14d`.
    pub window: String,
    /// How many of the counts are the last known ones, because the segment could not be counted.
    pub stale: u64,
    /// Whether the store has every pair since the start of the window of each count.
    pub complete: bool,
}

/// Segments without a sample, by reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// Beyond the limit of the response.
    pub limit: u64,
    /// Withheld because of the privacy floor.
    pub withheld: u64,
    /// Not counted, and no earlier count is known.
    pub unknown: u64,
}

/// Counts of segments, for one response.
#[derive(Debug, Clone, PartialEq)]
pub struct SegmentMetrics {
    /// The segments, each once.
    pub segments: Vec<SegmentSample>,
    /// The windows that were counted, each once.
    pub windows: Vec<WindowSample>,
    /// The configured window, over which `flow` is counted.
    pub full_window: String,
    /// What has no sample.
    pub left_out: LeftOut,
}

impl SegmentMetrics {
    /// The names of all metrics, as samples have them.
    pub const NAMES: [&str; 7] = [
        "headcount_segment_users",
        "headcount_segment_as_of_seconds",
        "headcount_segment_users_entered_total",
        "headcount_segment_users_left_total",
        "headcount_segment_counts_stale",
        "headcount_segment_counts_complete",
        "headcount_segments_left_out",
    ];

    /// Renders them in the Prometheus text format 0.0.4.
    pub fn render_plain(self) -> Result<String, fmt::Error> {
        self.render().map(|text| exposition::plain(&text))
    }

    /// Renders them as OpenMetrics text.
    pub fn render(self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        let mut registry = Registry::with_prefix("headcount");
        registry.register_collector(Box::new(self));
        encode_registry(&mut text, &registry)?;
        encode_eof(&mut text)?;
        Ok(text)
    }

    fn of_segments(&self) -> impl Iterator<Item = (Labels<'_, 2>, &SegmentSample)> {
        self.segments.iter().map(|sample| {
            let labels = [
                ("segment", sample.segment.as_str()),
                ("window", sample.window.as_str()),
            ];
            (labels, sample)
        })
    }

    fn of_flows(&self) -> impl Iterator<Item = (Labels<'_, 2>, (u64, u64))> {
        self.segments.iter().filter_map(|sample| {
            let labels = [
                ("segment", sample.segment.as_str()),
                ("window", self.full_window.as_str()),
            ];
            Some((labels, sample.flow?))
        })
    }

    fn of_windows(&self) -> impl Iterator<Item = (Labels<'_, 1>, &WindowSample)> {
        let windows = self.windows.iter();
        windows.map(|sample| ([("window", sample.window.as_str())], sample))
    }
}

impl Collector for SegmentMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        gauges(
            &mut encoder,
            ("segment_users", None),
            "Distinct users of the segment within the window.",
            self.of_segments()
                .map(|(labels, sample)| (labels, sample.users)),
        )?;
        gauges(
            &mut encoder,
            ("segment_as_of", Some(&Unit::Seconds)),
            "Unix time for which headcount_segment_users is exact.",
            self.of_segments()
                .map(|(labels, sample)| (labels, sample.as_of)),
        )?;
        counters(
            &mut encoder,
            "segment_users_entered",
            "Users who entered the segment since the process started, over the configured window.",
            self.of_flows()
                .map(|(labels, (entered, _))| (labels, entered)),
        )?;
        counters(
            &mut encoder,
            "segment_users_left",
            "Users who left the segment or were erased since the process started, over the configured window.",
            self.of_flows().map(|(labels, (_, left))| (labels, left)),
        )?;
        gauges(
            &mut encoder,
            ("segment_counts_stale", None),
            "Segments of this response with the last known count, because they could not be counted.",
            self.of_windows()
                .map(|(labels, sample)| (labels, sample.stale)),
        )?;
        gauges(
            &mut encoder,
            ("segment_counts_complete", None),
            "Whether the counts include every pair since the start of the window: 1 or 0.",
            self.of_windows()
                .map(|(labels, sample)| (labels, u64::from(sample.complete))),
        )?;
        let LeftOut {
            limit,
            withheld,
            unknown,
        } = self.left_out;
        gauges(
            &mut encoder,
            ("segments_left_out", None),
            "Segments that this response leaves out: beyond the limit, withheld by min_users, or without a known count.",
            [
                ([("reason", "limit")], limit),
                ([("reason", "withheld")], withheld),
                ([("reason", "unknown")], unknown),
            ],
        )
    }
}

fn gauges<'a, const N: usize, V: EncodeGaugeValue>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, unit): (&str, Option<&Unit>),
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a, N>, V)>,
) -> fmt::Result {
    let descriptor = (name, help, unit, MetricType::Gauge);
    family(encoder, descriptor, samples, |mut sample, value| {
        sample.encode_gauge(&value)
    })
}

fn counters<'a, const N: usize, V: EncodeCounterValue>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    samples: impl IntoIterator<Item = (Labels<'a, N>, V)>,
) -> fmt::Result {
    let descriptor = (name, help, None, MetricType::Counter);
    family(encoder, descriptor, samples, |mut sample, value| {
        sample.encode_counter::<Labels<'_, 0>, _, u64>(&value, None)
    })
}

/// A metric without samples is left out.
fn family<'a, const N: usize, V>(
    encoder: &mut DescriptorEncoder<'_>,
    (name, help, unit, kind): (&str, &str, Option<&Unit>, MetricType),
    samples: impl IntoIterator<Item = (Labels<'a, N>, V)>,
    encode: impl Fn(MetricEncoder<'_>, V) -> fmt::Result,
) -> fmt::Result {
    let mut samples = samples.into_iter().peekable();
    if samples.peek().is_none() {
        return Ok(());
    }
    let mut encoder = encoder.encode_descriptor(name, help, unit, kind)?;
    for (labels, value) in samples {
        encode(encoder.encode_family(&labels)?, value)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_have_their_labels_and_values() {
        let sample = |segment: &str, users, flow| SegmentSample {
            segment: segment.to_owned(),
            window: "7d".to_owned(),
            users,
            as_of: 1_795_262_400.25,
            flow,
        };
        let metrics = SegmentMetrics {
            segments: vec![
                sample("sports", 12, Some((20, 8))),
                sample("a\\b \"c\" é", 1, None),
            ],
            windows: vec![WindowSample {
                window: "7d".to_owned(),
                stale: 1,
                complete: false,
            }],
            full_window: "14d".to_owned(),
            left_out: LeftOut {
                limit: 3,
                withheld: 2,
                unknown: 0,
            },
        };
        let open = metrics.clone().render().unwrap();
        let plain = metrics.render_plain().unwrap();
        for line in [
            r#"headcount_segment_users{segment="sports",window="7d"} 12"#,
            r#"headcount_segment_users{segment="a\\b \"c\" é",window="7d"} 1"#,
            r#"headcount_segment_as_of_seconds{segment="sports",window="7d"} 1795262400.25"#,
            r#"headcount_segment_users_entered_total{segment="sports",window="14d"} 20"#,
            r#"headcount_segment_users_left_total{segment="sports",window="14d"} 8"#,
            r#"headcount_segment_counts_stale{window="7d"} 1"#,
            r#"headcount_segment_counts_complete{window="7d"} 0"#,
            r#"headcount_segments_left_out{reason="limit"} 3"#,
            r#"headcount_segments_left_out{reason="withheld"} 2"#,
        ] {
            for text in [&open, &plain] {
                assert!(text.contains(&format!("\n{line}\n")), "{line} in {text}");
            }
        }
        assert!(open.contains("# TYPE headcount_segment_users_left counter\n"));
        assert!(plain.contains("# TYPE headcount_segment_users_left_total counter\n"));
        assert!(!plain.contains("# EOF"));
        for name in SegmentMetrics::NAMES {
            let is_rendered = |line: &str| line.starts_with(&format!("{name}{{"));
            assert!(plain.lines().any(is_rendered), "{name}");
        }
    }

    #[test]
    fn without_segments_only_what_is_left_out_is_rendered() {
        let metrics = SegmentMetrics {
            segments: Vec::new(),
            windows: Vec::new(),
            full_window: "14d".to_owned(),
            left_out: LeftOut::default(),
        };
        let text = metrics.render_plain().unwrap();
        let samples: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(samples.len(), 3, "{text}");
    }
}
