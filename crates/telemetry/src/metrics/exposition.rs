//! Converts OpenMetrics, which the registry writes, to the text format 0.0.4, which every Prometheus-compatible client
//! reads.
//!
//! Samples are the same in both. In the older format, the `HELP` and `TYPE` lines of a counter include `_total` in its
//! name, and there are no `UNIT` and `EOF` lines.

use std::fmt::Write;

/// Converts OpenMetrics to the text format 0.0.4.
pub(super) fn plain(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let mut help = "";
    for line in open_metrics.lines() {
        if let Some(about) = line.strip_prefix("# HELP ") {
            // The suffix of the name depends on the type, which is on the next line.
            help = about.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some(about) = line.strip_prefix("# TYPE ") {
            let (name, kind) = about.split_once(' ').unwrap_or((about, "untyped"));
            let (suffix, kind) = match kind {
                "counter" => ("_total", "counter"),
                "info" => ("_info", "gauge"),
                "unknown" => ("", "untyped"),
                kind => ("", kind),
            };
            // Writing to a string never fails.
            let _ = writeln!(text, "# HELP {name}{suffix} {help}");
            let _ = writeln!(text, "# TYPE {name}{suffix} {kind}");
        } else if !line.starts_with("# ") {
            text.push_str(line);
            text.push('\n');
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_have_their_whole_name_everywhere() {
        let open = "\
# HELP a_requests Requests answered.
# TYPE a_requests counter
a_requests_total{route=\"/\"} 1
# HELP a_duration_seconds Time.
# TYPE a_duration_seconds histogram
# UNIT a_duration_seconds seconds
a_duration_seconds_bucket{le=\"+Inf\"} 1
# HELP a_open Open.
# TYPE a_open gauge
a_open 2
# EOF
";
        let expected = "\
# HELP a_requests_total Requests answered.
# TYPE a_requests_total counter
a_requests_total{route=\"/\"} 1
# HELP a_duration_seconds Time.
# TYPE a_duration_seconds histogram
a_duration_seconds_bucket{le=\"+Inf\"} 1
# HELP a_open Open.
# TYPE a_open gauge
a_open 2
";
        assert_eq!(plain(open), expected);
    }
}
