//! Clients of four libraries publish and subscribe through Nginx while two primaries die, one after the other. Each comes
//! back by its own means; how long that takes is theirs, not the mesh's, which serves again after milliseconds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use mesh_lab::{own_program, system_program, wait_until};
use mesh_model::BrokerId;
use tokio::process::Command;
use tokio::time::Instant;

use super::ground::Ground;
use super::{PATIENCE, Settings};
use crate::client::{Client, Feed, Line, longest_gap};
use crate::story::Story;

/// Messages a second, of each publisher.
const RATE: u32 = 20;

/// Messages after a fault that show that a client is back: two seconds' worth.
const BACK: usize = 40;

/// Whoever takes longer than that to come back does not come back by itself.
const LATEST: Duration = Duration::from_secs(30);

/// A library, and programs that use it.
struct Library {
    name: &'static str,
    publisher: Client,
    _feed: Option<Feed>,
    subscriber: Option<Client>,
    /// Whether its publisher promises that nothing is lost.
    keeps: bool,
}

/// So many primaries die.
const DEATHS: usize = 2;

/// Clients at a broker itself: one has what is published, the other publishes what is awaited. Their broker may die as any
/// other: who serves next need not be the next in order, if that one has failed lately.
struct Bystander {
    broker: BrokerId,
    witness: Client,
    _beat: Client,
    _feed: Feed,
}

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    let ground = Ground::enter(story, &settings).await?;
    let folder = tempfile::tempdir()?;
    let bystanders = bystanders(&ground, folder.path()).await?;
    let mut libraries = libraries(story, &ground, folder.path())?;
    story.say(format_args!(
        "{} libraries, each publishing {RATE} messages a second",
        libraries.len()
    ));
    let mut dead = Vec::new();
    back(&libraries, living(&bystanders, &dead)?, Instant::now()).await?;

    for _ in 0..DEATHS {
        let serving = wait_until("a primary that lives", PATIENCE, async || {
            let primary = ground.primary().await?;
            anyhow::ensure!(!dead.contains(&primary), "{primary} is dead");
            anyhow::Ok(primary)
        });
        let dies = serving.await?;
        story.say(format_args!("killing the primary, {dies}"));
        let fault = Instant::now();
        ground.kill(&dies).await?;
        dead.push(dies.clone());
        let witness = living(&bystanders, &dead)?;
        let returned = back(&libraries, witness, fault).await;
        story.check(
            format!("all are back within {LATEST:?} after {dies} died"),
            returned.is_ok(),
            returned.err().map_or_else(String::new, |error| error.to_string()),
        );
        for library in &libraries {
            let name = library.name;
            let gap = longest_gap(&times(&published(witness, name)), fault);
            story.time(format!("{name} publishes again after {dies} died"), gap);
            if let Some(subscriber) = &library.subscriber {
                let gap = longest_gap(&times(&subscriber.lines()), fault);
                story.time(format!("{name} receives again after {dies} died"), gap);
            }
        }
    }
    let witness = living(&bystanders, &dead)?;
    for library in &mut libraries {
        let name = library.name;
        story.check(
            format!("{name} still runs"),
            library.publisher.is_running(),
            "it has ended",
        );
        let (missing, twice) = account(&published(witness, name));
        story.figure(
            format!("{name}, messages missing elsewhere"),
            missing as f64,
            "messages",
        );
        story.figure(format!("{name}, messages sent twice"), twice as f64, "messages");
        if library.keeps {
            story.check(
                format!("{name} loses nothing"),
                missing == 0,
                format_args!("{missing} messages"),
            );
        }
    }
    drop((libraries, bystanders));
    for id in &dead {
        ground.restart(id).await?;
    }
    ground.leave().await
}

/// Starts a bystander each at the last brokers, one more than will die. Their witnesses have subscribed.
async fn bystanders(ground: &Ground, folder: &Path) -> anyhow::Result<Vec<Bystander>> {
    let ids: Vec<_> = ground.ids().collect();
    let mut bystanders = Vec::new();
    for id in ids.into_iter().rev().take(DEATHS + 1) {
        let at = ground.broker(id)?;
        let mut witness = ground.mosquitto("mosquitto_sub", at, "mqttv5")?;
        witness.args(["-q", "1", "-t", "scenario/+/numbers", "-F", "%t %p"]);
        let witness = Client::start(witness, folder, &format!("witness-{id}"))?;
        let subscribed = wait_until("a subscription", PATIENCE, async || {
            let mut begin = ground.mosquitto("mosquitto_pub", at, "mqttv5")?;
            begin
                .args(["-t", "scenario/begin/numbers", "-m", "x"])
                .status()
                .await?;
            anyhow::ensure!(witness.count() > 0, "nothing came yet");
            anyhow::Ok(())
        });
        subscribed.await?;
        let mut beat = ground.mosquitto("mosquitto_pub", at, "mqttv5")?;
        beat.args(["-q", "1", "-t", "scenario/beat", "-l"]);
        let mut beat = Client::start(beat, folder, &format!("beat-{id}"))?;
        bystanders.push(Bystander {
            broker: id.clone(),
            witness,
            _feed: beat.feed(RATE)?,
            _beat: beat,
        });
    }
    Ok(bystanders)
}

/// The witness at a broker that did not die.
fn living<'a>(bystanders: &'a [Bystander], dead: &[BrokerId]) -> anyhow::Result<&'a Client> {
    let mut all = bystanders.iter();
    let found = all.find(|bystander| !dead.contains(&bystander.broker));
    found
        .map(|bystander| &bystander.witness)
        .context("nobody is left who could tell")
}

/// Starts everything, through Nginx.
fn libraries(story: &mut Story, ground: &Ground, folder: &Path) -> anyhow::Result<Vec<Library>> {
    let balancer = ground.network().balancer();
    let login = ground.network().login().as_ref();
    let address = balancer.to_string();
    let mut libraries = Vec::new();

    for (name, publisher, subscriber) in [
        ("paho-python", python("publisher.py")?, python("subscriber.py")?),
        ("rumqttc", numbers("publish")?, numbers("subscribe")?),
    ] {
        let (mut publish, mut subscribe) = (publisher, subscriber);
        let outbox = folder.join(format!("{name}.db"));
        publish.args([
            "--broker",
            &address,
            "--topic",
            &topic(name),
            "--rate",
            &RATE.to_string(),
        ]);
        publish.arg("--outbox").arg(outbox);
        subscribe.args(["--broker", &address, "--topic", "scenario/beat"]);
        for command in [&mut publish, &mut subscribe] {
            if let Some((user, password)) = login {
                command.args(["--username", user]).env("MQTT_PASSWORD", password);
            }
        }
        libraries.push(Library {
            name,
            publisher: Client::start(publish, folder, &format!("{name}-publisher"))?,
            _feed: None,
            subscriber: Some(Client::start(subscribe, folder, &format!("{name}-subscriber"))?),
            keeps: true,
        });
    }

    let name = "libmosquitto";
    let mut publish = ground.mosquitto("mosquitto_pub", balancer, "mqttv5")?;
    publish.args(["-q", "1", "-t", &topic(name), "-l"]);
    let mut subscribe = ground.mosquitto("mosquitto_sub", balancer, "mqttv5")?;
    subscribe.args([
        "-q",
        "1",
        "-t",
        "scenario/beat",
        "-c",
        "-i",
        "reader",
        "-x",
        "600",
    ]);
    let mut publisher = Client::start(publish, folder, "libmosquitto-publisher")?;
    let feed = publisher.feed(RATE)?;
    libraries.push(Library {
        name,
        publisher,
        _feed: Some(feed),
        subscriber: Some(Client::start(subscribe, folder, "libmosquitto-subscriber")?),
        keeps: false,
    });

    // Its own subscriber connects again but does not subscribe again, so it has nothing to show here.
    let name = "paho-c";
    if login.is_some() {
        story.say(format_args!(
            "skipped: {name}, since it takes a password on its command line only, where everybody sees it"
        ));
        return Ok(libraries);
    }
    let program = match system_program("paho_c_pub", "install it: `apt install paho.mqtt.c-examples`") {
        Ok(program) => program,
        Err(missing) => {
            story.say(format_args!("skipped: {name}, since {missing}"));
            return Ok(libraries);
        }
    };
    let mut publish = Command::new(program);
    publish.args(["-c", &format!("tcp://{address}"), "-V", "5", "-q", "1"]);
    publish.args(["-i", "paho-c", "-t", &topic(name)]);
    let mut publisher = Client::start(publish, folder, "paho-c-publisher")?;
    let feed = publisher.feed(RATE)?;
    libraries.push(Library {
        name,
        publisher,
        _feed: Some(feed),
        subscriber: None,
        keeps: false,
    });
    Ok(libraries)
}

fn topic(name: &str) -> String {
    format!("scenario/{name}/numbers")
}

/// An example in Python, run with what `deploy/run-tests.sh` has installed.
fn python(script: &str) -> anyhow::Result<Command> {
    // target/PROFILE/PROGRAM
    let program = std::env::current_exe()?;
    let target: Option<PathBuf> = program.ancestors().nth(2).map(Path::to_owned);
    let target = target.context("a target folder")?;
    // On another machine the checkout is where the program is, if it is in one.
    let here = target.join("..");
    let checkout = if here.join("client-examples").is_dir() {
        here
    } else {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
    };
    let python = target.join("python-clients/bin/python");
    anyhow::ensure!(
        python.exists(),
        "{} is missing; ./deploy/run-tests.sh makes it",
        python.display()
    );
    let mut command = Command::new(python);
    command.arg(checkout.join("client-examples/python").join(script));
    Ok(command)
}

/// The example in Rust.
fn numbers(subcommand: &str) -> anyhow::Result<Command> {
    let mut command = Command::new(own_program("examples/numbers")?);
    command.arg(subcommand);
    Ok(command)
}

/// Waits until messages of every publisher and to every subscriber flow after `since`.
async fn back(libraries: &[Library], witness: &Client, since: Instant) -> anyhow::Result<()> {
    let after = |lines: &[Line]| lines.iter().filter(|(at, _)| *at > since).count();
    let deadline = (since + LATEST).saturating_duration_since(Instant::now());
    let flowing = wait_until("messages", deadline.min(PATIENCE), async || {
        for library in libraries {
            let published = after(&published(witness, library.name));
            let received = library
                .subscriber
                .as_ref()
                .map_or(BACK, |subscriber| after(&subscriber.lines()));
            anyhow::ensure!(
                published >= BACK && received >= BACK,
                "{}: {published} published, {received} received",
                library.name
            );
        }
        Ok(())
    });
    Ok(flowing.await?)
}

/// What the witness has of a publisher.
fn published(witness: &Client, name: &str) -> Vec<Line> {
    let topic = format!("{} ", topic(name));
    let number = |(at, line): Line| Some((at, line.strip_prefix(&topic)?.to_owned()));
    witness.lines().into_iter().filter_map(number).collect()
}

fn times(lines: &[Line]) -> Vec<Instant> {
    lines.iter().map(|(at, _)| *at).collect()
}

/// How many numbers are missing below the highest, and how many came more than once.
fn account(lines: &[Line]) -> (usize, usize) {
    let numbers: Vec<usize> = lines.iter().filter_map(|(_, line)| line.parse().ok()).collect();
    let different: BTreeSet<usize> = numbers.iter().copied().collect();
    let highest = different.last().copied().unwrap_or(0);
    (highest - different.len(), numbers.len() - different.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gaps_and_repetitions_are_counted() {
        let now = Instant::now();
        let lines = ["1", "2", "4", "4", "7"].map(|number| (now, number.to_owned()));
        assert_eq!(account(&lines), (3, 1));
        assert_eq!(account(&[]), (0, 0));
    }
}
