//! The one that stores: lines, what they say of clients, and how far their sources were read, in one transaction.
//!
//! While the database is slow, locked or full it tries again and again and takes nothing in, so that the sources wait.
//! A database that turns out to be damaged is condemned, and the program ends: at its next start it begins a new one.

use std::collections::BTreeMap;
use std::error::Error;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mesh_runtime::config::Logs;
use mesh_store::retention::Limits;
use mesh_store::{Batch, SourceState, StoreError, Trouble, Writer};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::gather::Work;
use super::intake::Order;
use super::status::{SLOW, Status};

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
    known: BTreeMap<(String, String), SourceState>,
    status: Arc<Status>,
    limits: Limits,
    kept_house: Instant,
    step_rows: u32,
    /// Whether the last step of deleting left something to do.
    has_more_to_delete: bool,
    has_free_pages: bool,
}

impl Pipeline {
    /// Stores with `writer`.
    ///
    /// # Errors
    ///
    /// What SQLite says.
    pub async fn new(mut writer: Writer, logs: &Logs, status: Arc<Status>) -> Result<Self, StoreError> {
        let sources = writer.sources().await?;
        for state in &sources {
            status.stored(state);
        }
        let key = |state: SourceState| ((state.name.clone(), state.stream.clone()), state);
        Ok(Self {
            known: sources.into_iter().map(key).collect(),
            writer,
            status,
            limits: Limits {
                age: logs.keep_age,
                bytes: logs.keep_bytes,
            },
            kept_house: Instant::now(),
            step_rows: 500,
            has_more_to_delete: false,
            has_free_pages: false,
        })
    }

    /// Does all `work` there is, and then closes the database; when `token` is cancelled, nothing is tried again.
    ///
    /// # Errors
    ///
    /// If the database is damaged.
    pub async fn run(
        mut self,
        mut work: mpsc::Receiver<Work>,
        token: CancellationToken,
    ) -> Result<(), StoreError> {
        loop {
            let wait = if self.has_more_to_delete || self.has_free_pages {
                Duration::from_millis(5)
            } else {
                HOUSEKEEPING_EVERY
            };
            let stored = match timeout(wait, work.recv()).await {
                Ok(None) => break,
                Ok(Some(Work::Batch(batch))) => {
                    if !self.store(&batch, &token).await? {
                        break;
                    }
                    batch.rows.len()
                }
                Ok(Some(Work::Order(order))) => {
                    self.obey(order, &token).await?;
                    0
                }
                Err(_elapsed) => {
                    self.keep_house(0).await?;
                    continue;
                }
            };
            if self.kept_house.elapsed() >= HOUSEKEEPING_EVERY || self.has_more_to_delete {
                self.keep_house(stored as u64).await?;
            }
        }
        self.writer.close().await
    }

    async fn obey(&mut self, order: Order, token: &CancellationToken) -> Result<(), StoreError> {
        match order {
            // The gatherer makes batches of these.
            Order::Store(_) => {}
            Order::Register { name, stream, reply } => {
                let key = (name, stream);
                if !self.known.contains_key(&key) {
                    let Some(state) = self.register(&key, token).await? else {
                        return Ok(());
                    };
                    self.known.insert(key.clone(), state);
                }
                if let Some(state) = self.known.get(&key) {
                    self.status.stored(state);
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

    /// Stores `batch`, however long it takes. Tells whether it was stored before the end of the program.
    async fn store(&mut self, batch: &Batch, token: &CancellationToken) -> Result<bool, StoreError> {
        if batch.is_empty() {
            return Ok(true);
        }
        for pause in pauses() {
            let began = Instant::now();
            match self.commit(batch).await {
                Ok(()) => {
                    self.committed(batch, began.elapsed());
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

    /// Tries once to store `batch`. That it takes long is told while it lasts.
    async fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let mut commit = pin!(self.writer.commit(batch));
        if let Ok(committed) = timeout(SLOW, &mut commit).await {
            return committed.map(drop);
        }
        let words = format!("a batch is not stored after {SLOW:?}");
        if self.status.stalled(Trouble::Slow, words) {
            tracing::warn!(
                trouble = Trouble::Slow.as_str(),
                "the database is slow; sources wait for it"
            );
        }
        commit.await.map(drop)
    }

    fn committed(&mut self, batch: &Batch, took: Duration) {
        self.status.committed(took);
        // One that took long is no sign that it is over.
        if took < SLOW
            && let Some(stall) = self.status.recovered()
        {
            let seconds = stall.since.elapsed().as_secs_f64();
            tracing::info!(seconds, "lines are stored again");
        }
        for state in &batch.sources {
            self.status.stored(state);
            let key = (state.name.clone(), state.stream.clone());
            self.known.insert(key, state.clone());
        }
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

    /// Deletes what is too old, and measures. After a batch of `stored` rows as many are deleted, if there are, so that
    /// the database does not grow however fast lines come; else one short step is taken.
    async fn keep_house(&mut self, stored: u64) -> Result<(), StoreError> {
        self.kept_house = Instant::now();
        let result = self.try_keep_house(stored).await;
        self.unless_damaged("old lines were not deleted", result)
    }

    async fn try_keep_house(&mut self, stored: u64) -> Result<(), StoreError> {
        self.writer.divide(self.limits).await?;
        let mut deleted = 0;
        loop {
            let step = self.delete_step().await?;
            deleted += step;
            self.has_more_to_delete = step > 0;
            if step == 0 || deleted >= stored {
                break;
            }
        }
        let size = self.writer.size().await?;
        // Free pages are used again; only many are worth the work of giving them back.
        self.has_free_pages = size.free > size.bytes / 5 && self.writer.shrink().await?;
        self.status.set_size(size);
        Ok(())
    }

    /// Deletes some rows, about as many as can be in the time of a step.
    async fn delete_step(&mut self) -> Result<u64, StoreError> {
        let began = Instant::now();
        let deleted = self.writer.forget(self.limits, self.step_rows).await?;
        self.status.forgotten.fetch_add(deleted, Ordering::Relaxed);
        if deleted == u64::from(self.step_rows) {
            self.step_rows = if began.elapsed() > STEP {
                self.step_rows / 2
            } else {
                self.step_rows + 100
            }
            .clamp(50, 5000);
        }
        Ok(deleted)
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
