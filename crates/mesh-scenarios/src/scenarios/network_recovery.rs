//! The network between brokers fails in all its ways while clients publish on every broker: between two, one way, into
//! two halves, with losses, too slow. Once it is well again everything has come to everyone, once; what is above the
//! bound of what is kept for a peer is counted, and said.

use std::time::Duration;

use anyhow::Context;
use mesh_chaos::{Fleet, FleetOptions, Network, retained_differs};
use mesh_lab::load::{Pace, Publication, Publisher, Subscriber};
use mesh_lab::{Fault, Lab, LabOptions, wait_until};
use mesh_model::BrokerId;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, Packet};
use tokio::time::{Instant, sleep};

use super::ground::Ground;
use super::{PATIENCE, Settings};
use crate::story::Story;

/// Two on each broker.
const PUBLISHERS: usize = 10;

/// Messages a second of each.
const RATE: f64 = 20.0;

/// Of a hundred packets so many are dropped.
const LOSS: u8 = 20;

/// Of a slow link: less than the messages need, most of the time.
const SLOW_KBIT: u32 = 128;

/// Of messages that a broker keeps for a peer that is away, where the bound is to be exceeded.
const BOUND: u32 = 1000;

/// Far more than that.
const ABOVE: u32 = 5000;

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    // A link notices by its keepalive, after 5 s and half of that again: some are shorter than that, some longer.
    let (short, long) = match settings.long {
        true => (Duration::from_secs(5), Duration::from_secs(120)),
        false => (Duration::from_secs(3), Duration::from_secs(9)),
    };
    let ground = Ground::enter(story, &settings).await?;
    let network = ground.network();
    anyhow::ensure!(
        network.can_cut(),
        "not every broker's machine has nftables; on each: apt install nftables"
    );
    let ids: Vec<BrokerId> = ground.ids().cloned().collect();
    let options = FleetOptions {
        clients: network.brokers().iter().map(|(_, address)| *address).collect(),
        witnesses: network
            .brokers()
            .iter()
            .map(|(id, at)| (id.to_string(), *at))
            .collect(),
        publishers: PUBLISHERS,
        subscribers: true,
        rate: RATE,
        login: network.login().clone(),
    };
    let fleet = Fleet::start(&options, PATIENCE).await?;
    story.say(format_args!(
        "{PUBLISHERS} publishers, two on each broker, each {RATE} messages a second"
    ));

    let cut = |one: usize, other: usize| Fault::Cut {
        broker: ids[one].clone(),
        from: Some(ids[other].clone()),
    };
    let way = Fault::CutWay {
        broker: ids[2].clone(),
        from: ids[0].clone(),
    };
    let (minority, majority) = (0..2, 2..ids.len());
    let halves: Vec<Fault> = minority
        .flat_map(|one| majority.clone().map(move |other| (one, other)))
        .map(|(one, other)| cut(one, other))
        .collect();
    let alone = (0..ids.len() - 1)
        .map(|other| cut(ids.len() - 1, other))
        .collect();
    let loss = Fault::Loss {
        broker: ids[1].clone(),
        percent: LOSS,
    };
    let slow = Fault::Slow {
        broker: ids[3].clone(),
        kbit: SLOW_KBIT,
    };
    let troubles = [
        ("two brokers do not reach each other", vec![cut(0, 1)], short),
        (
            "two brokers do not reach each other for longer",
            vec![cut(0, 1)],
            long,
        ),
        ("what one broker sends does not reach another", vec![way], long),
        ("the mesh is in two parts, two and three brokers", halves, long),
        ("a broker reaches no other", alone, long),
        ("a broker loses 20 % of its packets", vec![loss], long),
        ("a broker's cable is slow", vec![slow], long),
    ];
    for (what, faults, lasts) in troubles {
        story.say(format_args!("{what}, for {lasts:?}"));
        for fault in &faults {
            network.fault(fault).await?;
        }
        sleep(lasts).await;
        for id in &ids {
            let heal = Fault::Heal {
                broker: id.clone(),
                from: None,
            };
            network.fault(&heal).await?;
        }
        let begin = Instant::now();
        // Not what was published just now: that is always on its way.
        let caught_up = wait_until("all that was owed", PATIENCE, async || {
            match fleet.book().pages().ledger.outstanding() {
                0 => Ok(()),
                count => Err(format!("{count} messages have not come to everyone")),
            }
        });
        let caught_up = caught_up.await;
        story.check(
            format!("{what}: afterwards everyone has everything"),
            caught_up.is_ok(),
            caught_up
                .as_ref()
                .err()
                .map_or_else(String::new, ToString::to_string),
        );
        story.time(format!("{what}: everyone has everything after"), begin.elapsed());
    }
    fleet.settle(PATIENCE).await;
    let differs = retained_differs(network, &fleet, PUBLISHERS, PATIENCE).await;
    story.check(
        "all brokers retain the same",
        differs.is_none(),
        differs.unwrap_or_default(),
    );
    {
        let pages = fleet.book().pages();
        let (messages, broken) = (pages.ledger.tally(), pages.ledger.broken().join("; "));
        let about = |what: &str| format!("{what} of {} messages", messages.acknowledged);
        story.check(
            about("none lost"),
            messages.lost == 0,
            format_args!("{}: {broken}", messages.lost),
        );
        story.check(
            about("none twice"),
            messages.doubled == 0 && messages.twice.is_empty(),
            format_args!(
                "{} without a cause, {:?}: {broken}",
                messages.doubled, messages.twice
            ),
        );
        story.check(
            about("all acknowledged"),
            messages.sent == messages.acknowledged,
            messages.sent,
        );
    }
    drop(fleet);
    ground.leave().await?;
    if settings.deployed.is_some() {
        story.say("skipped: what is above the bound, since that would need brokers with a lower one (mosquitto.replay_messages)");
        return Ok(());
    }
    above_the_bound(story, settings).await
}

/// Two brokers do not reach each other while more is published than one keeps for the other.
async fn above_the_bound(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    story.say(format_args!(
        "two brokers that keep {BOUND} messages for each other are cut off while {ABOVE} are published"
    ));
    let lab = Lab::start(LabOptions {
        net: settings.net,
        brokers: 2,
        settings: format!("[mosquitto]\nreplay_messages = {BOUND}\n"),
        ..LabOptions::default()
    });
    let lab = lab.await?;
    let network = Network::of(&lab);
    let [(one, here), (other, there)] = network.brokers() else {
        anyhow::bail!("there are not two brokers");
    };
    let mut subscriber =
        Subscriber::start(*there, "scenario-reader", "scenario/bound", QoS::AtLeastOnce).await?;
    let log = || std::fs::read_to_string(lab.log_dir(one.as_str()).join("mosquitto.log"));
    let before = log()?.len();
    lab.cut(one, Some(other)).await?;
    // Until a link notices by its keepalive, messages wait in Mosquitto's own queue, which has another bound.
    let end = format!(": Client mesh.link.{one}.{other} ");
    let noticed = wait_until("the end of the link", PATIENCE, async || {
        let log = log()?;
        let new = log.get(before..).unwrap_or_default();
        anyhow::ensure!(new.contains(&end), "{one} believes that {other} is there");
        anyhow::Ok(())
    });
    noticed.await?;
    let mut publisher = Publisher::connect(*here, "scenario-writer").await?;
    publisher
        .run(&Publication {
            topic: "scenario/bound".to_owned(),
            qos: QoS::AtLeastOnce,
            payload: 64,
            retain: false,
            messages: ABOVE,
            pace: Pace::Window(50),
        })
        .await?;
    lab.heal(one, None).await?;
    subscriber.wait_for(BOUND.into(), PATIENCE).await;
    subscriber
        .wait_for_silence(Duration::from_secs(2), PATIENCE)
        .await;
    let received = subscriber.finish().await;
    let missing = received.missing(ABOVE).len() as u64;
    let told = counter(*here, &format!("$SYS/broker/mesh/link/{other}/lost")).await?;
    story.figure(
        "above the bound: messages missing elsewhere",
        missing as f64,
        "messages",
    );
    story.check(
        "what is kept is replayed, and no more is lost than must be",
        missing == u64::from(ABOVE - BOUND),
        format_args!("{missing} of {ABOVE} are missing with a bound of {BOUND}"),
    );
    story.check(
        "nothing comes twice or out of order",
        received.duplicates() == 0 && received.out_of_order == 0,
        format_args!(
            "{} twice, {} out of order",
            received.duplicates(),
            received.out_of_order
        ),
    );
    story.check(
        "what is lost is counted",
        told == missing,
        format_args!("the counter says {told}, and {missing} are missing"),
    );
    let log = log()?;
    let said = format!("{missing} are lost to it");
    story.check(
        "what is lost is said in the broker's log",
        log.contains(&said),
        format_args!("no line has {said:?}"),
    );
    Ok(lab.stop().await?)
}

/// The next value of a counter at a broker.
async fn counter(address: std::net::SocketAddr, topic: &str) -> anyhow::Result<u64> {
    let identity = Identity {
        client_id: "scenario-counter".to_owned(),
        login: None,
        keep_alive_s: 0,
    };
    let (mut connection, _) = Connection::open(address, &identity).await?;
    connection.subscribe(&[topic], QoS::AtMostOnce).await?;
    let fresh = async {
        loop {
            if let Packet::Publish(publish) = connection.receive().await?
                && !publish.retain
            {
                return anyhow::Ok(std::str::from_utf8(&publish.payload)?.parse()?);
            }
        }
    };
    tokio::time::timeout(PATIENCE, fresh)
        .await
        .context("the counter does not come")?
}
