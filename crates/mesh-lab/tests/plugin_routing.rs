//! What is routed in other ways than a plain publish: wills, retained messages at a subscription, QoS 2 messages
//! whose PUBREL comes late, and what a broker says by itself.

mod support;

use mesh_lab::Lab;
use mesh_model::BrokerId;
use mesh_model::names::{SESSIONS_TOPIC, TOPIC_PREFIX};
use support::client::{Client, Flood, Who};
use support::inbox::{Inbox, Message};
use support::tools::Mortal;
use support::{
    all, at, brokers, changed, expect_exactly_once, expect_once, listen, quiet, replace_line, start,
    wait_for_log,
};

#[tokio::test]
async fn wills_and_late_pubrels_reach_every_broker_once_and_sys_topics_stay_at_home() {
    let lab = start(brokers(3)).await;
    wills_reach_every_broker_once(&lab).await;
    wills_are_told_from_remote_messages(&lab).await;
    late_pubrels_are_told_from_remote_messages(&lab).await;
    sys_topics_stay_at_home(&lab).await;
    lab.stop().await.unwrap();
}

async fn wills_reach_every_broker_once(lab: &Lab) {
    let inboxes = listen(lab, &Who::anonymous(), "wills/#").await;
    let mut elsewhere = Client::open(at(lab, 2), &Who::anonymous()).await;
    let mut topics = Vec::new();
    for version in ["mqttv311", "mqttv5"] {
        for qos in 0..=2 {
            let topic = format!("wills/{version}/{qos}");
            let (id, retain) = (format!("mortal-{version}-{qos}"), qos > 0);
            let mortal = Mortal::start(at(lab, 1), version, &id, &topic, qos, retain);
            wait_for_log(lab, 1, &["New client connected", &format!(" as {id} ")], 1).await;
            // The last message that its broker routed came from elsewhere, which the will must not be taken for.
            let before = format!("wills/before/{version}/{qos}");
            elsewhere.publish(&before, 1, false, "x").await;
            inboxes[0].first(&before).await;
            mortal.die();
            topics.extend([before, topic]);
        }
    }
    expect_once("wills of clients that died on broker1", &inboxes, &topics).await;
    for inbox in &inboxes {
        assert_eq!(
            inbox.on("wills/mqttv5/1")[0].text(),
            "gone",
            "the {} got the will's payload",
            inbox.name()
        );
    }
    let later = listen(lab, &Who::anonymous(), "wills/#").await;
    let retained: Vec<String> = topics
        .into_iter()
        .filter(|topic| topic.ends_with(['1', '2']))
        .collect();
    let retained: Vec<String> = retained
        .into_iter()
        .filter(|topic| !topic.contains("before"))
        .collect();
    expect_once("retained wills, for who subscribes later", &later, &retained).await;
}

/// While messages arrive from elsewhere without a pause, clients die here: a will is routed right after one of them,
/// with no MESSAGE of its own.
async fn wills_are_told_from_remote_messages(lab: &Lab) {
    let inboxes = listen(lab, &Who::anonymous(), "deaths/#").await;
    let names: Vec<String> = (0..20).map(|number| format!("swimmer-{number}")).collect();
    let mut swimmers = Vec::new();
    for name in &names {
        swimmers.push(Mortal::start(
            at(lab, 1),
            "mqttv5",
            name,
            &format!("deaths/{name}"),
            1,
            false,
        ));
    }
    for name in &names {
        wait_for_log(lab, 1, &["New client connected", &format!(" as {name} ")], 1).await;
    }
    let _flood = Flood::start(at(lab, 2), "flood").await;
    for (swimmer, name) in swimmers.into_iter().zip(&names) {
        swimmer.die();
        inboxes[0].first(&format!("deaths/{name}")).await;
    }
    let topics: Vec<String> = names.iter().map(|name| format!("deaths/{name}")).collect();
    expect_once("wills amid messages from elsewhere", &inboxes, &topics).await;
}

/// A QoS 2 message is routed at its PUBREL, which no plugin is told of. Messages from elsewhere that are routed
/// between PUBLISH and PUBREL are neither taken for it, nor it for them.
async fn late_pubrels_are_told_from_remote_messages(lab: &Lab) {
    let inboxes = listen(lab, &Who::anonymous(), "late/#").await;
    let mut here = Client::open(at(lab, 1), &Who::anonymous()).await;
    let mut elsewhere = Client::open(at(lab, 2), &Who::anonymous()).await;

    let id = here.send_publish("late/local", 2, false, "local").await;
    assert_eq!(here.received(id).await, "Success");
    elsewhere.publish("late/remote", 1, false, "remote").await;
    inboxes[0].first("late/remote").await;
    here.release(id).await;
    let mut topics = vec!["late/local".to_owned(), "late/remote".to_owned()];
    expect_once("a QoS 2 message released after a remote one", &inboxes, &topics).await;

    // Now many, so that PUBRELs and messages from elsewhere meet in every order.
    const MANY: usize = 60;
    let mut held = Vec::new();
    for number in 0..MANY {
        let topic = format!("late/local/{number}");
        held.push(here.send_publish(&topic, 2, number % 2 == 0, topic.clone()).await);
        topics.push(topic);
    }
    for id in &held {
        assert_eq!(here.received(*id).await, "Success");
    }
    let release = async {
        for id in held {
            here.release(id).await;
        }
    };
    let publish = async {
        for number in 0..MANY {
            let topic = format!("late/remote/{number}");
            elsewhere
                .publish(&topic, (number % 3) as u8, false, topic.clone())
                .await;
            topics.push(topic);
        }
    };
    tokio::join!(release, publish);
    expect_once("PUBRELs and remote messages in turn", &inboxes, &topics).await;
}

async fn sys_topics_stay_at_home(lab: &Lab) {
    for n in all(lab) {
        let inbox = Inbox::open(at(lab, n), &Who::anonymous(), &["$SYS/#"], "subscriber of $SYS").await;
        let round = |message: &&Message| message.topic == SESSIONS_TOPIC;
        let sessions = |messages: &[Message]| messages.iter().filter(round).count();
        // Three rounds: one retained, two live.
        inbox
            .wait_for("three rounds of $SYS", |messages| sessions(messages) >= 3)
            .await;
        let topics: Vec<String> = inbox
            .messages()
            .into_iter()
            .map(|message| message.topic)
            .collect();
        for peer in all(lab) {
            let of_peer = format!("$SYS/broker/mesh/link/broker{peer}/");
            let seen = topics.iter().any(|topic| topic.starts_with(&of_peer));
            assert_eq!(
                seen,
                peer != n,
                "broker{n} tells of its link to broker{peer}; another broker's $SYS is here"
            );
        }
        let rounds = topics
            .iter()
            .filter(|topic| *topic == "$SYS/broker/version")
            .count();
        assert!(rounds <= 1, "broker{n} has one version, told {rounds} times");
    }
}

/// With links of QoS 2, which we do not render, remote messages too are routed at a PUBREL.
#[tokio::test]
async fn links_may_carry_qos_2() {
    let qos_2 = |_: &BrokerId, conf: String| replace_line(&conf, "topic # in 1", "topic # in 2");
    let lab = start(changed(brokers(3), qos_2)).await;
    expect_exactly_once("over links of QoS 2", &lab, &Who::anonymous(), "exact").await;
    late_pubrels_are_told_from_remote_messages(&lab).await;
    let inboxes = listen(&lab, &Who::anonymous(), "whole").await;
    Client::open(at(&lab, 1), &Who::anonymous())
        .await
        .publish("whole", 2, false, "x")
        .await;
    for inbox in &inboxes {
        assert_eq!(
            inbox.first("whole").await.qos,
            2,
            "the {} got it with QoS 2",
            inbox.name()
        );
    }
    lab.stop().await.unwrap();
}

/// A link that subscribes while messages arrive from elsewhere is given none of those, and nothing that is stored:
/// what it lacks is found out otherwise.
#[tokio::test]
async fn a_link_that_comes_amid_remote_messages_is_given_nothing() {
    let lab = start(brokers(3)).await;
    let mut client = Client::open(at(&lab, 1), &Who::anonymous()).await;
    client.publish("kept", 1, true, "value").await;
    let here = Inbox::open(at(&lab, 2), &Who::anonymous(), &["kept"], "subscriber on broker2").await;
    here.first("kept").await;
    lab.kill("broker3").await.unwrap();
    // In its place, as often as needed for both to meet in one turn of broker2's loop.
    let link = Who::named("mesh.link.broker2.broker3").with_user("mesh-link", &lab.secrets().link);
    let flood = Flood::start(at(&lab, 1), "flood").await;
    for turn in 0..40 {
        let inbox = Inbox::open(at(&lab, 2), &link, &["#"], "link that broker3 would fetch").await;
        // What the plugins say to each other shows that the link is served.
        inbox.wait_for("a report", |messages| !messages.is_empty()).await;
        let mut messages = inbox.messages();
        messages.retain(|message| !message.topic.starts_with(TOPIC_PREFIX));
        assert_eq!(messages, [], "in turn {turn}: all came over a link, or is stored");
    }
    drop(flood);
    lab.stop().await.unwrap();
}

/// A broker that returns empty is given every retained value by its peers, also the one that they themselves got
/// over a link and routed last.
#[tokio::test]
async fn a_link_that_comes_back_is_given_what_is_retained() {
    let lab = start(brokers(3)).await;
    let inboxes = listen(&lab, &Who::anonymous(), "kept/#").await;
    let mut client = Client::open(at(&lab, 1), &Who::anonymous()).await;
    let topics: Vec<String> = (0..3).map(|qos| format!("kept/{qos}")).collect();
    for (qos, topic) in topics.iter().enumerate() {
        client.publish(topic, qos as u8, true, topic.clone()).await;
    }
    expect_once("retained messages, live", &inboxes, &topics).await;
    let before = inboxes[1].count();

    // Only broker2 is left, and all it knows came over a link.
    lab.kill("broker1").await.unwrap();
    lab.kill("broker3").await.unwrap();
    lab.restart("broker3").await.unwrap();
    let returned = async || {
        Inbox::open(
            at(&lab, 3),
            &Who::anonymous(),
            &["kept/#"],
            "subscriber on broker3",
        )
        .await
    };
    wait_for_log(
        &lab,
        2,
        &["New client connected", " as mesh.link.broker2.broker3 "],
        2,
    )
    .await;
    let early = returned().await;
    early
        .wait_for("what broker2 has retained", |messages| {
            messages.len() >= topics.len()
        })
        .await;
    quiet(std::slice::from_ref(&early)).await;
    expect_once(
        "who subscribes on the broker that returned",
        &[returned().await],
        &topics,
    )
    .await;
    assert_eq!(
        inboxes[1].count(),
        before,
        "subscribers of broker2 see nothing of broker3's return"
    );

    // The first one returns as well; a value that two peers give is still one value.
    lab.restart("broker1").await.unwrap();
    for (n, link) in [(2, "mesh.link.broker2.broker1"), (3, "mesh.link.broker3.broker1")] {
        wait_for_log(
            &lab,
            n,
            &["New client connected", &format!(" as {link} ")],
            if n == 2 { 2 } else { 1 },
        )
        .await;
    }
    lab.links_carry("$mesh/test/", support::PATIENCE).await.unwrap();
    quiet(&inboxes[1..2]).await;
    let later = listen(&lab, &Who::anonymous(), "kept/#").await;
    expect_once("everyone, after all are back", &later, &topics).await;
    for inbox in &later {
        for message in inbox.messages() {
            assert!(message.retain, "the {} got {message:?} as retained", inbox.name());
            assert_eq!(
                message.text(),
                message.topic,
                "the {} got the value",
                inbox.name()
            );
        }
    }
    lab.stop().await.unwrap();
}
