//! `[log]`: the daemons' own log lines.

use std::path::PathBuf;

use crate::config::reader::Reader;

/// How often a new log file is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogRotation {
    /// Every hour.
    Hourly,
    /// Every day.
    Daily,
    /// Never.
    Never,
}

/// `[log]`: the daemons' own log lines.
#[derive(Debug, Clone)]
pub struct Log {
    /// What is logged, in the syntax of tracing's `EnvFilter`.
    pub level: String,
    /// Folder of rotating log files, beside the lines on standard output.
    pub dir: Option<PathBuf>,
    /// How often a new log file is begun.
    pub rotation: LogRotation,
    /// How many log files of a daemon are kept.
    pub keep: u64,
}

pub(super) fn read(reader: &mut Reader) -> Log {
    let mut s = reader.section("log");
    Log {
        level: s.text(
            "level",
            Some("info"),
            "what is logged: error, warn, info, debug or trace, also by module",
        ),
        dir: s.optional_path("dir", "folder of log files, beside the lines on standard output"),
        rotation: s.choice(
            "rotation",
            &[
                ("daily", LogRotation::Daily),
                ("hourly", LogRotation::Hourly),
                ("never", LogRotation::Never),
            ],
            0,
            "how often a new log file is begun",
        ),
        keep: s.number("keep", 7, 1..=10_000, "how many log files of a daemon are kept"),
    }
}
