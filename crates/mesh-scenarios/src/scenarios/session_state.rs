//! What a broker keeps for a client that is away, with its subscriptions and its queued messages: over a clean restart
//! everything; over `kill -9` what was saved by then, for each way to save, with its price; over a failover nothing.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::load::{Pace, Publication, Publisher};
use mesh_lab::{Lab, LabOptions, wait_until};
use mesh_model::BrokerId;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{
    Connect, ConnectProperties, PingReq, PubAck, PubComp, PubRec, PubRel, Publish,
};
use mesh_runtime::mqtt::{Connection, MqttError, Packet};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{PATIENCE, Settings, network};
use crate::story::Story;

const TOPIC: &str = "scenario/session";

/// Nothing more comes when nothing has come for so long.
const SILENCE: Duration = Duration::from_secs(1);

/// Messages a second before a broker is killed, and for how long.
const RATE: f64 = 500.0;
const BEFORE_DEATH: Duration = Duration::from_secs(4);

/// A broker's own state while stalls are measured: so many retained messages of so many bytes, 20 MB.
const RETAINED: (u32, usize) = (2000, 10_000);

/// When and how often a broker saves its state.
struct Saving {
    name: &'static str,
    /// Mosquitto's `autosave_interval`.
    interval: u32,
    /// Mosquitto's `autosave_on_changes`: the interval is a number of changes then.
    on_changes: bool,
    /// Whether it is in the short form too.
    in_short: bool,
}

const fn every(name: &'static str, interval: u32, in_short: bool) -> Saving {
    Saving {
        name,
        interval,
        on_changes: false,
        in_short,
    }
}

const WAYS: [Saving; 6] = [
    every("every 30 min, Mosquitto's own default", 1800, false),
    every("every 60 s, the default here", 60, true),
    every("every 10 s", 10, false),
    every("every second", 1, true),
    Saving {
        name: "at every 100th change",
        interval: 100,
        on_changes: true,
        in_short: true,
    },
    Saving {
        name: "at every change",
        interval: 1,
        on_changes: true,
        in_short: false,
    },
];

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    clean_restart(story).await?;
    let folder = tempfile::tempdir()?;
    let mut losses = Vec::new();
    let is_told = |way: &&Saving| settings.long || way.in_short;
    for way in WAYS.iter().filter(is_told) {
        let lab = single(way, folder.path()).await?;
        let row = measure(&lab, way).await;
        lab.discard();
        let (acknowledged, lost, per_s, stall) = row.with_context(|| way.name.to_owned())?;
        let name = way.name;
        story.figure(
            format!("{name}: lost by kill -9, of {acknowledged} acknowledged"),
            lost as f64,
            "messages",
        );
        story.figure(format!("{name}: speed"), per_s.round(), "messages/s");
        story.time(format!("{name}: longest silence with 20 MB retained"), stall);
        losses.push((way, lost));
    }
    for (way, lost) in losses.iter().filter(|(way, _)| way.on_changes) {
        story.check(
            format!("saved {}, no more than so many changes are lost", way.name),
            // And what comes within one turn of the broker's loop.
            *lost <= way.interval as usize + 10,
            format_args!("{lost} are"),
        );
    }
    let rare = losses
        .iter()
        .find(|(way, _)| way.interval == 60)
        .map(|(_, lost)| *lost);
    story.check(
        "what was not saved is lost: else this would measure nothing",
        rare.is_some_and(|lost| lost > 1000),
        format_args!("with a save every minute {rare:?} are"),
    );
    failover(story, settings).await
}

/// One broker that saves in this way.
async fn single(way: &Saving, folder: &Path) -> anyhow::Result<Lab> {
    let extra = folder.join(format!("{}-{}", way.interval, way.on_changes));
    std::fs::create_dir_all(&extra)?;
    std::fs::write(
        extra.join("saving.conf"),
        format!("autosave_on_changes {}\n", way.on_changes),
    )?;
    let lab = Lab::start(LabOptions {
        brokers: 1,
        balancer: false,
        health: false,
        settings: format!(
            "[mosquitto]\nautosave_interval = \"{}s\"\nextra_dir = \"{}\"\n",
            way.interval,
            extra.display()
        ),
        ..LabOptions::default()
    });
    Ok(lab.await?)
}

async fn clean_restart(story: &mut Story) -> anyhow::Result<()> {
    story.say("one broker; a client with a session is away while messages come, and the broker is restarted in order");
    let folder = tempfile::tempdir()?;
    let lab = single(&WAYS[0], folder.path()).await?;
    let (id, at) = first(&lab)?;
    subscribe(at).await?;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut publisher = Publisher::connect(at, "scenario-writer").await?;
        publisher.run(&publication(qos, 1000, Pace::Window(50))).await?;
    }
    lab.halt(id.as_str()).await?;
    lab.restart(id.as_str()).await?;
    let session = collect(at).await?;
    story.check("its session is there", session.is_known, "it is not");
    let (once, exactly) = (session.numbers[0].len(), session.numbers[1].len());
    story.check(
        "of 1000 messages with QoS 1 none is lost",
        once == 1000,
        format_args!("{once} came"),
    );
    story.check(
        "of 1000 messages with QoS 2 none is lost and none comes twice",
        (exactly, session.twice) == (1000, 0),
        format_args!("{exactly} came, {} twice", session.twice),
    );
    publish_one(at).await?;
    let again = collect(at).await?;
    story.check(
        "its subscription is there",
        again.is_known && again.numbers[0].len() == 1,
        "nothing more came",
    );
    Ok(lab.stop().await?)
}

/// Acknowledged messages, those of them that `kill -9` took, speed, and the longest silence.
async fn measure(lab: &Lab, way: &Saving) -> anyhow::Result<(usize, usize, f64, Duration)> {
    let (id, at) = first(lab)?;
    subscribe(at).await?;
    // Where each message is a save, that is a save of all that were queued before.
    let count = if way.on_changes && way.interval == 1 {
        1000
    } else {
        20_000
    };
    let mut publisher = Publisher::connect(at, "scenario-fast").await?;
    let begin = Instant::now();
    publisher
        .run(&publication(QoS::AtLeastOnce, count, Pace::Window(100)))
        .await?;
    let per_s = f64::from(count) / begin.elapsed().as_secs_f64();
    collect(at).await?;

    let seconds = BEFORE_DEATH.as_secs_f64();
    let mut publisher = Publisher::connect(at, "scenario-doomed").await?;
    let doomed = tokio::spawn(async move {
        // More than fits into the time: its broker dies under it.
        let all = (2.0 * seconds * RATE) as u32;
        publisher
            .run(&publication(QoS::AtLeastOnce, all, Pace::PerSecond(RATE)))
            .await
            .ok();
        publisher.acknowledged().to_vec()
    });
    sleep(BEFORE_DEATH).await;
    lab.kill(id.as_str()).await?;
    let acknowledged = doomed.await?;
    lab.restart(id.as_str()).await?;
    let session = collect(at).await?;
    let numbers = (0_u32..)
        .zip(&acknowledged)
        .filter(|(_, acknowledged)| **acknowledged);
    let (mut all, mut lost) = (0, 0);
    for (number, _) in numbers {
        all += 1;
        lost += usize::from(!session.numbers[0].contains(&number));
    }
    let stall = stall(lab, id, at).await?;
    Ok((all, lost, per_s, stall))
}

/// The longest that the broker says nothing while it has much to save, and messages come.
async fn stall(lab: &Lab, id: &BrokerId, at: SocketAddr) -> anyhow::Result<Duration> {
    let (mut filler, _) = dial(at, "scenario-filler", true).await?;
    for number in 0..RETAINED.0 {
        let mut publish = Publish::new(
            format!("{TOPIC}/fill/{number}"),
            QoS::AtMostOnce,
            vec![b'x'; RETAINED.1],
            None,
        );
        publish.retain = true;
        filler.queue(&Packet::Publish(publish))?;
        // A buffer of moderate size.
        if number % 50 == 0 {
            filler.flush().await?;
        }
    }
    ping(&mut filler).await?;
    let mut publisher = Publisher::connect(at, "scenario-steady").await?;
    let steady = tokio::spawn(async move {
        publisher
            .run(&publication(QoS::AtLeastOnce, 300, Pace::PerSecond(100.0)))
            .await
    });
    sleep(Duration::from_millis(500)).await;
    // One save at least is in what is measured, however rare they are.
    lab.save(id.as_str())?;
    let mut longest = Duration::ZERO;
    while !steady.is_finished() {
        longest = longest.max(ping(&mut filler).await?);
        sleep(Duration::from_millis(5)).await;
    }
    steady.await??;
    Ok(longest)
}

async fn ping(connection: &mut Connection) -> anyhow::Result<Duration> {
    let begin = Instant::now();
    connection.send(&Packet::PingReq(PingReq)).await?;
    let answer = async {
        while !matches!(connection.receive().await?, Packet::PingResp(_)) {}
        Ok::<_, MqttError>(())
    };
    timeout(PATIENCE, answer)
        .await
        .context("the broker does not answer")??;
    Ok(begin.elapsed())
}

/// A session that is away while its broker dies for good.
async fn failover(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    let lab = network(story, &settings).await?;
    let primary = lab.config().topology.ids().next().context("a broker")?.clone();
    story.say("a client with a session is away while messages come, and its broker is killed");
    let at = lab.balancer();
    subscribe(at).await?;
    let mut publisher = Publisher::connect(at, "scenario-writer").await?;
    publisher
        .run(&publication(QoS::AtLeastOnce, 500, Pace::Window(50)))
        .await?;
    lab.kill(primary.as_str()).await?;
    let served = wait_until("service by another broker", PATIENCE, async || {
        collect(at).await.map_err(|error| error.to_string())
    });
    let session = served.await?;
    story.check(
        "the next broker does not know the session, and says so",
        !session.is_known,
        "it says that it does",
    );
    let lost = 500 - session.numbers[0].len();
    story.figure(
        "queued messages lost to a failover, of 500",
        lost as f64,
        "messages",
    );
    subscribe(at).await?;
    publish_one(at).await?;
    let again = collect(at).await?;
    story.check(
        "a client that subscribes again gets what comes from then on, also while it is away",
        again.is_known && again.numbers[0].len() == 1,
        format_args!("it gets {} of 1", again.numbers[0].len()),
    );
    lab.restart(primary.as_str()).await?;
    let back = collect(lab.broker(&primary)).await?;
    let old = back.numbers[0].len();
    story.figure(
        "of those 500 found at the dead broker when it is back",
        old as f64,
        "messages",
    );
    Ok(lab.stop().await?)
}

fn first(lab: &Lab) -> anyhow::Result<(&BrokerId, SocketAddr)> {
    let id = lab.config().topology.ids().next().context("a broker")?;
    Ok((id, lab.broker(id)))
}

fn publication(qos: QoS, messages: u32, pace: Pace) -> Publication {
    Publication {
        topic: format!("{TOPIC}/{}", qos as u8),
        qos,
        payload: 64,
        retain: false,
        messages,
        pace,
    }
}

async fn publish_one(at: SocketAddr) -> anyhow::Result<()> {
    let mut publisher = Publisher::connect(at, "scenario-one").await?;
    Ok(publisher
        .run(&publication(QoS::AtLeastOnce, 1, Pace::Window(1)))
        .await?)
}

/// Opens the session, or with `is_clean` one that ends with its connection.
async fn dial(at: SocketAddr, client_id: &str, is_clean: bool) -> anyhow::Result<(Connection, bool)> {
    let properties = ConnectProperties {
        session_expiry_interval: (!is_clean).then_some(3600),
        ..ConnectProperties::new()
    };
    let connect = Connect {
        keep_alive: 0,
        client_id: client_id.to_owned(),
        clean_start: is_clean,
        properties: Some(properties),
    };
    let open = async {
        let stream = TcpStream::connect(at).await?;
        Connection::start_as(stream, Packet::Connect(connect, None, None)).await
    };
    let (connection, ack) = timeout(Duration::from_secs(5), open)
        .await
        .context("no CONNACK")??;
    Ok((connection, ack.session_present))
}

const READER: &str = "scenario-reader";

/// Makes the session and its subscription, and goes away.
async fn subscribe(at: SocketAddr) -> anyhow::Result<()> {
    let (mut connection, _) = dial(at, READER, false).await?;
    connection
        .subscribe(&[&format!("{TOPIC}/+")], QoS::ExactlyOnce)
        .await?;
    Ok(())
}

/// What a session held.
struct Held {
    is_known: bool,
    /// The numbers of the messages with QoS 1, and with QoS 2.
    numbers: [BTreeSet<u32>; 2],
    twice: usize,
}

/// Takes the session up, and all that comes until nothing does, and goes away.
async fn collect(at: SocketAddr) -> anyhow::Result<Held> {
    let (mut connection, is_known) = dial(at, READER, false).await?;
    let mut held = Held {
        is_known,
        numbers: Default::default(),
        twice: 0,
    };
    while let Ok(packet) = timeout(SILENCE, connection.receive()).await {
        match packet? {
            Packet::Publish(publish) => {
                let number = publish.payload.get(..4).and_then(|bytes| bytes.try_into().ok());
                let number = number.map(u32::from_be_bytes).context("a number")?;
                let place = usize::from(publish.qos == QoS::ExactlyOnce);
                held.twice += usize::from(!held.numbers[place].insert(number));
                let answer = match publish.qos {
                    QoS::ExactlyOnce => Packet::PubRec(PubRec::new(publish.pkid, None)),
                    _ => Packet::PubAck(PubAck::new(publish.pkid, None)),
                };
                connection.send(&answer).await?;
            }
            Packet::PubRel(PubRel { pkid, .. }) => {
                connection
                    .send(&Packet::PubComp(PubComp::new(pkid, None)))
                    .await?;
            }
            _ => {}
        }
    }
    Ok(held)
}
