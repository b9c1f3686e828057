//! What subscribers were shown: nothing twice, nothing missing, everything in order.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deed, History, Op, OpId, Seen, Session, Stamp, Trouble};

impl History {
    /// Nothing comes twice, nothing that nobody published, and no value after a later one.
    pub(super) fn check_session(&self, broker: usize, session: &Session, complaints: &mut Vec<String>) {
        let who = format!("the subscriber of broker{}", broker + 1);
        let mut known = BTreeSet::new();
        let mut latest: BTreeMap<&str, &Seen> = BTreeMap::new();
        for seen in &session.seen {
            let op = seen.op.and_then(|id| self.ops.get(&id));
            let published = match op {
                Some(op) => op.topic == seen.topic && (op.deed == Deed::Clear) == seen.empty,
                None => seen.op.is_none() && seen.empty,
            };
            if !published {
                complaints.push(format!("{who} got what nobody published: {seen:?}"));
            }
            if let Some(op) = op.filter(|op| !known.insert(op.id)) {
                complaints.push(format!("{who} got {} twice on one connection: {op:?}", op.id));
            }
            let passes = op.is_some_and(|op| op.deed == Deed::Pass || (op.qos == 2 && op.at == broker));
            if passes || seen.stamp.is_none() {
                continue;
            }
            let before = latest.insert(&seen.topic, seen);
            if let Some(before) = before.filter(|before| !follows(before, seen)) {
                complaints.push(format!(
                    "{who} got an older value after a newer one: {before:?}, then {seen:?}"
                ));
            }
        }
    }

    /// What one broker sends on to live subscribers comes in the order of its stamps, topic by topic. Of QoS 2 the release
    /// counts, which the stamp does not tell.
    pub(super) fn check_order(&self, broker: usize, session: &Session, complaints: &mut Vec<String>) {
        let mut latest: BTreeMap<(&str, &str), (&Stamp, &Op)> = BTreeMap::new();
        for seen in &session.seen {
            let (Some(op), Some(stamp)) = (seen.op.and_then(|id| self.ops.get(&id)), &seen.stamp) else {
                continue;
            };
            if op.deed != Deed::Pass || op.qos != 1 {
                continue;
            }
            let place = latest.entry((&op.topic, &stamp.origin)).or_insert((stamp, op));
            if place.0.time <= stamp.time {
                *place = (stamp, op);
            } else if !self.reach.may_be_overtaken(op.at, broker, op.sent, place.1.sent) {
                complaints.push(format!(
                    "the subscriber of broker{} got {op:?} after {:?}",
                    broker + 1,
                    place.1
                ));
            }
        }
    }

    /// Whoever was there from before a message was sent until the end has got it.
    pub(super) fn check_delivery(
        &self,
        broker: usize,
        stamps: &BTreeMap<OpId, &Stamp>,
        stalls: &[Trouble],
        complaints: &mut Vec<String>,
    ) {
        let Some(session) = self.sessions[broker].last().filter(|session| !session.ended) else {
            complaints.push(format!("broker{} has no subscriber in the end", broker + 1));
            return;
        };
        let got: BTreeSet<OpId> = session.seen.iter().filter_map(|seen| seen.op).collect();
        for op in self
            .ops
            .values()
            .filter(|op| op.qos > 0 && op.sent >= session.began && !got.contains(&op.id))
        {
            let Some(acked) = op.acked else { continue };
            let counts_from = self.reach.counts_from(op.at, acked, stalls);
            let superseded = |seen: &Seen| match (&seen.stamp, stamps.get(&op.id)) {
                (Some(stamp), Some(own)) => stamp.time >= own.time,
                // Nobody saw it, so there is no stamp to compare.
                (Some(_), None) => seen.op.is_none_or(|later| self.ops[&later].sent > counts_from),
                (None, _) => seen.op.is_none(),
            };
            let here = || session.seen.iter().filter(|seen| seen.topic == op.topic);
            let is_kept = self.retained[broker].contains_key(&op.topic);
            let is_gone = !is_kept && here().next_back().is_none_or(|last| last.empty);
            // It may have had a later one before the subscriber came.
            let mut known = here().chain(self.retained[broker].get(&op.topic));
            let excused = op.deed != Deed::Pass && (is_gone || known.any(superseded));
            if !excused && !self.reach.may_be_lost(op.at, acked) {
                complaints.push(format!(
                    "the subscriber of broker{} did not get {op:?}",
                    broker + 1
                ));
            }
        }
    }
}

/// Whether the second may be shown after the first: it is a later value.
fn follows(first: &Seen, second: &Seen) -> bool {
    match (&first.stamp, &second.stamp) {
        (Some(first), Some(second)) => first.time <= second.time && first != second,
        _ => true,
    }
}
