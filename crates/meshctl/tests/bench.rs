//! `meshctl bench failover --quick` as a user runs it: that it measures everything. It judges no time.

use std::process::Command;

use serde_json::Value;

const SYSTEMS: [&str; 4] = ["ours", "haproxy_sane", "haproxy_aggressive", "nginx_passive"];

const FAULTS: [&str; 8] = [
    "kill",
    "hang",
    "cut",
    "all_hung",
    "flap",
    "flap_hung",
    "backup_death",
    "save",
];

fn bench(kind: &str, arguments: &[&str]) -> std::process::Output {
    let output = Command::new(env!("CARGO_BIN_EXE_meshctl"))
        .args(["bench", kind])
        .args(arguments)
        .output();
    output.unwrap()
}

/// The row of `rows` in which every one of `keys` has its value.
fn row<'a>(rows: &'a Value, keys: &[(&str, &str)]) -> &'a Value {
    let is_it = |row: &&Value| keys.iter().all(|(key, value)| row[key] == *value);
    let found: Vec<&Value> = rows.as_array().unwrap().iter().filter(is_it).collect();
    assert_eq!(found.len(), 1, "rows with {keys:?}");
    found[0]
}

#[test]
fn the_quick_form_has_a_row_for_every_fault_and_system() {
    let output = bench("failover", &["--quick", "--json"]);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {progress}", output.status);
    assert!(progress.contains("kill, round 1 of 1: ours"), "{progress}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();

    let left_out = |system| row(&report["systems"], &[("system", system)])["left_out"].as_str();
    assert_eq!(left_out("ours"), None);
    for system in SYSTEMS {
        if let Some(why) = left_out(system) {
            assert!(why.contains("apt install haproxy"), "{why}");
        } else {
            let crowd = row(&report["crowds"], &[("system", system)]);
            assert!(
                crowd["misplaced"].is_u64() && crowd["reconnected_ms"].is_f64(),
                "{crowd}"
            );
        }
        for fault in FAULTS {
            let row = row(&report["faults"], &[("fault", fault), ("system", system)]);
            if let Some(why) = row["left_out"].as_str() {
                // Namespaces need root, and what is missing says how to get it.
                assert!(left_out(system) == Some(why) || fault == "cut", "{row}");
                assert!(!why.is_empty(), "{row}");
                continue;
            }
            let (runs, not_back) = (row["runs"].as_u64().unwrap(), row["not_back"].as_u64().unwrap());
            assert!(runs >= 1 && not_back <= runs, "{row}");
            assert_eq!(row["service_back_ms"].is_object(), not_back < runs, "{row}");
            let unprovoked = ["backup_death", "save"].contains(&fault);
            assert_eq!(row["false_failovers"].is_u64(), unprovoked, "{row}");
        }
    }
    for (brokers, simulated) in [(5, false), (50, true)] {
        let mut rest = report["steady"].as_array().unwrap().iter();
        let found = rest.find(|row| row["brokers"] == brokers && row["simulated"] == simulated);
        let row = found.unwrap_or_else(|| panic!("no mesh-health at rest with {brokers} brokers"));
        assert!(row["rss_mib"].is_f64() || !cfg!(target_os = "linux"), "{row}");
    }
}

#[test]
fn a_fault_that_does_not_exist_is_a_wrong_use() {
    let output = bench("failover", &["--fault", "flood"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("backup-death"));
}

#[test]
fn the_quick_form_of_the_bench_of_the_page_measures_everything() {
    let output = bench("dashboard", &["--quick", "--json"]);
    let progress = String::from_utf8_lossy(&output.stderr);
    if progress.contains("there is no chromium here") {
        assert_eq!(output.status.code(), Some(1));
        return;
    }
    assert!(output.status.success(), "{:?}: {progress}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    for times in ["first_page_ms", "first_page_kept_ms", "event_ms", "picture_ms"] {
        let of = |name: &str| report[times][name].as_f64().unwrap();
        assert!(
            0.0 < of("p50") && of("p50") <= of("p99") && of("p99") <= of("max"),
            "{times}: {report}"
        );
    }
    // A death and a return, ten times.
    assert!(report["events"].as_u64().unwrap() >= 20, "{report}");
    assert_eq!(report["readers"], 1_000);
    assert!(
        report["crowd_bytes_per_s_each"].as_f64().unwrap() > 100.0,
        "{report}"
    );
    for cost in ["idle", "crowd"] {
        assert!(
            report[cost]["rss_mib"].is_f64() || !cfg!(target_os = "linux"),
            "{report}"
        );
    }
}

#[test]
fn the_quick_form_of_the_bench_of_logs_measures_everything() {
    let output = bench("logs", &["--quick", "--json", "--rows", "20000"]);
    let progress = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{:?}: {progress}", output.status);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let rounds = report["rounds"].as_array().unwrap();
    assert_eq!(rounds.len(), 2);
    for round in rounds {
        assert_eq!(round["ingest"]["lines"], 10_000);
        let queries = round["queries"].as_array().unwrap();
        assert!(queries.len() >= 4);
        for query in queries {
            let is_nothing = query["kind"].as_str().unwrap().starts_with("nothing");
            assert_eq!(query["found"] == 0, is_nothing, "{query}");
        }
    }
    assert_eq!(report["plain"]["rows"], 20_000);
    assert_eq!(report["latency"]["missing"], 0);
    let left_out = report["shipper"]["left_out"].as_str();
    assert!(
        left_out.is_none_or(|why| why.contains("apt install rsyslog")),
        "{left_out:?}"
    );
}
