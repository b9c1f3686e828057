//! What a broker reads when it goes on after a standstill, and when it counts as sent.
//!
//! A broker that hung reads in the end what has lain in its sockets all the time. Its sender may have gone to another
//! broker long ago and have set the same topic anew there; with a time of now the old value would win. So after a
//! standstill the messages of clients that had connected before it get times right behind the last one that this
//! broker knew before it stood still, whatever its clock says by now and whatever links bring meanwhile: they lose
//! against everything that was sent elsewhere since, and keep their own order.
//!
//! This lasts until every peer that is there, and half of all at least, has answered a **question** that was asked
//! after the standstill. Answers come over links behind all that was sent before them, so what peers knew of clients
//! that have moved is known here then: those are refused, and the others have not moved and are served as ever. Mostly
//! that takes some milliseconds; after [`GIVE_UP_MS`] it is over in any case.
//!
//! Brokers that stood still all at once find out in the same way that nobody has moved. A machine that was suspended
//! notices by its wall clock, or by peers that are suddenly ahead of it, if its clocks stood still as well.
//!
//! For this the clocks of two brokers must not differ by more than the time in which clients move, about a second.

use crate::replication::{MOST_PEERS, Now};
use crate::stamp::{Clock, Hlc};

/// If nothing happens in the broker for longer than that, it may have stood still, in milliseconds.
pub const STANDSTILL_MS: u64 = 500;

/// What has lain in sockets is read within that, and links that were broken are back, in milliseconds.
const GIVE_UP_MS: u64 = 5_000;

/// So often a peer is asked that does not answer, in milliseconds.
const ASK_EVERY_MS: u64 = 250;

/// So many times are kept free for what is read after one standstill: 16 milliseconds of the clock.
const TIMES: u64 = 1 << 20;

/// So many standstills one after the other are told apart. Of more the last ones are one.
const MOST: usize = 8;

/// What peers say to each other about this, in place of clients: less than a client takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A question with a number: who has come to you?
    Ask(u64),
    /// All of them were told before this.
    Answer(u64),
}

impl Word {
    /// The word as bytes.
    pub fn encode(self) -> Vec<u8> {
        let (kind, number) = match self {
            Self::Ask(number) => (b'?', number),
            Self::Answer(number) => (b'!', number),
        };
        let mut bytes = vec![kind];
        bytes.extend(number.to_be_bytes());
        bytes
    }

    /// Reads what [`Self::encode`] makes; `None` for anything else.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (kind, number) = bytes.split_first()?;
        let number = u64::from_be_bytes(number.try_into().ok()?);
        match kind {
            b'?' => Some(Self::Ask(number)),
            b'!' => Some(Self::Answer(number)),
            _ => None,
        }
    }
}

/// Times for clients that had connected before one standstill and after the one before it.
#[derive(Debug)]
struct Times {
    /// The last time before the standstill.
    before: Hlc,
    /// The last one that was given, and the last one that may be.
    last: Hlc,
    end: Hlc,
}

/// The standstills of this broker whose consequences are not over.
#[derive(Debug, Default)]
pub struct Standstill {
    /// When something happened last.
    looked: Option<Now>,
    /// By how many milliseconds a peer was ahead of the wall clock here, at most.
    lead_ms: u64,
    /// In the order in which they happened; none if all are over.
    times: Vec<Times>,
    until_ms: u64,
    question: u64,
    ask_at_ms: u64,
    /// A bit for each peer that has answered.
    answered: u64,
}

impl Standstill {
    /// Something happens now. To be told before anything else is made of it.
    pub fn look(&mut self, now: Now, clock: &mut Clock) {
        let Some(before) = self.looked.replace(now) else {
            return;
        };
        let up_ms = now.up_ms.saturating_sub(before.up_ms);
        let wall_ms = now.wall_ms.saturating_sub(before.wall_ms);
        if up_ms.max(wall_ms) > STANDSTILL_MS {
            self.begin(now, clock);
        }
    }

    /// Something that comes from a peer has this time. To be told before the clock is.
    pub fn heard(&mut self, time: Hlc, now: Now, clock: &mut Clock) {
        let lead_ms = time.ms().saturating_sub(now.wall_ms);
        if lead_ms > self.lead_ms.saturating_add(STANDSTILL_MS) {
            self.begin(now, clock);
        }
        self.lead_ms = self.lead_ms.max(lead_ms);
    }

    fn begin(&mut self, now: Now, clock: &mut Clock) {
        let before = clock.last();
        let end = Hlc(before.0.saturating_add(TIMES));
        // Nothing else gets one of these times.
        clock.observe(end);
        self.times.truncate(MOST - 1);
        let last = before;
        self.times.push(Times { before, last, end });
        self.until_ms = now.up_ms + GIVE_UP_MS;
        self.question += 1;
        self.ask_at_ms = now.up_ms;
        self.answered = 0;
    }

    /// Whether it is not yet known who has moved.
    pub fn is_open(&self) -> bool {
        !self.times.is_empty()
    }

    /// The time for a message of a client that connected at `since`, or before anything that is known; `None` if it may
    /// have the time of now.
    pub fn late(&mut self, since: Hlc) -> Option<Hlc> {
        let times = self.times.iter_mut().find(|times| since <= times.before)?;
        if times.last >= times.end {
            return None;
        }
        times.last.0 += 1;
        Some(times.last)
    }

    /// A later time for something that had this one, if that is from before a standstill that is not over, or was given
    /// after it.
    pub fn again(&mut self, time: Hlc) -> Option<Hlc> {
        let times = self.times.iter().find(|times| time <= times.end)?;
        self.late(times.before)
    }

    /// A peer has answered a question.
    pub fn answered(&mut self, peer: usize, question: u64) {
        if question == self.question {
            self.answered |= bit(peer);
        }
    }

    /// Some time has passed. Returns which of so many peers are to be asked, and what. `is_there` tells to which of
    /// them something can be said.
    pub fn tick(
        &mut self,
        now: Now,
        peers: usize,
        is_there: impl Fn(usize) -> bool,
    ) -> Option<(Vec<usize>, Word)> {
        if self.times.is_empty() {
            return None;
        }
        let silent: Vec<usize> = (0..peers)
            .filter(|peer| is_there(*peer) && self.answered & bit(*peer) == 0)
            .collect();
        let enough = 2 * self.answered.count_ones() as usize >= peers;
        if silent.is_empty() && enough || now.up_ms >= self.until_ms {
            self.times.clear();
            return None;
        }
        if now.up_ms < self.ask_at_ms || silent.is_empty() {
            return None;
        }
        self.ask_at_ms = now.up_ms + ASK_EVERY_MS;
        Some((silent, Word::Ask(self.question)))
    }
}

fn bit(peer: usize) -> u64 {
    const { assert!(MOST_PEERS == u64::BITS as usize) };
    1 << (peer % MOST_PEERS)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEERS: usize = 4;

    fn at(ms: u64) -> Now {
        Now {
            up_ms: ms,
            wall_ms: 1_000_000 + ms,
        }
    }

    /// A broker that has run for ten seconds, and its clock.
    fn running() -> (Standstill, Clock) {
        let (mut standstill, mut clock) = (Standstill::default(), Clock::default());
        for ms in (0..=10_000).step_by(100) {
            standstill.look(at(ms), &mut clock);
            clock.next(at(ms).wall_ms);
        }
        assert!(!standstill.is_open());
        (standstill, clock)
    }

    fn everybody(standstill: &mut Standstill, ms: u64) -> Option<(Vec<usize>, Word)> {
        standstill.tick(at(ms), PEERS, |_| true)
    }

    fn question(asked: Option<(Vec<usize>, Word)>) -> u64 {
        match asked {
            Some((_, Word::Ask(question))) => question,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_is_read_after_a_standstill_counts_as_sent_before_it_and_in_order() {
        let (mut standstill, mut clock) = running();
        let before = clock.last();
        standstill.look(at(10_501), &mut clock);
        let first = standstill.late(before).unwrap();
        // What links bring meanwhile changes nothing.
        clock.observe(Hlc::at_ms(at(10_400).wall_ms));
        let second = standstill.late(Hlc(1)).unwrap();
        assert!(before < first && first < second);
        assert!(
            second < Hlc::at_ms(at(10_100).wall_ms),
            "what was sent elsewhere since is later"
        );
        // Who has come since is not concerned, and later than all of these.
        let since = clock.next(at(10_501).wall_ms);
        assert_eq!(standstill.late(since), None);
        assert!(since > second);
    }

    #[test]
    fn half_a_second_is_no_standstill_but_a_wall_clock_that_jumps_is_one() {
        let (mut standstill, mut clock) = running();
        standstill.look(at(10_500), &mut clock);
        assert!(!standstill.is_open());
        // A machine that was suspended for hours; back in time is nothing.
        let back = Now {
            wall_ms: 5,
            ..at(10_501)
        };
        standstill.look(back, &mut clock);
        assert!(!standstill.is_open());
        let hours = Now {
            wall_ms: at(10_502).wall_ms + 7_200_000,
            ..at(10_502)
        };
        standstill.look(hours, &mut clock);
        assert!(standstill.late(Hlc(1)).unwrap() < Hlc::at_ms(at(10_501).wall_ms));
    }

    #[test]
    fn peers_that_are_suddenly_ahead_tell_of_clocks_that_stood_still_too() {
        let (mut standstill, mut clock) = running();
        let mut hear = |standstill: &mut Standstill, ms: u64, ahead: u64| {
            standstill.look(at(ms), &mut clock);
            standstill.heard(Hlc::at_ms(at(ms).wall_ms + ahead), at(ms), &mut clock);
        };
        hear(&mut standstill, 10_100, 500);
        assert!(!standstill.is_open());
        hear(&mut standstill, 10_200, 3_000);
        assert!(standstill.is_open());
        everybody(&mut standstill, 20_000);
        // It stays ahead, and that is known.
        (0..100).for_each(|turn| hear(&mut standstill, 20_000 + turn * 100, 3_000 + turn));
        // The first of these came after a pause.
        everybody(&mut standstill, 30_000);
        hear(&mut standstill, 29_950, 3_400);
        assert!(!standstill.is_open());
    }

    #[test]
    fn it_is_over_when_all_who_are_there_have_answered() {
        let (mut standstill, mut clock) = running();
        standstill.look(at(13_000), &mut clock);
        let asked = everybody(&mut standstill, 13_000).unwrap();
        assert_eq!(asked.0, [0, 1, 2, 3]);
        let question = question(Some(asked));
        assert_eq!(everybody(&mut standstill, 13_001), None, "they are asked once");
        standstill.answered(1, question);
        standstill.answered(2, question);
        standstill.answered(0, question - 1);
        // Two are half, but the others are there too.
        let again = everybody(&mut standstill, 13_250).unwrap();
        assert_eq!(again.0, [0, 3]);
        assert!(standstill.is_open());
        // One answers, and the other one dies.
        standstill.answered(0, question);
        assert_eq!(standstill.tick(at(13_251), PEERS, |peer| peer != 3), None);
        assert!(!standstill.is_open());
        assert_eq!(standstill.late(Hlc(1)), None);
    }

    #[test]
    fn few_peers_do_not_end_it_but_time_does() {
        let (mut standstill, mut clock) = running();
        standstill.look(at(13_000), &mut clock);
        let asked = standstill.tick(at(13_000), PEERS, |peer| peer == 1);
        standstill.answered(1, question(asked));
        assert_eq!(standstill.tick(at(17_999), PEERS, |peer| peer == 1), None);
        assert!(standstill.is_open());
        assert_eq!(standstill.tick(at(18_000), PEERS, |peer| peer == 1), None);
        assert!(!standstill.is_open());
        // Without peers there is nowhere to go.
        standstill.look(at(20_000), &mut clock);
        assert_eq!(standstill.tick(at(20_000), 0, |_| true), None);
        assert!(!standstill.is_open());
    }

    #[test]
    fn of_two_standstills_each_has_its_own_clients() {
        let (mut standstill, mut clock) = running();
        let old = clock.last();
        standstill.look(at(13_000), &mut clock);
        let first_question = question(everybody(&mut standstill, 13_000));
        let between = clock.next(at(13_000).wall_ms);
        let published = clock.next(at(13_001).wall_ms);
        standstill.look(at(16_000), &mut clock);
        (0..PEERS).for_each(|peer| standstill.answered(peer, first_question));
        assert_ne!(question(everybody(&mut standstill, 16_000)), first_question);
        assert!(standstill.is_open(), "those answers are too old");
        let (late, later) = (standstill.late(old).unwrap(), standstill.late(between).unwrap());
        assert!(late < between, "it may have been sent before the first one");
        assert!(later > published, "its own order stays");
        assert!(later < Hlc::at_ms(at(13_100).wall_ms));
        let again = [late, later].map(|time| standstill.again(time).unwrap());
        assert!(late < again[0] && again[0] < between, "{again:?}");
        assert!(later < again[1] && again[1] < Hlc::at_ms(at(13_100).wall_ms));
        assert_eq!(standstill.again(clock.next(at(16_000).wall_ms)), None);
        // However many there are, they are bounded, and no time is given twice.
        let mut given = vec![late, later, again[0], again[1]];
        for turn in 0..100 {
            standstill.look(at(20_000 + turn * 1_000), &mut clock);
            let since = clock.next(at(20_000 + turn * 1_000).wall_ms);
            given.extend(
                [standstill.late(old), standstill.late(since)]
                    .into_iter()
                    .flatten(),
            );
            given.push(since);
        }
        assert!(standstill.times.len() <= MOST);
        let count = given.len();
        given.sort();
        given.dedup();
        assert_eq!(given.len(), count);
    }

    #[test]
    fn when_the_times_are_used_up_it_is_now_again() {
        let (mut standstill, mut clock) = running();
        standstill.look(at(13_000), &mut clock);
        let given = (0..=TIMES).map_while(|_| standstill.late(Hlc(1))).count() as u64;
        assert_eq!(given, TIMES);
        assert!(clock.next(0) > standstill.times[0].last);
    }

    #[test]
    fn a_word_is_read_as_it_was_written_and_is_no_client() {
        for word in [Word::Ask(7), Word::Answer(u64::MAX)] {
            assert_eq!(Word::decode(&word.encode()), Some(word));
        }
        for bytes in [b"".as_slice(), b"?", b"x12345678", b"?1234567", b"?123456789"] {
            assert_eq!(Word::decode(bytes), None);
        }
    }
}
