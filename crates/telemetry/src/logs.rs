//! Logs to standard error, as text for people or as JSON for machines; and the start of traces beside them.

use std::io::IsTerminal;

use serde::Deserialize;
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Dispatch, Metadata};
use tracing_subscriber::filter::FilterExt;
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, filter};

use crate::traces::{self, TraceSettings, Traces, TracesError};

/// The settings of the logs and traces.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// The format of log lines.
    pub log_format: LogFormat,
    /// Which events are logged: directives for `tracing_subscriber::EnvFilter`.
    pub log: String,
    /// Where traces go; `None`: no traces.
    pub traces: Option<TraceSettings>,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Why logging could not start.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The directives can't be parsed.
    #[error("log: {0}")]
    Directives(#[from] filter::ParseError),
    /// Logging was started before.
    #[error(transparent)]
    Twice(#[from] SetGlobalDefaultError),
    /// Traces can't be sent.
    #[error(transparent)]
    Traces(#[from] TracesError),
}

/// The logs and traces of this process.
#[must_use]
#[derive(Debug)]
pub struct Telemetry {
    traces: Option<Traces>,
}

impl Telemetry {
    /// Sends the last traces. Blocks for three seconds at most.
    pub fn end(self) {
        if let Some(traces) = self.traces {
            traces.end();
        }
    }
}

/// Starts logging and tracing according to the settings, including panics. Once per process, whose `role` traces have.
pub fn init(settings: &TelemetrySettings, role: &str) -> Result<Telemetry, InitError> {
    let colours = std::io::stderr().is_terminal();
    let traces = match &settings.traces {
        Some(traces) => Some(Traces::open(traces, role)?),
        None => None,
    };
    let dispatch = match &traces {
        Some(traces) => traced_dispatch(settings, traces, std::io::stderr, colours)?,
        None => dispatch(settings, std::io::stderr, colours)?,
    };
    tracing::dispatcher::set_global_default(dispatch)?;
    super::panics::watch();
    Ok(Telemetry { traces })
}

/// Logs alone: one filter for everything, so that disabled spans and events cost next to nothing.
fn dispatch<W>(
    settings: &TelemetrySettings,
    writer: W,
    colours: bool,
) -> Result<Dispatch, filter::ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let wanted = tracing_subscriber::registry()
        .with(EnvFilter::try_new(&settings.log)?)
        .with(filter::filter_fn(names_no_user));
    let lines = fmt::layer().with_writer(writer).with_ansi(colours);
    Ok(match settings.log_format {
        LogFormat::Text => Dispatch::new(wanted.with(lines)),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            Dispatch::new(wanted.with(lines))
        }
    })
}

/// Logs and traces, each with its own filter. Log lines within a request have the fields of its span.
fn traced_dispatch<W>(
    settings: &TelemetrySettings,
    traces: &Traces,
    writer: W,
    colours: bool,
) -> Result<Dispatch, filter::ParseError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let logged = EnvFilter::try_new(&settings.log)?
        .and(filter::filter_fn(names_no_user))
        .or(filter::filter_fn(traces::is_request));
    let spans = tracing_subscriber::registry().with(traces.layer());
    let lines = fmt::layer().with_writer(writer).with_ansi(colours);
    Ok(match settings.log_format {
        LogFormat::Text => Dispatch::new(spans.with(lines.with_filter(logged))),
        LogFormat::Json => {
            let lines = lines.json().flatten_event(true).with_span_list(false);
            Dispatch::new(spans.with(lines.with_filter(logged)))
        }
    })
}

/// Whether an event can't contain a user id. At the trace level, warp logs the parts of each path and query, which contain
/// user ids. These events are useful only to the authors of warp, so no directive turns them on.
fn names_no_user(event: &Metadata<'_>) -> bool {
    !event.target().starts_with("warp")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Arc;

    use parking_lot::Mutex;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(log: &str, log_format: LogFormat) -> String {
        let settings = TelemetrySettings {
            log_format,
            log: log.to_owned(),
            traces: None,
        };
        let lines = Lines::default();
        let writer = lines.clone();
        let dispatch = dispatch(&settings, move || writer.clone(), false).unwrap();
        tracing::dispatcher::with_default(&dispatch, || {
            let span = tracing::debug_span!("request", request_id = "r1");
            span.in_scope(|| {
                tracing::trace!(target: "warp::filters::path", "param?: u104010");
                tracing::debug!(status = 200, "request answered");
            });
            tracing::info!("listening");
        });
        let bytes = lines.0.lock().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn what_is_asked_for_is_logged() {
        let text = logged("info", LogFormat::Text);
        assert!(
            text.contains("listening") && !text.contains("answered"),
            "{text}"
        );
        let json = logged("headcount=debug", LogFormat::Json);
        let first: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
        assert_eq!(first["message"], "request answered");
        assert_eq!(first["span"]["request_id"], "r1");
        assert!(EnvFilter::try_new("headcount=loud").is_err());
    }

    #[test]
    fn no_directive_makes_a_library_tell_user_ids() {
        for log in ["trace", "warp=trace", "warp::filters::path=trace"] {
            let text = logged(log, LogFormat::Text);
            assert!(!text.contains("u104010"), "{text}");
        }
    }
}
