//! What the plugin is for: without it a full mesh of bridges is a storm, with it one publish is five deliveries.

mod support;

use mesh_lab::LabOptions;
use mesh_runtime::mqtt::mqttbytes::QoS;
use support::client::{Client, Who};
use support::{
    PATIENCE, at, brokers, changed, expect_once, linked, listen, start, without_asking_links,
    without_mesh_plugin,
};

#[tokio::test]
async fn one_publish_is_a_storm_without_the_plugin_and_five_deliveries_with_it() {
    // Dropped instead of stopped, a lab would keep a folder of its own.
    let folder = tempfile::tempdir().unwrap();
    let options = LabOptions {
        state: Some(folder.path().to_owned()),
        ..brokers(5)
    };
    let storm = start(changed(without_asking_links(options), |_, conf| {
        without_mesh_plugin(&conf)
    }))
    .await;
    // One message to see whether links carry would be the storm.
    linked(&storm).await;
    let mut subscriber = mesh_lab::load::Subscriber::start(at(&storm, 2), "victim", "storm", QoS::AtMostOnce)
        .await
        .unwrap();
    let mut publisher = Client::open(at(&storm, 1), &Who::anonymous()).await;
    publisher.publish("storm", 0, false, "one").await;
    let many = subscriber.wait_for(1001, PATIENCE).await;
    let deliveries = subscriber.count();
    // At once, before it takes the machine away from the tests beside.
    drop(storm);
    assert!(
        many,
        "without the plugin one publish became {deliveries} deliveries only; what does it prevent?"
    );

    let lab = start(brokers(5)).await;
    let inboxes = listen(&lab, &Who::anonymous(), "#").await;
    let mut publisher = Client::open(at(&lab, 1), &Who::anonymous()).await;
    publisher.publish("storm", 0, false, "one").await;
    expect_once("with the plugin", &inboxes, &["storm".to_owned()]).await;
    let deliveries: usize = inboxes.iter().map(support::inbox::Inbox::count).sum();
    assert_eq!(deliveries, 5, "one publish, five subscribers on five brokers");
    lab.stop().await.unwrap();
}
