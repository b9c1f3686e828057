//! Brokers die under clients that come through Nginx: with mesh-health, and without it.

mod common;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use common::SECOND;
use mesh_lab::load::{Pace, Publication, Publisher, Subscriber};
use mesh_lab::{Lab, LabError, LabOptions, wait_until};
use mesh_model::{BrokerId, HealthStatus, Role, Snapshot};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, open_within};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn lab(health: bool, settings: &str) -> Lab {
    let options = LabOptions {
        health,
        settings: settings.to_owned(),
        ..LabOptions::default()
    };
    Lab::start(options).await.unwrap()
}

fn ids(lab: &Lab) -> Vec<BrokerId> {
    lab.config().topology.ids().cloned().collect()
}

async fn status(lab: &Lab) -> Result<Snapshot, String> {
    let get = async || -> std::io::Result<String> {
        let address = lab.health_url().replace("http://", "");
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(b"GET /v1/status HTTP/1.0\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    };
    let answer = get().await.map_err(|error| error.to_string())?;
    let (_, body) = answer.split_once("\r\n\r\n").ok_or("no body")?;
    serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))
}

/// Waits until mesh-health says that `primary` serves and Nginx confirmed it.
async fn wait_for_primary(lab: &Lab, primary: &BrokerId) {
    let what = format!("{primary} to be the confirmed primary");
    let condition = async || match status(lab).await? {
        now if now.primary == *primary && now.balancer.confirmed => Ok(()),
        now => Err(format!("{}, balancer {:?}", now.primary, now.balancer)),
    };
    wait_until(&what, 15 * SECOND, condition).await.unwrap();
}

/// Connects `count` clients through Nginx and returns the broker that each of them is on, found by its log.
async fn who_serves(lab: &Lab, count: usize, name: &str) -> Vec<BrokerId> {
    let mut clients: Vec<(String, Connection)> = Vec::new();
    for number in 0..count {
        let client_id = format!("{name}-{number}-");
        let identity = Identity {
            client_id: client_id.clone(),
            login: None,
            keep_alive_s: 60,
        };
        let connection = open_within(lab.balancer(), &identity, 5 * SECOND).await;
        clients.push((client_id, connection.unwrap()));
    }
    let logged = async || {
        let logs = ids(lab).into_iter().map(|id| {
            let log = lab.log_dir(id.as_str()).join("mosquitto.log");
            (id, std::fs::read_to_string(log).unwrap_or_default())
        });
        let logs: Vec<(BrokerId, String)> = logs.collect();
        let serves = |(client_id, _): &(String, Connection)| {
            let line = format!(" as {client_id} (");
            logs.iter()
                .find(|(_, log)| log.contains(&line))
                .map(|(id, _)| id.clone())
        };
        clients
            .iter()
            .map(serves)
            .collect::<Option<Vec<_>>>()
            .ok_or("a client is in no broker's log")
    };
    wait_until("every client in a broker's log", 5 * SECOND, logged)
        .await
        .unwrap()
}

#[tokio::test]
async fn without_mesh_health_nginx_takes_the_brokers_in_order() {
    let lab = lab(false, "").await;
    let brokers = ids(&lab);
    for (place, broker) in brokers.iter().enumerate() {
        let serving = who_serves(&lab, 100, &format!("stage{place}")).await;
        let elsewhere = serving.iter().filter(|id| *id != broker).count();
        assert_eq!(
            elsewhere, 0,
            "with {place} brokers dead, clients are not all on {broker}: {serving:?}"
        );
        if place + 1 < brokers.len() {
            lab.kill(broker.as_str()).await.unwrap();
        }
    }
    lab.restart(brokers[1].as_str()).await.unwrap();
    let serving = who_serves(&lab, 20, "returned").await;
    assert!(
        serving.iter().all(|id| *id == brokers[1]),
        "the first backup is back and serves: {serving:?}"
    );
    lab.stop().await.unwrap();
}

/// What a client saw that connects, publishes one QoS 1 message and disconnects, again and again.
struct Served {
    /// Messages that were acknowledged.
    acknowledged: u64,
    /// The longest time between two acknowledgements.
    longest_gap: Duration,
}

/// Connects and publishes through Nginx until `stop` completes, trying again 10 ms after a failure.
async fn publish_in_a_loop(balancer: SocketAddr, topic: &str, stop: impl Future<Output = ()>) -> Served {
    let mut served = Served {
        acknowledged: 0,
        longest_gap: Duration::ZERO,
    };
    let mut last = Instant::now();
    let mut stop = std::pin::pin!(stop);
    loop {
        let one = async {
            let mut publisher = Publisher::connect(balancer, "looping").await?;
            let publication = Publication {
                topic: topic.to_owned(),
                qos: QoS::AtLeastOnce,
                payload: 32,
                messages: 1,
                pace: Pace::Window(1),
            };
            publisher.run(&publication).await
        };
        let outcome = tokio::select! {
            () = &mut stop => return served,
            outcome = tokio::time::timeout(SECOND / 4, one) => outcome,
        };
        if matches!(outcome, Ok(Ok(()))) {
            served.acknowledged += 1;
            served.longest_gap = served.longest_gap.max(last.elapsed());
            last = Instant::now();
        } else {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

/// Has a client publish in a loop through Nginx while `fault` strikes the primary, until the next broker is the
/// confirmed primary and messages flow again. Returns what the client saw, and a subscriber on another broker.
async fn looped_through(
    lab: &Lab,
    fault: impl Future<Output = Result<(), LabError>>,
) -> (Served, Subscriber) {
    let brokers = ids(lab);
    let subscriber = Subscriber::start(lab.broker(&brokers[4]), "listening", "loop", QoS::AtLeastOnce);
    let mut subscriber = subscriber.await.unwrap();
    let story = async {
        assert!(
            subscriber.wait_for(20, 10 * SECOND).await,
            "messages flow before the fault"
        );
        fault.await.unwrap();
        wait_for_primary(lab, &brokers[1]).await;
        let more = subscriber.count() + 20;
        assert!(
            subscriber.wait_for(more, 10 * SECOND).await,
            "messages flow after the fault"
        );
    };
    let served = publish_in_a_loop(lab.balancer(), "loop", story).await;
    println!(
        "{} messages, longest gap {:?}",
        served.acknowledged, served.longest_gap
    );
    (served, subscriber)
}

#[tokio::test]
async fn a_killed_primary_is_replaced_under_a_client_and_returns_as_a_standby() {
    let lab = lab(true, "[health]\nrecovery_time = \"1s\"\n").await;
    let brokers = ids(&lab);
    let (served, mut subscriber) = looped_through(&lab, lab.kill(brokers[0].as_str())).await;
    assert!(
        served.longest_gap < SECOND,
        "the next broker serves at once, not after {:?}",
        served.longest_gap
    );
    // Each try publishes message 0; a try that was not acknowledged may have arrived all the same.
    assert!(
        subscriber.wait_for(served.acknowledged, 5 * SECOND).await,
        "every acknowledged message arrived"
    );

    lab.restart(brokers[0].as_str()).await.unwrap();
    let back = async || {
        let now = status(&lab).await?;
        let first = &now.brokers[0];
        match (first.health, first.role, now.primary == brokers[1]) {
            (HealthStatus::Healthy, Some(Role::Standby), true) => Ok(()),
            _ => Err(format!("{first:?}, primary {}", now.primary)),
        }
    };
    wait_until("the returned broker to be a healthy standby", 20 * SECOND, back)
        .await
        .unwrap();
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn a_hung_primary_is_replaced_under_a_client() {
    let lab = lab(true, "").await;
    let brokers = ids(&lab);
    let (served, _) = looped_through(&lab, lab.hang(brokers[0].as_str())).await;
    assert!(
        served.longest_gap < 5 * SECOND,
        "the next broker serves soon, not after {:?}",
        served.longest_gap
    );
    lab.resume(brokers[0].as_str()).await.unwrap();
    let now = status(&lab).await.unwrap();
    assert_eq!(
        now.primary, brokers[1],
        "a primary that comes back to its senses does not take over again"
    );
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn nothing_acknowledged_is_missing_when_its_broker_is_killed_under_load() {
    let options = LabOptions {
        brokers: 3,
        health: false,
        balancer: false,
        ..LabOptions::default()
    };
    let lab = Lab::start(options).await.unwrap();
    let brokers = ids(&lab);
    for _ in 0..3 {
        let mut subscriber =
            Subscriber::start(lab.broker(&brokers[1]), "listening", "load", QoS::AtLeastOnce)
                .await
                .unwrap();
        let mut publisher = Publisher::connect(lab.broker(&brokers[0]), "publishing")
            .await
            .unwrap();
        let load = Publication {
            topic: "load".to_owned(),
            qos: QoS::AtLeastOnce,
            payload: 64,
            messages: 100_000,
            pace: Pace::PerSecond(5000.0),
        };
        let kill = async {
            assert!(subscriber.wait_for(1000, 10 * SECOND).await, "messages flow");
            lab.kill(brokers[0].as_str()).await.unwrap();
        };
        let (published, ()) = tokio::join!(publisher.run(&load), kill);
        assert!(published.is_err(), "the publisher lost its broker");
        subscriber.wait_for_silence(SECOND / 2, 10 * SECOND).await;
        let received = subscriber.finish().await;
        let acknowledged = publisher
            .acknowledged()
            .iter()
            .enumerate()
            .filter(|(_, acked)| **acked);
        let times = |number: usize| received.times.get(number).copied().unwrap_or(0);
        let missing = acknowledged
            .clone()
            .filter(|(number, _)| times(*number) == 0)
            .count();
        assert_eq!(missing, 0, "of {} acknowledged messages", acknowledged.count());
        assert_eq!(received.duplicates(), 0, "nothing comes twice");
        lab.restart(brokers[0].as_str()).await.unwrap();
        lab.links_carry("$mesh/test/", 30 * SECOND).await.unwrap();
    }
    lab.stop().await.unwrap();
}
