//! What waits for a peer that is away, and when too much of it does.
//!
//! Guarantees: that messages will be lost is said before they are, both once for each time that the peer is away; a
//! value that was retained, and so may be from before, is where counting begins and says nothing.

use std::collections::BTreeMap;

use mesh_model::{EventName, Link};

use super::readings::LinkCounter;

/// What is known of all links.
#[derive(Debug, Clone, Default)]
pub struct Backlogs(BTreeMap<Link, Backlog>);

#[derive(Debug, Clone, Default)]
struct Backlog {
    filling: bool,
    /// The last count of lost messages.
    lost: u64,
    /// That messages are lost was said.
    losing: bool,
}

impl Backlogs {
    /// Takes in a counter of `link.from`. Returns what is to be told.
    pub fn take(&mut self, link: Link, counter: LinkCounter, count: u64, kept: bool) -> Option<EventName> {
        let backlog = match counter {
            LinkCounter::Filling | LinkCounter::Lost => self.0.entry(link).or_default(),
            _ => return None,
        };
        if counter == LinkCounter::Filling {
            let before = std::mem::replace(&mut backlog.filling, count > 0);
            backlog.losing &= backlog.filling;
            return (backlog.filling && !before && !kept).then_some(EventName::LinkFilling);
        }
        let rises = count > std::mem::replace(&mut backlog.lost, count);
        let is_news = rises && !kept && !backlog.losing;
        backlog.losing |= rises;
        is_news.then_some(EventName::LinkLosing)
    }
}

#[test]
fn each_time_it_is_said_once_before_and_once_when_it_begins() {
    use LinkCounter::{Backlog, Filling, Lost};
    let id = |text: &str| text.parse().unwrap();
    let mut backlogs = Backlogs::default();
    let mut take = |counter, count, kept| {
        let (from, to) = (id("a"), id("b"));
        backlogs.take(Link { from, to }, counter, count, kept)
    };
    assert_eq!(take(Lost, 7, true), None, "from before");
    assert_eq!(take(Filling, 0, false), None);
    for _ in 0..2 {
        assert_eq!(take(Backlog, 900, false), None);
        assert_eq!(take(Lost, 7, false), None);
        assert_eq!(take(Filling, 1, false), Some(EventName::LinkFilling));
        assert_eq!(take(Filling, 1, false), None);
        assert_eq!(take(Lost, 9, false), Some(EventName::LinkLosing));
        assert_eq!(take(Lost, 12, false), None);
        assert_eq!(take(Filling, 0, false), None);
        assert_eq!(take(Lost, 7, false), None, "the peer had some of it");
    }
}
