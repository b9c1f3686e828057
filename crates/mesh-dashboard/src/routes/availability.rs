//! A day of each broker, from the samples that mesh-logs keeps.
//!
//! Every 10 s there is a sample of the plan's generation if somebody watched, and one of the probe's answer if the broker
//! gave one. So a time is known to be well, known not to be, or not watched; nothing is taken for well because nobody
//! looked.

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use mesh_model::BrokerId;
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, fresh};
use crate::problem::Problem;

/// A slot of a strip, and how many there are: 24 h in slots of 5 minutes.
const SLOT_MS: i64 = 5 * 60 * 1_000;
const SLOTS: usize = 288;

/// What a slot was like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Slot {
    /// It answered whenever somebody looked.
    Up,
    /// It answered sometimes.
    Partly,
    /// It did not answer.
    Down,
    /// Nobody looked.
    Unwatched,
}

/// The day of one broker.
#[derive(Debug, Serialize, ToSchema)]
pub struct Strip {
    /// The broker.
    broker: BrokerId,
    /// The slots, the oldest first.
    slots: Vec<Slot>,
    /// The share of the watched time in which it answered, 0 to 1; `null` if nobody watched.
    share: Option<f64>,
}

/// The last 24 hours.
#[derive(Debug, Serialize, ToSchema)]
pub struct Availability {
    /// Where the first slot begins, in milliseconds since 1970.
    from: i64,
    /// How many milliseconds a slot has.
    slot_ms: i64,
    /// The brokers, in order of priority.
    strips: Vec<Strip>,
}

/// The last 24 hours of each broker
#[utoipa::path(get, path = "/api/v1/availability", tag = "live", responses(
    (status = 200, description = "The strips", body = Availability),
    (status = 503, description = "There is no database", body = Problem, content_type = "application/problem+json"),
))]
pub async fn availability(State(app): State<App>) -> Result<Response, Problem> {
    let end = (Timestamp::now().as_millisecond() / SLOT_MS + 1) * SLOT_MS;
    let from = end - SLOT_MS * SLOTS as i64;
    let slots = async |series: &str, target: &str| {
        let (from_ns, to_ns) = (from * 1_000_000, end * 1_000_000);
        let samples = app
            .archive
            .read(async |reader| reader.samples(series, target, from_ns, to_ns).await)
            .await?;
        Ok::<_, Problem>(counted(samples.iter().map(|sample| sample.at / 1_000_000), from))
    };
    let watched = slots("generation", "").await?;
    let mut strips = Vec::new();
    for broker in app.brokers.iter() {
        let answered = slots("rtt_ms", broker.as_str()).await?;
        strips.push(strip(broker.clone(), &watched, &answered));
    }
    Ok(fresh(&Availability {
        from,
        slot_ms: SLOT_MS,
        strips,
    }))
}

/// How many samples each slot has.
fn counted(times: impl IntoIterator<Item = i64>, from: i64) -> [u32; SLOTS] {
    let mut slots = [0; SLOTS];
    for time in times {
        let slot = usize::try_from((time - from).div_euclid(SLOT_MS)).ok();
        if let Some(slot) = slot.and_then(|slot| slots.get_mut(slot)) {
            *slot += 1;
        }
    }
    slots
}

fn strip(broker: BrokerId, watched: &[u32; SLOTS], answered: &[u32; SLOTS]) -> Strip {
    let watched = &asked(watched, answered);
    let slot = |(watched, answered): (&u32, &u32)| match (watched, answered) {
        (0, _) => Slot::Unwatched,
        (_, 0) => Slot::Down,
        (watched, answered) if answered < watched => Slot::Partly,
        _ => Slot::Up,
    };
    let all: u32 = watched.iter().sum();
    let good: u32 = watched
        .iter()
        .zip(answered)
        .map(|(watched, answered)| *watched.min(answered))
        .sum();
    Strip {
        broker,
        slots: watched.iter().zip(answered).map(slot).collect(),
        share: (all > 0).then(|| f64::from(good) / f64::from(all)),
    }
}

/// How many samples each slot has in which the broker had been asked: the first one after a start is taken before the
/// first answer can be there.
fn asked(watched: &[u32; SLOTS], answered: &[u32; SLOTS]) -> [u32; SLOTS] {
    let mut asked = *watched;
    for slot in 0..SLOTS {
        let is_start = slot == 0 || watched[slot - 1] == 0;
        if is_start && answered[slot] < watched[slot] {
            asked[slot] -= 1;
        }
    }
    asked
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_watched_is_neither_up_nor_down() {
        let mut watched = [0; SLOTS];
        let mut answered = [0; SLOTS];
        (watched[0], answered[0]) = (31, 30);
        (watched[1], answered[1]) = (30, 10);
        (watched[2], answered[2]) = (30, 0);
        let strip = strip("a".parse().unwrap(), &watched, &answered);
        assert_eq!(
            strip.slots[..4],
            [Slot::Up, Slot::Partly, Slot::Down, Slot::Unwatched]
        );
        assert!((strip.share.unwrap() - 40.0 / 90.0).abs() < 1e-9);
        assert_eq!(
            super::strip("a".parse().unwrap(), &[0; SLOTS], &[0; SLOTS]).share,
            None
        );
        assert_eq!(counted([-1, 0, SLOT_MS, SLOT_MS * 1_000], 0)[..2], [1, 1]);
    }
}
