//! Logs to standard error, as text for people or as JSON for machines.

use std::io::IsTerminal;

use serde::Deserialize;
use tracing::subscriber::SetGlobalDefaultError;
use tracing::{Dispatch, Metadata};
use tracing_subscriber::fmt::{self, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, filter};

/// The settings of the logs.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    /// The format of log lines.
    pub log_format: LogFormat,
    /// Which events are logged: directives for `tracing_subscriber::EnvFilter`.
    pub log: String,
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
}

/// Starts logging according to the settings, including panics. Once per process.
pub fn init(settings: &TelemetrySettings) -> Result<(), InitError> {
    let colours = std::io::stderr().is_terminal();
    let dispatch = dispatch(settings, std::io::stderr, colours)?;
    tracing::dispatcher::set_global_default(dispatch)?;
    super::panics::watch();
    Ok(())
}

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
