//! The one that stores: it gathers what sources hand in, and commits it together with how far they were read.
//!
//! While the database is slow, locked or full it tries again and again and takes nothing in, so that the sources wait.
//! A database that turns out to be damaged is condemned, and the program ends: at its next start it begins a new one.

use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mesh_runtime::config::Logs;
use mesh_store::retention::Limits;
use mesh_store::{Batch, SourceState, StoreError, Trouble, Writer};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::intake::{Chunk, Order, Told};
use super::status::Status;
use crate::core::Tracker;

/// A batch of so many rows waits for no more.
const ENOUGH: usize = 1000;

/// No batch has more rows, but for one chunk.
const MOST: usize = 8192;

/// Nor more bytes.
const MOST_BYTES: usize = 8 * 1024 * 1024;

/// The pauses between attempts to store a batch.
const RETRY: [Duration; 4] = [
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
];

/// How often it is looked what can be deleted, and how large the database is.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// How long one step of deleting may take.
const STEP: Duration = Duration::from_millis(40);

/// The pipeline; see the module.
pub struct Pipeline {
    writer: Writer,
    tracker: Tracker,
    known: BTreeMap<(String, String), SourceState>,
    status: Arc<Status>,
    limits: Limits,
    delay: Duration,
    kept_house: Instant,
    step_rows: u32,
    /// Whether the last step of deleting left something to do.
    has_more_to_delete: bool,
    has_free_pages: bool,
}

/// What is gathered for a batch.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    states: BTreeMap<i64, SourceState>,
    facts: Vec<(i64, Told)>,
    bytes: usize,
}

impl Gathered {
    fn add(&mut self, chunk: Chunk) {
        self.bytes += chunk.rows.iter().map(mesh_store::NewRow::size).sum::<usize>();
        self.batch.rows.extend(chunk.rows);
        self.facts
            .extend(chunk.facts.into_iter().map(|told| (chunk.state.id, told)));
        self.states.insert(chunk.state.id, chunk.state);
    }

    fn is_full(&self) -> bool {
        self.batch.rows.len() >= MOST || self.bytes >= MOST_BYTES
    }
}

impl Pipeline {
    /// Stores with `writer`; `tracker` goes on with the sessions that are open.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn new(
        mut writer: Writer,
        tracker: Tracker,
        logs: &Logs,
        status: Arc<Status>,
    ) -> Result<Self, StoreError> {
        let sources = writer.sources().await?;
        for state in &sources {
            status.stored(state);
        }
        let key = |state: SourceState| ((state.name.clone(), state.stream.clone()), state);
        Ok(Self {
            known: sources.into_iter().map(key).collect(),
            writer,
            tracker,
            status,
            limits: Limits {
                age: logs.keep_age,
                bytes: logs.keep_bytes,
            },
            delay: logs.batch_delay,
            kept_house: Instant::now(),
            step_rows: 500,
            has_more_to_delete: false,
            has_free_pages: false,
        })
    }

    /// Stores what comes until `token` is cancelled; then what has come is stored and the database closed.
    ///
    /// # Errors
    ///
    /// If the database is damaged.
    pub async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        token: CancellationToken,
    ) -> Result<(), StoreError> {
        loop {
            let wait = if self.has_more_to_delete || self.has_free_pages {
                Duration::from_millis(5)
            } else {
                HOUSEKEEPING_EVERY
            };
            let first = tokio::select! {
                order = orders.recv() => order,
                () = tokio::time::sleep(wait) => {
                    self.keep_house().await?;
                    continue;
                }
                () = token.cancelled() => None,
            };
            let Some(first) = first else { break };
            let mut gathered = Gathered::default();
            self.take(first, &mut gathered, &token).await?;
            self.gather(&mut gathered, &mut orders, &token).await?;
            if !self.store(gathered, &token).await? {
                break;
            }
            if self.kept_house.elapsed() >= HOUSEKEEPING_EVERY || self.has_more_to_delete {
                self.keep_house().await?;
            }
        }
        self.writer.close().await
    }

    async fn gather(
        &mut self,
        gathered: &mut Gathered,
        orders: &mut mpsc::Receiver<Order>,
        token: &CancellationToken,
    ) -> Result<(), StoreError> {
        let deadline = tokio::time::Instant::now() + self.delay;
        while !gathered.is_full() {
            let next = if gathered.batch.rows.len() >= ENOUGH {
                orders.try_recv().ok()
            } else if gathered.batch.rows.is_empty() && gathered.states.is_empty() {
                None
            } else {
                tokio::time::timeout_at(deadline, orders.recv())
                    .await
                    .ok()
                    .flatten()
            };
            let Some(order) = next else { break };
            self.take(order, gathered, token).await?;
        }
        Ok(())
    }

    async fn take(
        &mut self,
        order: Order,
        gathered: &mut Gathered,
        token: &CancellationToken,
    ) -> Result<(), StoreError> {
        match order {
            Order::Store(chunk) => gathered.add(chunk),
            Order::Register { name, stream, reply } => {
                let key = (name, stream);
                if !self.known.contains_key(&key) {
                    let Some(state) = self.register(&key, token).await? else {
                        return Ok(());
                    };
                    self.known.insert(key.clone(), state);
                }
                if let Some(state) = self.known.get(&key) {
                    // Who asked may have ended meanwhile.
                    reply.send(state.clone()).ok();
                }
            }
            Order::Forget(id) => {
                self.known.retain(|_, state| state.id != id);
                self.status.forgotten(id);
                let forgotten = self.writer.forget_sources(&[id]).await;
                self.unless_damaged("a source was not forgotten", forgotten)?;
            }
            Order::Incidents(incidents) => {
                let stored = self.writer.store_incidents(&incidents).await;
                self.unless_damaged("incidents were not stored", stored)?;
            }
            Order::Samples(samples) => {
                let stored = self.writer.store_samples(&samples).await;
                self.unless_damaged("samples were not stored", stored)?;
            }
        }
        Ok(())
    }

    async fn register(
        &mut self,
        key: &(String, String),
        token: &CancellationToken,
    ) -> Result<Option<SourceState>, StoreError> {
        for pause in pauses() {
            match self.writer.new_source(&key.0, &key.1).await {
                Ok(state) => return Ok(Some(state)),
                Err(error) => self.stalled(error)?,
            }
            if !rest(pause, token).await {
                break;
            }
        }
        Ok(None)
    }

    /// What is told again later may be lost now, but not silently.
    fn unless_damaged(&self, what: &str, result: Result<(), StoreError>) -> Result<(), StoreError> {
        match result {
            Err(error) if error.trouble() == Trouble::Corrupt => self.stalled(error),
            Err(error) => {
                tracing::debug!(error = in_full(&error), "{what}");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    /// Stores what was gathered, however long it takes. Tells whether it was stored before the end of the program.
    async fn store(&mut self, gathered: Gathered, token: &CancellationToken) -> Result<bool, StoreError> {
        let Gathered {
            mut batch,
            states,
            facts,
            ..
        } = gathered;
        for (source, (fact, broker, time_ns)) in facts {
            self.tracker.apply(fact, source, broker.as_ref(), time_ns);
        }
        batch.sessions = self.tracker.changes();
        batch.sources = states.into_values().collect();
        if batch.is_empty() {
            return Ok(true);
        }
        for pause in pauses() {
            let began = Instant::now();
            match self.writer.commit(&batch).await {
                Ok(_) => {
                    if let Some(stall) = self.status.stall() {
                        let seconds = stall.since.elapsed().as_secs_f64();
                        tracing::info!(seconds, "lines are stored again");
                    }
                    self.status.committed(began.elapsed());
                    for state in &batch.sources {
                        self.status.stored(state);
                        let key = (state.name.clone(), state.stream.clone());
                        self.known.insert(key, state.clone());
                    }
                    return Ok(true);
                }
                Err(error) => self.stalled(error)?,
            }
            if !rest(pause, token).await {
                break;
            }
        }
        Ok(false)
    }

    /// Notes that nothing can be stored.
    ///
    /// # Errors
    ///
    /// The error itself, if waiting does not help.
    fn stalled(&self, error: StoreError) -> Result<(), StoreError> {
        let (trouble, words) = (error.trouble(), in_full(&error));
        if self.status.stalled(trouble, words.clone()) {
            tracing::error!(
                error = words,
                trouble = trouble.as_str(),
                "lines cannot be stored; sources wait"
            );
        }
        if trouble != Trouble::Corrupt {
            return Ok(());
        }
        if let Err(failed) = Writer::condemn(self.writer.path()) {
            tracing::error!(error = in_full(&failed), "the database cannot be set aside");
        }
        Err(error)
    }

    /// Deletes what is too old in a short step, and measures.
    async fn keep_house(&mut self) -> Result<(), StoreError> {
        self.kept_house = Instant::now();
        let result = self.try_keep_house().await;
        self.unless_damaged("old lines were not deleted", result)
    }

    async fn try_keep_house(&mut self) -> Result<(), StoreError> {
        let began = Instant::now();
        let deleted = self.writer.forget(self.limits, self.step_rows).await?;
        self.status.forgotten.fetch_add(deleted, Ordering::Relaxed);
        self.has_more_to_delete = deleted > 0;
        if deleted == u64::from(self.step_rows) {
            let took = began.elapsed();
            self.step_rows = if took > STEP {
                self.step_rows / 2
            } else {
                self.step_rows + 100
            }
            .clamp(50, 5000);
        }
        let size = self.writer.size().await?;
        // Free pages are used again; only many are worth the work of giving them back.
        self.has_free_pages = size.free > size.bytes / 5 && self.writer.shrink().await?;
        self.status.set_size(size);
        let counts = self.tracker.open_by_broker();
        self.status.set_sessions(
            counts
                .into_iter()
                .map(|(broker, count)| (broker.to_string(), count)),
        );
        Ok(())
    }
}

fn pauses() -> impl Iterator<Item = Duration> {
    RETRY.into_iter().chain(std::iter::repeat(RETRY[RETRY.len() - 1]))
}

/// Pauses; tells whether the program goes on.
async fn rest(pause: Duration, token: &CancellationToken) -> bool {
    token
        .run_until_cancelled(tokio::time::sleep(pause))
        .await
        .is_some()
}

/// An error with its causes.
pub fn in_full(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text += &format!(": {next}");
        cause = next.source();
    }
    text
}
