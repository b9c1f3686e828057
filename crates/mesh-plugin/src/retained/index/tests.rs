//! The merge is commutative, associative and idempotent, and the sums are what a naive index says.

use std::collections::BTreeMap;

use super::*;
use crate::retained::Version;

const NOW: u32 = 1_000_000;

fn version(hlc: u64) -> Version {
    Version { hlc, tie: hlc % 3 }
}

/// A random mark out of few, so that equal ones are common.
fn random_mark(random: &mut fastrand::Rng) -> Mark {
    let version = Version {
        hlc: random.u64(1..8),
        tie: random.u64(0..3),
    };
    let state = *random
        .choice(&[State::Present, State::Present, State::Cleared, State::Gone])
        .unwrap();
    Mark { version, state }
}

fn random_topic(random: &mut fastrand::Rng) -> String {
    format!("t/{}", random.u8(0..20))
}

fn contents(index: &Index) -> BTreeMap<String, Mark> {
    let mut contents = BTreeMap::new();
    for bucket in 0..BUCKETS {
        let (entries, next) = index.list(bucket, 0, usize::MAX);
        contents.extend(entries.map(|entry| (entry.topic.to_owned(), entry.mark)));
        assert_eq!(next, None);
    }
    contents
}

/// The sums as they follow from the contents alone.
fn check(index: &Index) {
    let contents = contents(index);
    let mut digests = Digests::default();
    for (topic, mark) in &contents {
        digests.add(TopicHash::of(topic), *mark);
    }
    assert_eq!(index.digests().count(), digests.count());
    assert_eq!(index.digests().present(), digests.present());
    assert_eq!(index.digests().buckets(), digests.buckets());
    assert_eq!(index.ended() as u64, contents.len() as u64 - digests.count());
}

#[test]
fn replicas_that_heard_the_same_in_any_order_and_number_are_equal() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let said: Vec<_> = (0..60)
            .map(|_| (random_topic(&mut random), random_mark(&mut random)))
            .collect();
        let mut expected: BTreeMap<String, Mark> = BTreeMap::new();
        for (topic, mark) in &said {
            let known = expected.entry(topic.clone()).or_insert(*mark);
            *known = (*known).max(*mark);
        }
        let mut digests = Vec::new();
        for _ in 0..4 {
            let mut heard = said.clone();
            heard.extend(random.choose_multiple(said.iter(), 20).into_iter().cloned());
            random.shuffle(&mut heard);
            let mut index = Index::default();
            for (topic, mark) in &heard {
                let before = index.get(topic).map(|entry| entry.mark);
                let would = index.would(topic, *mark);
                let offer = index.offer(topic, *mark, Expiry::Unknown, NOW);
                assert_eq!(offer, would, "seed {seed}");
                let taken = matches!(offer, Offer::Taken(_));
                assert_eq!(taken, before.is_none_or(|before| *mark > before), "seed {seed}");
                assert_eq!(
                    index.offer(topic, *mark, Expiry::Unknown, NOW) == Offer::Stale,
                    offer == Offer::Stale
                );
            }
            assert_eq!(contents(&index), expected, "seed {seed}");
            check(&index);
            digests.push((index.digests().present(), *index.digests().buckets()));
        }
        digests.dedup();
        assert_eq!(digests.len(), 1, "seed {seed}");
    }
}

#[test]
fn new_values_are_told_once_if_it_is_not_known_when_they_expire() {
    let mut index = Index::default();
    let set = |index: &mut Index, topic: &str, hlc: u64, expiry: Expiry| {
        index.offer(topic, Mark::present(version(hlc)), expiry, NOW);
    };
    set(&mut index, "told", 1, Expiry::Never);
    set(&mut index, "one", 1, Expiry::Unknown);
    set(&mut index, "two", 1, Expiry::Unknown);
    set(&mut index, "one", 2, Expiry::Unknown);
    set(&mut index, "learnt", 1, Expiry::Unknown);
    set(&mut index, "learnt", 1, Expiry::At(NOW + 5));
    index.offer("gone", Mark::cleared(version(1)), Expiry::Unknown, NOW);
    let mut fresh: Vec<_> = index
        .take_fresh(100)
        .into_iter()
        .map(|topic| (topic.name, topic.mark))
        .collect();
    fresh.sort();
    let expected = [("one", 2), ("two", 1)].map(|(name, hlc)| (name.into(), Mark::present(version(hlc))));
    assert_eq!(fresh, expected);
    assert_eq!(index.take_fresh(100), []);
    for n in 0..MOST_FRESH + 10 {
        set(&mut index, &format!("t/{n}"), 1, Expiry::Unknown);
    }
    assert_eq!(index.take_fresh(150).len(), 150);
    assert_eq!(index.take_fresh(usize::MAX).len(), MOST_FRESH - 150);
}

#[test]
fn replicas_that_gossip_at_random_converge() {
    for seed in 0..60 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut replicas: Vec<Index> = (0..5).map(|_| Index::default()).collect();
        for _ in 0..200 {
            let at = random.usize(0..5);
            let (topic, mark) = (random_topic(&mut random), random_mark(&mut random));
            replicas[at].offer(&topic, mark, Expiry::Unknown, NOW);
        }
        // Any merge is a step forward; each pair once in any order, twice, is enough.
        let mut pairs: Vec<_> = (0..5).flat_map(|a| (0..5).map(move |b| (a, b))).collect();
        for _ in 0..2 {
            random.shuffle(&mut pairs);
            for (from, to) in &pairs {
                for (topic, mark) in contents(&replicas[*from]) {
                    replicas[*to].offer(&topic, mark, Expiry::Unknown, NOW);
                }
            }
        }
        for replica in &replicas {
            check(replica);
            assert_eq!(
                replica.digests().present(),
                replicas[0].digests().present(),
                "seed {seed}"
            );
            assert_eq!(replica.digests().buckets(), replicas[0].digests().buckets());
        }
    }
}

#[test]
fn values_expire_when_their_time_is_over_and_not_before() {
    let mut index = Index::default();
    index.offer("soon", Mark::present(version(1)), Expiry::At(NOW + 5), NOW);
    index.offer("late", Mark::present(version(1)), Expiry::At(NOW + 50), NOW);
    index.offer("never", Mark::present(version(1)), Expiry::Never, NOW);
    index.offer("unknown", Mark::present(version(1)), Expiry::Unknown, NOW);
    index.offer("replaced", Mark::present(version(1)), Expiry::At(NOW + 5), NOW);
    index.offer("replaced", Mark::present(version(2)), Expiry::Never, NOW);
    assert_eq!(index.expire(NOW + 4, 10), []);
    let due = index.expire(NOW + 5, 10);
    assert_eq!(due.len(), 1);
    assert_eq!((&*due[0].name, due[0].mark), ("soon", Mark::gone(version(1))));
    assert_eq!(index.digests().count(), 4);
    check(&index);
    assert_eq!(
        index.offer("soon", Mark::present(version(1)), Expiry::Never, NOW),
        Offer::Stale
    );
    assert_eq!(index.expire(NOW + 50, 10).len(), 1);
    assert_eq!(index.expire(u32::MAX, 10), []);
    check(&index);
}

#[test]
fn an_expiry_that_becomes_known_counts() {
    let mut index = Index::default();
    index.offer("t", Mark::present(version(1)), Expiry::Unknown, NOW);
    assert_eq!(index.sweep(NOW, 10, 1000, 9).unknown.len(), 1);
    assert_eq!(
        index.offer("t", Mark::present(version(1)), Expiry::At(NOW + 1), NOW),
        Offer::Known
    );
    assert_eq!(index.sweep(NOW, 10, 1000, 9).unknown, []);
    assert_eq!(index.get("t").unwrap().expiry, Expiry::At(NOW + 1));
    // Told once is enough: what is known is not overwritten by a second hand.
    index.offer("t", Mark::present(version(1)), Expiry::At(NOW + 9), NOW);
    assert_eq!(index.expire(NOW + 1, 10).len(), 1);
}

#[test]
fn deletions_are_forgotten_after_their_time() {
    let mut index = Index::default();
    for n in 0..1000 {
        let mark = if n % 2 == 0 {
            Mark::cleared(version(9))
        } else {
            Mark::present(version(9))
        };
        index.offer(&format!("t/{n}"), mark, Expiry::Never, NOW + n);
    }
    assert_eq!(index.ended(), 500);
    assert_eq!(index.sweep(NOW + 100, 100, usize::MAX, 0).forgotten, 0);
    let mut forgotten = 0;
    let mut calls = 0;
    while calls < 200 {
        let swept = index.sweep(NOW + 300, 100, 50, 0);
        forgotten += swept.forgotten;
        calls += 1;
    }
    assert_eq!(forgotten, 100, "those of the first 200 seconds");
    check(&index);
    assert_eq!(index.sweep(u32::MAX, 100, usize::MAX, 0).forgotten, 400);
    assert_eq!((index.ended(), index.digests().count()), (0, 500));
    check(&index);
}

#[test]
fn a_bucket_is_listed_in_pages() {
    let mut index = Index::default();
    for n in 0..20_000 {
        index.offer(
            &format!("page/{n}"),
            Mark::present(version(1)),
            Expiry::Never,
            NOW,
        );
    }
    let mut seen = 0;
    for bucket in 0..BUCKETS {
        let mut from = 0;
        loop {
            let (entries, next) = index.list(bucket, from, 2);
            let count = entries.count();
            assert!(count == 2 || next.is_none());
            seen += count;
            match next {
                Some(next) => from = next,
                None => break,
            }
        }
    }
    assert_eq!(seen, 20_000);
    assert_eq!(
        index.list(BUCKETS, 0, 10).0.count(),
        0,
        "a peer may ask for anything"
    );
}

#[test]
fn the_store_is_right() {
    let mut index = Index::default();
    let mark = Mark::present(version(5));
    index.offer("t", mark, Expiry::Unknown, NOW);
    assert!(!index.correct(
        "t",
        Mark::present(version(4)),
        Mark::gone(version(4)),
        Expiry::Unknown,
        NOW
    ));
    assert!(!index.correct("u", mark, Mark::gone(version(5)), Expiry::Unknown, NOW));
    assert!(index.correct("t", mark, Mark::present(version(3)), Expiry::Never, NOW));
    assert_eq!(index.get("t").unwrap().mark, Mark::present(version(3)));
    check(&index);
}

#[test]
fn a_bucket_can_be_taken_out() {
    let mut index = Index::default();
    for n in 0..2000 {
        let mark = random_mark(&mut fastrand::Rng::with_seed(n));
        index.offer(&format!("t/{n}"), mark, Expiry::At(NOW + 9), NOW);
    }
    let taken: usize = (0..BUCKETS).map(|bucket| index.take_bucket(bucket).len()).sum();
    assert_eq!(taken, 2000);
    assert_eq!(contents(&index), BTreeMap::new());
    check(&index);
    assert_eq!(index.expire(u32::MAX, 10), []);
}
