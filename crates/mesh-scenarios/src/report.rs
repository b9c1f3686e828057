//! The account of a run for machines: JUnit XML, which every CI reads, and JSON with the figures.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use quick_junit::{NonSuccessKind, Report, TestCase, TestCaseStatus, TestSuite};

use crate::story::Story;

/// Writes `scenarios.xml` and `scenarios.json` into `folder`.
///
/// # Errors
///
/// If they cannot be written.
pub fn write(folder: &Path, stories: &[Story]) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("make the folder {}", folder.display()))?;
    let put = |name: &str, text: String| {
        let path = folder.join(name);
        std::fs::write(&path, text).with_context(|| format!("write {}", path.display()))
    };
    put("scenarios.xml", junit(stories)?)?;
    put("scenarios.json", serde_json::to_string_pretty(stories)?)
}

/// A suite for each scenario, a case for each check.
fn junit(stories: &[Story]) -> anyhow::Result<String> {
    let mut report = Report::new("mesh scenarios");
    for story in stories {
        let mut suite = TestSuite::new(&story.name);
        suite.set_time(Duration::from_secs_f64(story.seconds));
        suite.set_system_out(story.words.join("\n"));
        for figure in &story.figures {
            let name = format!("{}, {}", figure.name, figure.unit);
            suite.add_property((name, figure.value.to_string()));
        }
        for check in &story.checks {
            let status = match &check.failure {
                None => TestCaseStatus::success(),
                Some(found) => {
                    let mut status = TestCaseStatus::non_success(NonSuccessKind::Failure);
                    status.set_message(found);
                    status
                }
            };
            let mut case = TestCase::new(&check.what, status);
            case.set_classname(&story.name);
            suite.add_test_case(case);
        }
        report.add_test_suite(suite);
    }
    Ok(report.to_string()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_in_both_files() {
        let mut story = Story::begin("test", "a test");
        story.figure("lost", 3.0, "messages");
        story.check("nothing is lost", false, "3 <messages> are");
        story.check("it ends", true, "");
        story.end(Ok(()));
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &[story]).unwrap();
        let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let xml = read("scenarios.xml");
        for part in [
            "tests=\"2\"",
            "failures=\"1\"",
            "3 &lt;messages&gt; are",
            "lost, messages",
        ] {
            assert!(xml.contains(part), "{part} in {xml}");
        }
        let json: serde_json::Value = serde_json::from_str(&read("scenarios.json")).unwrap();
        assert_eq!(json[0]["checks"][0]["failure"], "3 <messages> are");
        assert_eq!(json[0]["figures"][0]["value"], 3.0);
    }
}
