//! Numbered messages in, numbered messages out: what benches and tests measure with.
//!
//! Every message carries its number and the time of its publication, so that a [`Subscriber`] can say what is
//! missing, what came twice, what came out of order, and how long each took. Publisher and subscribers live in
//! one process and share one monotonic clock. Sockets are our own ([`mesh_runtime::mqtt`]), because a client
//! library would queue, retry and reconnect, and hide what is to be measured.

mod publisher;
mod subscriber;

use std::sync::LazyLock;
use std::time::{Duration, Instant};

pub use publisher::{Pace, Publication, Publisher};
pub use subscriber::{Received, Subscriber};

/// The shortest payload that can carry number and time.
pub const MIN_PAYLOAD: usize = 12;

static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Nanoseconds since the first call in this process.
fn now_ns() -> u64 {
    u64::try_from(START.elapsed().as_nanos()).unwrap_or(u64::MAX)
}

/// A payload of `size` bytes (at least [`MIN_PAYLOAD`]) for message `number`, stamped with the present time.
fn payload(number: u32, size: usize) -> Vec<u8> {
    let mut payload = vec![b'.'; size.max(MIN_PAYLOAD)];
    payload[..4].copy_from_slice(&number.to_be_bytes());
    payload[4..MIN_PAYLOAD].copy_from_slice(&now_ns().to_be_bytes());
    payload
}

/// Number and age of a message made by [`payload`]; `None` if it is another one.
fn read(payload: &[u8]) -> Option<(u32, Duration)> {
    let number = u32::from_be_bytes(payload.get(..4)?.try_into().ok()?);
    let sent = u64::from_be_bytes(payload.get(4..MIN_PAYLOAD)?.try_into().ok()?);
    Some((number, Duration::from_nanos(now_ns().saturating_sub(sent))))
}

/// The value below which the share `q` (0 to 1) of `sorted` lies, by the nearest-rank method; `None` if empty.
pub fn percentile(sorted: &[Duration], q: f64) -> Option<Duration> {
    let rank = (q * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_its_number_and_age() {
        for size in [0, MIN_PAYLOAD, 1024] {
            let bytes = payload(7, size);
            assert_eq!(bytes.len(), size.max(MIN_PAYLOAD));
            let (number, age) = read(&bytes).unwrap();
            assert_eq!(number, 7);
            assert!(age < Duration::from_secs(1));
        }
        assert!(read(b"short").is_none());
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let values: Vec<Duration> = (1..=100).map(Duration::from_millis).collect();
        assert_eq!(percentile(&values, 0.5), Some(Duration::from_millis(50)));
        assert_eq!(percentile(&values, 0.99), Some(Duration::from_millis(99)));
        assert_eq!(percentile(&values, 1.0), Some(Duration::from_millis(100)));
        assert_eq!(percentile(&values[..1], 0.5), Some(Duration::from_millis(1)));
        assert_eq!(percentile(&[], 0.5), None);
    }
}
