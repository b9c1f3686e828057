//! Throughput, CPU and latency of one network.

use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_lab::Lab;
use mesh_lab::load::{Pace, Publication, Publisher, Subscriber, percentile};
use mesh_runtime::mqtt::mqttbytes::QoS;
use serde::Serialize;

use super::usage;

/// So many subscribers receive every message: in a mesh and a star one on each broker.
pub const SUBSCRIBERS: usize = 5;

/// Unacknowledged messages of the publisher.
const WINDOW: u16 = 1000;

/// Nothing more comes if nothing has come for this long.
const SILENCE: Duration = Duration::from_millis(500);

const DEADLINE: Duration = Duration::from_secs(60);

/// How many bursts there were.
static BURSTS: AtomicU32 = AtomicU32::new(0);

/// A load that every network is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Load {
    /// 0 or 1.
    pub qos: u8,
    /// Bytes.
    pub payload: usize,
    /// Whether every message is retained, at one topic.
    pub retained: bool,
}

impl Load {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::live(0, 64),
        Self::live(0, 1024),
        Self::live(1, 64),
        Self::live(1, 1024),
        Self {
            retained: true,
            ..Self::live(1, 64)
        },
    ];

    const fn live(qos: u8, payload: usize) -> Self {
        Self {
            qos,
            payload,
            retained: false,
        }
    }

    fn quality(self) -> QoS {
        if self.qos == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        }
    }

    fn publication(self, topic: &str, messages: u32, pace: Pace) -> Publication {
        Publication {
            topic: topic.to_owned(),
            qos: self.quality(),
            retain: self.retained,
            payload: self.payload,
            messages,
            pace,
        }
    }
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let retained = if self.retained { ", retained" } else { "" };
        write!(f, "QoS {}, {} bytes{retained}", self.qos, self.payload)
    }
}

/// What one burst showed.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Burst {
    /// Messages a second, from the first publish until the last subscriber has the last one.
    pub per_s: f64,
    /// CPU of all brokers together for one delivery, in microseconds.
    pub cpu_us_per_delivery: Option<f64>,
    /// Deliveries that did not happen.
    pub missing: u64,
    /// Deliveries too many.
    pub twice: u64,
}

/// Publishes `messages` at the first broker as fast as it takes them.
pub async fn burst(lab: &Lab, load: Load, messages: u32) -> anyhow::Result<Burst> {
    let brokers: Vec<SocketAddr> = lab.config().topology.ids().map(|id| lab.broker(id)).collect();
    // One that nothing is retained at yet, or it would be counted.
    let topic = format!("bench/load/{}", BURSTS.fetch_add(1, Ordering::Relaxed));
    let mut subscribers = Vec::new();
    for (number, broker) in brokers.iter().cycle().take(SUBSCRIBERS).enumerate() {
        let id = format!("bench-sub{number}");
        subscribers.push(Subscriber::start(*broker, &id, &topic, load.quality()).await?);
    }
    let mut publisher = Publisher::connect(brokers[0], "bench-pub").await?;
    let cpu_before = usage::cpu(lab);
    let start = Instant::now();
    publisher
        .run(&load.publication(&topic, messages, Pace::Window(WINDOW)))
        .await
        .context("the publisher failed")?;
    for subscriber in &mut subscribers {
        if !subscriber.wait_for(messages.into(), DEADLINE).await {
            subscriber.wait_for_silence(SILENCE, DEADLINE).await;
        }
    }
    let elapsed = start.elapsed();
    let cpu = usage::cpu(lab)
        .zip(cpu_before)
        .map(|(after, before)| after.saturating_sub(before));
    // What comes twice comes late: give it the time.
    subscribers[SUBSCRIBERS - 1]
        .wait_for_silence(SILENCE, DEADLINE)
        .await;
    let (mut missing, mut twice) = (0, 0);
    for subscriber in subscribers {
        let received = subscriber.finish().await;
        missing += received.missing(messages).len() as u64;
        twice += received.duplicates();
    }
    let deliveries = f64::from(messages) * SUBSCRIBERS as f64;
    Ok(Burst {
        per_s: f64::from(messages) / elapsed.as_secs_f64(),
        cpu_us_per_delivery: cpu.map(|cpu| cpu.as_secs_f64() * 1e6 / deliveries),
        missing,
        twice,
    })
}

/// How long messages took from a publisher to a subscriber.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Latency {
    /// Half of them took at most this, in microseconds.
    pub p50_us: f64,
    /// 99 of 100 took at most this, in microseconds.
    pub p99_us: f64,
}

/// Publishes at the broker with place `from`, receives at the one with place `to`, `per_s` messages a second.
pub async fn latency(
    lab: &Lab,
    load: Load,
    from: usize,
    to: usize,
    messages: u32,
    per_s: f64,
) -> anyhow::Result<Latency> {
    let brokers: Vec<SocketAddr> = lab.config().topology.ids().map(|id| lab.broker(id)).collect();
    let mut subscriber = Subscriber::start(brokers[to], "bench-sub", "bench/load", load.quality()).await?;
    let mut publisher = Publisher::connect(brokers[from], "bench-pub").await?;
    publisher
        .run(&load.publication("bench/load", messages, Pace::PerSecond(per_s)))
        .await?;
    anyhow::ensure!(
        subscriber.wait_for(messages.into(), DEADLINE).await,
        "only {} of {messages} messages arrived at a moderate rate",
        subscriber.count()
    );
    let mut latencies = subscriber.finish().await.latencies;
    latencies.sort();
    let us = |q| {
        percentile(&latencies, q)
            .map(|latency| latency.as_secs_f64() * 1e6)
            .context("nothing arrived")
    };
    Ok(Latency {
        p50_us: us(0.5)?,
        p99_us: us(0.99)?,
    })
}
