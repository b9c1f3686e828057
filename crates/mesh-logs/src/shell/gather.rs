//! From chunks of lines to batches: the next one is put together while the last one is being stored.
//!
//! A batch is complete when it has enough lines, or when its first line has waited for `logs.batch_delay`; while those
//! before it are not stored it grows, up to a bound. At most one is being stored, one waits, and one grows; when that is
//! full nothing is taken in, and the sources wait.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_store::{Batch, SourceState};
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout_at};
use tokio_util::sync::CancellationToken;

use super::intake::{Chunk, Order};
use super::status::Status;
use crate::core::Tracker;

/// A batch of so many rows waits for no more.
const ENOUGH: usize = 1000;

/// No batch has more rows, but for one chunk.
const MOST: usize = 8192;

/// Nor more bytes.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// How often open sessions are counted.
const COUNT_EVERY: Duration = Duration::from_secs(1);

/// What the pipeline has to do, in this order.
#[derive(Debug)]
pub enum Work {
    /// Store these lines.
    Batch(Batch),
    /// Anything else.
    Order(Order),
}

/// Puts batches together; see the module.
#[derive(Debug)]
pub struct Gatherer {
    tracker: Tracker,
    status: Arc<Status>,
    delay: Duration,
}

/// What is gathered for a batch.
#[derive(Default)]
struct Gathered {
    batch: Batch,
    states: BTreeMap<i64, SourceState>,
    bytes: usize,
}

impl Gathered {
    fn is_full(&self) -> bool {
        self.batch.rows.len() >= MOST || self.bytes >= MOST_BYTES
    }
}

impl Gatherer {
    /// `tracker` goes on with the sessions that are open; lines wait for `delay` for others.
    pub fn new(tracker: Tracker, delay: Duration, status: Arc<Status>) -> Self {
        Self {
            tracker,
            status,
            delay,
        }
    }

    /// Makes `work` of `orders` until `token` is cancelled, or nobody takes any.
    pub async fn run(
        mut self,
        mut orders: mpsc::Receiver<Order>,
        work: mpsc::Sender<Work>,
        token: CancellationToken,
    ) {
        let mut ticks = interval(COUNT_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // What came while a batch was gathered, and has to be done after it.
        let mut after = None;
        loop {
            let next = match after.take() {
                Some(order) => Some(order),
                None => tokio::select! {
                    order = orders.recv() => order,
                    () = token.cancelled() => None,
                    _ = ticks.tick() => {
                        self.count();
                        continue;
                    }
                },
            };
            let sent = match next {
                Some(Order::Store(chunk)) => {
                    let mut gathered = Gathered::default();
                    self.add(chunk, &mut gathered);
                    after = self.gather(&mut gathered, &mut orders, &work).await;
                    work.send(Work::Batch(self.finish(gathered))).await
                }
                Some(order) => work.send(Work::Order(order)).await,
                None => return,
            };
            if sent.is_err() {
                return;
            }
        }
    }

    /// Adds to what is `gathered` until it is a batch: enough lines or the end of the delay, and then as many as come
    /// while others are stored. Few large batches cost less than many small ones. Gives the order that ended it, if one
    /// did.
    async fn gather(
        &mut self,
        gathered: &mut Gathered,
        orders: &mut mpsc::Receiver<Order>,
        work: &mpsc::Sender<Work>,
    ) -> Option<Order> {
        let deadline = Instant::now() + self.delay;
        let mut is_due = false;
        while !gathered.is_full() {
            is_due |= gathered.batch.rows.len() >= ENOUGH;
            let next = if !is_due {
                let Ok(next) = timeout_at(deadline, orders.recv()).await else {
                    is_due = true;
                    continue;
                };
                next
            } else {
                tokio::select! {
                    biased;
                    next = orders.recv() => next,
                    _place = work.reserve() => None,
                }
            };
            match next {
                Some(Order::Store(chunk)) => self.add(chunk, gathered),
                other => return other,
            }
        }
        None
    }

    fn finish(&mut self, gathered: Gathered) -> Batch {
        let mut batch = gathered.batch;
        batch.sources = gathered.states.into_values().collect();
        batch.sessions = self.tracker.changes();
        batch
    }

    fn add(&mut self, chunk: Chunk, gathered: &mut Gathered) {
        let Chunk { rows, facts, state } = chunk;
        gathered.bytes += rows.iter().map(mesh_store::NewRow::size).sum::<usize>();
        gathered.batch.rows.extend(rows);
        for (fact, broker, time_ns) in facts {
            self.tracker.apply(fact, state.id, broker.as_ref(), time_ns);
        }
        gathered.states.insert(state.id, state);
    }

    fn count(&self) {
        let counts = self.tracker.open_by_broker();
        self.status.set_sessions(
            counts
                .into_iter()
                .map(|(broker, count)| (broker.to_string(), count)),
        );
    }
}
