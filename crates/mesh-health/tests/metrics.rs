//! `/metrics` of a running mesh-health: well-formed, complete, and as the documentation says.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use common::Mesh;
use mesh_health::shell::metrics::{FAMILIES, reference};

/// The samples of one family.
#[derive(Default)]
struct Told {
    help: bool,
    kind: Option<String>,
    labels: BTreeSet<Vec<String>>,
}

/// Reads the text format and refuses what it does not allow.
fn parse(page: &str) -> BTreeMap<String, Told> {
    let mut families: BTreeMap<String, Told> = BTreeMap::new();
    let mut series = BTreeSet::new();
    let mut current = String::new();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').unwrap();
            assert!(!help.is_empty() && !families.contains_key(name), "{line}");
            families.entry(name.to_owned()).or_default().help = true;
            name.clone_into(&mut current);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let (name, kind) = rest.split_once(' ').unwrap();
            assert!(name == current && matches!(kind, "gauge" | "counter"), "{line}");
            families.get_mut(name).unwrap().kind = Some(kind.to_owned());
        } else {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
            assert!(series.insert(name.to_owned()), "{line} comes twice");
            let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
            assert_eq!(name, current, "a sample stands with its family: {line}");
            let labels = labels
                .strip_suffix('}')
                .unwrap()
                .split(',')
                .filter(|l| !l.is_empty());
            let keys = labels.map(|label| {
                let (key, value) = label.split_once("=\"").unwrap();
                assert!(
                    value.strip_suffix('"').is_some_and(|v| !v.contains(['"', '\\'])),
                    "{line}"
                );
                key.to_owned()
            });
            families.get_mut(name).unwrap().labels.insert(keys.collect());
        }
    }
    families
}

#[tokio::test(flavor = "multi_thread")]
async fn every_sample_has_its_help_its_type_and_its_place_in_the_table() {
    let mesh = Mesh::watched(2).await;
    let (status, page) = mesh.get("/metrics").await.unwrap();
    assert_eq!(status, 200);
    let told = parse(&page);
    let known: BTreeSet<&str> = FAMILIES.iter().map(|family| family.name).collect();
    let names: BTreeSet<&str> = told.keys().map(String::as_str).collect();
    assert_eq!(names, known);
    for family in FAMILIES {
        let Told { help, kind, labels } = &told[family.name];
        assert!(*help && kind.as_deref() == Some(family.kind), "{}", family.name);
        // A family whose values are all unknown has no sample at all.
        for labels in labels {
            assert_eq!(labels, family.labels, "{}", family.name);
        }
    }
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
fn the_table_of_metrics_is_the_one_of_the_code() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    let text = std::fs::read_to_string(file).unwrap();
    let (_, rest) = text.split_once("<!-- reference -->\n").unwrap();
    let (table, _) = rest.split_once("<!-- /reference -->").unwrap();
    let wanted = reference();
    assert_eq!(table, wanted, "put this table into docs/METRICS.md:\n{wanted}");
}
