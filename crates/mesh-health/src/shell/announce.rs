//! Being told: a program is run, or a URL is posted to, when something happens that people should know.
//!
//! Guarantees: the core never waits for any of it; the same event of the same broker and incident is told once
//! within `announce.repeat_after`; what was not taken is tried again, ever more rarely, in order, until it is given
//! up; what is given up or finds no room is logged and counted. The program and the URL do not wait for each other.
//!
//! What has not been delivered when mesh-health ends is lost, and said.

mod channel;
mod webhook;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use mesh_model::EventName;
use mesh_runtime::config::Announce;
use serde_json::Value;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::clock::Jitter;
use super::driver::Outlets;
use super::happenings::Numbered;
use super::metrics::{Announced, Counters};
use super::probe::chain;
use channel::Channel;
pub use webhook::{Webhook, WebhookError};

/// The most announcements that wait for one channel.
const QUEUE: usize = 256;

/// The longest pause between two attempts.
const SLOWEST_RETRY: Duration = Duration::from_secs(300);

/// Whether people are told of `name`.
pub fn is_announced(name: EventName) -> bool {
    use EventName::{BalancerRejected, FailbackBlocked, MeshOutOfSync};
    name.as_str().starts_with("failover.")
        || matches!(name, FailbackBlocked | MeshOutOfSync | BalancerRejected)
}

/// One way of telling, with its own queue.
#[derive(Debug)]
pub struct Announcer {
    channel: Channel,
    rules: Announce,
    events: broadcast::Receiver<Arc<Numbered>>,
    counters: Arc<Counters>,
}

/// An announcement on its way.
#[derive(Debug)]
struct Job {
    event: Value,
    since: Instant,
}

impl Announcer {
    /// One for each channel that `rules` name. They hear what happens from now on.
    ///
    /// # Errors
    ///
    /// [`WebhookError`] if the webhook can never be reached safely.
    pub fn all(rules: &Announce, outlets: &Outlets) -> Result<Vec<Self>, WebhookError> {
        let command = rules.command.clone().map(Channel::Command);
        let webhook = Webhook::of(rules)?.map(Channel::Webhook);
        let channels = command.into_iter().chain(webhook);
        let announcers = channels.map(|channel| Self {
            channel,
            rules: rules.clone(),
            events: outlets.events.subscribe(),
            counters: Arc::clone(&outlets.counters),
        });
        Ok(announcers.collect())
    }

    /// Announces until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            channel,
            rules,
            events,
            counters,
        } = self;
        let (queue, mut jobs) = mpsc::channel(QUEUE);
        let filter = Filter::new(rules.repeat_after);
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = take_in(events, filter, queue, &channel, &counters) => {}
            () = deliver(&mut jobs, &channel, &rules, &counters) => {}
        }
        let left = jobs.len();
        if left > 0 {
            tracing::warn!(%channel, left, "mesh-health ends with announcements untold");
        }
    }
}

/// Keeps up with what happens, whatever becomes of the announcements.
async fn take_in(
    mut events: broadcast::Receiver<Arc<Numbered>>,
    mut filter: Filter,
    queue: mpsc::Sender<Job>,
    channel: &Channel,
    counters: &Counters,
) {
    loop {
        let numbered = match events.recv().await {
            Ok(numbered) => numbered,
            Err(RecvError::Lagged(missed)) => {
                tracing::error!(%channel, missed, "events came too fast to be announced");
                continue;
            }
            Err(RecvError::Closed) => return,
        };
        if !is_announced(numbered.event.name) {
            continue;
        }
        let event = serde_json::to_value(&numbered.event).expect("wire types are plain data");
        let since = Instant::now();
        if !filter.is_new(&event, since) {
            counters.announced(Announced::Repeated);
        } else if queue.try_send(Job { event, since }).is_err() {
            counters.announced(Announced::Dropped);
            let event = numbered.event.name.as_str();
            tracing::error!(%channel, event, "not announced: {QUEUE} others are waiting");
        }
    }
}

/// Delivers one announcement after the other.
async fn deliver(jobs: &mut mpsc::Receiver<Job>, channel: &Channel, rules: &Announce, counters: &Counters) {
    let mut jitter = Jitter::new();
    while let Some(job) = jobs.recv().await {
        let event = job.event["name"].as_str().unwrap_or_default();
        let mut pause = rules.retry_interval;
        loop {
            let error = match channel.tell(&job.event, rules.timeout).await {
                Ok(()) => {
                    counters.announced(Announced::Delivered);
                    tracing::info!(%channel, event, "announced");
                    break;
                }
                Err(error) => chain(&error),
            };
            counters.announced(Announced::Failed);
            if job.since.elapsed() + pause > rules.give_up_after {
                counters.announced(Announced::GivenUp);
                tracing::error!(%channel, event, error, "an announcement was given up");
                break;
            }
            tracing::warn!(%channel, event, error, "an announcement failed; it is tried again in {pause:?}");
            sleep(jitter.around(pause)).await;
            pause = (pause * 2).min(SLOWEST_RETRY.max(rules.retry_interval));
        }
    }
}

/// Lets the same through once in a while.
#[derive(Debug)]
struct Filter {
    repeat_after: Duration,
    told: BTreeMap<String, Instant>,
}

impl Filter {
    fn new(repeat_after: Duration) -> Self {
        Self {
            repeat_after,
            told: BTreeMap::new(),
        }
    }

    fn is_new(&mut self, event: &Value, now: Instant) -> bool {
        let is_recent = |told: &Instant| now.duration_since(*told) < self.repeat_after;
        self.told.retain(|_, told| is_recent(told));
        // Not the reason or the generation: a refused plan is tried again under another number, and its reason may
        // name a process. Nor is it a new fault if the balancer did as it was told for a moment.
        let same_fault = match event["name"] == EventName::BalancerRejected.as_str() {
            true => &["name"][..],
            false => &["name", "broker", "from", "to", "incident"],
        };
        let fields = same_fault.iter().map(|field| event[field].to_string());
        let key = fields.collect::<Vec<_>>().join(" ");
        if self.told.contains_key(&key) {
            return false;
        }
        self.told.insert(key, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_passes_once_in_a_while() {
        let mut filter = Filter::new(Duration::from_secs(60));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let refused = |generation| json!({"name": "balancer.rejected", "generation": generation, "incident": generation});
        assert!(filter.is_new(&refused(1), after(0)));
        assert!(!filter.is_new(&refused(2), after(59)));
        assert!(filter.is_new(&refused(3), after(60)));
        assert!(!filter.is_new(&refused(3), after(61)));

        let moved = |from: &str, incident: u64| json!({"name": "failover.started", "from": from, "incident": incident});
        assert!(filter.is_new(&moved("b1", 1), after(61)));
        assert!(filter.is_new(&moved("b2", 1), after(61)), "another broker");
        assert!(filter.is_new(&moved("b1", 2), after(61)), "another incident");
        assert!(!filter.is_new(&moved("b1", 2), after(61)));
        filter.is_new(&refused(1), after(10_000));
        assert_eq!(filter.told.len(), 1, "what is long ago is forgotten");
    }

    #[test]
    fn people_are_told_of_little() {
        let told: Vec<&str> = EventName::ALL
            .iter()
            .filter(|name| is_announced(**name))
            .map(|name| name.as_str())
            .collect();
        for name in [
            "failover.started",
            "failover.switched",
            "failover.completed",
            "failover.blocked",
            "failback.blocked",
            "balancer.rejected",
            "mesh.out_of_sync",
        ] {
            assert!(told.contains(&name), "{told:?}");
        }
        assert!(!told.contains(&"broker.suspect") && !told.contains(&"client.connected"));
    }
}
