//! What brokers retain in the end: the same everywhere, and the last that was set.

use std::collections::{BTreeMap, BTreeSet};

use super::{Deed, Digest, History, Op, OpId, Seen, Stamp};

impl History {
    /// What a publisher sets later wins, also if it has gone to another broker in between, and the one before reads only
    /// then what it was sent. Of QoS 2 on one connection the release counts.
    pub(super) fn turned_round(&self, stamps: &BTreeMap<OpId, &Stamp>) -> Vec<String> {
        let mut known: BTreeMap<(usize, &str), Vec<&Op>> = BTreeMap::new();
        let mut complaints = Vec::new();
        for op in self.ops.values().filter(|op| op.deed != Deed::Pass) {
            let Some(stamp) = stamps.get(&op.id) else { continue };
            let before = known.entry((op.id.0, &op.topic)).or_default();
            let wins = |earlier: &&&Op| {
                let comparable = earlier.connection != op.connection || (earlier.qos < 2 && op.qos < 2);
                comparable && stamps[&earlier.id].time >= stamp.time
            };
            if let Some(earlier) = before.iter().find(wins) {
                complaints.push(format!(
                    "{op:?} counts as sent before {earlier:?}: {stamp:?}, {:?}",
                    stamps[&earlier.id]
                ));
            }
            before.push(op);
        }
        complaints
    }

    pub(super) fn kept_topics(&self) -> BTreeSet<&str> {
        let kept = self.ops.values().filter(|op| op.deed != Deed::Pass);
        kept.map(|op| op.topic.as_str()).collect()
    }

    pub(super) fn check_equality(&self, complaints: &mut Vec<String>) {
        let values = |retained: &BTreeMap<String, Seen>| -> BTreeMap<String, (Option<OpId>, Option<Stamp>)> {
            let value = |(topic, seen): (&String, &Seen)| (topic.clone(), (seen.op, seen.stamp.clone()));
            retained.iter().map(value).collect()
        };
        let first = self.retained.first().map(values).unwrap_or_default();
        for (broker, retained) in self.retained.iter().enumerate().skip(1) {
            let own = values(retained);
            let topics: BTreeSet<&String> = first.keys().chain(own.keys()).collect();
            for topic in topics
                .into_iter()
                .filter(|topic| first.get(*topic) != own.get(*topic))
            {
                complaints.push(format!(
                    "{topic}: broker1 retains {:?}, broker{} {:?}",
                    first.get(topic),
                    broker + 1,
                    own.get(topic)
                ));
            }
        }
        let told = |digest: &Option<Digest>| digest.clone().map(|told| (told.count, told.digest));
        if self
            .digests
            .iter()
            .any(|digest| told(digest) != told(&self.digests[0]))
        {
            complaints.push(format!("the digests differ: {:?}", self.digests));
        }
        if self.digests.iter().flatten().any(|digest| !digest.in_sync) {
            complaints.push(format!("not all are in sync: {:?}", self.digests));
        }
    }

    /// What is wrong with what a broker retains on `topic` in the end.
    pub(super) fn wrong_value(
        &self,
        broker: usize,
        topic: &str,
        kept: Option<&Seen>,
        stamps: &BTreeMap<OpId, &Stamp>,
    ) -> Option<String> {
        let here = || {
            self.ops
                .values()
                .filter(|op| op.topic == topic && op.deed != Deed::Pass)
        };
        let certain = here().filter(|op| op.acked.is_some_and(|at| !self.reach.may_be_lost(op.at, at)));
        let winner = certain
            .max_by_key(|op| stamps.get(&op.id).map(|stamp| stamp.time))
            .filter(|op| stamps.contains_key(&op.id));
        let broker = broker + 1;
        let Some(kept) = kept else {
            let winner = winner.filter(|op| op.deed == Deed::Set)?;
            // A clear that nobody acknowledged or saw may have been the last.
            let later = |op: &Op| match stamps.get(&op.id) {
                Some(stamp) => stamp.time >= stamps[&winner.id].time,
                None => op.acked.is_none() || op.qos == 0,
            };
            let cleared = here().any(|op| op.deed == Deed::Clear && later(op));
            return (!cleared)
                .then(|| format!("{topic}: broker{broker} retains nothing, the last value is {winner:?}"));
        };
        let Some(op) = kept
            .op
            .and_then(|id| self.ops.get(&id))
            .filter(|op| op.topic == topic && op.deed == Deed::Set)
        else {
            return Some(format!(
                "{topic}: broker{broker} retains what nobody published: {kept:?}"
            ));
        };
        let winner = winner?;
        let time = |stamp: &Stamp| stamp.time;
        let is_older = kept.stamp.as_ref().map(time) < stamps.get(&winner.id).copied().map(time);
        is_older.then(|| match winner.deed {
            Deed::Clear => {
                format!("{topic}: broker{broker} has the deleted {op:?} back, cleared by {winner:?}")
            }
            _ => format!("{topic}: broker{broker} retains {op:?}, but {winner:?} is later"),
        })
    }
}
