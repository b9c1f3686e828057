//! A few numbers for many times.

use std::fmt;
use std::time::Duration;

use mesh_lab::load::percentile;

/// Of many times, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Percentiles {
    /// How many there were.
    pub count: usize,
    /// The median.
    pub p50_ms: f64,
    /// 99 of 100 are no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Percentiles {
    /// `None` if there are none.
    pub fn of(mut times: Vec<Duration>) -> Option<Self> {
        times.sort_unstable();
        let at = |share| percentile(&times, share).map(|time| (time.as_secs_f64() * 10_000.0).round() / 10.0);
        Some(Self {
            count: times.len(),
            p50_ms: at(0.5)?,
            p99_ms: at(0.99)?,
            max_ms: at(1.0)?,
        })
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            p50_ms,
            p99_ms,
            max_ms,
            ..
        } = self;
        write!(f, "{p50_ms:.0} / {p99_ms:.0} / {max_ms:.0} ms")
    }
}
