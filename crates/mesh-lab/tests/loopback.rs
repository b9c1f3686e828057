//! A lab on 127.0.0.1: it starts, breaks as asked, is mended, and leaves nothing behind.

mod common;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use common::{SECOND, groups, left_of, nothing_left, options};
use mesh_lab::ports::PortBlock;
use mesh_lab::{
    ExtraProcess, Fault, Lab, LabError, LabOptions, Request, ask, system_program, wait_until, wait_until_down,
};
use mesh_runtime::mqtt::mqttbytes::QoS;
use mesh_runtime::mqtt::{Connection, Identity, Packet, open_within, publish};

async fn client(address: std::net::SocketAddr) -> Result<Connection, String> {
    let identity = Identity {
        client_id: String::new(),
        login: None,
        keep_alive_s: 0,
    };
    open_within(address, &identity, SECOND)
        .await
        .map_err(|error| format!("{error:?}"))
}

#[tokio::test]
async fn it_starts_and_stops_and_nothing_is_left() {
    let lab = Lab::start(LabOptions {
        brokers: 5,
        ..options()
    })
    .await
    .unwrap();
    client(lab.balancer()).await.unwrap();
    for id in lab.config().topology.ids() {
        client(lab.broker(id)).await.unwrap();
        assert!(
            lab.log_dir(id.as_str())
                .join("mosquitto.log")
                .metadata()
                .unwrap()
                .len()
                > 0
        );
    }
    let (groups, ports, state) = (groups(&lab), lab.ports().clone(), lab.state().to_owned());
    assert!(
        left_of(&groups).len() >= 7,
        "five brokers, Nginx and a worker are seen"
    );
    nothing_left(&groups, &ports).unwrap_err();
    lab.stop().await.unwrap();
    nothing_left(&groups, &ports).unwrap();
    assert!(!state.exists(), "a temporary folder goes with its lab");
}

#[tokio::test]
async fn another_process_runs_when_asked_is_restarted_when_it_dies_and_ends_with_the_lab() {
    let extra = ExtraProcess {
        name: "beside".to_owned(),
        program: system_program("mosquitto", "install it").unwrap(),
        arguments: vec!["-c".into(), "beside.conf".into()],
        files: Arc::new(|_, listen, _| {
            let conf = format!(
                "listener {} {}\nallow_anonymous true\n",
                listen.port(),
                listen.ip()
            );
            vec![("beside.conf".to_owned(), conf)]
        }),
    };
    let options = LabOptions {
        extra: vec![extra],
        ..options()
    };
    let lab = Lab::start(options).await.unwrap();
    let address = lab.extra("beside");
    assert_eq!(lab.pid("beside"), None, "it was not asked for yet");
    client(address).await.unwrap_err();

    lab.restart("beside").await.unwrap();
    client(address).await.unwrap();
    lab.kill("beside").await.unwrap();
    let again = async || client(address).await.map(drop);
    wait_until("its second life", SECOND, again).await.unwrap();

    lab.halt("beside").await.unwrap();
    client(address).await.unwrap_err();
    lab.restart("beside").await.unwrap();
    client(address).await.unwrap();
    let (mut groups, ports) = (groups(&lab), lab.ports().clone());
    groups.insert(lab.pid("beside").unwrap());
    drop(lab);
    nothing_left(&groups, &ports).unwrap();
    client(address).await.unwrap_err();
}

#[tokio::test]
async fn dropped_in_a_panic_it_leaves_its_logs_and_nothing_else() {
    let lab = Lab::start(options()).await.unwrap();
    lab.hang("broker2").await.unwrap();
    let (groups, ports, state) = (groups(&lab), lab.ports().clone(), lab.state().to_owned());
    let failed = tokio::spawn(async move {
        let _lab = lab;
        panic!("as a test does that fails");
    });
    assert!(failed.await.unwrap_err().is_panic());
    nothing_left(&groups, &ports).unwrap();
    assert!(state.join("broker1/mosquitto.log").exists());
    std::fs::remove_dir_all(state).unwrap();
}

#[tokio::test]
async fn discarded_it_leaves_not_even_its_logs() {
    let lab = Lab::start(options()).await.unwrap();
    let (groups, ports, state) = (groups(&lab), lab.ports().clone(), lab.state().to_owned());
    lab.discard();
    nothing_left(&groups, &ports).unwrap();
    assert!(!state.exists());
}

#[tokio::test]
async fn a_killed_broker_stays_dead_until_it_is_restarted() {
    let lab = Lab::start(options()).await.unwrap();
    let broker1 = "broker1".parse().unwrap();
    let before = lab.pid("broker1");
    lab.kill("broker1").await.unwrap();
    assert_eq!(lab.pid("broker1"), None);
    client(lab.broker(&broker1)).await.unwrap_err();
    client(lab.balancer()).await.expect("the next broker serves");
    for error in [
        lab.kill("broker1").await,
        lab.hang("broker1").await,
        lab.resume("broker1").await,
    ] {
        assert_eq!(
            error.unwrap_err().to_string(),
            "broker1 is not running; start it again with `restart`"
        );
    }
    lab.restart("broker1").await.unwrap();
    client(lab.broker(&broker1)).await.unwrap();
    assert!(lab.pid("broker1").is_some() && lab.pid("broker1") != before);
    lab.links_carry("$mesh/lab/", 20 * SECOND).await.unwrap();
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn a_hung_broker_keeps_its_sessions_and_goes_on() {
    let lab = Lab::start(options()).await.unwrap();
    let broker1 = "broker1".parse().unwrap();
    let mut session = client(lab.broker(&broker1)).await.unwrap();
    session.subscribe(&["x"], QoS::AtMostOnce).await.unwrap();
    for _ in 0..2 {
        lab.hang("broker1").await.unwrap();
        session.send(&publish("x", QoS::AtMostOnce, 0, "")).await.unwrap();
        let silence = tokio::time::timeout(Duration::from_millis(300), session.receive()).await;
        assert!(silence.is_err(), "{silence:?}");
        lab.resume("broker1").await.unwrap();
        let answer = tokio::time::timeout(5 * SECOND, session.receive()).await;
        assert!(matches!(answer, Ok(Ok(Packet::Publish(_)))), "{answer:?}");
    }
    lab.hang("broker1").await.unwrap();
    lab.restart("broker1").await.unwrap();
    client(lab.broker(&broker1)).await.unwrap();
    lab.hang("broker3").await.unwrap();
    let (groups, ports) = (groups(&lab), lab.ports().clone());
    lab.stop()
        .await
        .expect("a hung broker is woken and ends like the others");
    nothing_left(&groups, &ports).unwrap();
}

#[tokio::test]
async fn a_daemon_that_dies_is_there_again_within_500_ms() {
    let lab = Lab::start(options()).await.unwrap();
    for _ in 0..3 {
        let before = lab.pid("nginx");
        let begin = Instant::now();
        lab.kill("nginx").await.unwrap();
        wait_until("another Nginx that serves", 5 * SECOND, async || {
            match lab.pid("nginx") {
                Some(pid) if Some(pid) != before => client(lab.balancer()).await.map(drop),
                _ => Err("no other process".to_owned()),
            }
        })
        .await
        .unwrap();
        let elapsed = begin.elapsed();
        assert!(elapsed < 2 * SECOND, "it took {elapsed:?}");
        eprintln!("Nginx served again after {elapsed:?}");
    }
    lab.restart("nginx").await.unwrap();
    client(lab.balancer()).await.unwrap();
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn cutting_needs_namespaces_and_unknown_names_are_refused() {
    let lab = Lab::start(LabOptions {
        brokers: 1,
        ..options()
    })
    .await
    .unwrap();
    let broker1 = "broker1".parse().unwrap();
    let message = lab.cut(&broker1, None).await.unwrap_err().to_string();
    assert!(message.contains("--netns"), "{message}");
    let message = lab.kill("broker7").await.unwrap_err().to_string();
    assert_eq!(message, "there is no broker7 in this lab; it has broker1, nginx");
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn another_process_gives_orders_and_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("lab");
    let lab = Lab::start(LabOptions {
        state: Some(state.clone()),
        ..options()
    })
    .await
    .unwrap();
    let order = |fault| Request::Fault(fault);
    let process = || "broker2".to_owned();
    ask(&state, &order(Fault::Kill { process: process() }))
        .await
        .unwrap();
    assert_eq!(lab.pid("broker2"), None);
    ask(&state, &order(Fault::Restart { process: process() }))
        .await
        .unwrap();
    assert!(lab.pid("broker2").is_some());
    let refused = ask(
        &state,
        &order(Fault::Kill {
            process: "x".to_owned(),
        }),
    )
    .await
    .unwrap_err();
    assert!(
        refused.to_string().contains("there is no x in this lab"),
        "{refused}"
    );

    ask(&state, &Request::Down).await.unwrap();
    lab.asked_to_stop().await;
    lab.stop().await.unwrap();
    wait_until_down(&state).await.unwrap();
    assert!(matches!(
        ask(&state, &Request::Down).await,
        Err(LabError::NotRunning { .. })
    ));
}

#[tokio::test]
async fn a_second_start_and_a_taken_port_are_refused_and_retained_data_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let block = PortBlock::reserve().unwrap();
    let with = |state: &Path, fresh| LabOptions {
        state: Some(state.to_owned()),
        fresh,
        base_port: Some(block.base()),
        ..options()
    };
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let lab = Lab::start(with(&one, false)).await.unwrap();
    let refused = |result: Result<Lab, LabError>| result.err().expect("it is refused").to_string();
    let message = refused(Lab::start(with(&one, true)).await);
    assert!(message.starts_with("a lab is already running in "), "{message}");
    let message = refused(Lab::start(with(&two, false)).await);
    let expected = format!("port {} (balancer) is already in use by ", block.base());
    assert!(message.starts_with(&expected), "{message}");

    let mut publisher = client(lab.balancer()).await.unwrap();
    let mut kept = publish("kept", QoS::AtLeastOnce, 1, "value");
    if let Packet::Publish(message) = &mut kept {
        message.retain = true;
    }
    publisher.send(&kept).await.unwrap();
    while !matches!(publisher.receive().await.unwrap(), Packet::PubAck(_)) {}
    lab.stop().await.unwrap();

    for (fresh, expected) in [(false, true), (true, false)] {
        let lab = Lab::start(with(&one, fresh)).await.unwrap();
        let mut subscriber = client(lab.balancer()).await.unwrap();
        subscriber.subscribe(&["kept"], QoS::AtMostOnce).await.unwrap();
        subscriber
            .send(&publish("end", QoS::AtMostOnce, 0, ""))
            .await
            .unwrap();
        let deadline = if expected { 5 * SECOND } else { SECOND / 2 };
        let found = tokio::time::timeout(deadline, subscriber.receive()).await;
        assert_eq!(found.is_ok(), expected, "fresh: {fresh}, {found:?}");
        lab.stop().await.unwrap();
    }
}

#[tokio::test]
async fn links_that_carry_nothing_are_named() {
    let lab = Lab::start(LabOptions {
        brokers: 2,
        balancer: false,
        // No links at all.
        broker_conf: Some(Arc::new(|config, _, id| {
            let brokers = config.topology.brokers().iter();
            let address = brokers
                .filter(|broker| broker.id == *id)
                .map(|broker| broker.address);
            let listener = |at: std::net::SocketAddr| format!("listener {} {}\n", at.port(), at.ip());
            let user = &config.mosquitto.user;
            format!(
                "{}allow_anonymous true\nuser {user}\n",
                address.map(listener).collect::<String>()
            )
        })),
        ready_topic: None,
        ..options()
    });
    let lab = lab.await.unwrap();
    let mut sessions = Vec::new();
    for id in lab.config().topology.ids() {
        sessions.push((id.clone(), client(lab.broker(id)).await.unwrap()));
    }
    let carried = mesh_lab::links_carry(sessions, "test/", SECOND).await;
    let message = carried.unwrap_err().to_string();
    assert!(
        message.contains("nothing over broker1 → broker2, broker2 → broker1"),
        "{message}"
    );
    lab.stop().await.unwrap();
}

#[tokio::test]
async fn a_start_that_fails_names_the_culprit_and_leaves_nothing() {
    let block = PortBlock::reserve().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let options = LabOptions {
        state: Some(folder.path().join("lab")),
        base_port: Some(block.base()),
        broker_conf: Some(std::sync::Arc::new(|_, _, id| {
            format!("listener 0 {id}\nnonsense true\n")
        })),
        ..options()
    };
    let message = Lab::start(options).await.err().expect("it fails").to_string();
    assert!(
        message.contains("ended during the start") && message.contains("nonsense"),
        "{message}"
    );
    let ports = mesh_lab::Ports::new(block.base(), 3).unwrap();
    nothing_left(&std::collections::BTreeSet::new(), &ports).unwrap();
    let settings = LabOptions {
        settings: "[health]\ndeadafter = \"2s\"\n".to_owned(),
        ..common::options()
    };
    let message = Lab::start(settings).await.err().expect("it fails").to_string();
    assert!(message.contains("did you mean health.dead_after?"), "{message}");
}
