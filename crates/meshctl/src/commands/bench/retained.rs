//! `meshctl bench retained`: what very many retained messages cost, and how long a fresh broker needs to have them.

use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_lab::{Lab, LabOptions, wait_until};
use mesh_model::names::RETAINED_TOPIC;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{PingReq, Publish};
use mesh_runtime::mqtt::{Connection, Identity, Packet};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::{say, usage};

/// Flags of `meshctl bench retained`.
#[derive(Debug, clap::Args)]
pub struct RetainedArgs {
    /// How many topics have a retained message
    #[arg(long, default_value_t = 1_000_000)]
    topics: u32,

    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// No broker saves while it is measured: that is Mosquitto's own silence.
const SETTINGS: &str = "[mosquitto]\nautosave_interval = \"24h\"\n";
/// So many publishes are under way at once.
const WINDOW: u32 = 1_000;
/// How often each broker is asked whether it is there.
const PING_EVERY: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(3_600);

/// What was found.
#[derive(Debug, Serialize)]
struct Report {
    topics: u32,
    topic_example: String,
    /// Filling the first broker, which gives all of it on to two others.
    fill_s: f64,
    /// Memory of the first broker for each topic, with the plugin and on a stock broker with the same messages.
    bytes_per_topic: Option<f64>,
    bytes_per_topic_stock: Option<f64>,
    /// From the start of the process until it answers, with a database of all topics.
    restart_s: f64,
    restart_stock_s: f64,
    /// From the start of the process until it is in sync, with that database.
    restart_in_sync_s: f64,
    /// The same of a broker without a database and a journal.
    fresh_in_sync_s: f64,
    /// Meanwhile, the longest wait for a PINGRESP, of the two that were there and of the fresh one.
    silence_of_peers_ms: f64,
    silence_of_fresh_ms: f64,
    /// The longest wait for a PINGRESP of a stock broker while somebody subscribes to everything, as a stock bridge does
    /// when it connects.
    silence_of_stock_ms: f64,
    /// Of each broker, the longest that its plugin held it up, and what it did then.
    longest_callback_ms: Vec<(f64, String)>,
}

#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Status {
    count: u64,
    digest: String,
    in_sync: bool,
    longest_us: u64,
    longest: String,
}

/// Runs the bench.
pub async fn run(args: RetainedArgs) -> anyhow::Result<ExitCode> {
    let stock = stock(args.topics).await?;
    let report = mesh(args.topics, &stock).await?;
    say("");
    if args.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(&report)?)?;
    } else {
        writeln!(std::io::stdout(), "{report}")?;
    }
    Ok(ExitCode::SUCCESS)
}

struct Stock {
    memory: Option<f64>,
    restart: Duration,
    silence: Duration,
}

/// One broker without the plugin.
async fn stock(topics: u32) -> anyhow::Result<Stock> {
    let conf = |config: &mesh_runtime::Config, _: &_, id: &_| {
        let address = config
            .topology
            .get(id)
            .map_or(([127, 0, 0, 1], 1883).into(), |broker| broker.address);
        let data = config
            .mosquitto
            .data_dir
            .to_string_lossy()
            .replace("{broker}", "broker1");
        format!(
            "user {}\nlistener {} {}\nallow_anonymous true\npersistence true\npersistence_location {data}/\n\
             autosave_interval 86400\nlog_dest stderr\nmax_inflight_messages 20000\n\
             max_queued_messages 0\nset_tcp_nodelay true\n",
            config.mosquitto.user,
            address.port(),
            address.ip()
        )
    };
    let lab = Lab::start(LabOptions {
        broker_conf: Some(std::sync::Arc::new(conf)),
        ready_topic: None,
        ..options(1)
    })
    .await?;
    let empty = memory_of(&lab, 1);
    say("filling a stock broker");
    fill(at(&lab, 1), topics).await?;
    let memory = per_topic(empty, memory_of(&lab, 1), topics);
    say("restarting a stock broker");
    let restart = restart(&lab, 1).await?;
    say("subscribing to everything at a stock broker");
    let mut pinger = Pinger::start(at(&lab, 1)).await?;
    let (mut link, _) = Connection::open(at(&lab, 1), &identity("link")).await?;
    link.subscribe(&["#"], QoS::AtLeastOnce).await?;
    pinger.answered().await?;
    let silence = pinger.longest();
    // Nobody needs what it would save.
    lab.discard();
    Ok(Stock {
        memory,
        restart,
        silence,
    })
}

async fn mesh(topics: u32, stock: &Stock) -> anyhow::Result<Report> {
    let lab = Lab::start(options(3)).await?;
    let empty = memory_of(&lab, 1);
    say("filling a mesh of three");
    let begin = Instant::now();
    fill(at(&lab, 1), topics).await?;
    for n in 1..=3 {
        has_all(&lab, n, topics).await?;
    }
    let fill = begin.elapsed();
    let memory = per_topic(empty, memory_of(&lab, 1), topics);

    say("restarting a broker with its database");
    let answers = restart(&lab, 2).await?;
    let begin = Instant::now();
    has_all(&lab, 2, topics).await?;
    let in_sync = answers + begin.elapsed();

    say("starting a broker with nothing");
    lab.kill("broker3").await?;
    for file in ["mosquitto.db", "mesh.journal"] {
        let path = lab.state().join("broker3").join(file);
        if path.exists() {
            std::fs::remove_file(path)?;
        }
    }
    let peers = [
        Pinger::start(at(&lab, 1)).await?,
        Pinger::start(at(&lab, 2)).await?,
    ];
    let begin = Instant::now();
    lab.restart("broker3").await?;
    listens(at(&lab, 3)).await?;
    let fresh = Pinger::start(at(&lab, 3)).await?;
    has_all(&lab, 3, topics).await?;
    let fresh_in_sync = begin.elapsed();
    let silence_of_peers = peers.iter().map(Pinger::longest).max().unwrap_or_default();
    let mut longest = Vec::new();
    for n in 1..=3 {
        let status = status(at(&lab, n)).await?;
        longest.push((status.longest_us as f64 / 1e3, status.longest));
    }
    let report = Report {
        topics,
        topic_example: topic(7),
        fill_s: fill.as_secs_f64(),
        bytes_per_topic: memory,
        bytes_per_topic_stock: stock.memory,
        restart_s: answers.as_secs_f64(),
        restart_stock_s: stock.restart.as_secs_f64(),
        restart_in_sync_s: in_sync.as_secs_f64(),
        fresh_in_sync_s: fresh_in_sync.as_secs_f64(),
        silence_of_peers_ms: silence_of_peers.as_secs_f64() * 1e3,
        silence_of_fresh_ms: fresh.longest().as_secs_f64() * 1e3,
        silence_of_stock_ms: stock.silence.as_secs_f64() * 1e3,
        longest_callback_ms: longest,
    };
    drop((peers, fresh));
    lab.discard();
    Ok(report)
}

fn options(brokers: usize) -> LabOptions {
    LabOptions {
        brokers,
        balancer: false,
        health: false,
        settings: SETTINGS.to_owned(),
        ..LabOptions::default()
    }
}

fn topic(n: u32) -> String {
    format!("site/{}/device/{n}/temperature", n % 1_000)
}

fn at(lab: &Lab, n: usize) -> SocketAddr {
    let brokers = lab.config().topology.brokers();
    brokers[n - 1].address
}

fn identity(name: &str) -> Identity {
    Identity {
        client_id: format!("bench-{name}"),
        login: None,
        keep_alive_s: 0,
    }
}

/// Publishes a retained message on each topic, at QoS 1, and waits until all are acknowledged.
async fn fill(address: SocketAddr, topics: u32) -> anyhow::Result<()> {
    let (mut connection, _) = Connection::open(address, &identity("filler")).await?;
    let (mut sent, mut acknowledged) = (0, 0);
    while acknowledged < topics {
        while sent < topics && sent < acknowledged + WINDOW {
            let mut publish = Publish::new(topic(sent), QoS::AtLeastOnce, format!("{sent:010}"), None);
            publish.pkid = (sent % 60_000) as u16 + 1;
            publish.retain = true;
            connection.queue(&Packet::Publish(publish))?;
            sent += 1;
        }
        connection.flush().await?;
        if let Packet::PubAck(_) = connection.receive().await? {
            acknowledged += 1;
        }
        while let Some(packet) = connection.take()? {
            acknowledged += u32::from(matches!(packet, Packet::PubAck(_)));
        }
    }
    Ok(())
}

/// What a broker tells, not older than this call.
async fn status(address: SocketAddr) -> anyhow::Result<Status> {
    let (mut connection, _) = Connection::open(address, &identity("status")).await?;
    connection.subscribe(&[RETAINED_TOPIC], QoS::AtMostOnce).await?;
    loop {
        if let Packet::Publish(message) = connection.receive().await?
            && !message.retain
        {
            return Ok(serde_json::from_slice(&message.payload)?);
        }
    }
}

/// Waits until a broker has all topics, is in sync, and agrees with the first one.
async fn has_all(lab: &Lab, n: usize, topics: u32) -> anyhow::Result<()> {
    let what = format!("broker{n} with {topics} retained messages");
    wait_until(&what, PATIENCE, async || {
        let first = status(at(lab, 1)).await?;
        let status = status(at(lab, n)).await?;
        let all = status.count == u64::from(topics) && status.digest == first.digest && status.in_sync;
        anyhow::ensure!(all, "{status:?}");
        anyhow::Ok(())
    })
    .await?;
    Ok(())
}

/// Makes the `n`th broker save its database and kills it, starts it again, and tells how long it took to answer.
async fn restart(lab: &Lab, n: usize) -> anyhow::Result<Duration> {
    let name = format!("broker{n}");
    let database = lab.state().join(&name).join("mosquitto.db");
    let before = std::time::SystemTime::now();
    lab.save(&name)?;
    // It takes the place of the old one when it is whole.
    wait_until("a saved database", PATIENCE, async || {
        let saved = std::fs::metadata(&database)?.modified()? >= before;
        saved
            .then_some(())
            .ok_or_else(|| std::io::Error::other("not yet"))
    })
    .await?;
    lab.kill(&name).await?;
    let begin = Instant::now();
    lab.restart(&name).await?;
    listens(at(lab, n)).await?;
    Ok(begin.elapsed())
}

async fn listens(address: SocketAddr) -> anyhow::Result<()> {
    wait_until("a broker that answers", PATIENCE, async || {
        Connection::open(address, &identity("hello")).await.map(drop)
    })
    .await?;
    Ok(())
}

fn memory_of(lab: &Lab, n: usize) -> Option<u64> {
    usage::memory_of(lab.pid(&format!("broker{n}"))?)
}

fn per_topic(empty: Option<u64>, full: Option<u64>, topics: u32) -> Option<f64> {
    Some((full? as f64 - empty? as f64) / f64::from(topics))
}

/// Asks a broker again and again whether it is there.
struct Pinger {
    longest: watch::Receiver<Duration>,
    task: JoinHandle<()>,
}

impl Pinger {
    async fn start(address: SocketAddr) -> anyhow::Result<Self> {
        let (mut connection, _) = Connection::open(address, &identity("pinger"))
            .await
            .context("a pinger connects")?;
        let (told, longest) = watch::channel(Duration::ZERO);
        let task = tokio::spawn(async move {
            loop {
                let begin = Instant::now();
                if connection.send(&Packet::PingReq(PingReq)).await.is_err() {
                    return;
                }
                while !matches!(connection.receive().await, Ok(Packet::PingResp(_)) | Err(_)) {}
                told.send_modify(|longest| *longest = (*longest).max(begin.elapsed()));
                tokio::time::sleep(PING_EVERY).await;
            }
        });
        Ok(Self { longest, task })
    }

    fn longest(&self) -> Duration {
        *self.longest.borrow()
    }

    /// Waits until the broker has answered what is asked after this call.
    async fn answered(&mut self) -> anyhow::Result<()> {
        self.longest.mark_unchanged();
        for _ in 0..2 {
            self.longest.changed().await.context("the broker answers")?;
        }
        Ok(())
    }
}

impl Drop for Pinger {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes =
            |bytes: Option<f64>| bytes.map_or("unknown".to_owned(), |bytes| format!("{bytes:.0} bytes"));
        let callbacks = self
            .longest_callback_ms
            .iter()
            .map(|(ms, what)| format!("{ms:.1} ms ({what})"));
        let callbacks: Vec<_> = callbacks.collect();
        writeln!(f, "{} retained topics like {}", self.topics, self.topic_example)?;
        writeln!(f, "filled, on all three                 {:>10.1} s", self.fill_s)?;
        writeln!(
            f,
            "memory for each topic                {:>10}",
            bytes(self.bytes_per_topic)
        )?;
        writeln!(
            f,
            "  on a stock broker                  {:>10}",
            bytes(self.bytes_per_topic_stock)
        )?;
        writeln!(
            f,
            "restarted with a database, answers   {:>10.1} s",
            self.restart_s
        )?;
        writeln!(
            f,
            "  a stock broker                     {:>10.1} s",
            self.restart_stock_s
        )?;
        writeln!(
            f,
            "  and is in sync                     {:>10.1} s",
            self.restart_in_sync_s
        )?;
        writeln!(
            f,
            "started with nothing, is in sync     {:>10.1} s",
            self.fresh_in_sync_s
        )?;
        writeln!(
            f,
            "  longest silence of its peers       {:>10.0} ms",
            self.silence_of_peers_ms
        )?;
        writeln!(
            f,
            "  and of itself                      {:>10.0} ms",
            self.silence_of_fresh_ms
        )?;
        writeln!(
            f,
            "  of a stock broker, at a subscription {:>8.0} ms",
            self.silence_of_stock_ms
        )?;
        write!(f, "longest callback of each plugin      {}", callbacks.join(", "))
    }
}
