//! Log files: one JSON object a line, and no line lost however fast they come.

use std::path::Path;

use mesh_runtime::{Config, telemetry};

const LINES: usize = 200_000;

#[test]
fn every_line_reaches_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mesh.toml");
    let text =
        "[[broker]]\nid = \"a\"\naddress = \"127.0.0.1:1\"\n[log]\ndir = \"logs\"\nrotation = \"never\"\n";
    std::fs::write(&path, text).unwrap();
    let config = Config::load(&path, [], &[]).unwrap();

    let telemetry = telemetry::init(&config.log, "test-service").unwrap();
    for number in 0..LINES {
        tracing::info!(
            event = "broker.dead",
            broker = "broker1",
            number,
            "a \"quoted\" line\nof two"
        );
    }
    tracing::debug!("below the level");
    drop(telemetry);

    let file = only_file(&folder.path().join("logs"));
    assert!(
        file.contains("test-service"),
        "the file is named after the service: {file}"
    );
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text.lines().count(), LINES);
    for (number, line) in text.lines().enumerate() {
        let record: serde_json::Value = serde_json::from_str(line).unwrap();
        assert_eq!(record["level"], "INFO");
        assert_eq!(record["fields"]["event"], "broker.dead");
        assert_eq!(record["fields"]["number"], number, "in order");
    }
}

fn only_file(folder: &Path) -> String {
    let files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    assert_eq!(files.len(), 1, "{files:?}");
    files[0].to_string_lossy().into_owned()
}
