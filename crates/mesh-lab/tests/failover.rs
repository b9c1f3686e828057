//! Brokers die under clients that come through Nginx: with mesh-health, and without it.

mod common;

use common::SECOND;
use common::clients::{Served, ids, incidents, publish_in_a_loop, status, wait_for_primary, who_serves};
use mesh_lab::load::{Pace, Publication, Publisher, Subscriber};
use mesh_lab::{Lab, LabError, LabOptions, wait_until};
use mesh_model::{HealthStatus, Role, names};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Identity, MqttError, open_within};

async fn lab(health: bool, settings: &str) -> Lab {
    let options = LabOptions {
        health,
        settings: settings.to_owned(),
        ..LabOptions::default()
    };
    Lab::start(options).await.unwrap()
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

/// mesh-health stands still while its primary dies and returns, so nobody is refused but clients: Nginx has sent them
/// to the first backup, and will for an hour.
#[tokio::test]
async fn a_primary_that_restarts_faster_than_it_is_noticed_is_left_where_clients_have_left_it() {
    let lab = lab(true, "[health]\nrecovery_time = \"1s\"\n").await;
    let brokers = ids(&lab);
    let restart = async {
        lab.hang("mesh-health").await?;
        lab.kill(brokers[0].as_str()).await?;
        // Until a client was refused: Nginx sends it, and all after it, to the next broker.
        assert_eq!(who_serves(&lab, 1, "refused").await, [brokers[1].clone()]);
        lab.restart(brokers[0].as_str()).await?;
        assert_eq!(who_serves(&lab, 1, "avoiding").await, [brokers[1].clone()]);
        lab.resume("mesh-health").await
    };
    let (served, _) = looped_through(&lab, restart).await;
    assert!(served.longest_gap < SECOND, "not after {:?}", served.longest_gap);
    let serving = who_serves(&lab, 20, "after").await;
    assert!(
        serving.iter().all(|id| *id == brokers[1]),
        "plan and Nginx agree: {serving:?}"
    );
    let told = incidents(&lab).await.unwrap().incidents;
    let reason = told.iter().find(|i| i.broker.as_ref() == Some(&brokers[0]));
    assert_eq!(
        reason.unwrap().reason.as_deref(),
        Some("it was started again"),
        "{told:?}"
    );
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn somebody_who_throws_the_probe_out_causes_no_switch() {
    let lab = lab(true, "").await;
    let broker = &ids(&lab)[0];
    let before = status(&lab).await.unwrap();
    let log = lab.log_dir(broker.as_str()).join("mosquitto.log");
    let sessions = || {
        let text = std::fs::read_to_string(&log).unwrap();
        let lines = text.lines().filter(|line| line.contains("New client connected"));
        let ids = lines.filter_map(|line| line.split(" as ").nth(1)?.split(' ').next().map(str::to_owned));
        ids.filter(|id| id.starts_with(&format!("{}probe.", names::CLIENT_ID_PREFIX)))
            .collect::<Vec<_>>()
    };
    for _ in 0..5 {
        let seen = sessions();
        let probe = Identity {
            client_id: seen.last().unwrap().clone(),
            login: Some((names::HEALTH_USER.to_owned(), lab.secrets().health.clone())),
            keep_alive_s: 60,
        };
        let mut thief = open_within(lab.broker(broker), &probe, 5 * SECOND).await.unwrap();
        // It takes its session back.
        let ended = tokio::time::timeout(5 * SECOND, thief.receive()).await.unwrap();
        assert!(matches!(
            ended,
            Err(MqttError::Disconnected(_) | MqttError::Closed | MqttError::Io(_))
        ));
        let back = async || match sessions().len() {
            count if count >= seen.len() + 2 => Ok(()),
            count => Err(format!("{count} sessions, {} before", seen.len())),
        };
        wait_until("the probe to be back", 5 * SECOND, back)
            .await
            .unwrap();
    }
    // By then the number of the start was told again, and the broker has answered.
    let told_since = async || match status(&lab).await? {
        now if now.at.duration_since(before.at).as_secs() >= 2 => Ok(now),
        _ => Err("too early".to_owned()),
    };
    let now = wait_until("two more seconds", 10 * SECOND, told_since)
        .await
        .unwrap();
    assert_eq!((now.primary, now.generation), (before.primary, before.generation));
    assert_eq!(now.brokers[0].health, HealthStatus::Healthy);
    let of_brokers = incidents(&lab).await.unwrap().incidents;
    assert!(
        of_brokers.iter().all(|incident| incident.broker.is_none()),
        "{of_brokers:?}"
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
            retain: false,
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
