//! What broken links, hung and dead brokers must not do to acknowledged messages: lose them, repeat them, or change
//! their order.
#![cfg(target_os = "linux")]

mod support;

use std::process::Stdio;
use std::time::{Duration, Instant};

use mesh_health::shell::sock_destroy::Diag;
use mesh_lab::load::{Pace, Publication, Publisher, Received, Subscriber};
use mesh_lab::{Lab, LabError, LabOptions, Net, wait_until};
use mesh_runtime::mqtt::mqttbytes::QoS;
use support::client::Who;
use support::inbox::Inbox;
use support::{PATIENCE, at, brokers, id, log_of, logged, start, wait_for_log};
use tokio::process::Command;

/// For what takes a few seconds by itself: a bridge comes back after 1 to 5 s, help for a peer begins after 3 s.
const LONG: Duration = Duration::from_secs(45);

fn load(messages: u32, pace: Pace) -> Publication {
    Publication {
        retain: false,
        topic: "load".to_owned(),
        qos: QoS::AtLeastOnce,
        payload: 64,
        messages,
        pace,
    }
}

async fn subscriber(lab: &Lab, n: usize) -> Subscriber {
    let name = format!("subscriber{n}");
    Subscriber::start(at(lab, n), &name, "load", QoS::AtLeastOnce)
        .await
        .unwrap()
}

async fn publisher(lab: &Lab, n: usize) -> Publisher {
    Publisher::connect(at(lab, n), &format!("publisher{n}"))
        .await
        .unwrap()
}

/// What a subscriber has got when all `messages` are there and no more come.
async fn outcome(mut subscriber: Subscriber, messages: u32) -> Received {
    subscriber.wait_for(messages.into(), LONG).await;
    subscriber
        .wait_for_silence(Duration::from_secs(1), PATIENCE)
        .await;
    subscriber.finish().await
}

fn expect_all_once_in_order(about: &str, received: &Received, messages: u32) {
    expect_all_once(about, received, messages);
    assert_eq!(received.out_of_order, 0, "{about}: out of order");
}

fn expect_all_once(about: &str, received: &Received, messages: u32) {
    let missing = received.missing(messages);
    assert_eq!(missing, [0; 0], "{about}: {} are missing", missing.len());
    assert_eq!(received.duplicates(), 0, "{about}: repeated");
}

/// The last value of a counter of the `n`th broker's link with `peer`, not older than this call.
async fn counter(lab: &Lab, n: usize, peer: usize, name: &str) -> u64 {
    let topic = format!("$SYS/broker/mesh/link/broker{peer}/{name}");
    let inbox = Inbox::open(at(lab, n), &Who::anonymous(), &[&topic], "counter").await;
    inbox
        .wait_for("a fresh counter", |messages| messages.len() > 2)
        .await;
    inbox.messages().last().unwrap().text().parse().unwrap()
}

/// Waits until a counter has this value.
async fn wait_for_counter(lab: &Lab, n: usize, peer: usize, name: &str, value: u64) {
    let what = format!("{name} of broker{n} for broker{peer}");
    let there = wait_until(&what, LONG, async || match counter(lab, n, peer, name).await {
        now if now == value => Ok(()),
        now => Err(format!("{now} instead of {value}")),
    });
    there
        .await
        .unwrap_or_else(|late| panic!("{late}\n{}", log_of(lab, n)));
}

/// Ends the connection over which broker `to` fetches from broker `from`, on the side of `to`: what is in its socket
/// is lost, and `from` gets a reset.
fn break_link(diag: &mut Diag, lab: &Lab, from: usize, to: usize) {
    let pid = lab.pid(id(to).as_str()).expect("the broker runs");
    let owned: Vec<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("its descriptors can be listed")
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    let sockets = diag.connections_to(at(lab, from)).unwrap();
    let of_bridge = sockets
        .iter()
        .filter(|socket| owned.contains(&format!("socket:[{}]", socket.inode)));
    assert_eq!(
        diag.destroy(of_bridge).unwrap().destroyed,
        1,
        "the bridge has one connection"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_cuts_of_a_link_lose_nothing_repeat_nothing_and_keep_the_order() {
    const MESSAGES: u32 = 70_000;
    const BETWEEN: u64 = 3_500;
    let Ok(mut diag) = Diag::open() else {
        eprintln!("skipped: without CAP_NET_ADMIN no connection can be broken");
        return;
    };
    let lab = start(brokers(3)).await;
    let (second, mut third) = (subscriber(&lab, 2).await, subscriber(&lab, 3).await);
    let mut publisher = publisher(&lab, 1).await;
    let publishing = tokio::spawn(async move {
        publisher
            .run(&load(MESSAGES, Pace::PerSecond(5_000.0)))
            .await
            .unwrap();
    });
    for cut in 1..=3 {
        let more = third.count() + BETWEEN;
        assert!(third.wait_for(more, PATIENCE).await, "messages flow");
        break_link(&mut diag, &lab, 1, 2);
        wait_for_log(
            &lab,
            1,
            &["New client connected", " as mesh.link.broker1.broker2 "],
            cut + 1,
        )
        .await;
    }
    assert!(!publishing.is_finished(), "the last cut came too late");
    publishing.await.unwrap();
    expect_all_once_in_order("broker3", &outcome(third, MESSAGES).await, MESSAGES);
    expect_all_once_in_order("broker2", &outcome(second, MESSAGES).await, MESSAGES);
    wait_for_counter(&lab, 1, 2, "backlog", 0).await;
    let replayed = counter(&lab, 1, 2, "replayed").await;
    let dropped = counter(&lab, 2, 1, "duplicates_dropped").await;
    println!("replayed {replayed}, of which {dropped} were there already");
    assert!(replayed > 1_000, "only {replayed} were replayed");
    assert_eq!(counter(&lab, 1, 2, "lost").await, 0);
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_hung_for_longer_than_its_keepalive_gets_everything() {
    const MESSAGES: u32 = 15_000;
    let lab = start(brokers(3)).await;
    let (second, mut third) = (subscriber(&lab, 2).await, subscriber(&lab, 3).await);
    let mut publisher = publisher(&lab, 1).await;
    let publishing = tokio::spawn(async move {
        publisher
            .run(&load(MESSAGES, Pace::PerSecond(1_000.0)))
            .await
            .unwrap();
    });
    assert!(third.wait_for(1_000, PATIENCE).await, "messages flow");
    lab.hang("broker2").await.unwrap();
    let hung = Instant::now();
    // A bridge's keepalive is 5 s; the broker waits half as long again.
    wait_for_log(&lab, 1, &["mesh.link.broker1.broker2", "exceeded timeout"], 1).await;
    println!("thrown out after {:?}", hung.elapsed());
    lab.resume("broker2").await.unwrap();
    publishing.await.unwrap();
    expect_all_once_in_order("broker2", &outcome(second, MESSAGES).await, MESSAGES);
    expect_all_once_in_order("broker3", &outcome(third, MESSAGES).await, MESSAGES);
    lab.stop().await.unwrap();
}

/// Subscribes to `load` with a session that outlives its connection, and its broker once that has saved it.
async fn keep_session(lab: &Lab, n: usize) {
    let status = session(lab, n).arg("-E").status().await.unwrap();
    assert!(status.success());
    let before = logged(lab, n, &["Saving in-memory database"]);
    lab.save(id(n).as_str()).unwrap();
    wait_for_log(lab, n, &["Saving in-memory database"], before + 1).await;
    // It has one thread: whoever is answered now is answered after the file was written.
    let client = support::client::Client::open(at(lab, n), &Who::anonymous()).await;
    client.leave().await;
}

/// What has been queued for that session: the text of each message.
async fn queued(lab: &Lab, n: usize) -> Vec<String> {
    let output = session(lab, n).args(["-W", "3"]).output().await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(str::to_owned).collect()
}

fn session(lab: &Lab, n: usize) -> Command {
    let address = at(lab, n);
    let mut command = Command::new("mosquitto_sub");
    command
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args(["-i", "kept", "-c", "-q", "1", "-t", "load"])
        .stdin(Stdio::null())
        .kill_on_drop(true);
    command
}

/// Publishes numbers as text.
async fn publish_numbers(lab: &Lab, n: usize, numbers: std::ops::Range<u32>) {
    let mut client = support::client::Client::open(at(lab, n), &Who::anonymous()).await;
    for number in numbers {
        client.publish("load", 1, false, number.to_string()).await;
    }
    client.leave().await;
}

fn numbers(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_receiver_gets_what_was_published_while_it_was_away() {
    let lab = start(brokers(3)).await;
    keep_session(&lab, 2).await;
    lab.kill("broker2").await.unwrap();
    publish_numbers(&lab, 1, 0..1_500).await;
    lab.restart("broker2").await.unwrap();
    publish_numbers(&lab, 1, 1_500..2_000).await;
    wait_for_counter(&lab, 1, 2, "backlog", 0).await;
    assert_eq!(queued(&lab, 2).await, numbers(0..2_000));
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_is_foretold_and_counted() {
    const KEPT: u32 = 1_000;
    const PUBLISHED: u32 = 2_300;
    let options = LabOptions {
        settings: format!("[mosquitto]\nreplay_messages = {KEPT}\n"),
        ..brokers(2)
    };
    let lab = start(options).await;
    keep_session(&lab, 2).await;
    wait_for_counter(&lab, 1, 2, "backlog", 0).await;
    lab.kill("broker2").await.unwrap();
    publish_numbers(&lab, 1, 0..PUBLISHED / 3).await;
    assert_eq!(counter(&lab, 1, 2, "filling").await, 0);
    publish_numbers(&lab, 1, PUBLISHED / 3..PUBLISHED).await;
    assert_eq!(counter(&lab, 1, 2, "filling").await, 1);
    let lost = u64::from(PUBLISHED - KEPT);
    assert_eq!(counter(&lab, 1, 2, "lost").await, lost);
    let log = log_of(&lab, 1);
    let line = |words: &str| log.find(words).unwrap_or_else(|| panic!("no {words:?} in {log}"));
    assert!(line("soon the oldest will be lost to it") < line("the oldest messages are lost to it"));

    lab.restart("broker2").await.unwrap();
    wait_for_counter(&lab, 1, 2, "backlog", 0).await;
    assert_eq!(counter(&lab, 1, 2, "lost").await, lost, "it stays lost");
    assert_eq!(counter(&lab, 1, 2, "filling").await, 0);
    assert_eq!(queued(&lab, 2).await, numbers(PUBLISHED - KEPT..PUBLISHED));
    wait_for_log(&lab, 1, &["broker2 takes messages again"], 1).await;
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_broker_could_not_send_to_a_peer_another_one_sends() {
    const MESSAGES: u32 = 3_000;
    let options = LabOptions {
        net: Net::Namespaces,
        ..brokers(3)
    };
    let lab = match Lab::start(options).await {
        Ok(lab) => lab,
        Err(error @ LabError::Net(_)) if error.to_string().contains("root") => {
            eprintln!("skipped: {error}");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    let (second, third) = (subscriber(&lab, 2).await, subscriber(&lab, 3).await);
    let mut publisher = publisher(&lab, 1).await;
    lab.cut(&id(1), Some(&id(2))).await.unwrap();
    publisher.run(&load(MESSAGES, Pace::Window(50))).await.unwrap();
    lab.kill("broker1").await.unwrap();
    let killed = Instant::now();
    expect_all_once_in_order("broker3", &outcome(third, MESSAGES).await, MESSAGES);
    expect_all_once("broker2", &outcome(second, MESSAGES).await, MESSAGES);
    println!("broker2 had everything {:?} after the death", killed.elapsed());
    lab.stop().await.unwrap();
}
