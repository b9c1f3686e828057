//! What was told lately: events, and until when log lines were stored. Both are numbered in one row, so that one number
//! says what a reader has had.

use std::collections::VecDeque;
use std::sync::Arc;

use mesh_model::Event;

use crate::wire::Numbered;

/// Events that are kept for readers that are slow or come back.
const KEPT_EVENTS: usize = 512;

/// Marks of log lines that are kept: eight minutes of lines that never pause.
const KEPT_MARKS: usize = 512;

/// Lines were stored: those observed after `from` and until `until`, in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
struct Mark {
    seq: u64,
    from: i64,
}

/// What happened lately.
#[derive(Debug, Default)]
pub struct Ring {
    last: u64,
    events: VecDeque<Arc<Numbered>>,
    marks: VecDeque<Mark>,
    /// How many events were forgotten, and the greatest number of what was.
    forgotten: u64,
    forgotten_seq: u64,
    /// Until when lines were stored, as far as is known.
    until: Option<i64>,
}

/// What a reader gets that has had everything up to some number.
#[derive(Debug, Default)]
pub struct News {
    /// The number up to which this goes.
    pub seq: u64,
    /// The events, in their order.
    pub events: Vec<Arc<Numbered>>,
    /// How many events there ever were.
    pub total: u64,
    /// Until when log lines were stored; `None` if that is not known yet.
    pub lines_until: Option<i64>,
}

impl Ring {
    /// The number of what was told last.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// Something happened.
    pub fn happened(&mut self, event: Event) {
        self.last += 1;
        let seq = self.last;
        if self.events.len() == KEPT_EVENTS
            && let Some(oldest) = self.events.pop_front()
        {
            self.forgotten += 1;
            self.forgotten_seq = self.forgotten_seq.max(oldest.seq);
        }
        self.events.push_back(Arc::new(Numbered { seq, event }));
    }

    /// So many events happened that nobody can tell any more. Readers count them; who comes back begins anew.
    pub fn missed(&mut self, events: u64) {
        self.last += 1;
        self.forgotten += events;
        self.forgotten_seq = self.last;
    }

    /// Lines were stored until `until`, in nanoseconds since 1970. Tells whether that is news.
    pub fn stored(&mut self, until: i64) -> bool {
        // What goes back is another database, of which nothing is known yet.
        let before = self.until.replace(until);
        let Some(from) = before.filter(|from| *from < until) else {
            return false;
        };
        self.last += 1;
        if self.marks.len() == KEPT_MARKS
            && let Some(oldest) = self.marks.pop_front()
        {
            self.forgotten_seq = self.forgotten_seq.max(oldest.seq);
        }
        self.marks.push_back(Mark { seq: self.last, from });
        true
    }

    /// Whether everything that came after number `seq` is still here.
    pub fn covers(&self, seq: u64) -> bool {
        (self.forgotten_seq..=self.last).contains(&seq)
    }

    /// What came after number `seq`, as far as it is here.
    pub fn after(&self, seq: u64) -> News {
        let first = self.events.partition_point(|event| event.seq <= seq);
        News {
            seq: self.last,
            events: self.events.range(first..).cloned().collect(),
            total: self.forgotten + self.events.len() as u64,
            lines_until: self.until,
        }
    }

    /// From where a reader goes on with log lines that has had everything up to number `seq`.
    pub fn lines_after(&self, seq: u64) -> Option<i64> {
        let next = self.marks.partition_point(|mark| mark.seq <= seq);
        self.marks.get(next).map(|mark| mark.from).or(self.until)
    }

    /// The latest `count` events, the oldest first.
    pub fn latest(&self, count: usize) -> impl Iterator<Item = &Event> {
        let first = self.events.len().saturating_sub(count);
        self.events.range(first..).map(|numbered| &numbered.event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event() -> Event {
        serde_json::from_str(r#"{"at":"2026-11-23T03:00:00Z","name":"broker.dead"}"#).unwrap()
    }

    #[test]
    fn a_reader_that_comes_back_gets_what_it_missed() {
        let mut ring = Ring::default();
        assert!(!ring.stored(100), "the first look tells only where lines begin");
        ring.happened(event());
        assert!(ring.stored(200));
        assert!(!ring.stored(200));
        ring.happened(event());
        assert!(ring.stored(300));
        assert_eq!(ring.last(), 4);
        for (seq, events, lines_from) in [(0, 2, 100), (1, 1, 100), (2, 1, 200), (3, 0, 200), (4, 0, 300)] {
            let news = ring.after(seq);
            assert_eq!(
                (news.events.len(), ring.lines_after(seq)),
                (events, Some(lines_from)),
                "after {seq}"
            );
            assert!(ring.covers(seq));
        }
        assert!(!ring.covers(5), "a number of another run");
    }

    #[test]
    fn what_is_forgotten_is_known_to_be() {
        let mut ring = Ring::default();
        for _ in 0..=KEPT_EVENTS {
            ring.happened(event());
        }
        assert!(!ring.covers(0) && ring.covers(1));
        assert_eq!(ring.after(0).total, KEPT_EVENTS as u64 + 1);
        assert_eq!(ring.latest(3).count(), 3);
        ring.stored(0);
        for until in 1..=KEPT_MARKS as i64 + 1 {
            ring.stored(until);
        }
        let first_mark = KEPT_EVENTS as u64 + 2;
        assert!(!ring.covers(first_mark - 1) && ring.covers(first_mark));
        // Events outlive a flood of lines.
        assert_eq!(ring.latest(KEPT_EVENTS).count(), KEPT_EVENTS);
    }

    #[test]
    fn what_nobody_knows_is_counted() {
        let mut ring = Ring::default();
        ring.happened(event());
        let before = ring.after(0).total;
        ring.missed(3);
        let news = ring.after(1);
        assert_eq!((news.total - before, news.events.len(), news.seq), (3, 0, 2));
        assert!(!ring.covers(1) && ring.covers(2));
    }

    #[test]
    fn another_database_begins_anew() {
        let mut ring = Ring::default();
        ring.stored(500);
        assert!(!ring.stored(100));
        assert!(ring.stored(150));
        assert_eq!(ring.lines_after(0), Some(100));
    }
}
