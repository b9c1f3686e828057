//! Brokers die, hang and return; sessions are closed; the daemon starts and ends.

mod common;

use std::time::Duration;

use common::{Mesh, id, wait_for};
use mesh_model::{HealthStatus, MeshState, Role};
use mesh_runtime::mqtt::{Connection, Identity};
use rustix::process::Signal;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread")]
async fn a_start_adopts_what_runs_and_touches_nothing() {
    let mut mesh = Mesh::start(2).await;
    let modified = |mesh: &Mesh| {
        let file = mesh.config.balancer.dir.join("upstream.conf");
        std::fs::metadata(file).unwrap().modified().unwrap()
    };
    let before = modified(&mesh);
    mesh.watch().await;
    let status = mesh.wait("all well", |s| s.state == MeshState::Ok).await;
    assert_eq!(
        (status.generation, status.primary, status.backup),
        (0, id(1), Some(id(2)))
    );
    assert_eq!(status.brokers[0].role, Some(Role::Primary));
    wait_for("every broker has a verdict", async || {
        mesh.get("/healthz").await.filter(|(status, _)| *status == 200)
    })
    .await;
    mesh.unwatch().await;
    mesh.watch().await;
    mesh.wait("all well again", |s| s.state == MeshState::Ok).await;
    assert_eq!(modified(&mesh), before);
    // The plan was read back often by now, which is nothing that anybody wants to read in a log.
    let readback = mesh.config.balancer.readback.to_string();
    for log in ["error.log", "access.log"] {
        let lines = std::fs::read_to_string(mesh.config.balancer.dir.join(log)).unwrap();
        let of_readback: Vec<_> = lines.lines().filter(|line| line.contains(&readback)).collect();
        assert_eq!(of_readback, Vec::<&str>::new(), "{log}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_follows_events_and_is_cut_off_is_told_what_it_missed() {
    let mut mesh = Mesh::watched(2).await;
    let mut cut = mesh.events().await;
    assert_eq!(cut.next().await.unwrap().0, "status");
    let last = cut.last_id.clone();
    drop(cut);
    let mut other = mesh.events().await;
    mesh.broker(1).kill();
    other.until("failover.completed").await;
    let completed = other.last_id.clone();

    let mut back = mesh.events_after(&last).await;
    let (_, before) = back.until("failover.completed").await;
    assert_eq!(back.last_id, completed);
    assert_eq!(
        before,
        ["status", "broker.dead", "failover.started", "failover.switched"]
    );
    // Another run of the daemon tells all that it knows.
    mesh.unwatch().await;
    mesh.watch().await;
    mesh.start_broker(1).await;
    mesh.wait_health(1, HealthStatus::Healthy).await;
    let mut back = mesh.events_after(&completed).await;
    let (_, before) = back.until("broker.healthy").await;
    println!("of the new run: {before:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_primary_is_replaced_and_returns_as_a_standby() {
    let mut mesh = Mesh::watched(3).await;
    let mut events = mesh.events().await;
    assert_eq!(events.next().await.unwrap().0, "status");
    let killed = Instant::now();
    mesh.broker(1).kill();
    let (switched, before) = events.until("failover.switched").await;
    println!(
        "killed → switched: {:?}, {} ms",
        killed.elapsed(),
        switched["elapsed_ms"]
    );
    assert_eq!(before, ["broker.dead", "failover.started"]);
    assert_eq!((&switched["from"], &switched["to"]), (&"b1".into(), &"b2".into()));
    events.until("failover.completed").await;
    let running = mesh.read_back().await.unwrap();
    assert_eq!(
        (running.generation, running.primary, running.standbys),
        (1, id(2), vec![id(3), id(1)])
    );

    mesh.start_broker(1).await;
    let (_, before) = events.until("broker.healthy").await;
    assert!(before.contains(&"broker.recovering".to_owned()), "{before:?}");
    let status = mesh.wait_health(1, HealthStatus::Healthy).await;
    assert_eq!(
        (status.generation, status.primary, status.state),
        (1, id(2), MeshState::Ok)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hung_primary_is_replaced_at_the_deadline_and_delays_no_other_probe() {
    let mut mesh = Mesh::watched(3).await;
    let mut events = mesh.events().await;
    let hung = Instant::now();
    mesh.broker(1).signal(Signal::STOP);
    let (switched, before) = events.until("failover.switched").await;
    let took = hung.elapsed();
    println!("hung → switched: {took:?}, {} ms", switched["elapsed_ms"]);
    assert_eq!(
        before,
        ["status", "broker.suspect", "broker.dead", "failover.started"]
    );
    assert!(took > Duration::from_millis(800), "{took:?}");
    let status = mesh.status().await.unwrap();
    assert_eq!(status.brokers[0].rtt_ms, None);
    for other in &status.brokers[1..] {
        assert_eq!(other.health, HealthStatus::Healthy);
    }
    mesh.broker(1).signal(Signal::CONT);
    let status = mesh.wait_health(1, HealthStatus::Healthy).await;
    assert_eq!((status.generation, status.primary), (1, id(2)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_probe_session_that_is_thrown_out_changes_nothing() {
    let mesh = Mesh::watched(2).await;
    let mut events = mesh.events().await;
    for _ in 0..5 {
        // Without the plugin anybody may take over a session; its id stands in the broker's log.
        let log = std::fs::read_to_string(mesh.broker_log(1)).unwrap();
        let connects = log.matches("as mesh.probe.b1.").count();
        let (_, rest) = log.split_once("as mesh.probe.b1.").unwrap();
        let (nonce, _) = rest.split_once(' ').unwrap();
        let thief = Identity {
            client_id: format!("mesh.probe.b1.{nonce}"),
            login: None,
            keep_alive_s: 10,
        };
        let stolen = Connection::open(mesh.address(1), &thief).await.unwrap();
        wait_for("the probe is back", async || {
            let log = std::fs::read_to_string(mesh.broker_log(1)).unwrap();
            (log.matches("as mesh.probe.b1.").count() >= connects + 2).then_some(())
        })
        .await;
        drop(stolen);
    }
    let (_, between) = events.until("tick").await;
    // A machine that is busy may make a broker silent for a moment, which is no verdict.
    let is_verdict =
        |name: &&String| !matches!(name.as_str(), "status" | "broker.suspect" | "broker.healthy");
    assert_eq!(between.iter().filter(is_verdict).count(), 0, "{between:?}");
    let after = mesh.wait_health(1, HealthStatus::Healthy).await;
    assert_eq!((after.generation, after.primary), (0, id(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_standby_is_no_reason_to_touch_nginx() {
    let mut mesh = Mesh::watched(3).await;
    let before = mesh.upstream();
    mesh.broker(2).kill();
    let status = mesh.wait_health(2, HealthStatus::Dead).await;
    assert_eq!((status.generation, status.state), (0, MeshState::Ok));
    mesh.start_broker(2).await;
    let status = mesh.wait_health(2, HealthStatus::Healthy).await;
    assert_eq!((status.generation, mesh.upstream()), (0, before));
}

#[tokio::test(flavor = "multi_thread")]
async fn where_all_died_the_primary_that_returns_alone_is_served_by_nginx() {
    let mut mesh = Mesh::watched(2).await;
    mesh.broker(2).kill();
    mesh.wait_health(2, HealthStatus::Dead).await;
    mesh.broker(1).kill();
    let status = mesh.wait_health(1, HealthStatus::Dead).await;
    assert_eq!(
        (status.generation, status.state),
        (0, MeshState::NoEligibleBroker)
    );
    let client = Identity {
        client_id: "client".to_owned(),
        login: None,
        keep_alive_s: 10,
    };
    let listen = mesh.config.balancer.listen;
    // Nginx finds nobody, and from here on avoids the primary.
    assert!(Connection::open(listen, &client).await.is_err());
    mesh.start_broker(1).await;
    wait_for("clients are served", async || {
        Connection::open(listen, &client).await.ok()
    })
    .await;
    let status = mesh.wait("a new generation", |s| s.balancer.confirmed).await;
    assert_eq!((status.generation, status.primary), (1, id(1)));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_api_says_what_is_wrong() {
    let mut mesh = Mesh::watched(2).await;
    let (status, body) = mesh.get("/v1/nothing").await.unwrap();
    let problem: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!((status, &problem["status"]), (404, &404.into()));
    let (_, metrics) = mesh.get("/metrics").await.unwrap();
    assert!(metrics.contains("mesh_broker_health{broker=\"b1\",health=\"healthy\"} 1\n"));

    let mut streams = Vec::new();
    for _ in 0..64 {
        let mut stream = mesh.events().await;
        assert_eq!(stream.next().await.unwrap().0, "status");
        streams.push(stream);
    }
    let (status, _) = mesh.get("/v1/events").await.unwrap();
    assert_eq!(status, 503);
    // Open streams do not keep the daemon from ending.
    mesh.unwatch().await;
    for mut stream in streams {
        while let Some((name, _)) = stream.next().await {
            assert_eq!(name, "tick");
        }
    }
}
