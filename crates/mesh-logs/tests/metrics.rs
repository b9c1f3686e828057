//! `/metrics` and `/healthz` of a running mesh-logs: complete, well-formed, and as the documentation says.

mod common;

use common::{Rig, plain};
use mesh_lab::metrics::{assert_documented, assert_told};
use mesh_logs::shell::metrics::FAMILIES;

#[tokio::test]
async fn every_metric_is_told_and_counts_what_it_says() {
    let source = "[[logs.source]]\nname = \"odd \\\"name\\\"\"\npath = \"DIR/a.log\"\nformat = \"mosquitto\"\nbroker = \"broker1\"\n";
    let mut rig = Rig::new(&format!("{source}{}", plain("b", "DIR/b.log")));
    rig.start();
    rig.append(
        "a.log",
        "1700000000: New client connected from 10.0.0.1:5 as a (p2, c1, k60).\nno time\n",
    );
    rig.expect(
        "-service:mesh-logs",
        &[
            "New client connected from 10.0.0.1:5 as a (p2, c1, k60).",
            "no time",
        ],
    )
    .await;
    mesh_lab::wait_until("the sessions to be counted", common::DEADLINE, async || {
        let open = rig.metric("mesh_logs_sessions{broker=\"broker1\"}").await;
        if open == Some(1.0) {
            Ok(())
        } else {
            Err(format!("{open:?}"))
        }
    })
    .await
    .unwrap();
    let (status, page) = rig.get("/metrics").await.unwrap();
    assert_eq!(status, 200);
    assert_told(&page, FAMILIES);
    let odd = "{source=\"odd \\\"name\\\"\",stream=\"\"}";
    for line in [
        format!("mesh_logs_lines_total{odd} 2"),
        format!("mesh_logs_unparsed_lines_total{odd} 1"),
        format!("mesh_logs_bytes_total{odd} 77"),
        format!("mesh_logs_lag_lines{odd} 0"),
        format!("mesh_logs_source_up{odd} 1"),
        "mesh_logs_stalled{trouble=\"locked\"} 0".to_owned(),
    ] {
        assert!(page.lines().any(|other| other == line), "{line} in\n{page}");
    }
    assert_eq!(rig.get("/healthz").await, Some((200, "ok\n".to_owned())));
}

#[test]
fn the_table_of_metrics_is_the_one_of_the_code() {
    assert_documented(FAMILIES, "mesh_logs_", "reference of mesh-logs");
}
