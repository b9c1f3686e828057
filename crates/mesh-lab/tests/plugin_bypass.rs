//! Another plugin that is loaded ahead of ours and answers everything takes away what keeps the mesh from storming.
//! The broker then does not start; and where that check is evaded too, it leaves the mesh and says so.

mod support;

use mesh_lab::{Lab, LabError, LabOptions, wait_until};
use mesh_model::BrokerId;
use support::client::{Client, Who};
use support::inbox::{Inbox, Message};
use support::tools::allow_all;
use support::{
    PATIENCE, all, at, brokers, changed, expect_once, listen, logged, publish_everywhere, quiet, start,
    wait_for_log, without_asking_links,
};

/// The words with which a broker leaves the mesh.
const LEFT: &[&str] = &[
    "mesh-plugin: ",
    "another plugin answers first",
    "has left the mesh until it is restarted",
];

/// More than this is a storm, or will be one.
const BOUND: usize = 50;

/// Three brokers, of which those that `is_bypassed` load `lines` ahead of mesh-plugin.
fn bypassed(is_bypassed: fn(&BrokerId) -> bool, lines: String) -> LabOptions {
    changed(without_asking_links(brokers(3)), move |id, conf| {
        let lines = if is_bypassed(id) { lines.as_str() } else { "" };
        assert!(
            conf.contains("\nplugin "),
            "the rendered configuration loads a plugin"
        );
        conf.replacen("\nplugin ", &format!("\n{lines}plugin "), 1)
    })
}

/// As its author might suggest to someone whose broker does not start: an option by which it looks like ours.
fn disguised(options: &str) -> String {
    format!("plugin {}\nplugin_opt_broker_id x\n{options}", allow_all())
}

#[tokio::test]
async fn a_broker_that_loads_another_plugin_first_does_not_start() {
    let lines = format!("plugin {}\n", allow_all());
    // A lab that does not start would keep a folder of its own.
    let folder = tempfile::tempdir().unwrap();
    let options = LabOptions {
        state: Some(folder.path().to_owned()),
        ..bypassed(|id| id.as_str() == "broker1", lines)
    };
    let Err(error) = Lab::start(options).await.map(drop) else {
        panic!("the broker started with another plugin ahead of ours");
    };
    let said = format!(
        "Put the plugin line of mesh-plugin before that of {}",
        allow_all()
    );
    assert!(
        matches!(&error, LabError::Died { name, .. } if name == "broker1"),
        "{error}"
    );
    assert!(
        error.to_string().contains(&said),
        "its log says what is wrong and what to do: {error}"
    );
}

/// With all brokers bypassed: each leaves the mesh as soon as links come, and whatever is published in between and
/// afterwards does not storm. Then each is alone and serves its own clients.
async fn the_mesh_parts(options: &str, why: &str) {
    let lab = start(bypassed(|_| true, disguised(options))).await;
    let inboxes = listen(&lab, &Who::anonymous(), "drop").await;
    for n in all(&lab) {
        wait_for_log(&lab, n, &["New client connected", " as mesh.link."], 1).await;
    }
    for n in all(&lab) {
        Client::open(at(&lab, n), &Who::anonymous())
            .await
            .publish("drop", 1, false, "of water")
            .await;
    }
    for n in all(&lab) {
        wait_for_log(&lab, n, LEFT, 1).await;
    }
    quiet(&inboxes).await;
    let deliveries: usize = inboxes.iter().map(Inbox::count).sum();
    assert!(
        (3..BOUND).contains(&deliveries),
        "three messages became {deliveries} deliveries at three subscribers"
    );
    for (n, inbox) in all(&lab).zip(&inboxes) {
        let before = inbox.count();
        let mut client = Client::open(at(&lab, n), &Who::anonymous()).await;
        client
            .publish("drop", n as u8 % 3, false, format!("alone on broker{n}"))
            .await;
        client.leave().await;
        inbox
            .wait_for("a message of its own broker", |messages| messages.len() > before)
            .await;
    }
    quiet(&inboxes).await;
    for (n, inbox) in all(&lab).zip(&inboxes) {
        let alone = |message: &&Message| message.payload.starts_with(b"alone");
        let heard: Vec<String> = inbox.messages().iter().filter(alone).map(Message::text).collect();
        assert_eq!(
            heard,
            [format!("alone on broker{n}")],
            "broker{n} has left the mesh and serves its own clients"
        );
        assert_eq!(
            logged(&lab, n, LEFT),
            1,
            "broker{n} says once that it has left the mesh"
        );
        assert_eq!(logged(&lab, n, &[why]), 1, "broker{n} says why: {why}");
    }
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn where_another_plugin_answers_everything_the_mesh_parts_instead_of_storming() {
    the_mesh_parts("", "a link logged in without a check of ours").await;
}

#[tokio::test]
async fn where_another_plugin_answers_acl_checks_the_mesh_parts_instead_of_storming() {
    the_mesh_parts("plugin_opt_auth no\n", "without an ACL check of ours").await;
}

#[tokio::test]
async fn a_publish_alone_tells_of_the_other_plugin_before_any_link_comes() {
    let options = LabOptions {
        brokers: 1,
        ..bypassed(|_| true, disguised(""))
    };
    let lab = start(options).await;
    assert_eq!(logged(&lab, 1, LEFT), 0, "nothing has happened yet");
    Client::open(at(&lab, 1), &Who::anonymous())
        .await
        .publish("drop", 1, false, "of water")
        .await;
    wait_for_log(&lab, 1, LEFT, 1).await;
    let why = "a client published without an ACL check of ours";
    assert_eq!(logged(&lab, 1, &[why]), 1, "broker1 says why: {why}");
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn where_one_broker_is_bypassed_the_others_remain_a_mesh() {
    for options in ["", "plugin_opt_auth no\n"] {
        let lab = start(bypassed(|id| id.as_str() == "broker1", disguised(options))).await;
        wait_for_log(&lab, 1, LEFT, 1).await;
        for (n, link) in [(2, "mesh.link.broker2.broker3"), (3, "mesh.link.broker3.broker2")] {
            wait_for_log(&lab, n, &["New client connected", link], 1).await;
        }
        let inboxes = listen(&lab, &Who::anonymous(), "left/#").await;
        // A link subscribes soon after its login; nothing tells when.
        for (from, to) in [(2, 3), (3, 2)] {
            let mut client = Client::open(at(&lab, from), &Who::anonymous()).await;
            let carries = wait_until("a link between the others", PATIENCE, async || {
                client
                    .publish("left/ready", 1, false, format!("from {from}"))
                    .await;
                let seen = inboxes[to - 1].messages();
                let told = seen
                    .iter()
                    .any(|message| message.text() == format!("from {from}"));
                told.then_some(()).ok_or("nothing has come")
            });
            carries.await.unwrap();
        }
        quiet(&inboxes).await;
        drop(inboxes);

        let inboxes = listen(&lab, &Who::anonymous(), "rest/#").await;
        let topics = publish_everywhere(&lab, &Who::anonymous(), "rest").await;
        // broker1 fetches no more from the others, and nobody fetches from it.
        let (own, rest): (Vec<String>, Vec<String>) =
            topics.into_iter().partition(|topic| topic.contains("broker1"));
        expect_once("the broker that left", &inboxes[..1], &own).await;
        expect_once("the brokers that remain", &inboxes[1..], &rest).await;
        assert_eq!(
            logged(&lab, 2, LEFT) + logged(&lab, 3, LEFT),
            0,
            "only broker1 leaves"
        );
        lab.stop().await.unwrap();
    }
}

/// Somebody whom another plugin lets in has the id of a link and a session that outlives the connection. It is thrown
/// out once; Mosquitto 2.0 would not survive its end if it were done again while nobody is connected.
#[tokio::test]
async fn a_session_under_the_id_of_a_link_that_nobody_uses_is_left_alone() {
    const LINK: &str = "mesh.link.broker1.broker2";
    let lab = start(bypassed(|_| true, disguised(""))).await;
    for n in all(&lab) {
        wait_for_log(&lab, n, LEFT, 1).await;
    }
    // Its own client would take the session over.
    lab.kill("broker2").await.unwrap();
    let address = at(&lab, 1);
    let output = tokio::process::Command::new("mosquitto_sub")
        .args(["-h", &address.ip().to_string(), "-p", &address.port().to_string()])
        .args([
            "-V", "5", "-c", "-x", "2", "-i", LINK, "-t", "any", "-E", "-W", "1",
        ])
        .kill_on_drop(true)
        .output()
        .await;
    output.expect("mosquitto_sub is installed");
    let ended = ["Client ", LINK, "administrative action"];
    wait_for_log(&lab, 1, &ended, 1).await;
    let times = logged(&lab, 1, &ended);
    wait_for_log(&lab, 1, &["Expiring client", LINK], 1).await;
    assert_eq!(logged(&lab, 1, &ended), times, "it is left alone");
    let mut client = Client::open(address, &Who::anonymous()).await;
    client.publish("drop", 1, false, "of water").await;
    assert!(client.is_alive().await, "the broker lives");
    lab.stop().await.unwrap();
}
