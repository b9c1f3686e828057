//! Log lines: JSON on standard output, for journald, and where configured the same lines in rotating files.
//!
//! Levels mean the same everywhere: ERROR an operator must act, WARN something is degraded, INFO a transition,
//! DEBUG a probe. Event names and field names are those of [`mesh_model::event`]; a line about an event carries
//! its name in the field `event`. Never a payload, never a credential.

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_subscriber::filter::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use crate::config::{Log, LogRotation};

/// Why there is no logging.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `log.level` is not a filter.
    #[error("log.level {level:?} is not a log filter")]
    Level {
        /// The setting.
        level: String,
        /// The cause.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The log files cannot be made.
    #[error("cannot write log files in log.dir")]
    Files(#[source] tracing_appender::rolling::InitError),
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps log files being written; lines are flushed when it is dropped.
#[derive(Debug)]
#[must_use = "log files are flushed when this is dropped"]
pub struct Telemetry {
    _files: Option<WorkerGuard>,
}

/// Sets up logging for the program `service`, which names its log files.
///
/// Files are written by a thread of their own behind a queue that blocks when it is full: tracing-appender's
/// default would drop lines instead.
///
/// # Errors
///
/// [`TelemetryError`] if the filter is wrong or the log files cannot be made.
pub fn init(log: &Log, service: &'static str) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(&log.level).map_err(|source| TelemetryError::Level {
        level: log.level.clone(),
        source,
    })?;
    let (file_layer, guard) = match &log.dir {
        None => (None, None),
        Some(dir) => {
            let appender = RollingFileAppender::builder()
                .rotation(match log.rotation {
                    LogRotation::Hourly => Rotation::HOURLY,
                    LogRotation::Daily => Rotation::DAILY,
                    LogRotation::Never => Rotation::NEVER,
                })
                .filename_prefix(service)
                .filename_suffix("jsonl")
                .max_log_files(usize::try_from(log.keep).unwrap_or(usize::MAX))
                .build(dir)
                .map_err(TelemetryError::Files)?;
            let (writer, guard) = NonBlockingBuilder::default().lossy(false).finish(appender);
            (Some(fmt::layer().json().with_writer(writer).boxed()), Some(guard))
        }
    };
    tracing_subscriber::registry()
        .with(filter)
        .with(fmt::layer().json().with_writer(std::io::stdout))
        .with(file_layer)
        .try_init()
        .map_err(TelemetryError::Twice)?;
    Ok(Telemetry { _files: guard })
}
