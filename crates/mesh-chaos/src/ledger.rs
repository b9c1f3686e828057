//! What became of every message: sent, acknowledged, received by whom, and what should have been. Pure.
//!
//! A *stream* is what one publisher sends, numbered from 0. A *reader* is a subscriber of one stream or of all. For a
//! reader a message is **owed** if it was subscribed before the message was sent and stayed so until well after it was
//! acknowledged; on whatever happens to brokers meanwhile, nothing is forgiven. A message that was acknowledged and that
//! a reader was owed and has not after [`PATIENCE`] is a broken promise, and so is one that came to a reader twice on
//! one connection with one stamp. What comes twice for another reason is counted by [`Cause`].
//!
//! Of a stream whose messages are retained a broker that was away may show only the latest, since what is older must not
//! come after what is newer: there a message is not owed to a reader that has a later one.
//!
//! Time is what has passed since the start of the run.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::schedule::LONGEST;

/// How long after its acknowledgement a message may take to every reader that it is owed to: a fault as long as they
/// get, and the links' own pauses (a keepalive, up to 5 s to connect again, the replay) with much to spare.
pub const PATIENCE: Duration = LONGEST.saturating_add(Duration::from_secs(60));

/// A reader that was cut off is owed what was acknowledged longer before than this. Less would ask for what a link that
/// was itself broken had no time for: it notices by its keepalive (5 s, and half of that again) and connects within 5 s.
const GRACE: Duration = Duration::from_secs(15);

/// Of broken promises so many are kept in words.
const WORDS: usize = 100;

/// Why a message came to a reader again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// Its publisher missed the acknowledgement and sent it again; it entered the mesh anew.
    SentAgain,
    /// The broker sent it again (DUP), since it missed this reader's acknowledgement.
    Redelivered,
    /// The reader has connected anew since, and its broker got the message, or gave it out, only then.
    Reconnected,
    /// It came again so long afterwards that its account is closed.
    Late,
}

/// How a message came.
#[derive(Debug, Clone, Copy, Default)]
pub struct Arrival<'a> {
    /// What in the mesh's stamp tells it from all other messages; a reader with MQTT 3.1.1 does not see it.
    pub stamp: Option<&'a str>,
    /// The DUP flag.
    pub dup: bool,
    /// Whether the broker had kept it, and it was not published just now.
    pub retained: bool,
}

/// What was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize)]
pub struct Tally {
    /// Messages that were given to a broker at least once.
    pub sent: u64,
    /// Messages that were acknowledged.
    pub acknowledged: u64,
    /// Messages whose publisher gave them to a broker more than once.
    pub sent_again: u64,
    /// First deliveries to any reader.
    pub received: u64,
    /// Further deliveries.
    pub twice: BTreeMap<Cause, u64>,
    /// Messages that were acknowledged and owed, and did not come.
    pub lost: u64,
    /// Messages that came twice on one connection with one stamp, or entered twice though they were sent once.
    pub doubled: u64,
    /// Messages whose own subscriber was not subscribed at the time and did not get them: nobody promises those.
    pub missed_moving: u64,
    /// Retained messages that a reader did not get, since it got a later one of the topic.
    pub superseded: u64,
    /// Acknowledged messages that were owed to nobody, so that nothing could be said of them.
    pub unjudged: u64,
}

#[derive(Debug)]
struct Receipt {
    reader: usize,
    connection: u32,
    stamp: Option<Box<str>>,
}

#[derive(Debug)]
struct Entry {
    sent: Duration,
    acknowledged: Option<Duration>,
    attempts: u32,
    receipts: Vec<Receipt>,
}

#[derive(Debug, Default)]
struct Stream {
    is_retained: bool,
    /// The number of the first entry.
    first: u64,
    entries: VecDeque<Entry>,
    /// Who reads it, and the highest number that came to them.
    readers: BTreeMap<usize, Option<u64>>,
}

#[derive(Debug)]
struct Window {
    from: Duration,
    to: Option<Duration>,
}

impl Window {
    fn owes(&self, entry: &Entry) -> bool {
        let acknowledged = entry.acknowledged.unwrap_or(Duration::MAX);
        self.from <= entry.sent && self.to.is_none_or(|to| acknowledged.saturating_add(GRACE) <= to)
    }
}

#[derive(Debug)]
struct Reader {
    name: String,
    /// Whether it is the subscriber of one stream.
    is_own: bool,
    connection: u32,
    windows: VecDeque<Window>,
}

/// The account of a run.
#[derive(Debug)]
pub struct Ledger {
    streams: Vec<Stream>,
    readers: Vec<Reader>,
    tally: Tally,
    broken: Vec<String>,
}

impl Ledger {
    /// An account of so many streams, of which some are retained; readers follow.
    pub fn new(streams: usize, is_retained: impl Fn(usize) -> bool) -> Self {
        let stream = |place| Stream {
            is_retained: is_retained(place),
            ..Stream::default()
        };
        Self {
            streams: (0..streams).map(stream).collect(),
            readers: Vec::new(),
            tally: Tally::default(),
            broken: Vec::new(),
        }
    }

    /// Adds a reader of one stream, or of all; returns its place.
    pub fn add_reader(&mut self, name: String, stream: Option<usize>) -> usize {
        let reader = self.readers.len();
        self.readers.push(Reader {
            name,
            is_own: stream.is_some(),
            connection: 0,
            windows: VecDeque::new(),
        });
        for (place, of) in self.streams.iter_mut().enumerate() {
            if stream.is_none_or(|stream| stream == place) {
                of.readers.insert(reader, None);
            }
        }
        reader
    }

    /// The next message of `stream` is about to be given to a broker; returns its number.
    pub fn sent(&mut self, stream: usize, now: Duration) -> u64 {
        let stream = &mut self.streams[stream];
        stream.entries.push_back(Entry {
            sent: now,
            acknowledged: None,
            attempts: 1,
            receipts: Vec::new(),
        });
        self.tally.sent += 1;
        stream.first + stream.entries.len() as u64 - 1
    }

    /// A message is about to be given to a broker again.
    pub fn sent_again(&mut self, stream: usize, number: u64) {
        if let Some(entry) = self.streams[stream].entry(number) {
            self.tally.sent_again += u64::from(entry.attempts == 1);
            entry.attempts += 1;
        }
    }

    /// A broker has acknowledged a message.
    pub fn acknowledged(&mut self, stream: usize, number: u64, now: Duration) {
        if let Some(entry) = self.streams[stream].entry(number)
            && entry.acknowledged.is_none()
        {
            entry.acknowledged = Some(now);
            self.tally.acknowledged += 1;
        }
    }

    /// A reader is subscribed from now on. `is_same` says that the broker had kept its session and has not died since
    /// the last connection ended, so that what came in between is owed too.
    pub fn opened(&mut self, reader: usize, is_same: bool, now: Duration) {
        let reader = &mut self.readers[reader];
        match reader.windows.back_mut().filter(|_| is_same) {
            Some(last) => last.to = None,
            None => reader.windows.push_back(Window { from: now, to: None }),
        }
    }

    /// A reader has a connection, subscribed or not: what comes now comes on a new one.
    pub fn connected(&mut self, reader: usize) {
        self.readers[reader].connection += 1;
    }

    /// A reader's connection has ended.
    pub fn closed(&mut self, reader: usize, now: Duration) {
        if let Some(last) = self.readers[reader].windows.back_mut() {
            last.to.get_or_insert(now);
        }
    }

    /// A message has come to a reader.
    pub fn received(&mut self, reader: usize, stream: usize, number: u64, how: Arrival<'_>, now: Duration) {
        let Some(of) = self.streams.get_mut(stream) else {
            return;
        };
        if let Some(highest) = of.readers.get_mut(&reader) {
            *highest = (*highest).max(Some(number));
        }
        // What is kept is shown to whoever subscribes, as often as they do.
        if how.retained {
            return;
        }
        let connection = self.readers[reader].connection;
        let late = number < of.first;
        let Some(entry) = of.entry(number) else {
            if late {
                *self.tally.twice.entry(Cause::Late).or_default() += 1;
            } else {
                self.doubled(format!("{stream}/{number} came, and was never sent"), now);
            }
            return;
        };
        let Some(before) = entry.receipts.iter().find(|receipt| receipt.reader == reader) else {
            entry.receipts.push(Receipt {
                reader,
                connection,
                stamp: how.stamp.map(Into::into),
            });
            self.tally.received += 1;
            return;
        };
        let same_stamp = before.stamp.as_deref() == how.stamp;
        // Without stamps a copy of what was sent again is like any other.
        let may_be_another = !same_stamp || how.stamp.is_none();
        let cause = if may_be_another && entry.attempts > 1 {
            Cause::SentAgain
        } else if same_stamp && how.dup {
            Cause::Redelivered
        } else if same_stamp && before.connection != connection {
            Cause::Reconnected
        } else {
            let was = before.stamp.clone().unwrap_or_default();
            let is = how.stamp.unwrap_or_default();
            let what = format!(
                "{stream}/{number} came to {} twice, stamped {was:?} and {is:?}, sent {} times",
                self.readers[reader].name, entry.attempts
            );
            self.doubled(what, now);
            return;
        };
        *self.tally.twice.entry(cause).or_default() += 1;
    }

    /// Closes the account of what is older than [`PATIENCE`].
    pub fn judge(&mut self, now: Duration) {
        for stream in 0..self.streams.len() {
            while self.streams[stream].entries.front().is_some_and(|entry| {
                entry
                    .acknowledged
                    .is_some_and(|acknowledged| acknowledged.saturating_add(PATIENCE) < now)
            }) {
                self.close_first(stream, now);
            }
        }
        let horizon = now.saturating_sub(PATIENCE * 2);
        for reader in &mut self.readers {
            reader
                .windows
                .retain(|window| window.to.is_none_or(|to| to > horizon));
        }
    }

    /// Closes the account of all that was acknowledged: the run is over, and everything has had its time.
    pub fn finish(&mut self, now: Duration) {
        for stream in 0..self.streams.len() {
            while let Some(entry) = self.streams[stream].entries.front() {
                if entry.acknowledged.is_some() {
                    self.close_first(stream, now);
                } else {
                    self.streams[stream].entries.pop_front();
                    self.streams[stream].first += 1;
                }
            }
        }
    }

    /// How many acknowledged messages some reader is owed and has not yet.
    pub fn outstanding(&self) -> usize {
        let of = |stream: &Stream| {
            let numbered = (stream.first..).zip(&stream.entries);
            let owed = |(number, entry): &(u64, &Entry)| {
                let lacks = |reader: &usize| {
                    self.owes(*reader, entry) && !entry.has(*reader) && !stream.superseded(*reader, *number)
                };
                entry.acknowledged.is_some() && stream.readers.keys().any(lacks)
            };
            numbered.filter(owed).count()
        };
        self.streams.iter().map(of).sum()
    }

    /// How many messages no broker has acknowledged yet.
    pub fn unacknowledged(&self) -> u64 {
        self.tally.sent - self.tally.acknowledged
    }

    /// The last number of a stream.
    pub fn last(&self, stream: usize) -> Option<u64> {
        let stream = &self.streams[stream];
        (stream.first + stream.entries.len() as u64).checked_sub(1)
    }

    /// What was counted so far.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// The first broken promises, in words.
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    fn owes(&self, reader: usize, entry: &Entry) -> bool {
        self.readers[reader]
            .windows
            .iter()
            .any(|window| window.owes(entry))
    }

    fn close_first(&mut self, place: usize, now: Duration) {
        let stream = &mut self.streams[place];
        let Some(entry) = stream.entries.pop_front() else {
            return;
        };
        let number = stream.first;
        stream.first += 1;
        let mut owed = 0;
        let mut lacking = Vec::new();
        let mut superseded = false;
        for (reader, _) in self.streams[place].readers.clone() {
            let (owes, has) = (self.owes(reader, &entry), entry.has(reader));
            owed += usize::from(owes);
            if !has && self.streams[place].superseded(reader, number) {
                superseded = true;
            } else if owes && !has {
                lacking.push(self.readers[reader].name.clone());
            } else if !has && self.readers[reader].is_own {
                self.tally.missed_moving += 1;
            }
        }
        self.tally.superseded += u64::from(superseded);
        self.tally.unjudged += u64::from(owed == 0);
        // With nobody to owe it to, somebody must have it all the same.
        if entry.receipts.is_empty() && lacking.is_empty() && !superseded {
            lacking.push("anybody".to_owned());
        }
        if !lacking.is_empty() {
            self.tally.lost += 1;
            let acknowledged = entry.acknowledged.unwrap_or_default().as_secs_f64();
            let sent = entry.sent.as_secs_f64();
            let attempts = entry.attempts;
            let lacking = lacking.join(", ");
            self.note(
                format!(
                    "{place}/{number} did not come to {lacking}: sent at {sent:.3} s, {attempts} times, \
                     acknowledged at {acknowledged:.3} s"
                ),
                now,
            );
        }
    }

    fn doubled(&mut self, what: String, now: Duration) {
        self.tally.doubled += 1;
        self.note(what, now);
    }

    fn note(&mut self, what: String, now: Duration) {
        if self.broken.len() < WORDS {
            self.broken.push(format!("{:.3} s: {what}", now.as_secs_f64()));
        }
    }
}

impl Stream {
    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let place = usize::try_from(number.checked_sub(self.first)?).ok()?;
        self.entries.get_mut(place)
    }

    fn superseded(&self, reader: usize, number: u64) -> bool {
        let highest = self.readers.get(&reader).copied().flatten();
        self.is_retained && highest.is_some_and(|highest| highest > number)
    }
}

impl Entry {
    fn has(&self, reader: usize) -> bool {
        self.receipts.iter().any(|receipt| receipt.reader == reader)
    }
}

#[cfg(test)]
mod tests;
