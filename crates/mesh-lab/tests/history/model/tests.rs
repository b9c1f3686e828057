//! The model finds what is wrong, and nothing else.

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
fn what_a_broker_without_time_takes_late_may_count_as_sent_earlier() {
    const LATE: OpId = OpId(0, 2);
    let lost = |before: u64| {
        let case = Case::new()
            .op(A, "y", Deed::Pass, before)
            .op(LATE, "x", Deed::Set, 3)
            .op(B, "x", Deed::Set, 2);
        let seen = |case: Case, broker| case.seen(broker, &[A, B]).kept(broker, B);
        BOTH.into_iter().fold(case, seen)
    };
    // Its publisher had to wait for two seconds.
    lost(1).says(&[]);
    lost(3).says(&["broker1 did not get", "broker2 did not get"]);
    // The subscriber came when the broker had something later.
    let mut came_late = lost(1);
    came_late.0.sessions[1][0].seen.clear();
    came_late.0.sessions[1][0].began = Duration::from_secs(3);
    came_late.says(&[]);
    let mut elsewhere = lost(1);
    elsewhere.0.ops.get_mut(&A).unwrap().connection = 1;
    elsewhere.says(&["broker1 did not get", "broker2 did not get"]);
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
