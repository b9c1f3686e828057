//! `/metrics` and `/healthz` of a running mesh-logs: complete, well-formed, and as the documentation says.

mod common;

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::{Rig, plain};
use mesh_logs::shell::metrics::{FAMILIES, reference};

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
    let told: BTreeSet<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    assert_eq!(told, known);
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
    lint(&page);
}

/// Prometheus's own opinion of the conventions, where it is installed.
fn lint(page: &str) {
    let child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut child) = child else {
        println!("skipped: promtool is not installed");
        return;
    };
    child.stdin.take().unwrap().write_all(page.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "promtool check metrics: {said}");
}

#[test]
fn names_follow_prometheus_conventions() {
    for family in FAMILIES {
        assert!(family.name.starts_with("mesh_logs_"), "{}", family.name);
        assert_eq!(
            family.kind == "counter",
            family.name.ends_with("_total"),
            "{}",
            family.name
        );
        assert!(family.help.ends_with('.'), "{}", family.name);
    }
}

#[test]
fn the_table_of_metrics_is_the_one_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once("<!-- reference of mesh-logs -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /reference of mesh-logs -->").unwrap();
    let wanted = reference();
    assert_eq!(table, wanted, "put this table into docs/METRICS.md:\n{wanted}");
}
