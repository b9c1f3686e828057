//! Which messages have come before. Pure.
//!
//! A message comes again for two reasons. A broker or the mesh delivers it again: then the mesh's stamp (where it
//! entered, and its number there) is the same. Or its publisher, who has missed the acknowledgement, sends it again:
//! then it enters anew, but with the id that its publisher gave it.

use std::collections::{HashSet, VecDeque};

/// The user property by which a subscriber knows a message that its publisher sent twice.
pub const MESSAGE_ID: &str = "message-id";

/// The user property that the mesh adds to what it keeps account of: where a message entered, and its number there.
pub const MESH_STAMP: &str = "mesh";

/// Keys of the latest messages.
#[derive(Debug)]
pub(crate) struct Seen {
    limit: usize,
    keys: HashSet<String>,
    order: VecDeque<String>,
}

impl Seen {
    /// Remembers the last `limit` keys; a message has at most two.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            limit,
            keys: HashSet::new(),
            order: VecDeque::new(),
        }
    }

    /// Whether a message with these user properties comes for the first time. Without any id it is always new.
    pub(crate) fn is_new(&mut self, properties: &[(String, String)]) -> bool {
        let keys = keys(properties);
        let is_new = !keys.iter().any(|key| self.keys.contains(key));
        for key in keys {
            if self.keys.insert(key.clone()) {
                self.order.push_back(key);
            }
        }
        while self.order.len() > self.limit {
            if let Some(oldest) = self.order.pop_front() {
                self.keys.remove(&oldest);
            }
        }
        is_new
    }
}

/// What tells a message from all others.
fn keys(properties: &[(String, String)]) -> Vec<String> {
    // Of several properties of one name the last one counts: the mesh appends its stamp to whatever is there.
    let last = |name: &str| properties.iter().rev().find(|(key, _)| key == name);
    let stamp = last(MESH_STAMP).and_then(|(_, stamp)| stamp_key(stamp));
    let id = last(MESSAGE_ID).map(|(_, id)| format!("id {id}"));
    stamp.into_iter().chain(id).collect()
}

/// Of `2 broker1 PoAFoiG g 8RW.3 r1` (version, origin, epoch, number, time, flags) what tells the message from all others:
/// a copy may differ in its flags. Version 1 only writes numbers in another way.
fn stamp_key(stamp: &str) -> Option<String> {
    match stamp.split(' ').collect::<Vec<_>>()[..] {
        ["1" | "2", origin, epoch, number, _time, _flags] => Some(format!("stamp {origin} {epoch} {number}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn properties(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn a_delivery_that_comes_again_is_known_by_its_stamp() {
        let mut seen = Seen::new(100);
        let first = properties(&[("mesh", "2 broker1 a 1 ff r1")]);
        assert!(seen.is_new(&first));
        assert!(!seen.is_new(&first));
        assert!(
            !seen.is_new(&properties(&[("mesh", "2 broker1 a 1 ff rs1")])),
            "flags tell how it came"
        );
        for other in [
            "2 broker1 a 2 ff r1",
            "2 broker2 a 1 ff r1",
            "2 broker1 b 1 ff r1",
        ] {
            assert!(seen.is_new(&properties(&[("mesh", other)])), "{other}");
        }
    }

    #[test]
    fn a_message_that_is_sent_again_is_known_by_its_publishers_id() {
        let mut seen = Seen::new(100);
        assert!(seen.is_new(&properties(&[
            ("message-id", "x/1"),
            ("mesh", "2 broker1 a 1 ff 1")
        ])));
        assert!(!seen.is_new(&properties(&[
            ("message-id", "x/1"),
            ("mesh", "2 broker2 a 1 ff 1")
        ])));
        assert!(seen.is_new(&properties(&[
            ("message-id", "x/2"),
            ("mesh", "2 broker2 a 2 ff 1")
        ])));
    }

    #[test]
    fn what_a_client_wrote_before_the_stamp_does_not_count() {
        let mut seen = Seen::new(100);
        assert!(seen.is_new(&properties(&[
            ("mesh", "2 broker1 a 1 ff 1"),
            ("mesh", "2 broker1 a 2 ff 1")
        ])));
        assert!(seen.is_new(&properties(&[("mesh", "2 broker1 a 1 ff 1")])));
    }

    #[test]
    fn without_an_id_everything_is_new() {
        let mut seen = Seen::new(100);
        for _ in 0..2 {
            assert!(seen.is_new(&[]));
            assert!(seen.is_new(&properties(&[("mesh", "no stamp"), ("colour", "red")])));
            assert!(seen.is_new(&properties(&[("mesh", "3 broker1 a 1 ff r1")])));
        }
    }

    #[test]
    fn the_oldest_are_forgotten() {
        let mut seen = Seen::new(2);
        let id = |n: u32| properties(&[("message-id", &n.to_string())]);
        assert!(seen.is_new(&id(1)) && seen.is_new(&id(2)) && seen.is_new(&id(3)));
        assert!(!seen.is_new(&id(2)), "still known");
        assert!(seen.is_new(&id(1)), "forgotten");
    }
}
