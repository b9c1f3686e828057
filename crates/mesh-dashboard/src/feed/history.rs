//! The last quarter of an hour, in memory, for charts and for replaying the picture.
//!
//! A frame is kept every [`EVERY`], and besides whenever a word changes (a health, a role, the state of a link), so that
//! a failover of half a second is in it. Figures between two frames are not kept, nor averaged: what is shown was true.

use std::collections::VecDeque;
use std::time::Duration;

use jiff::Timestamp;
use mesh_model::{BrokerId, Snapshot};

use crate::wire::{BrokerHistory, History, LinkHistory};

/// Time between two frames if nothing changes.
const EVERY: Duration = Duration::from_secs(5);

/// How long a frame is kept.
const KEPT: Duration = Duration::from_secs(15 * 60);

/// Words that change all the time must not fill the memory.
const MOST: usize = 1_000;

/// One instant; `None` where mesh-health did not answer.
#[derive(Debug, Clone)]
struct Frame {
    at: Timestamp,
    snapshot: Option<Snapshot>,
}

/// The frames, the oldest first. All of them have the same brokers.
#[derive(Debug, Default)]
pub struct Frames {
    frames: VecDeque<Frame>,
}

impl Frames {
    /// Takes in what is known at `at`; `None` if mesh-health does not answer.
    pub fn note(&mut self, at: Timestamp, snapshot: Option<&Snapshot>) {
        let known = self.frames.iter().rev().find_map(|frame| frame.snapshot.as_ref());
        if let (Some(known), Some(new)) = (known, snapshot)
            && !known
                .brokers
                .iter()
                .map(|b| &b.id)
                .eq(new.brokers.iter().map(|b| &b.id))
        {
            // Another network: what was is of no use.
            self.frames.clear();
        }
        if let Some(last) = self.frames.back() {
            let is_due = since(last.at, at) >= EVERY;
            if at <= last.at || (!is_due && !differs(last.snapshot.as_ref(), snapshot)) {
                return;
            }
        }
        while self.frames.len() >= MOST || self.frames.front().is_some_and(|old| since(old.at, at) > KEPT) {
            self.frames.pop_front();
        }
        self.frames.push_back(Frame {
            at,
            snapshot: snapshot.cloned(),
        });
    }

    /// The frames in columns.
    pub fn columns(&self) -> History {
        let mut history = History::default();
        let Some(shape) = self.frames.iter().find_map(|frame| frame.snapshot.as_ref()) else {
            return history;
        };
        for frame in &self.frames {
            let snapshot = frame.snapshot.as_ref();
            history.at.push(frame.at.as_millisecond());
            history.state.push(snapshot.map(|s| s.state));
            history.primary.push(snapshot.map(|s| s.primary.clone()));
        }
        history.brokers = shape
            .brokers
            .iter()
            .map(|broker| self.broker(&broker.id))
            .collect();
        history.links = shape
            .links
            .iter()
            .map(|link| self.link(&link.from, &link.to))
            .collect();
        history
    }

    fn broker(&self, id: &BrokerId) -> BrokerHistory {
        let snapshots = || self.frames.iter().map(|frame| frame.snapshot.as_ref());
        let brokers = || snapshots().map(|s| s.and_then(|s| s.brokers.iter().find(|b| b.id == *id)));
        BrokerHistory {
            id: id.clone(),
            health: brokers().map(|b| b.map(|b| b.health)).collect(),
            role: brokers().map(|b| b.and_then(|b| b.role)).collect(),
            rtt_ms: brokers()
                .map(|b| rounded(b.and_then(|b| b.rtt_ms), 1e3))
                .collect(),
            clients: brokers().map(|b| b.and_then(|b| b.clients)).collect(),
            in_per_s: brokers()
                .map(|b| rounded(b.and_then(|b| b.in_per_s), 10.0))
                .collect(),
            out_per_s: brokers()
                .map(|b| rounded(b.and_then(|b| b.out_per_s), 10.0))
                .collect(),
        }
    }

    fn link(&self, from: &BrokerId, to: &BrokerId) -> LinkHistory {
        let snapshots = || self.frames.iter().map(|frame| frame.snapshot.as_ref());
        let links =
            || snapshots().map(|s| s.and_then(|s| s.links.iter().find(|l| l.from == *from && l.to == *to)));
        LinkHistory {
            from: from.clone(),
            to: to.clone(),
            state: links().map(|l| l.map(|l| l.state)).collect(),
            latency_ms: links()
                .map(|l| rounded(l.and_then(|l| l.latency_ms), 1e3))
                .collect(),
            per_s: links().map(|l| rounded(l.and_then(|l| l.per_s), 10.0)).collect(),
        }
    }
}

/// Whether a word changed; figures do not count.
fn differs(old: Option<&Snapshot>, new: Option<&Snapshot>) -> bool {
    match (old, new) {
        (None, None) => false,
        (Some(old), Some(new)) => {
            let brokers = old.brokers.iter().zip(&new.brokers);
            let links = old.links.iter().zip(&new.links);
            old.state != new.state
                || old.primary != new.primary
                || brokers
                    .into_iter()
                    .any(|(a, b)| (a.health, a.admin, a.role) != (b.health, b.admin, b.role))
                || links.into_iter().any(|(a, b)| a.state != b.state)
        }
        _ => true,
    }
}

fn since(then: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(now.duration_since(then)).unwrap_or_default()
}

fn rounded(value: Option<f64>, steps: f64) -> Option<f64> {
    value.map(|value| (value * steps).round() / steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;

    fn snapshot(health: &str, clients: u64) -> Snapshot {
        let text = format!(
            r#"{{"generation":1,"at":"2026-11-23T03:00:00Z","state":"ok","primary":"a","backup":null,
            "balancer":{{"generation":1,"confirmed":true,"old_workers":0,"error":null}},
            "brokers":[{{"id":"a","address":"127.0.0.1:1","health":"{health}","admin":"enabled","role":"primary",
            "since":"2026-11-23T03:00:00Z","reason":null,"rtt_ms":0.12345,"clients":{clients},"in_per_s":null,
            "out_per_s":1.26,"retained":null}}],"links":[]}}"#
        );
        serde_json::from_str(&text).unwrap()
    }

    #[test]
    fn a_frame_is_kept_when_it_is_time_and_when_a_word_changes() {
        let start: Timestamp = "2026-11-23T03:00:00Z".parse().unwrap();
        let at = |ms: i64| start + ms.milliseconds();
        let mut frames = Frames::default();
        frames.note(at(0), Some(&snapshot("healthy", 1)));
        frames.note(at(1_000), Some(&snapshot("healthy", 2)));
        frames.note(at(1_250), Some(&snapshot("dead", 2)));
        frames.note(at(1_500), None);
        frames.note(at(1_750), None);
        frames.note(at(2_000), Some(&snapshot("healthy", 3)));
        frames.note(at(7_000), Some(&snapshot("healthy", 4)));
        let history = frames.columns();
        let times: Vec<i64> = history.at.iter().map(|ms| ms - start.as_millisecond()).collect();
        assert_eq!(times, [0, 1_250, 1_500, 2_000, 7_000]);
        let broker = &history.brokers[0];
        assert_eq!(broker.clients, [Some(1), Some(2), None, Some(3), Some(4)]);
        assert_eq!(broker.in_per_s, [None; 5], "unknown stays unknown");
        assert_eq!((broker.rtt_ms[0], broker.out_per_s[0]), (Some(0.123), Some(1.3)));

        frames.note(at(20 * 60 * 1_000), Some(&snapshot("healthy", 5)));
        assert_eq!(
            frames.columns().at.len(),
            1,
            "what is older than a quarter of an hour is forgotten"
        );
    }
}
