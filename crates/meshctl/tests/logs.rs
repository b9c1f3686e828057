//! `meshctl logs` and `meshctl db check` as a user types them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use mesh_model::{Attributes, LogRecord, Severity};
use mesh_store::{Batch, NewRow, Writer, id};

fn record(number: i64, body: &str, severity: Severity) -> LogRecord {
    LogRecord {
        time_ns: 1_795_000_000_000_000_000 + number * 1_000_000_000,
        severity,
        body: body.to_owned(),
        attributes: Attributes::default(),
        event: None,
        node: None,
        broker: Some("broker1".into()),
        service: "mosquitto".into(),
        client_id: None,
    }
}

async fn add(writer: &mut Writer, records: Vec<LogRecord>) {
    let mut source = writer.new_source("a", "").await.unwrap();
    let mut batch = Batch::default();
    for record in records {
        source.last_key = id::next_key(source.last_key, record.time_ns);
        batch.rows.push(NewRow::new(record, source.id, source.last_key));
    }
    batch.sources.push(source);
    writer.commit(&batch).await.unwrap();
}

fn command(database: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_meshctl"));
    command.args(arguments).arg("--database").arg(database);
    command
}

fn run(database: &Path, arguments: &[&str]) -> Output {
    command(database, arguments).output().unwrap()
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

async fn database(folder: &Path) -> (PathBuf, Writer) {
    let path = folder.join("mesh.db");
    let (mut writer, _) = Writer::open(&path).await.unwrap();
    let hostile = record(2, "Client \u{1b}[2J\u{202e}x disconnected.", Severity::NOTICE);
    add(
        &mut writer,
        vec![record(1, "first line", Severity::INFO), hostile],
    )
    .await;
    add(
        &mut writer,
        vec![record(3, "write failed: Broken pipe", Severity::ERROR)],
    )
    .await;
    (path, writer)
}

#[tokio::test]
async fn lines_are_searched_and_shown_without_what_moves_a_terminal() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _writer) = database(folder.path()).await;
    let all = run(&path, &["logs"]);
    let shown = text(&all);
    assert_eq!(shown.lines().count(), 3, "{shown}");
    assert!(
        shown.starts_with("2026-11-18T11:06:41.000000Z info  broker1 mosquitto: first line\n"),
        "{shown}"
    );
    assert!(
        !shown.contains(['\u{1b}', '\u{202e}']) && shown.contains("\\u{1b}[2J"),
        "{shown}"
    );
    assert!(text(&run(&path, &["logs", "level>=warn", "\"broken pipe\""])).ends_with("Broken pipe\n"));
    assert_eq!(text(&run(&path, &["logs", "-n", "1"])).lines().count(), 1);
    let json: serde_json::Value =
        serde_json::from_slice(&run(&path, &["logs", "--json", "first"]).stdout).unwrap();
    assert_eq!(json["time"], "2026-11-18T11:06:41Z");
    assert_eq!(
        (json["severity_text"].as_str(), json["source"].as_str()),
        (Some("info"), Some("a"))
    );
}

#[tokio::test]
async fn a_wrong_query_is_pointed_at() {
    let folder = tempfile::tempdir().unwrap();
    let (path, _writer) = database(folder.path()).await;
    let wrong = run(&path, &["logs", "x brokr:y"]);
    assert_eq!(wrong.status.code(), Some(2));
    let said = String::from_utf8_lossy(&wrong.stderr).into_owned();
    assert!(
        said.contains("x brokr:y\n  ^^^^^\ncolumn 3: unknown field"),
        "{said}"
    );
    let missing = run(&folder.path().join("none.db"), &["logs"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("mesh-logs makes it"));
}

#[tokio::test]
async fn export_gives_everything_and_check_says_whether_it_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let (path, writer) = database(folder.path()).await;
    let exported = text(&run(&path, &["logs", "export"]));
    let bodies: Vec<String> = exported
        .lines()
        .map(|line| {
            serde_json::from_str::<serde_json::Value>(line).unwrap()["body"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(bodies.len(), 3);
    assert_eq!(
        (bodies[0].as_str(), bodies[2].as_str()),
        ("first line", "write failed: Broken pipe")
    );
    let checked = run(&path, &["db", "check"]);
    assert!(
        checked.status.success() && text(&checked).contains("whole; 3 lines"),
        "{checked:?}"
    );
    writer.close().await.unwrap();
    let mut bytes = std::fs::read(&path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle - 20_000..middle + 20_000].fill(0x55);
    std::fs::write(&path, bytes).unwrap();
    let checked = run(&path, &["db", "check"]);
    assert_eq!(checked.status.code(), Some(1));
    assert!(text(&checked).contains("damaged"), "{checked:?}");
}

#[tokio::test]
async fn who_follows_sees_new_lines() {
    use std::io::{BufRead, BufReader};
    let folder = tempfile::tempdir().unwrap();
    let (path, mut writer) = database(folder.path()).await;
    let mut child = command(&path, &["logs", "-f", "-n", "1", "pipe"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.next().unwrap().unwrap().ends_with("Broken pipe"));
    // With an older time than what was shown.
    add(
        &mut writer,
        vec![
            record(0, "late pipe", Severity::INFO),
            record(9, "other", Severity::INFO),
        ],
    )
    .await;
    assert!(lines.next().unwrap().unwrap().ends_with("late pipe"));
    child.kill().unwrap();
    child.wait().unwrap();
}
