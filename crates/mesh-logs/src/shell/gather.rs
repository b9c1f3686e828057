//! From chunks of lines to batches: the next one is put together while the last one is being stored.
//!
//! A batch is complete when it has enough lines, or when its first line has waited for `logs.batch_delay`. At most one is
//! being stored and one waits; while that is so nothing is taken in, and the sources wait.

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
const MOST_BYTES: usize = 8 * 1024 * 1024;

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
        while let Ok(place) = work.reserve().await {
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
            match next {
                Some(Order::Store(chunk)) => {
                    let (batch, order) = self.gather(chunk, &mut orders).await;
                    after = order;
                    place.send(Work::Batch(batch));
                }
                Some(order) => place.send(Work::Order(order)),
                None => return,
            }
        }
    }

    /// A batch that begins with `first`, and the order that ended it, if one did.
    async fn gather(&mut self, first: Chunk, orders: &mut mpsc::Receiver<Order>) -> (Batch, Option<Order>) {
        let deadline = Instant::now() + self.delay;
        let mut gathered = Gathered::default();
        self.add(first, &mut gathered);
        let mut other = None;
        while !gathered.is_full() {
            let next = if gathered.batch.rows.len() >= ENOUGH {
                orders.try_recv().ok()
            } else {
                timeout_at(deadline, orders.recv()).await.ok().flatten()
            };
            match next {
                Some(Order::Store(chunk)) => self.add(chunk, &mut gathered),
                order => {
                    other = order;
                    break;
                }
            }
        }
        let mut batch = gathered.batch;
        batch.sources = gathered.states.into_values().collect();
        batch.sessions = self.tracker.changes();
        (batch, other)
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
