//! What a set of times comes to.

use std::time::Duration;

use mesh_lab::load::percentile;
use serde::Serialize;

/// Of a set of times, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Times {
    /// The median.
    pub p50: f64,
    /// 99 of 100 are at most this.
    pub p99: f64,
    /// The longest.
    pub max: f64,
}

impl Times {
    /// Of `times`; `None` if there are none.
    pub fn new(mut times: Vec<Duration>) -> Option<Self> {
        times.sort();
        let ms = |q| percentile(&times, q).map(|time| time.as_secs_f64() * 1e3);
        Some(Self {
            p50: ms(0.5)?,
            p99: ms(0.99)?,
            max: ms(1.0)?,
        })
    }
}
