//! What a broker keeps for a client that is away, with its subscriptions and its queued messages: over a clean restart
//! everything; over `kill -9` what was saved by then, for each way to save, with its price; over a failover nothing.

use std::collections::BTreeSet;
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
use mesh_runtime::mqtt::{Connection, Identity, MqttError, Packet, Version};
use tokio::time::{Instant, sleep, timeout};

use super::ground::{Door, Ground};
use super::{PATIENCE, Settings};
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
    if settings.deployed.is_some() {
        return deployed(story, &settings).await;
    }
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
    let ground = Ground::enter(story, &settings).await?;
    failover(story, &ground).await?;
    ground.leave().await
}

/// In a network that is deployed, whose brokers save as they are told to there.
async fn deployed(story: &mut Story, settings: &Settings) -> anyhow::Result<()> {
    let ground = Ground::enter(story, settings).await?;
    let primary = ground.primary().await?;
    let spare = ground
        .ids()
        .filter(|id| **id != primary)
        .last()
        .context("a second broker")?;
    let at = ground.door_at(ground.broker(spare)?);
    story.say(format_args!(
        "a client with a session at {spare} is away while messages come, and {spare} is restarted in order"
    ));
    let restart = async || {
        ground.halt(spare).await?;
        ground.restart(spare).await
    };
    over_a_clean_restart(story, &at, restart).await?;
    let every = ground.network().config().mosquitto.autosave_interval;
    story.say(format_args!(
        "the same, and {spare}, which saves every {every:?}, is killed"
    ));
    let (all, lost) = over_a_kill(
        &at,
        async || ground.kill(spare).await,
        async || ground.restart(spare).await,
    )
    .await?;
    story.figure(
        format!("saved every {every:?}: lost by kill -9, of {all} acknowledged"),
        lost as f64,
        "messages",
    );
    forget(&at).await?;
    story.say("skipped: the other ways to save, for each of which a broker would have to be configured anew");
    failover(story, &ground).await?;
    ground.leave().await
}

/// Ends the session.
async fn forget(at: &Door) -> anyhow::Result<()> {
    dial(at, READER, true).await.map(drop)
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
    let restart = async || {
        lab.halt(id.as_str()).await?;
        anyhow::Ok(lab.restart(id.as_str()).await?)
    };
    over_a_clean_restart(story, &at, restart).await?;
    Ok(lab.stop().await?)
}

async fn over_a_clean_restart(
    story: &mut Story,
    at: &Door,
    restart: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    subscribe(at).await?;
    for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
        let mut publisher = publisher(at, "scenario-writer").await?;
        publisher.run(&publication(qos, 1000, Pace::Window(50))).await?;
    }
    restart().await?;
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
    Ok(())
}

/// Acknowledged messages, those of them that `kill -9` took, speed, and the longest silence.
async fn measure(lab: &Lab, way: &Saving) -> anyhow::Result<(usize, usize, f64, Duration)> {
    let (id, at) = first(lab)?;
    subscribe(&at).await?;
    // Where each message is a save, that is a save of all that were queued before.
    let count = if way.on_changes && way.interval == 1 {
        1000
    } else {
        20_000
    };
    let mut publisher = publisher(&at, "scenario-fast").await?;
    let begin = Instant::now();
    publisher
        .run(&publication(QoS::AtLeastOnce, count, Pace::Window(100)))
        .await?;
    let per_s = f64::from(count) / begin.elapsed().as_secs_f64();
    collect(&at).await?;

    let (all, lost) = over_a_kill(
        &at,
        async || Ok(lab.kill(id.as_str()).await?),
        async || Ok(lab.restart(id.as_str()).await?),
    )
    .await?;
    let stall = stall(lab, id, &at).await?;
    Ok((all, lost, per_s, stall))
}

/// Messages that were acknowledged until the broker was killed, and how many of them a client that was away did not get
/// once it was back.
async fn over_a_kill(
    at: &Door,
    kill: impl AsyncFn() -> anyhow::Result<()>,
    restart: impl AsyncFn() -> anyhow::Result<()>,
) -> anyhow::Result<(usize, usize)> {
    let seconds = BEFORE_DEATH.as_secs_f64();
    let mut publisher = publisher(at, "scenario-doomed").await?;
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
    kill().await?;
    let acknowledged = doomed.await?;
    restart().await?;
    let session = collect(at).await?;
    let numbers = (0_u32..)
        .zip(&acknowledged)
        .filter(|(_, acknowledged)| **acknowledged);
    let (mut all, mut lost) = (0, 0);
    for (number, _) in numbers {
        all += 1;
        lost += usize::from(!session.numbers[0].contains(&number));
    }
    Ok((all, lost))
}

/// The longest that the broker says nothing while it has much to save, and messages come.
async fn stall(lab: &Lab, id: &BrokerId, at: &Door) -> anyhow::Result<Duration> {
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
    let mut publisher = publisher(at, "scenario-steady").await?;
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
async fn failover(story: &mut Story, ground: &Ground) -> anyhow::Result<()> {
    let primary = ground.primary().await?;
    story.say("a client with a session is away while messages come, and its broker is killed");
    let at = &ground.door();
    subscribe(at).await?;
    let mut publisher = publisher(at, "scenario-writer").await?;
    publisher
        .run(&publication(QoS::AtLeastOnce, 500, Pace::Window(50)))
        .await?;
    ground.kill(&primary).await?;
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
    ground.restart(&primary).await?;
    let dead = ground.door_at(ground.broker(&primary)?);
    let back = collect(&dead).await?;
    let old = back.numbers[0].len();
    story.figure(
        "of those 500 found at the dead broker when it is back",
        old as f64,
        "messages",
    );
    forget(at).await?;
    forget(&dead).await
}

fn first(lab: &Lab) -> anyhow::Result<(&BrokerId, Door)> {
    let id = lab.config().topology.ids().next().context("a broker")?;
    Ok((id, Door::open(lab.broker(id))))
}

async fn publisher(at: &Door, client_id: &str) -> anyhow::Result<Publisher> {
    let identity = Identity {
        client_id: client_id.to_owned(),
        login: at.login.clone(),
        keep_alive_s: 60,
    };
    Ok(Publisher::connect_as(at.address, &identity).await?)
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

async fn publish_one(at: &Door) -> anyhow::Result<()> {
    let mut publisher = publisher(at, "scenario-one").await?;
    Ok(publisher
        .run(&publication(QoS::AtLeastOnce, 1, Pace::Window(1)))
        .await?)
}

/// Opens the session, or with `is_clean` one that ends with its connection.
async fn dial(at: &Door, client_id: &str, is_clean: bool) -> anyhow::Result<(Connection, bool)> {
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
    let open = at.enter(Version::V5, connect, None);
    let (connection, ack) = timeout(Duration::from_secs(5), open)
        .await
        .context("no CONNACK")??;
    Ok((connection, ack.session_present))
}

const READER: &str = "scenario-reader";

/// Makes the session and its subscription, and goes away.
async fn subscribe(at: &Door) -> anyhow::Result<()> {
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
async fn collect(at: &Door) -> anyhow::Result<Held> {
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
