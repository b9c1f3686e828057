//! What an operator does, over HTTP, with real brokers and a real Nginx.

mod common;

use common::{Mesh, id, wait_for};
use mesh_model::{AdminState, HealthStatus, IncidentKind, IncidentPhase, MeshState};

#[tokio::test(flavor = "multi_thread")]
async fn a_drained_primary_hands_over_stays_drained_over_a_restart_and_clients_go_back_on_request() {
    let mut mesh = Mesh::watched(2).await;
    assert_eq!(mesh.post("/v1/failback").await.0, 409);
    assert_eq!(mesh.post("/v1/brokers/b9/drain").await.0, 404);
    assert_eq!(mesh.post("/v1/brokers/b1/drain").await.0, 200);
    let drained = mesh
        .wait("b2 serves", |s| s.primary == id(2) && s.balancer.confirmed)
        .await;
    assert_eq!((drained.backup, drained.brokers[0].role), (None, None));
    let (status, problem) = mesh.post("/v1/brokers/b2/disable").await;
    assert_eq!((status, &problem["status"]), (409, &409.into()));
    assert!(problem["detail"].as_str().unwrap().contains("b2"), "{problem}");

    mesh.unwatch().await;
    mesh.watch().await;
    let after = mesh.wait("all well again", |s| s.state == MeshState::Ok).await;
    assert_eq!(
        (after.generation, after.brokers[0].admin),
        (drained.generation, AdminState::Draining)
    );
    assert_eq!(mesh.post("/v1/brokers/b1/enable").await.0, 200);
    wait_for("b1 is eligible and clients go back", async || {
        (mesh.post("/v1/failback").await.0 == 200).then_some(())
    })
    .await;
    mesh.wait("b1 serves", |s| s.primary == id(1) && s.state == MeshState::Ok)
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incident_is_told_step_by_step() {
    let mut mesh = Mesh::watched(2).await;
    mesh.broker(1).kill();
    mesh.wait("b2 serves", |s| s.primary == id(2) && s.state == MeshState::Ok)
        .await;
    mesh.start_broker(1).await;
    mesh.wait_health(1, HealthStatus::Healthy).await;
    let (_, body) = mesh.get("/v1/incidents").await.unwrap();
    let list: mesh_model::IncidentList = serde_json::from_str(&body).unwrap();
    // The brokers have no links here, and those are incidents too.
    let mut of_brokers = list.incidents.iter().filter(|i| i.kind == IncidentKind::Broker);
    let incident = of_brokers.next().unwrap();
    assert_eq!(of_brokers.next(), None, "{body}");
    assert_eq!((&incident.broker, &incident.to), (&Some(id(1)), &Some(id(2))));
    assert!(incident.ended_at.is_some());
    let phases: Vec<IncidentPhase> = incident.phases.iter().map(|step| step.phase).collect();
    let expected = [
        IncidentPhase::FirstSign,
        IncidentPhase::Confirmed,
        IncidentPhase::PlanInstalled,
        IncidentPhase::GenerationConfirmed,
    ];
    assert_eq!(phases[..4], expected);
    assert_eq!(phases.last(), Some(&IncidentPhase::Recovered));
    mesh.unwatch().await;
    mesh.watch().await;
    mesh.wait_health(1, HealthStatus::Healthy).await;
    let (status, one) = mesh.get(&format!("/v1/incidents/{}", incident.id)).await.unwrap();
    let again = serde_json::from_str(&one).ok();
    assert_eq!(
        (status, again.as_ref()),
        (200, Some(incident)),
        "also after a restart"
    );
    assert_eq!(mesh.get("/v1/incidents/i-0-0").await.unwrap().0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_state_file_that_cannot_be_read_is_set_aside_and_said() {
    let mesh = Mesh::start(2).await;
    let state = mesh.config.state_file();
    for (torn, said) in [("{\"version\":1,\"ep", "EOF"), ("{\"version\":9}", "version 9")] {
        std::fs::write(&state, torn).unwrap();
        let mut daemon = mesh.spawn_daemon(&[]);
        mesh.wait("all well", |s| s.state == MeshState::Ok).await;
        let aside = std::fs::read_to_string(state.with_extension("json.unreadable")).unwrap();
        assert_eq!(aside, torn);
        let log = std::fs::read_to_string(mesh.daemon_log()).unwrap();
        let line = log
            .lines()
            .rfind(|line| line.contains("the state file cannot be read"));
        assert!(line.is_some_and(|line| line.contains(said)), "{log}");
        assert_eq!(mesh.post("/v1/brokers/b2/drain").await.0, 200);
        daemon.kill();
        let kept = std::fs::read_to_string(&state).unwrap();
        assert!(
            kept.contains("\"b2\":\"draining\""),
            "what was granted is kept: {kept}"
        );
    }
}
