//! Log lines: to journald where it listens to this program, else as JSON on standard output; and where configured the
//! same JSON in rotating files.
//!
//! In the journal each field is one of its own, in capitals: `journalctl -u mesh-health BROKER=broker1`. The
//! level is PRIORITY (ERROR 3, WARN 4, INFO 6, DEBUG and TRACE 7), the module TARGET.
//!
//! Levels mean the same everywhere: ERROR an operator must act, WARN something is degraded, INFO a transition,
//! DEBUG a probe. Event names and field names are those of [`mesh_model::event`]; a line about an event carries
//! its name in the field `event`. Never a payload, never a credential.

use std::ffi::OsStr;

use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_appender::rolling::{RollingFileAppender, Rotation};
use tracing_journald::{Priority, PriorityMappings};
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
    let journal = journal(service);
    let lines = journal
        .is_none()
        .then(|| fmt::layer().json().with_writer(std::io::stdout));
    tracing_subscriber::registry()
        .with(filter)
        .with(journal)
        .with(lines)
        .with(file_layer)
        .try_init()
        .map_err(TelemetryError::Twice)?;
    Ok(Telemetry { _files: guard })
}

/// The way to journald, if what this program prints goes there anyway.
fn journal(service: &str) -> Option<tracing_journald::Layer> {
    let stream = std::env::var_os("JOURNAL_STREAM")?;
    let stderr = rustix::fs::fstat(std::io::stderr()).ok()?;
    if !is_stream(&stream, stderr.st_dev, stderr.st_ino) {
        return None;
    }
    let levels = PriorityMappings {
        info: Priority::Informational,
        debug: Priority::Debug,
        ..PriorityMappings::new()
    };
    let layer = tracing_journald::layer().ok()?;
    Some(
        layer
            .with_field_prefix(None)
            .with_priority_mappings(levels)
            .with_syslog_identifier(service.to_owned()),
    )
}

/// Whether systemd's `JOURNAL_STREAM`, a device and an inode, means this file. Children inherit the variable, and
/// what they print may go elsewhere.
fn is_stream(variable: &OsStr, device: u64, inode: u64) -> bool {
    variable == OsStr::new(&format!("{device}:{inode}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_stream_counts() {
        assert!(is_stream(OsStr::new("9:4711"), 9, 4711));
        for other in ["", "9:47110", "9:471", "8:4711", "9", "4711:9"] {
            assert!(!is_stream(OsStr::new(other), 9, 4711), "{other}");
        }
    }
}
