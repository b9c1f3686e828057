//! What the tests of the plugin share: small labs, clients that tell everything, and the question that most of
//! them ask: did each message arrive exactly once?
//!
//! Nothing here waits for a time but for a condition, with [`PATIENCE`]; the exceptions are [`quiet`], since that
//! nothing more comes can only be seen by waiting, and [`time_for`], which says what the time is for.
#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod client;
pub mod inbox;
pub mod keeper;
pub mod retained;
pub mod stock;
pub mod tools;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use mesh_lab::{BrokerConf, Lab, LabOptions, wait_until};
use mesh_model::BrokerId;
use rustix::process::{Pid, Signal, kill_process};

use client::{Client, Who};
use inbox::Inbox;

/// For what must happen. Generous, since tests share two cores; it is only used up where something is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// As long as mesh-health waits before it sends clients elsewhere, and longer than a turn of a broker's loop may take.
pub const HUNG: Duration = Duration::from_secs(1);

/// How long nothing must come for us to believe that nothing will. A message that circles comes at once.
const SILENCE: Duration = Duration::from_millis(300);

/// A lab of `brokers` brokers and nothing else.
pub fn brokers(brokers: usize) -> LabOptions {
    LabOptions {
        brokers,
        balancer: false,
        health: false,
        ..LabOptions::default()
    }
}

/// Starts a lab; without one a test has nothing to say.
pub async fn start(options: LabOptions) -> Lab {
    match Lab::start(options).await {
        Ok(lab) => lab,
        Err(error) => panic!("the lab did not start: {error}"),
    }
}

/// A lab that does not publish anything at its start to see whether links carry.
pub fn without_asking_links(options: LabOptions) -> LabOptions {
    LabOptions {
        ready_topic: None,
        ..options
    }
}

/// A lab whose brokers' configuration is as it is rendered but for `change`.
pub fn changed(
    options: LabOptions,
    change: impl Fn(&BrokerId, String) -> String + Send + Sync + 'static,
) -> LabOptions {
    let conf: BrokerConf = Arc::new(move |config, secrets, id| {
        let rendered = mesh_render::broker_conf(config, secrets, id).expect("the configuration is rendered");
        change(id, rendered)
    });
    LabOptions {
        settings: format!(
            "{}\n[mosquitto]\nplugin = {:?}\n",
            options.settings,
            tools::mesh_plugin()
        ),
        broker_conf: Some(conf),
        ..options
    }
}

/// Replaces a line that must be there.
pub fn replace_line(conf: &str, line: &str, by: &str) -> String {
    let whole = format!("\n{line}\n");
    assert!(
        conf.contains(&whole),
        "the rendered configuration has no line {line:?}"
    );
    conf.replace(&whole, &format!("\n{by}\n"))
}

/// The configuration without mesh-plugin: what a stock broker with the same bridges and access control runs.
pub fn without_mesh_plugin(conf: &str) -> String {
    let mut ours = false;
    let stays = |line: &&str| {
        if let Some(plugin) = line.strip_prefix("plugin ") {
            ours = plugin.contains("mesh_plugin");
        }
        !(ours && line.starts_with("plugin"))
    };
    conf.lines()
        .filter(stays)
        .map(|line| format!("{line}\n"))
        .collect()
}

/// The id of the `n`th broker, from 1.
pub fn id(n: usize) -> BrokerId {
    format!("broker{n}").parse().expect("it is a broker's id")
}

/// Where the `n`th broker takes clients.
pub fn at(lab: &Lab, n: usize) -> SocketAddr {
    lab.broker(&id(n))
}

/// The numbers of all brokers.
pub fn all(lab: &Lab) -> std::ops::RangeInclusive<usize> {
    1..=lab.config().topology.brokers().len()
}

/// What the `n`th broker has logged so far.
pub fn log_of(lab: &Lab, n: usize) -> String {
    let bytes = std::fs::read(lab.log_dir(id(n).as_str()).join("mosquitto.log")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// How many lines of the `n`th broker's log contain all of `words`.
pub fn logged(lab: &Lab, n: usize, words: &[&str]) -> usize {
    let log = log_of(lab, n);
    log.lines()
        .filter(|line| words.iter().all(|word| line.contains(word)))
        .count()
}

/// Waits until `times` lines of the `n`th broker's log contain all of `words`.
pub async fn wait_for_log(lab: &Lab, n: usize, words: &[&str], times: usize) {
    let what = format!("the {times}th line with {words:?} in the log of broker{n}");
    let found = wait_until(&what, PATIENCE, async || match logged(lab, n, words) {
        found if found >= times => Ok(()),
        found => Err(format!("{found} such lines in:\n{}", log_of(lab, n))),
    });
    found.await.unwrap_or_else(|late| panic!("{late}"));
}

/// How often links have logged in at the `n`th broker.
pub fn link_logins(lab: &Lab, n: usize) -> usize {
    logged(lab, n, &["New client connected", " as mesh.link."])
}

/// Waits until every broker has every link: what a start waits for that may not publish to see them.
pub async fn linked(lab: &Lab) {
    let peers = all(lab).count() - 1;
    for n in all(lab) {
        wait_for_log(lab, n, &["New client connected", " as mesh.link."], peers).await;
    }
}

/// Makes every broker read its configuration again, and returns when they have.
pub async fn reload(lab: &Lab) {
    for n in all(lab) {
        const DONE: &str = "Reloading config.";
        let before = logged(lab, n, &[DONE]);
        let pid = lab.pid(id(n).as_str()).expect("the broker runs");
        let pid = Pid::from_raw(i32::try_from(pid).expect("a process id is small")).expect("it is not 0");
        kill_process(pid, Signal::HUP).expect("the broker takes a signal");
        wait_for_log(lab, n, &[DONE], before + 1).await;
        // It has one thread: whoever is answered now is answered after the reload.
        tokio::net::TcpStream::connect(at(lab, n))
            .await
            .expect("the broker listens");
    }
}

/// Lets so much time pass: what happens then, or must not happen, does so after a time that nobody tells.
pub async fn time_for(what: &str, time: Duration) {
    eprintln!("{time:?} for {what}");
    tokio::time::sleep(time).await;
}

/// Hangs the `n`th broker for [`HUNG`]. It hangs on when this returns.
pub async fn stand_still(lab: &Lab, n: usize) {
    lab.hang(id(n).as_str()).await.expect("it runs");
    time_for("a standstill", HUNG).await;
}

/// Waits until nothing comes to any of `inboxes` any more.
pub async fn quiet(inboxes: &[Inbox]) {
    let count = || inboxes.iter().map(Inbox::count).sum::<usize>();
    let mut seen = count();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        tokio::time::sleep(SILENCE).await;
        let now = count();
        if now == seen {
            return;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "it never becomes quiet: {now} messages so far"
        );
        seen = now;
    }
}

/// A subscriber of `filter` on each broker, for everything in full: QoS 2, retain flags as published.
pub async fn listen(lab: &Lab, who: &Who, filter: &str) -> Vec<Inbox> {
    let mut inboxes = Vec::new();
    for n in all(lab) {
        inboxes.push(Inbox::open(at(lab, n), who, &[filter], &format!("subscriber on broker{n}")).await);
    }
    inboxes
}

/// Checks that each of `inboxes` gets a message on each of `topics` exactly once, and nothing else.
pub async fn expect_once(about: &str, inboxes: &[Inbox], topics: &[String]) {
    let expected: BTreeMap<&str, usize> = topics.iter().map(|topic| (topic.as_str(), 1)).collect();
    assert_eq!(
        expected.len(),
        topics.len(),
        "{about}: the test uses a topic twice"
    );
    for inbox in inboxes {
        let what = format!(
            "{about}: messages on {} topics for the {}",
            topics.len(),
            inbox.name()
        );
        inbox
            .wait_for(&what, |messages| messages.len() >= topics.len())
            .await;
    }
    quiet(inboxes).await;
    for inbox in inboxes {
        let messages = inbox.messages();
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        for message in &messages {
            *times.entry(&message.topic).or_default() += 1;
        }
        let missing: Vec<_> = topics
            .iter()
            .filter(|topic| !times.contains_key(topic.as_str()))
            .collect();
        assert!(
            missing.is_empty(),
            "{about}: the {} did not get {missing:?}",
            inbox.name()
        );
        let wrong: Vec<_> = times
            .iter()
            .filter(|(topic, times)| expected.get(*topic) != Some(times))
            .collect();
        assert!(
            wrong.is_empty(),
            "{about}: the {} got more than one of each: {wrong:?}",
            inbox.name()
        );
    }
}

/// Publishes at each broker, with each QoS, below `topic`, and checks that subscribers on all brokers get each
/// message exactly once. `who` may both publish and receive there.
pub async fn expect_exactly_once(about: &str, lab: &Lab, who: &Who, topic: &str) {
    let inboxes = listen(lab, who, &format!("{topic}/#")).await;
    let topics = publish_everywhere(lab, who, topic).await;
    expect_once(about, &inboxes, &topics).await;
}

/// Publishes a message of each QoS at each broker below `topic`; returns their topics.
pub async fn publish_everywhere(lab: &Lab, who: &Who, topic: &str) -> Vec<String> {
    let mut topics = Vec::new();
    for n in all(lab) {
        let mut client = Client::open(at(lab, n), who).await;
        for qos in 0..=2 {
            let topic = format!("{topic}/broker{n}/qos{qos}");
            client.publish(&topic, qos, false, topic.clone()).await;
            topics.push(topic);
        }
        client.leave().await;
    }
    topics
}
