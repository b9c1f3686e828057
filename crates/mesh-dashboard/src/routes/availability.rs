//! A day of each broker, from the samples that mesh-logs keeps.
//!
//! Every 10 s there is a sample of the plan's generation if somebody watched, and one of the probe's answer if the broker
//! gave one. So a time is known to be well, known not to be, or not watched; nothing is taken for well because nobody
//! looked. A fault that fits between two samples is known by its incident, and counts as one sample without an answer.

use std::collections::BTreeSet;

use axum::extract::State;
use axum::response::Response;
use jiff::Timestamp;
use mesh_model::{BrokerId, IncidentKind};
use serde::Serialize;
use utoipa::ToSchema;

use super::{App, fresh};
use crate::problem::Problem;

/// A slot of a strip, and how many there are: 24 h in slots of 5 minutes.
const SLOT_MS: i64 = 5 * 60 * 1_000;
const SLOTS: usize = 288;

/// After a pause of this length somebody has begun to watch again; samples come every 10 s.
const PAUSE_MS: i64 = 35_000;

/// Incidents of a day that are looked at, the newest.
const INCIDENTS: u32 = 500;

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
    let times = async |series: &str, target: &str| {
        let (from_ns, to_ns) = (from * 1_000_000, end * 1_000_000);
        let samples = app
            .archive
            .read(async |reader| reader.samples(series, target, from_ns, to_ns).await)
            .await?;
        let times: Vec<i64> = samples.iter().map(|sample| sample.at / 1_000_000).collect();
        Ok::<_, Problem>(times)
    };
    let watched = times("generation", "").await?;
    let incidents = app
        .archive
        .read(async |reader| reader.incidents(None, INCIDENTS).await)
        .await?;
    let mut strips = Vec::new();
    for broker in app.brokers.iter() {
        let answered: BTreeSet<i64> = times("rtt_ms", broker.as_str()).await?.into_iter().collect();
        let own = incidents.iter().filter(|incident| {
            incident.kind == IncidentKind::Broker && incident.broker.as_ref() == Some(broker)
        });
        let faults: Vec<i64> = own.map(|incident| incident.began_at.as_millisecond()).collect();
        strips.push(strip(broker.clone(), from, &watched, &answered, &faults));
    }
    Ok(fresh(&Availability {
        from,
        slot_ms: SLOT_MS,
        strips,
    }))
}

/// The slot of a time, if it is in the day that begins `from`.
fn slot_of(time: i64, from: i64) -> Option<usize> {
    let slot = usize::try_from((time - from).div_euclid(SLOT_MS)).ok()?;
    (slot < SLOTS).then_some(slot)
}

/// The day of a broker that begins `from`: when somebody watched, when it answered, and when faults of it began.
fn strip(broker: BrokerId, from: i64, watched: &[i64], answered: &BTreeSet<i64>, faults: &[i64]) -> Strip {
    let mut slots = [(0_u32, 0_u32); SLOTS];
    let mut before = i64::MIN / 2;
    for &time in watched {
        let is_first = time - std::mem::replace(&mut before, time) > PAUSE_MS;
        let is_answered = answered.contains(&time);
        // The first sample after a start is taken before the first answer can be there.
        if is_first && !is_answered {
            continue;
        }
        if let Some(slot) = slot_of(time, from) {
            slots[slot].0 += 1;
            slots[slot].1 += u32::from(is_answered);
        }
    }
    for slot in faults.iter().filter_map(|&fault| slot_of(fault, from)) {
        let (asked, good) = &mut slots[slot];
        if good == asked {
            *good = good.saturating_sub(1);
        }
    }
    let slot = |(asked, good): &(u32, u32)| match (*asked, *good) {
        (0, _) => Slot::Unwatched,
        (_, 0) => Slot::Down,
        (asked, good) if good < asked => Slot::Partly,
        _ => Slot::Up,
    };
    let sum = slots
        .iter()
        .fold((0, 0), |sum, slot| (sum.0 + slot.0, sum.1 + slot.1));
    Strip {
        broker,
        slots: slots.iter().map(slot).collect(),
        share: (sum.0 > 0).then(|| f64::from(sum.1) / f64::from(sum.0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_watched_is_neither_up_nor_down() {
        let of_slot = |slot: i64| (0..30).map(move |n| slot * SLOT_MS + n * 10_000);
        let watched: Vec<i64> = (0..4).chain(5..6).flat_map(of_slot).collect();
        let mut answered: BTreeSet<i64> = watched.iter().copied().collect();
        // The first look after a start, two thirds of a slot, a whole one.
        answered.remove(&0);
        answered.retain(|time| !(SLOT_MS + 100_000..3 * SLOT_MS).contains(time));
        // And a fault between two looks.
        let faults = [3 * SLOT_MS + 15_000, -5, SLOTS as i64 * SLOT_MS];
        let day = strip("a".parse().unwrap(), 0, &watched, &answered, &faults);
        use Slot::{Down, Partly, Unwatched, Up};
        assert_eq!(
            day.slots[..7],
            [Up, Partly, Down, Partly, Unwatched, Up, Unwatched]
        );
        let share = f64::from(29 + 10 + 29 + 30) / f64::from(29 + 30 + 30 + 30 + 30);
        assert!((day.share.unwrap() - share).abs() < 1e-9, "{:?}", day.share);
        let nothing = strip("a".parse().unwrap(), 0, &[], &BTreeSet::new(), &[]);
        assert_eq!(nothing.share, None);
    }
}
