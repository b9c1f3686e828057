//! What holds of every program's `/metrics`, for tests: Prometheus's conventions, and that the documentation has it all.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use mesh_runtime::metrics::{Family, reference};

/// Asserts that `page` tells all of `families` and nothing else, each with its help, its type and its labels, each sample
/// once, and that promtool, where it is installed, has nothing against it.
///
/// # Panics
///
/// If that is not so.
pub fn assert_told(page: &str, families: &[Family]) {
    let known: BTreeMap<&str, &Family> = families.iter().map(|family| (family.name, family)).collect();
    let mut told = BTreeSet::new();
    let mut series = BTreeSet::new();
    let mut current: Option<&Family> = None;
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            let (name, help) = rest.split_once(' ').expect("a help");
            let family = known
                .get(name)
                .unwrap_or_else(|| panic!("{name} is not declared"));
            assert_eq!(help, family.help, "{name}");
            assert!(told.insert(name), "{name} comes twice");
            current = Some(family);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            let family = current.expect("a help comes first");
            assert_eq!(rest, format!("{} {}", family.name, family.kind));
        } else {
            let family = current.expect("a help comes first");
            assert_sample(line, family);
            let (name, _) = line.rsplit_once(' ').expect("a value");
            assert!(series.insert(name), "{line} comes twice");
        }
    }
    let declared: BTreeSet<&str> = known.into_keys().collect();
    assert_eq!(told, declared);
    lint(page);
}

fn assert_sample(line: &str, family: &Family) {
    let (name, value) = line.rsplit_once(' ').expect("a value");
    assert!(value.parse::<f64>().is_ok_and(f64::is_finite), "{line}");
    let (name, labels) = name.split_once('{').unwrap_or((name, "}"));
    if family.kind == "histogram" {
        let part = name.strip_prefix(family.name).unwrap_or_else(|| panic!("{line}"));
        assert!(["_bucket", "_sum", "_count"].contains(&part), "{line}");
        return;
    }
    assert_eq!(name, family.name, "a sample stands with its family: {line}");
    let labels = labels.strip_suffix('}').expect("an end of the labels");
    // A value may contain quotes and commas, behind backslashes and between quotes.
    let mut rest = labels;
    let mut keys = Vec::new();
    while let Some((key, value)) = rest.split_once("=\"") {
        keys.push(key.trim_start_matches(','));
        let mut is_quoted = false;
        let end = value.find(|c| {
            let is_end = c == '"' && !is_quoted;
            is_quoted = c == '\\' && !is_quoted;
            is_end
        });
        rest = &value[end.unwrap_or_else(|| panic!("{line}")) + 1..];
    }
    assert_eq!(keys, family.labels, "{line}");
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
    let written = child
        .stdin
        .take()
        .map(|mut input| input.write_all(page.as_bytes()));
    assert!(written.is_some_and(|written| written.is_ok()));
    let output = child.wait_with_output().expect("promtool ends");
    let said =
        String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "promtool check metrics: {said}");
}

/// Asserts that names follow the conventions, with `prefix`, and that the table in `docs/METRICS.md` between
/// `<!-- MARK -->` and `<!-- /MARK -->` is the one of `families`.
///
/// # Panics
///
/// If that is not so; for the table with the right one.
pub fn assert_documented(families: &[Family], prefix: &str, mark: &str) {
    for family in families {
        let name = family.name;
        assert!(name.starts_with(prefix), "{name}");
        assert_eq!(family.kind == "counter", name.ends_with("_total"), "{name}");
        assert!(!name.contains("_ms"), "{name}: base units");
        assert!(family.help.ends_with('.'), "{name}");
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/METRICS.md");
    let text = std::fs::read_to_string(file).expect("the documentation");
    let begin = format!("<!-- {mark} -->\n");
    let end = format!("<!-- /{mark} -->");
    let table = text
        .split_once(&begin)
        .and_then(|(_, rest)| rest.split_once(&end));
    let wanted = reference(families);
    assert_eq!(
        table.map(|(table, _)| table),
        Some(wanted.as_str()),
        "put this table into docs/METRICS.md:\n{wanted}"
    );
}
