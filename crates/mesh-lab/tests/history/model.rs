//! What must be true after a history, whatever happened in it: pure, from what was published, what was seen where,
//! and what is retained in the end.
//!
//! **Excused**, and nothing else is:
//! - A message that only dead brokers held ([`Reach::may_be_lost`]), and one that was never acknowledged.
//! - A subscriber owes nothing from before its broker last started. What it got twice must have come on two sessions,
//!   with a start of that broker between: what a broker has seen is kept with a delay, so the last of it may come again.
//! - A retained message that the subscriber did not get because it has got a later one on that topic; or because the
//!   topic was cleared after that, and it knew no value to be told of. Who rejoins is told what is retained, not how it
//!   came to be so.
//! - QoS 2 at the broker where it was published: its stamp is from the PUBLISH, and it is shown at the PUBREL.
//! - The order of the live messages of one broker, where [`Reach::may_be_overtaken`] says so: what a peer lacks for
//!   three seconds is sent to it by others as well, and by its origin again.
//! - What a broker reads right after it stood still counts as sent before that: it may lose against what was sent
//!   elsewhere meanwhile, and then nobody is shown it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use super::reach::Reach;

/// Names a message: its publisher, who is mostly at the broker of the same number, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpId(pub usize, pub u64);

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.0, self.1)
    }
}

impl OpId {
    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let (publisher, number) = text.split_once('-')?;
        Some(Self(publisher.parse().ok()?, number.parse().ok()?))
    }
}

/// What a message does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deed {
    /// It sets a retained value.
    Set,
    /// It clears one.
    Clear,
    /// It passes.
    Pass,
}

/// A message that was published.
#[derive(Debug, Clone)]
pub struct Op {
    /// Its name.
    pub id: OpId,
    /// Its topic.
    pub topic: String,
    /// What it does.
    pub deed: Deed,
    /// Its quality of service.
    pub qos: u8,
    /// At which broker it was published.
    pub at: usize,
    /// On which connection of its publisher.
    pub connection: usize,
    /// When it was sent.
    pub sent: Duration,
    /// When it was acknowledged; for QoS 0 when a later one on the same connection was.
    pub acked: Option<Duration>,
    /// Why the broker refused it.
    pub refused: Option<String>,
}

/// The order of writes, as the brokers see it. Of two at the same time they all take the same one; which does not
/// matter here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Stamp {
    /// When.
    pub time: u64,
    /// Where.
    pub origin: String,
}

impl Stamp {
    /// Reads the value of a `mesh` property.
    pub fn parse(text: &str) -> Option<Self> {
        let stamp = mesh_plugin::stamp::Stamp::parse(text)?;
        Some(Self {
            time: stamp.time.0,
            origin: stamp.origin.to_string(),
        })
    }
}

/// A message that was seen.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Which; plugins publish a clear that they learn of later without it.
    pub op: Option<OpId>,
    /// Its topic.
    pub topic: String,
    /// Whether it had no payload.
    pub empty: bool,
    /// Its stamp.
    pub stamp: Option<Stamp>,
}

/// What one subscriber saw on one connection.
#[derive(Debug, Clone, Default)]
pub struct Session {
    /// When its subscription was granted.
    pub began: Duration,
    /// Whether it is over.
    pub ended: bool,
    /// What it saw, in order.
    pub seen: Vec<Seen>,
}

/// What a plugin says of its broker's retained state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    /// How many values.
    pub count: u64,
    /// Equal where the values are.
    pub digest: String,
    /// Whether it believes to have what the others have.
    pub in_sync: bool,
}

impl Digest {
    /// Reads the JSON of the plugin, which may say more than this.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let json: serde_json::Value = serde_json::from_slice(payload).ok()?;
        Some(Self {
            count: json["count"].as_u64()?,
            digest: json["digest"].as_str()?.to_owned(),
            in_sync: json["in_sync"].as_bool()?,
        })
    }
}

/// Everything that is known of a history.
#[derive(Debug, Default)]
pub struct History {
    /// What was published.
    pub ops: BTreeMap<OpId, Op>,
    /// What the subscribers of each broker saw.
    pub sessions: Vec<Vec<Session>>,
    /// What was done to the network.
    pub reach: Reach,
    /// What each broker retains in the end, by topic.
    pub retained: Vec<BTreeMap<String, Seen>>,
    /// What the plugin of each broker says of its retained state.
    pub digests: Vec<Option<Digest>>,
}

impl History {
    /// Everything that is wrong, a sentence each.
    pub fn complaints(&self) -> Vec<String> {
        let stamps = self.stamps();
        let mut complaints: Vec<String> = self.ops.values().filter_map(refused).collect();
        complaints.extend(self.unstamped(&stamps));
        for (broker, sessions) in self.sessions.iter().enumerate() {
            for session in sessions {
                self.check_session(broker, session, &mut complaints);
                self.check_order(broker, session, &mut complaints);
            }
            self.check_delivery(broker, &stamps, &mut complaints);
        }
        self.check_equality(&mut complaints);
        complaints.extend(self.turned_round(&stamps));
        for topic in self.kept_topics() {
            for (broker, retained) in self.retained.iter().enumerate() {
                complaints.extend(self.wrong_value(broker, topic, retained.get(topic), &stamps));
            }
        }
        complaints
    }

    /// The latest stamp of each message that has one. A QoS 2 message may get a second one when it is released.
    fn stamps(&self) -> BTreeMap<OpId, &Stamp> {
        let live = self.sessions.iter().flatten().flat_map(|session| &session.seen);
        let mut stamps = BTreeMap::new();
        for seen in live.chain(self.retained.iter().flat_map(BTreeMap::values)) {
            if let (Some(op), Some(stamp)) = (seen.op, &seen.stamp) {
                let latest = stamps.entry(op).or_insert(stamp);
                *latest = stamp.max(latest);
            }
        }
        stamps
    }

    /// Where there are stamps at all, everything has one but live messages of QoS 0.
    fn unstamped(&self, stamps: &BTreeMap<OpId, &Stamp>) -> Option<String> {
        let seen = self.sessions.iter().flatten().flat_map(|session| &session.seen);
        let mut without = seen
            .filter(|seen| seen.stamp.is_none())
            .filter_map(|seen| self.ops.get(&seen.op?));
        let op = without.find(|op| op.qos > 0 || op.deed != Deed::Pass)?;
        (!stamps.is_empty()).then(|| format!("{op:?} was shown without a stamp"))
    }

    /// What a publisher sets later wins, also if it has gone to another broker in between, and the one before reads only
    /// then what it was sent. Of QoS 2 on one connection the release counts.
    fn turned_round(&self, stamps: &BTreeMap<OpId, &Stamp>) -> Vec<String> {
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

    fn kept_topics(&self) -> BTreeSet<&str> {
        let kept = self.ops.values().filter(|op| op.deed != Deed::Pass);
        kept.map(|op| op.topic.as_str()).collect()
    }

    /// Nothing comes twice, nothing that nobody published, and no value after a later one.
    fn check_session(&self, broker: usize, session: &Session, complaints: &mut Vec<String>) {
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
    fn check_order(&self, broker: usize, session: &Session, complaints: &mut Vec<String>) {
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
    fn check_delivery(&self, broker: usize, stamps: &BTreeMap<OpId, &Stamp>, complaints: &mut Vec<String>) {
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
            let counts_from = self.reach.counts_from(op.at, acked);
            let superseded = |seen: &Seen| match (&seen.stamp, stamps.get(&op.id)) {
                (Some(stamp), Some(own)) => stamp.time >= own.time,
                // Nobody saw it, so there is no stamp to compare.
                (Some(_), None) => seen.op.is_none_or(|later| self.ops[&later].sent > counts_from),
                (None, _) => seen.op.is_none(),
            };
            let here = || session.seen.iter().filter(|seen| seen.topic == op.topic);
            let is_kept = self.retained[broker].contains_key(&op.topic);
            let is_gone = !is_kept && here().next_back().is_none_or(|last| last.empty);
            let excused = op.deed != Deed::Pass && (is_gone || here().any(superseded));
            if !excused && !self.reach.may_be_lost(op.at, acked) {
                complaints.push(format!(
                    "the subscriber of broker{} did not get {op:?}",
                    broker + 1
                ));
            }
        }
    }

    fn check_equality(&self, complaints: &mut Vec<String>) {
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
    fn wrong_value(
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

fn refused(op: &Op) -> Option<String> {
    let why = op.refused.as_ref()?;
    Some(format!("{op:?} was refused: {why}"))
}

/// Whether the second may be shown after the first: it is a later value.
fn follows(first: &Seen, second: &Seen) -> bool {
    match (&first.stamp, &second.stamp) {
        (Some(first), Some(second)) => first.time <= second.time && first != second,
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::super::reach::{Trouble, Who};
    use super::*;

    /// A mesh of two brokers to which nothing happens: messages are numbered, `time` is their stamp's and when they
    /// were sent.
    #[derive(Default)]
    struct Case(History);

    impl Case {
        fn new() -> Self {
            let mut history = History {
                sessions: vec![vec![Session::default()], vec![Session::default()]],
                retained: vec![BTreeMap::new(), BTreeMap::new()],
                digests: vec![None, None],
                ..History::default()
            };
            history.reach.brokers = 2;
            Self(history)
        }

        /// Published and acknowledged at a broker.
        fn op(mut self, id: OpId, topic: &str, deed: Deed, time: u64) -> Self {
            let at = Duration::from_secs(time);
            let op = Op {
                id,
                topic: topic.to_owned(),
                deed,
                qos: 1,
                at: id.0,
                connection: 0,
                sent: at,
                acked: Some(at),
                refused: None,
            };
            self.0.ops.insert(id, op);
            self
        }

        fn message(&self, id: OpId) -> Seen {
            let op = &self.0.ops[&id];
            let stamp = Stamp {
                time: op.sent.as_secs(),
                origin: format!("broker{}", id.0 + 1),
            };
            Seen {
                op: Some(id),
                topic: op.topic.clone(),
                empty: op.deed == Deed::Clear,
                stamp: Some(stamp),
            }
        }

        /// Shown to the subscriber of a broker.
        fn seen(mut self, broker: usize, ids: &[OpId]) -> Self {
            let messages: Vec<Seen> = ids.iter().map(|id| self.message(*id)).collect();
            self.0.sessions[broker][0].seen.extend(messages);
            self
        }

        /// Retained by a broker in the end.
        fn kept(mut self, broker: usize, id: OpId) -> Self {
            let message = self.message(id);
            self.0.retained[broker].insert(message.topic.clone(), message);
            self
        }

        fn says(self, words: &[&str]) {
            let complaints = self.0.complaints();
            assert_eq!(complaints.len(), words.len(), "{complaints:#?}");
            for (complaint, word) in complaints.iter().zip(words) {
                assert!(complaint.contains(word), "{complaint:?} does not say {word:?}");
            }
        }
    }

    const A: OpId = OpId(0, 1);
    const B: OpId = OpId(1, 1);
    const BOTH: [usize; 2] = [0, 1];

    #[test]
    fn live_messages_come_once_and_to_everyone() {
        let one = || Case::new().op(A, "x", Deed::Pass, 1);
        one().seen(0, &[A]).seen(1, &[A]).says(&[]);
        one().seen(0, &[A]).says(&["broker2 did not get"]);
        one()
            .seen(0, &[A, A])
            .seen(1, &[A])
            .says(&["broker1 got 0-1 twice"]);
        let mut foreign = one().seen(0, &[A]).seen(1, &[A]);
        foreign.0.sessions[0][0].seen[0].topic = "y".to_owned();
        foreign.says(&["what nobody published"]);
        let mut late = one().seen(0, &[A]);
        late.0.sessions[1][0].began = Duration::from_secs(2);
        late.says(&[]);
        let mut forged = one().seen(0, &[A]).seen(1, &[A]);
        forged.0.sessions[1][0].seen[0].stamp = None;
        forged.says(&["without a stamp"]);
    }

    #[test]
    fn live_messages_of_one_broker_come_in_order() {
        const LATER: OpId = OpId(0, 2);
        let two = || {
            Case::new()
                .op(A, "x", Deed::Pass, 1)
                .op(LATER, "x", Deed::Pass, 2)
                .op(B, "x", Deed::Pass, 3)
        };
        two().seen(0, &[A, LATER, B]).seen(1, &[B, A, LATER]).says(&[]);
        let turned = || two().seen(0, &[A, LATER, B]).seen(1, &[B, LATER, A]);
        turned().says(&["broker2 got"]);
        let mut released = turned();
        released.0.ops.get_mut(&A).unwrap().qos = 2;
        released.says(&[]);
        let mut cut = turned();
        cut.0.reach.troubles.push(Trouble {
            who: Who::Pair(0, 1),
            from: Duration::ZERO,
            until: Duration::from_secs(9),
        });
        cut.says(&[]);
    }

    #[test]
    fn the_last_value_is_retained_everywhere_and_shown_after_those_before() {
        let two = || Case::new().op(A, "x", Deed::Set, 1).op(B, "x", Deed::Set, 2);
        let all = |case: Case, seen: &[OpId], kept: OpId| {
            BOTH.iter()
                .fold(case, |case, broker| case.seen(*broker, seen).kept(*broker, kept))
        };
        all(two(), &[A, B], B).says(&[]);
        // The first was superseded before it came.
        all(two(), &[B], B).says(&[]);
        all(two(), &[A], A).says(&["did not get", "did not get"]);
        all(two(), &[B, A], B).says(&["older value after a newer", "older value after a newer"]);
        two()
            .seen(0, &[A, B])
            .seen(1, &[A, B])
            .kept(0, B)
            .says(&["broker2 None", "broker2 retains nothing"]);
        all(two(), &[A, B], A).says(&["broker1 retains Op", "broker2 retains Op"]);
    }

    #[test]
    fn what_a_publisher_sets_later_wins_wherever_it_is() {
        const FIRST: OpId = OpId(0, 1);
        const SECOND: OpId = OpId(0, 2);
        let moved = |first: u64, second: u64| {
            let mut case = Case::new()
                .op(FIRST, "x", Deed::Set, first)
                .op(SECOND, "x", Deed::Set, second);
            let op = case.0.ops.get_mut(&SECOND).unwrap();
            (op.at, op.connection) = (1, 1);
            // It left before that was answered.
            case.0.ops.get_mut(&FIRST).unwrap().acked = None;
            case
        };
        let kept = |case: Case, seen: &[OpId], id: OpId| {
            BOTH.iter()
                .fold(case, |case, broker| case.seen(*broker, seen).kept(*broker, id))
        };
        kept(moved(1, 2), &[FIRST, SECOND], SECOND).says(&[]);
        kept(moved(3, 2), &[SECOND, FIRST], FIRST).says(&["counts as sent before"]);
        // On one connection that is so for QoS 2 if it is released later.
        let mut released = moved(3, 2);
        released.0.ops.get_mut(&FIRST).unwrap().qos = 2;
        released.0.ops.get_mut(&SECOND).unwrap().connection = 0;
        kept(released, &[SECOND, FIRST], FIRST).says(&[]);
    }

    #[test]
    fn what_was_cleared_stays_away() {
        let cleared = || Case::new().op(A, "x", Deed::Set, 1).op(B, "x", Deed::Clear, 2);
        cleared().seen(0, &[A, B]).seen(1, &[A, B]).says(&[]);
        // Whoever never knew the value is told nothing of its end; whoever knew it is.
        cleared().seen(0, &[A, B]).says(&[]);
        cleared()
            .seen(0, &[A, B])
            .seen(1, &[A])
            .says(&["broker2 did not get"]);
        let back = cleared().seen(0, &[A, B]).seen(1, &[A, B]);
        back.kept(0, A)
            .kept(1, A)
            .says(&["has the deleted", "has the deleted"]);
    }

    #[test]
    fn digests_are_equal_and_all_are_in_sync() {
        let told = |digest: &str, in_sync| {
            Some(Digest {
                count: 1,
                digest: digest.to_owned(),
                in_sync,
            })
        };
        for (digests, words) in [
            (vec![told("a", true), told("a", true)], vec![]),
            (vec![told("a", true), told("b", true)], vec!["digests differ"]),
            (vec![told("a", true), None], vec!["digests differ"]),
            (
                vec![told("a", true), told("a", false)],
                vec!["not all are in sync"],
            ),
        ] {
            let mut case = Case::new();
            case.0.digests = digests;
            case.says(&words);
        }
    }
}
