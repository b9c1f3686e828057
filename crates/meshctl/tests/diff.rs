//! `meshctl diff` between two brokers that are no mesh, so that they can differ.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;

use mesh_lab::{Lab, LabError, LabOptions, Net};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::mqttbytes::v5::{Publish, PublishProperties};
use mesh_runtime::mqtt::{Connection, Identity, Packet};

/// Two brokers that know nothing of each other, with room for 50 messages a client.
async fn strangers() -> Lab {
    let options = LabOptions {
        brokers: 2,
        balancer: false,
        health: false,
        ready_topic: None,
        settings: "[mosquitto]\nmax_queued_messages = 50\n".to_owned(),
        broker_conf: Some(Arc::new(|config, _, id| {
            let address = config.topology.brokers()[config.topology.priority(id).unwrap()].address;
            let (ip, port) = (address.ip(), address.port());
            let user = &config.mosquitto.user;
            format!("user {user}\nlistener {port} {ip}\nallow_anonymous true\nmax_queued_messages 50\n")
        })),
        ..LabOptions::default()
    };
    Lab::start(options).await.unwrap()
}

async fn retain(address: SocketAddr, topic: &str, payload: &str, properties: Option<PublishProperties>) {
    let identity = Identity {
        client_id: "writer".to_owned(),
        login: None,
        keep_alive_s: 0,
    };
    let (mut connection, _) = Connection::open(address, &identity).await.unwrap();
    let mut publish = Publish::new(topic, QoS::AtLeastOnce, payload.to_owned(), properties);
    (publish.pkid, publish.retain) = (1, true);
    connection.send(&Packet::Publish(publish)).await.unwrap();
    while !matches!(connection.receive().await.unwrap(), Packet::PubAck(_)) {}
}

fn property(name: &str, value: &str) -> PublishProperties {
    PublishProperties {
        user_properties: vec![(name.to_owned(), value.to_owned())],
        ..PublishProperties::default()
    }
}

/// Runs it and returns its exit code and what it prints.
fn diff(lab: &Lab, arguments: &[&str]) -> (Option<i32>, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .arg("diff")
        .args(arguments)
        .arg("--state")
        .arg(lab.state())
        .output()
        .unwrap();
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(printed).unwrap())
}

#[tokio::test]
async fn what_differs_is_listed_and_nothing_else() {
    let lab = strangers().await;
    let at = |n: usize| lab.broker(&format!("broker{n}").parse().unwrap());
    for n in [1, 2] {
        retain(at(n), "same", "value", Some(property("a", "b"))).await;
        let expiring = PublishProperties {
            message_expiry_interval: Some(1000 * n as u32),
            ..PublishProperties::default()
        };
        retain(at(n), "same/but/older", "value", Some(expiring)).await;
    }
    assert_eq!(diff(&lab, &["broker1", "broker2"]), (Some(0), String::new()));

    // One was fetched by its broker, which put a stamp of its own kind behind the first.
    let with = |stamps: &[&str]| PublishProperties {
        user_properties: stamps
            .iter()
            .map(|stamp| ("mesh".to_owned(), (*stamp).to_owned()))
            .collect(),
        ..PublishProperties::default()
    };
    let stamped = "2 broker1 1 2 3 r1";
    retain(at(1), "same/but/fetched", "value", Some(with(&[stamped]))).await;
    retain(
        at(2),
        "same/but/fetched",
        "value",
        Some(with(&[stamped, "2 broker1 1 2 3 rs1"])),
    )
    .await;
    retain(at(1), "b/written/again", "value", Some(with(&[stamped]))).await;
    retain(
        at(2),
        "b/written/again",
        "value",
        Some(with(&["2 broker1 1 4 5 r1"])),
    )
    .await;
    let stamp = "1 broker2 19c8a3f2b10 2a 19ab0c3a47b0003 r1";
    retain(at(1), "z/payload", "one", None).await;
    retain(at(2), "z/payload", "other!", Some(property("mesh", stamp))).await;
    retain(at(1), "b/property", "same", Some(property("a", "b"))).await;
    retain(at(2), "b/property", "same", Some(property("a", "c"))).await;
    retain(at(1), "only\u{202e} here", "", None).await;
    retain(at(2), "only\u{202e} there", "x", None).await;
    let (code, printed) = diff(&lab, &["broker1", "broker2"]);
    let expected = "b/property  broker1: 4 bytes; broker2: 4 bytes\n\
                    b/written/again  broker1: 5 bytes, written at broker1 1970-01-01 00:00:00.004; \
                    broker2: 5 bytes, written at broker1 1970-01-01 00:00:00.006\n\
                    only\\u{202e} there  broker1: nothing; broker2: 1 bytes\n\
                    z/payload  broker1: 3 bytes; broker2: 6 bytes, written at broker2 ";
    assert!(printed.starts_with(expected), "{printed}");
    assert_eq!((code, printed.lines().count()), (Some(1), 4));

    let (code, printed) = diff(
        &lab,
        &[
            "broker1",
            &at(2).to_string(),
            "--filter",
            "b/property",
            "--filter",
            "y",
            "--json",
        ],
    );
    let expected = format!(
        "{{\"topic\":\"b/property\",\"values\":{{\"{}\":{{\"bytes\":4,\"stamp\":null}},\
         \"broker1\":{{\"bytes\":4,\"stamp\":null}}}}}}\n",
        at(2)
    );
    assert_eq!((code, printed), (Some(1), expected));

    for number in 0..80 {
        retain(at(1), &format!("many/{number}"), "x", None).await;
    }
    let (code, printed) = diff(&lab, &["broker1", "broker2"]);
    assert!(
        code == Some(1) && printed.contains("read less at a time with --filter"),
        "{printed}"
    );
    let (code, printed) = diff(&lab, &["broker1", "broker7"]);
    assert!(
        code == Some(1) && printed.contains("broker1, broker2"),
        "{printed}"
    );
    lab.kill("broker2").await.unwrap();
    let (code, printed) = diff(&lab, &["broker1", "broker2", "--filter", "same"]);
    assert!(
        code == Some(1) && printed.contains("what broker2 retains"),
        "{printed}"
    );
    lab.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn brokers_in_namespaces_are_reached_as_well() {
    let options = LabOptions {
        brokers: 2,
        health: false,
        net: Net::Namespaces,
        ..LabOptions::default()
    };
    let lab = match Lab::start(options).await {
        Ok(lab) => lab,
        Err(error @ LabError::Net(_)) if error.to_string().contains("root") => {
            return eprintln!("skipped: {error}");
        }
        Err(error) => panic!("{error}"),
    };
    let id = |n: usize| format!("broker{n}").parse().unwrap();
    lab.cut(&id(1), Some(&id(2))).await.unwrap();
    retain(lab.broker(&id(1)), "here", "x", None).await;
    let (code, printed) = diff(&lab, &["broker1", "broker2"]);
    assert!(
        code == Some(1) && printed.starts_with("here  broker1: 1 bytes, written at broker1 "),
        "{printed}"
    );
    assert_eq!(diff(&lab, &["broker1", "broker1"]), (Some(0), String::new()));
    lab.stop().await.unwrap();
}
