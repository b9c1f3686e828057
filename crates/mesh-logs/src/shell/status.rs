//! What everybody may know of the daemon: kept by those who work, read by `/healthz` and `/metrics`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh_store::retention::Size;
use mesh_store::{SourceState, Trouble};

/// The upper bounds of the histogram of commit times, in milliseconds.
pub const COMMIT_BUCKETS_MS: [u64; 8] = [5, 10, 25, 50, 100, 250, 1000, 5000];

/// A batch that takes longer than this to be stored shows that the database is slow.
pub const SLOW: Duration = Duration::from_secs(1);

/// The state of one stream.
#[derive(Debug, Clone, Default)]
pub struct SourceStatus {
    /// As far as it is stored.
    pub stored: SourceState,
    /// The time of the last line that was stored, in nanoseconds since 1970.
    pub last_time_ns: i64,
    /// Bytes that are there and not handed to the pipeline.
    pub unread: u64,
    /// Lines that are read and not stored.
    pub waiting: u64,
    /// Why it cannot be read, if so.
    pub error: Option<String>,
}

/// Why nothing is stored, and since when.
#[derive(Debug, Clone)]
pub struct Stall {
    /// Since when.
    pub since: Instant,
    /// What kind of trouble.
    pub trouble: Trouble,
    /// The error with its causes.
    pub error: String,
}

/// The state of the daemon.
#[derive(Debug, Default)]
pub struct Status {
    sources: Mutex<BTreeMap<i64, SourceStatus>>,
    stall: Mutex<Option<Stall>>,
    size: Mutex<Size>,
    drift: Mutex<BTreeMap<String, Drift>>,
    commits: [AtomicU64; COMMIT_BUCKETS_MS.len() + 1],
    commit_us: AtomicU64,
    stalls: AtomicU64,
    /// Lines deleted because they were old or too many.
    pub forgotten: AtomicU64,
    /// Clients that are connected to more than one broker.
    pub duplicates: AtomicU64,
}

/// The clients of a broker, counted in two ways.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Drift {
    /// Sessions that are open according to log lines.
    pub sessions: u64,
    /// Clients that the broker counts, without links and probes; `None` if it does not tell.
    pub clients: Option<u64>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Status {
    /// A stream has been read as far as `state` says.
    pub fn read(&self, state: &SourceState) {
        let mut sources = lock(&self.sources);
        let source = sources.entry(state.id).or_default();
        source.stored.id = state.id;
        source.stored.name.clone_from(&state.name);
        source.stored.stream.clone_from(&state.stream);
        source.waiting = state.lines.saturating_sub(source.stored.lines);
        source.error = None;
    }

    /// So many bytes of a stream are there and not read.
    pub fn unread(&self, source: i64, bytes: u64) {
        if let Some(source) = lock(&self.sources).get_mut(&source) {
            source.unread = bytes;
        }
    }

    /// A stream cannot be read.
    pub fn failed(&self, state: &SourceState, error: String) {
        let mut sources = lock(&self.sources);
        let source = sources.entry(state.id).or_insert_with(|| SourceStatus {
            stored: state.clone(),
            ..SourceStatus::default()
        });
        source.error = Some(error);
    }

    /// A stream is stored as far as `state` says.
    pub fn stored(&self, state: &SourceState) {
        let mut sources = lock(&self.sources);
        let source = sources.entry(state.id).or_default();
        source.waiting = source
            .waiting
            .saturating_sub(state.lines.saturating_sub(source.stored.lines));
        source.stored = state.clone();
        source.last_time_ns = state.last_key.saturating_mul(1000);
    }

    /// A stream is gone.
    pub fn forgotten(&self, source: i64) {
        lock(&self.sources).remove(&source);
    }

    /// All streams.
    pub fn sources(&self) -> Vec<SourceStatus> {
        lock(&self.sources).values().cloned().collect()
    }

    /// A batch was stored within `took`.
    pub fn committed(&self, took: Duration) {
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let bucket = COMMIT_BUCKETS_MS.iter().position(|bound| millis <= *bound);
        self.commits[bucket.unwrap_or(COMMIT_BUCKETS_MS.len())].fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.commit_us.fetch_add(micros, Ordering::Relaxed);
    }

    /// Lines are stored as they come. Gives what was the matter, if something was.
    pub fn recovered(&self) -> Option<Stall> {
        lock(&self.stall).take()
    }

    /// The batches by the time they took, in the order of [`COMMIT_BUCKETS_MS`], and all of that time in microseconds.
    pub fn commits(&self) -> (Vec<u64>, u64) {
        let counts = self.commits.iter().map(|count| count.load(Ordering::Relaxed));
        (counts.collect(), self.commit_us.load(Ordering::Relaxed))
    }

    /// Nothing can be stored. Tells whether that is news.
    pub fn stalled(&self, trouble: Trouble, error: String) -> bool {
        let mut stall = lock(&self.stall);
        let since = stall.as_ref().map_or_else(Instant::now, |stall| stall.since);
        let is_news = stall.as_ref().is_none_or(|stall| stall.trouble != trouble);
        self.stalls
            .fetch_add(u64::from(stall.is_none()), Ordering::Relaxed);
        *stall = Some(Stall {
            since,
            trouble,
            error,
        });
        is_news
    }

    /// Why nothing is stored, if so.
    pub fn stall(&self) -> Option<Stall> {
        lock(&self.stall).clone()
    }

    /// How often nothing could be stored.
    pub fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// The database has this size.
    pub fn set_size(&self, size: Size) {
        *lock(&self.size) = size;
    }

    /// The size of the database.
    pub fn size(&self) -> Size {
        *lock(&self.size)
    }

    /// So many sessions are open at each broker.
    pub fn set_sessions(&self, counts: impl IntoIterator<Item = (String, u64)>) {
        let mut drift = lock(&self.drift);
        for broker in drift.values_mut() {
            broker.sessions = 0;
        }
        for (broker, sessions) in counts {
            drift.entry(broker).or_default().sessions = sessions;
        }
    }

    /// So many clients each broker counts.
    pub fn set_clients(&self, counts: impl IntoIterator<Item = (String, Option<u64>)>) {
        let mut drift = lock(&self.drift);
        for (broker, clients) in counts {
            drift.entry(broker).or_default().clients = clients;
        }
    }

    /// The clients of each broker, counted in two ways.
    pub fn drift(&self) -> BTreeMap<String, Drift> {
        lock(&self.drift).clone()
    }
}
