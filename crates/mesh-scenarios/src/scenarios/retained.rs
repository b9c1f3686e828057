//! Retained messages are set, changed and cleared on every broker, also while one is away and comes back with an old
//! database or none, and while one hangs with a message of a client that has moved on. In the end all brokers retain the
//! same, and what was cleared stays away.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::{Fault, wait_until};
use mesh_model::BrokerId;
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::Publish;
use mesh_runtime::mqtt::{Connection, Packet};
use tokio::task::JoinSet;

use super::ground::Ground;
use super::{PATIENCE, Settings};
use crate::client::Client;
use crate::story::Story;

/// All topics are below this.
const PREFIX: &str = "scenario/retained";

/// For a broker that goes on to read what it has missed, and to tell the others.
const REGRET: Duration = Duration::from_secs(2);

/// How MQTT versions are called, for one after the other.
const VERSIONS: [&str; 2] = ["mqttv311", "mqttv5"];

/// Programs at a time.
const AT_A_TIME: usize = 16;

/// The value of each topic that has one.
type Values = BTreeMap<String, String>;

/// A topic to set (or, with `None`, to clear), and where.
type Change = (SocketAddr, String, Option<String>);

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    let each = if settings.long { 200 } else { 10 };
    let ground = Ground::enter(story, &settings).await?;
    let folder = tempfile::tempdir()?;
    let ids: Vec<BrokerId> = ground.ids().cloned().collect();
    let addresses: Vec<SocketAddr> = ground
        .network()
        .brokers()
        .iter()
        .map(|(_, address)| *address)
        .collect();
    let at = |place: usize| addresses[place % addresses.len()];
    let topic = |place: usize, number: usize| format!("{PREFIX}/{place}/{number}");
    let places = || (0..ids.len()).flat_map(|place| (0..each).map(move |number| (place, number)));
    let mut values = Values::new();

    let all =
        places().map(|(place, number)| (at(place), topic(place, number), Some(format!("first {number}"))));
    set(&ground, &mut values, all.collect()).await?;
    same(story, &ground, &values, "what is set on each broker is on all").await;

    let all = places().map(|(place, number)| {
        (
            at(place + 1),
            topic(place, number),
            Some(format!("second {number}")),
        )
    });
    set(&ground, &mut values, all.collect()).await?;
    same(
        story,
        &ground,
        &values,
        "what is changed on another broker is changed on all",
    )
    .await;

    let odd = || places().filter(|(_, number)| number % 2 == 1);
    set(
        &ground,
        &mut values,
        odd()
            .map(|(place, number)| (at(place + 2), topic(place, number), None))
            .collect(),
    )
    .await?;
    same(
        story,
        &ground,
        &values,
        "what is cleared on a third broker is cleared on all",
    )
    .await;

    away(story, &ground, &ids, &mut values, each, folder.path()).await?;
    empty(story, &ground, &ids, &values).await?;
    moved(story, &ground, &mut values).await?;
    ground.leave().await
}

/// The last broker dies with a database of which much is changed and cleared meanwhile, and comes back with it.
async fn away(
    story: &mut Story,
    ground: &Ground,
    ids: &[BrokerId],
    values: &mut Values,
    each: usize,
    folder: &Path,
) -> anyhow::Result<()> {
    let last = ids.last().context("a broker")?;
    story.say(format_args!(
        "{last} saves its state and is killed; meanwhile much changes"
    ));
    ground.save(last).await?;
    ground.kill(last).await?;
    let mut changes: Vec<Change> = Vec::new();
    for (place, id) in ids[..ids.len() - 1].iter().enumerate() {
        let at = ground.broker(id)?;
        changes.push((
            at,
            format!("{PREFIX}/{place}/0"),
            Some("changed meanwhile".to_owned()),
        ));
        changes.push((at, format!("{PREFIX}/new/{place}"), Some("new".to_owned())));
        let cleared = (2..each)
            .step_by(4)
            .map(|number| (at, format!("{PREFIX}/{place}/{number}"), None));
        changes.extend(cleared);
    }
    set(ground, values, changes).await?;

    let mut witnesses = Vec::new();
    for version in VERSIONS {
        let mut command = ground.mosquitto("mosquitto_sub", ground.broker(&ids[0])?, version)?;
        // What is published now, not what was kept before.
        command.args(["-q", "1", "-R", "-t", &format!("{PREFIX}/#"), "-F", "%t %p"]);
        witnesses.push(Client::start(command, folder, &format!("witness-{version}"))?);
    }
    // They are subscribed when they see something.
    let probe = format!("{PREFIX}/probe");
    let seen = wait_until("two subscriptions", PATIENCE, async || {
        let mut publish = ground.mosquitto("mosquitto_pub", ground.broker(&ids[0])?, VERSIONS[1])?;
        publish.args(["-t", &probe, "-m", "x"]).status().await?;
        anyhow::ensure!(
            witnesses.iter().all(|witness| witness.count() > 0),
            "nothing came yet"
        );
        anyhow::Ok(())
    });
    seen.await?;

    ground.restart(last).await?;
    same(
        story,
        ground,
        values,
        "a broker that returns with an old database has what all have",
    )
    .await;
    let shown: Vec<String> = witnesses
        .iter()
        .flat_map(Client::lines)
        .map(|(_, line)| line)
        .filter(|line| !line.starts_with(&probe))
        .collect();
    story.check(
        "nobody is shown an old value when it returns",
        shown.is_empty(),
        shown.join("; "),
    );
    Ok(())
}

/// A broker comes back with nothing at all.
async fn empty(story: &mut Story, ground: &Ground, ids: &[BrokerId], values: &Values) -> anyhow::Result<()> {
    let one = &ids[ids.len() / 2];
    story.say(format_args!("{one} dies, and its files are lost"));
    ground.kill(one).await?;
    ground.lose_files(one).await?;
    ground.restart(one).await?;
    same(
        story,
        ground,
        values,
        "a broker that returns with nothing has what all have",
    )
    .await;
    Ok(())
}

/// The primary hangs with a message of a client that moves on and sets the same topic anew. When it goes on, it must
/// not take the old message for the newest.
async fn moved(story: &mut Story, ground: &Ground, values: &mut Values) -> anyhow::Result<()> {
    let network = ground.network();
    let primary = network.status().await?.primary;
    story.say(format_args!(
        "the primary, {primary}, hangs with a message that its client replaces elsewhere"
    ));
    let topic = format!("{PREFIX}/moved");
    let identity = ground.identity("scenario-moves");
    let message = |value: &str| {
        let mut publish = Publish::new(topic.as_str(), QoS::AtLeastOnce, value.to_owned(), None);
        publish.pkid = 1;
        publish.retain = true;
        Packet::Publish(publish)
    };
    let (mut connection, _) = Connection::open(network.balancer(), &identity).await?;
    let process = primary.to_string();
    network.fault(&Fault::Hang { process }).await?;
    connection.send(&message("old")).await?;
    let moved = wait_until("another primary", PATIENCE, async || {
        let now = network.status().await?.primary;
        anyhow::ensure!(now != primary, "{primary} still is");
        anyhow::Ok(())
    });
    moved.await?;
    drop(connection);
    let acknowledged = wait_until("an acknowledgement elsewhere", PATIENCE, async || {
        let (mut connection, _) = Connection::open(network.balancer(), &identity).await?;
        connection.send(&message("new")).await?;
        while !matches!(connection.receive().await?, Packet::PubAck(_)) {}
        anyhow::Ok(())
    });
    acknowledged.await?;
    let process = primary.to_string();
    network.fault(&Fault::Resume { process }).await?;
    let answers = wait_until("it answers", PATIENCE, async || {
        let (mut connection, _) = Connection::open(ground.broker(&primary)?, &identity).await?;
        connection
            .subscribe(&["$SYS/broker/uptime"], QoS::AtMostOnce)
            .await?;
        anyhow::Ok(())
    });
    answers.await?;
    // It must have had the time to do it wrong.
    tokio::time::sleep(REGRET).await;
    let kept = read(ground, ground.broker(&primary)?).await?.remove(&topic);
    story.check(
        "what a client has set elsewhere is not replaced by what it had sent to a broker that hung",
        kept.as_deref() == Some("new"),
        format!("{primary} retains {kept:?} instead of \"new\""),
    );
    // Whatever won, it must have won everywhere.
    values.extend(kept.map(|kept| (topic, kept)));
    same(story, ground, values, "all brokers agree after that").await;
    Ok(())
}

/// Makes the changes, with one program each, in both versions.
async fn set(ground: &Ground, values: &mut Values, changes: Vec<Change>) -> anyhow::Result<()> {
    let mut running = JoinSet::new();
    for (place, (address, topic, value)) in changes.into_iter().enumerate() {
        match &value {
            Some(value) => values.insert(topic.clone(), value.clone()),
            None => values.remove(&topic),
        };
        let mut command = ground.mosquitto("mosquitto_pub", address, VERSIONS[place % VERSIONS.len()])?;
        command.args(["-q", "1", "-r", "-t", &topic]).kill_on_drop(true);
        match value {
            Some(value) => command.args(["-m", &value]),
            None => command.arg("-n"),
        };
        if running.len() >= AT_A_TIME {
            ended(running.join_next().await)?;
        }
        running.spawn(async move { command.status().await });
    }
    while let Some(end) = running.join_next().await {
        ended(Some(end))?;
    }
    Ok(())
}

type Ended = Option<Result<std::io::Result<std::process::ExitStatus>, tokio::task::JoinError>>;

fn ended(end: Ended) -> anyhow::Result<()> {
    let status = end.context("a program")???;
    anyhow::ensure!(status.success(), "mosquitto_pub: {status}");
    Ok(())
}

/// Checks that every broker retains exactly `values`.
async fn same(story: &mut Story, ground: &Ground, values: &Values, what: &str) {
    let mut found = Ok(());
    for id in ground.ids() {
        let wait = wait_until("the same retained messages", PATIENCE, async || {
            let kept = read(ground, ground.broker(id)?).await?;
            let wrong = values
                .iter()
                .find(|(topic, value)| kept.get(*topic) != Some(value));
            if let Some((topic, value)) = wrong {
                anyhow::bail!("{id} has {:?} at {topic} instead of {value:?}", kept.get(topic));
            }
            let more: Vec<&String> = kept.keys().filter(|topic| !values.contains_key(*topic)).collect();
            anyhow::ensure!(more.is_empty(), "{id} still has {more:?}");
            Ok(())
        });
        found = found.and(wait.await);
    }
    let count = format!("{what} ({} topics)", values.len());
    story.check(
        count,
        found.is_ok(),
        found.err().map_or_else(String::new, |error| error.to_string()),
    );
}

/// What a broker retains, as `mosquitto_sub` shows it.
async fn read(ground: &Ground, address: SocketAddr) -> anyhow::Result<Values> {
    let mut command = ground.mosquitto("mosquitto_sub", address, VERSIONS[1])?;
    // It ends after a second: whatever is kept is there long before.
    command.args([
        "-q",
        "1",
        "-W",
        "1",
        "--retained-only",
        "-t",
        &format!("{PREFIX}/#"),
        "-F",
        "%t %p",
    ]);
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await?;
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter_map(|line| line.split_once(' '));
    Ok(lines
        .map(|(topic, value)| (topic.to_owned(), value.to_owned()))
        .collect())
}
