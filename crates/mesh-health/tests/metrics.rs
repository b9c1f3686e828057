//! `/metrics` of a running mesh-health: well-formed, complete, and as the documentation says.

mod common;

use common::Mesh;
use mesh_health::shell::metrics::FAMILIES;
use mesh_lab::metrics::{assert_documented, assert_told};

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_has_its_help_its_type_and_its_place_in_the_table() {
    let mesh = Mesh::watched(2).await;
    let (status, page) = mesh.get("/metrics").await.unwrap();
    assert_eq!(status, 200);
    assert_told(&page, FAMILIES);
    for line in [
        "mesh_state{state=\"ok\"} 1",
        "mesh_balancer_error 0",
        "mesh_broker_health{broker=\"b2\",health=\"healthy\"} 1",
        "mesh_broker_admin{broker=\"b1\",admin=\"enabled\"} 1",
        "mesh_events_total{event=\"broker.healthy\"} 2",
    ] {
        assert!(page.lines().any(|other| other == line), "{line} in\n{page}");
    }
    let unknown = page.lines().find(|line| line.starts_with("mesh_broker_clients{"));
    assert_eq!(unknown, None, "without the plugin nobody can tell");
}

#[test]
fn the_table_of_metrics_is_the_one_of_the_code() {
    assert_documented(FAMILIES, "mesh_", "reference");
}
