//! A lab in network namespaces. Needs root on Linux and says so where it is skipped.
#![cfg(target_os = "linux")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::clients::incidents;
use mesh_lab::{Lab, LabError, LabOptions, Net, wait_until};
use mesh_model::{BrokerId, Incident, IncidentKind, IncidentPhase, names};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, Packet, open_within, publish};

const SECOND: Duration = Duration::from_secs(1);

async fn lab(brokers: usize) -> Option<Lab> {
    lab_with(brokers, false).await
}

async fn lab_with(brokers: usize, health: bool) -> Option<Lab> {
    let options = LabOptions {
        brokers,
        health,
        net: Net::Namespaces,
        progress: Some(Arc::new(|line| eprintln!("lab: {line}"))),
        ..LabOptions::default()
    };
    let begin = Instant::now();
    match Lab::start(options).await {
        Ok(lab) => {
            eprintln!("started after {:?}", begin.elapsed());
            Some(lab)
        }
        Err(error @ LabError::Net(_)) if error.to_string().contains("root") => {
            eprintln!("skipped: {error}");
            None
        }
        Err(error) => panic!("{error}"),
    }
}

fn id(text: &str) -> BrokerId {
    text.parse().unwrap()
}

async fn client(address: SocketAddr, name: &str) -> Connection {
    let identity = Identity {
        client_id: name.to_owned(),
        login: None,
        keep_alive_s: 0,
    };
    open_within(address, &identity, 5 * SECOND).await.unwrap()
}

/// Whether a message goes from one broker to the other within a second. Every broker must answer from here.
async fn passes(lab: &Lab, from: &str, to: &str) -> bool {
    let mut subscriber = client(lab.broker(&id(to)), "there").await;
    subscriber.subscribe(&["passes"], QoS::AtMostOnce).await.unwrap();
    let mut publisher = client(lab.broker(&id(from)), "here").await;
    publisher
        .send(&publish("passes", QoS::AtMostOnce, 0, ""))
        .await
        .unwrap();
    tokio::time::timeout(SECOND, async {
        while !matches!(subscriber.receive().await, Ok(Packet::Publish(_))) {}
    })
    .await
    .is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_is_cut_off_without_a_word_and_heals() {
    let Some(lab) = lab(3).await else { return };
    let broker1 = id("broker1");
    assert_eq!(
        lab.config().topology.brokers()[0].address.to_string(),
        "192.168.100.10:1883"
    );
    let mut before = client(lab.broker(&broker1), "before").await;
    before.subscribe(&["x"], QoS::AtMostOnce).await.unwrap();

    lab.cut(&broker1, None).await.unwrap();
    // The session is still open and says nothing; nobody new gets through.
    before.send(&publish("x", QoS::AtMostOnce, 0, "")).await.unwrap();
    let silence = tokio::time::timeout(SECOND, before.receive()).await;
    assert!(silence.is_err(), "{silence:?}");
    let identity = Identity {
        client_id: "new".to_owned(),
        login: None,
        keep_alive_s: 0,
    };
    open_within(lab.broker(&broker1), &identity, SECOND)
        .await
        .unwrap_err();
    assert!(
        passes(&lab, "broker2", "broker3").await,
        "the others are not concerned"
    );

    lab.heal(&broker1, None).await.unwrap();
    // What was sent meanwhile arrives late, by TCP's own doing.
    let healed = tokio::time::timeout(10 * SECOND, before.receive()).await;
    assert!(matches!(healed, Ok(Ok(Packet::Publish(_)))), "{healed:?}");
    let prefix = format!("{}lab/", names::TOPIC_PREFIX);
    lab.links_carry(&prefix, 30 * SECOND).await.unwrap();
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_brokers_are_cut_off_from_each_other_only() {
    let Some(lab) = lab(3).await else { return };
    lab.cut(&id("broker1"), Some(&id("broker2"))).await.unwrap();
    assert!(!passes(&lab, "broker1", "broker2").await);
    assert!(!passes(&lab, "broker2", "broker1").await);
    assert!(passes(&lab, "broker1", "broker3").await);
    lab.heal(&id("broker2"), Some(&id("broker1"))).await.unwrap();
    wait_until("messages between them", 30 * SECOND, async || {
        if passes(&lab, "broker1", "broker2").await {
            Ok(())
        } else {
            Err("none")
        }
    })
    .await
    .unwrap();
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_link_is_an_incident_until_it_is_mended() {
    let Some(lab) = lab_with(3, true).await else {
        return;
    };
    let phases = async |wanted: &[IncidentPhase]| {
        let told = async || {
            let list = incidents(&lab).await?.incidents;
            let link = |i: &&Incident| i.from == Some(id("broker1")) && i.to == Some(id("broker2"));
            let incident = list.iter().filter(|i| i.kind == IncidentKind::Link).find(link);
            let steps: Vec<_> = incident
                .iter()
                .flat_map(|i| &i.phases)
                .map(|step| step.phase)
                .collect();
            if steps == wanted {
                Ok(())
            } else {
                Err(format!("{list:?}"))
            }
        };
        wait_until("the steps of the incident", 30 * SECOND, told)
            .await
            .unwrap();
    };
    lab.cut(&id("broker1"), Some(&id("broker2"))).await.unwrap();
    phases(&[IncidentPhase::FirstSign, IncidentPhase::Confirmed]).await;
    lab.heal(&id("broker1"), Some(&id("broker2"))).await.unwrap();
    phases(&[
        IncidentPhase::FirstSign,
        IncidentPhase::Confirmed,
        IncidentPhase::Recovered,
    ])
    .await;
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn one_way_can_be_cut_alone() {
    let Some(lab) = lab(2).await else { return };
    let (one, other) = (id("broker1"), id("broker2"));
    lab.cut_way(&other, &one).await.unwrap();
    client(lab.broker(&one), "to one").await;
    client(lab.broker(&other), "to other").await;
    assert!(
        !passes(&lab, "broker1", "broker2").await,
        "what broker1 sends is dropped"
    );
    lab.heal(&one, Some(&other)).await.unwrap();
    wait_until("messages between them", 30 * SECOND, async || {
        if passes(&lab, "broker1", "broker2").await {
            Ok(())
        } else {
            Err("none")
        }
    })
    .await
    .unwrap();
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cut_broker_can_be_restarted_and_clients_come_in_through_the_balancer() {
    let Some(lab) = lab(2).await else { return };
    client(lab.balancer(), "through").await;
    lab.cut(&id("broker2"), None).await.unwrap();
    lab.restart("broker2").await.unwrap();
    let unknown = lab.cut(&id("broker9"), None).await.unwrap_err().to_string();
    assert_eq!(
        unknown,
        "there is no broker9 in this lab; it has broker1, broker2"
    );
    lab.stop().await.unwrap();
}
