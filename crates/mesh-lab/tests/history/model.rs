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
//!   elsewhere meanwhile, and then nobody is shown it. On a machine with too much to do brokers stand still by themselves.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::reach::{Reach, Trouble, Who};

mod kept;
mod shown;
#[cfg(test)]
mod tests;

/// A publisher that is served sends the next message much earlier than that; a broker takes half a second without
/// anything for a standstill.
const STALL: Duration = Duration::from_millis(400);

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
        let stalls = self.stalls();
        let mut complaints: Vec<String> = self.ops.values().filter_map(refused).collect();
        complaints.extend(self.unstamped());
        for (broker, sessions) in self.sessions.iter().enumerate() {
            for session in sessions {
                self.check_session(broker, session, &mut complaints);
                self.check_order(broker, session, &mut complaints);
            }
            self.check_delivery(broker, &stamps, &stalls, &mut complaints);
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

    /// When brokers kept their publishers waiting for so long that they may have stood still: on a machine with too much
    /// to do nobody has to hang them.
    fn stalls(&self) -> Vec<Trouble> {
        let ops: Vec<&Op> = self.ops.values().collect();
        let waited = ops.windows(2).filter_map(|pair| {
            let (first, next) = (pair[0], pair[1]);
            let same = (first.id.0, first.connection) == (next.id.0, next.connection);
            (same && next.sent.saturating_sub(first.sent) > STALL).then_some(Trouble {
                who: Who::Broker(first.at),
                from: first.sent,
                until: next.sent,
            })
        });
        waited.collect()
    }

    /// Everything has a stamp but live messages of QoS 0.
    fn unstamped(&self) -> Option<String> {
        let seen = self.sessions.iter().flatten().flat_map(|session| &session.seen);
        let mut without = seen
            .filter(|seen| seen.stamp.is_none())
            .filter_map(|seen| self.ops.get(&seen.op?));
        let op = without.find(|op| op.qos > 0 || op.deed != Deed::Pass)?;
        Some(format!("{op:?} was shown without a stamp"))
    }
}

fn refused(op: &Op) -> Option<String> {
    let why = op.refused.as_ref()?;
    Some(format!("{op:?} was refused: {why}"))
}
