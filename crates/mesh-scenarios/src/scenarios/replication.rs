//! Each broker to all five, QoS 0, 1 and 2, MQTT 3.1.1 and 5: none missing, none twice, the order of each publisher kept.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use mesh_lab::wait_until;
use tokio::process::Command;

use super::ground::Ground;
use super::{PATIENCE, Settings};
use crate::client::{Client, Line};
use crate::story::Story;

/// Protocol versions, and the QoS with which a subscriber of that version subscribes.
///
/// Not 2 with version 5: a stock Mosquitto 2.0.11, alone, stops delivering to such a `mosquitto_sub` after some 20
/// messages when several clients publish with QoS 2 at once. It has nothing to do with the mesh.
const VERSIONS: [(&str, &str); 2] = [("mqttv311", "2"), ("mqttv5", "1")];

/// How long nothing must come for us to believe that nothing will.
const SILENCE: Duration = Duration::from_secs(1);

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    let all = if settings.long { 60_000 } else { 10_000 };
    let ground = Ground::enter(story, &settings).await?;
    let folder = tempfile::tempdir()?;
    let subscribers = subscribe(&ground, folder.path()).await?;
    let brokers = ground.ids().count();
    let each = all / brokers;
    story.say(format_args!(
        "{} subscribers, two on each broker",
        subscribers.len()
    ));
    for qos in 0..=2 {
        story.say(format_args!(
            "publishing {each} messages on each broker with QoS {qos}"
        ));
        let before: Vec<usize> = subscribers.iter().map(Client::count).collect();
        publish(&ground, folder.path(), qos, each).await?;
        // What is missing at the deadline is told below, in more words than a deadline has.
        arrive(&subscribers, &before, brokers * each).await.ok();
        quiet(&subscribers).await;
        let mut total = Account::default();
        for (subscriber, before) in subscribers.iter().zip(before) {
            let account = account(&subscriber.lines()[before..], brokers, qos, each);
            for lack in &account.lacks {
                story.say(format_args!("{} misses {lack}", subscriber.name()));
            }
            total.add(&account);
        }
        let Account {
            missing,
            twice,
            disordered,
            foreign,
            ..
        } = total;
        let deliveries = subscribers.len() * brokers * each;
        let about = |what: &str| format!("QoS {qos}: {what}, of {deliveries} deliveries");
        story.check(about("none missing"), missing == 0, format_args!("{missing} are"));
        story.check(about("none twice"), twice == 0, format_args!("{twice} are"));
        story.check(
            about("none out of order"),
            disordered == 0,
            format_args!("{disordered} are"),
        );
        story.check(about("none unknown"), foreign == 0, format_args!("{foreign} are"));
    }
    drop(subscribers);
    ground.leave().await
}

/// Two subscribers on each broker, one of each version, that have subscribed.
async fn subscribe(ground: &Ground, folder: &Path) -> anyhow::Result<Vec<Client>> {
    let mut subscribers = Vec::new();
    for id in ground.ids() {
        for (version, qos) in VERSIONS {
            let mut command = ground.mosquitto("mosquitto_sub", ground.broker(id)?, version)?;
            command.args(["-q", qos, "-t", "scenario/#", "-F", "%t %p"]);
            let subscriber = Client::start(command, folder, &format!("{id}-{version}"))?;
            let subscribed = wait_until("a subscription", PATIENCE, async || {
                let mut begin = ground.mosquitto("mosquitto_pub", ground.broker(id)?, version)?;
                begin.args(["-t", "scenario/begin", "-m", "x"]).status().await?;
                anyhow::ensure!(subscriber.count() > 0, "nothing came yet");
                anyhow::Ok(())
            });
            subscribed.await?;
            subscribers.push(subscriber);
        }
    }
    quiet(&subscribers).await;
    Ok(subscribers)
}

/// Publishes the numbers from 1 on every broker at once, on a topic for each.
async fn publish(ground: &Ground, folder: &Path, qos: usize, count: usize) -> anyhow::Result<()> {
    let path = folder.join("numbers");
    let mut file = std::fs::File::create(&path)?;
    let numbers: String = (1..=count).map(|number| format!("{number}\n")).collect();
    file.write_all(numbers.as_bytes())?;
    let mut publishers = Vec::new();
    for (place, id) in ground.ids().enumerate() {
        let (version, _) = VERSIONS[place % VERSIONS.len()];
        let mut command: Command = ground.mosquitto("mosquitto_pub", ground.broker(id)?, version)?;
        command.args([
            "-l",
            "-q",
            &qos.to_string(),
            "-t",
            &format!("scenario/{place}/{qos}"),
        ]);
        command
            .stdin(Stdio::from(std::fs::File::open(&path)?))
            .kill_on_drop(true);
        publishers.push((id, command.spawn().context("start mosquitto_pub")?));
    }
    for (id, mut publisher) in publishers {
        let ended = tokio::time::timeout(PATIENCE, publisher.wait()).await;
        let status = ended.with_context(|| format!("publishing on {id} takes above {PATIENCE:?}"))??;
        anyhow::ensure!(status.success(), "publishing on {id}: {status}");
    }
    Ok(())
}

async fn arrive(subscribers: &[Client], before: &[usize], count: usize) -> anyhow::Result<()> {
    let arrived = wait_until("all messages", PATIENCE, async || {
        let mut waiting = subscribers
            .iter()
            .zip(before)
            .filter(|(subscriber, before)| subscriber.count() < *before + count);
        match waiting.next() {
            None => Ok(()),
            Some((subscriber, before)) => Err(format!("{} of {count}", subscriber.count() - before)),
        }
    });
    Ok(arrived.await?)
}

/// Waits until nothing comes any more.
async fn quiet(subscribers: &[Client]) {
    let count = || subscribers.iter().map(Client::count).sum::<usize>();
    let mut last = None;
    while last != Some(count()) {
        last = Some(count());
        tokio::time::sleep(SILENCE).await;
    }
}

/// What is wrong with what a subscriber received.
#[derive(Debug, Default, PartialEq, Eq)]
struct Account {
    missing: usize,
    twice: usize,
    disordered: usize,
    foreign: usize,
    /// In words, what is missing of which publisher.
    lacks: Vec<String>,
}

impl Account {
    fn add(&mut self, other: &Self) {
        self.missing += other.missing;
        self.twice += other.twice;
        self.disordered += other.disordered;
        self.foreign += other.foreign;
    }
}

/// Compares what came with what was published: the numbers 1 to `each` from each of `publishers`.
fn account(lines: &[Line], publishers: usize, qos: usize, each: usize) -> Account {
    let mut account = Account::default();
    let topics = (0..publishers).map(|place| format!("scenario/{place}/{qos}"));
    let mut times: BTreeMap<String, (Vec<usize>, usize)> =
        topics.map(|topic| (topic, (vec![0; each + 1], 0))).collect();
    for (_, line) in lines {
        let parts = line.split_once(' ');
        let stream = parts.and_then(|(topic, number)| Some((times.get_mut(topic)?, number.parse().ok()?)));
        match stream {
            Some(((times, highest), number)) if (1..=each).contains(&number) => {
                times[number] += 1;
                account.disordered += usize::from(number < *highest);
                *highest = number.max(*highest);
            }
            _ => account.foreign += 1,
        }
    }
    for (topic, (times, _)) in &times {
        let lack: Vec<usize> = (1..=each).filter(|number| times[*number] == 0).collect();
        if let (Some(first), Some(last)) = (lack.first(), lack.last()) {
            account
                .lacks
                .push(format!("{} of {topic}, from {first} to {last}", lack.len()));
        }
        account.missing += lack.len();
        account.twice += times.iter().map(|times| times.saturating_sub(1)).sum::<usize>();
    }
    account
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> Account {
        let now = tokio::time::Instant::now();
        let lines: Vec<Line> = lines.iter().map(|line| (now, (*line).to_owned())).collect();
        account(&lines, 2, 1, 2)
    }

    #[test]
    fn whatever_is_wrong_is_counted() {
        let right = [
            "scenario/0/1 1",
            "scenario/1/1 1",
            "scenario/1/1 2",
            "scenario/0/1 2",
        ];
        assert_eq!(told(&right), Account::default());
        let wrong = [
            "scenario/0/1 2",
            "scenario/0/1 1",
            "scenario/0/1 1",
            "scenario/1/1 2",
            "scenario/1/1 3",
            "scenario/2/1 1",
            "scenario/0/0 1",
        ];
        let expected = Account {
            missing: 1,
            twice: 1,
            disordered: 2,
            foreign: 3,
            lacks: vec!["1 of scenario/1/1, from 1 to 1".to_owned()],
        };
        assert_eq!(told(&wrong), expected);
    }
}
