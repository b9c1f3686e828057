//! What a scenario tells: words while it runs, checks that pass or fail, and figures.

use std::fmt::Display;
use std::time::{Duration, Instant};

use serde::Serialize;

/// One scenario that runs, and then its account.
#[derive(Debug, Serialize)]
pub struct Story {
    /// Its name on the command line.
    pub name: String,
    /// What was done, with the seconds since the start.
    pub words: Vec<String>,
    /// What was expected.
    pub checks: Vec<Check>,
    /// What was measured.
    pub figures: Vec<Figure>,
    /// How long it took, in seconds.
    pub seconds: f64,
    #[serde(skip)]
    start: Instant,
}

/// Something that was expected.
#[derive(Debug, Serialize)]
pub struct Check {
    /// What.
    pub what: String,
    /// What was found instead; `None` if it was as expected.
    pub failure: Option<String>,
}

/// Something that was measured.
#[derive(Debug, Serialize)]
pub struct Figure {
    /// What.
    pub name: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
}

impl Story {
    /// A story begins; its words go to standard output as they come.
    pub fn begin(name: &str, about: &str) -> Self {
        println!("\n{name}: {about}");
        Self {
            name: name.to_owned(),
            words: Vec::new(),
            checks: Vec::new(),
            figures: Vec::new(),
            seconds: 0.0,
            start: Instant::now(),
        }
    }

    /// Tells what is being done.
    pub fn say(&mut self, text: impl Display) {
        let line = format!("{:6.1} s  {text}", self.start.elapsed().as_secs_f64());
        println!("{line}");
        self.words.push(line);
    }

    /// Notes whether something is as expected; `found` says what is there instead.
    pub fn check(&mut self, what: impl Into<String>, is_so: bool, found: impl Display) {
        let what = what.into();
        let failure = (!is_so).then(|| found.to_string());
        match &failure {
            None => self.say(format_args!("ok: {what}")),
            Some(found) => self.say(format_args!("NOT OK: {what}: {found}")),
        }
        self.checks.push(Check { what, failure });
    }

    /// Notes a measured value.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        let name = name.into();
        self.say(format_args!("{name}: {value} {unit}"));
        self.figures.push(Figure { name, value, unit });
    }

    /// [`Self::figure`] for a time.
    pub fn time(&mut self, name: impl Into<String>, time: Duration) {
        self.figure(name, (time.as_secs_f64() * 1000.0).round(), "ms");
    }

    /// The story ends; an error is a failure like any other.
    pub fn end(&mut self, result: anyhow::Result<()>) {
        if let Err(error) = result {
            self.check("it runs to its end", false, format_args!("{error:#}"));
        } else if self.checks.is_empty() {
            self.check("something is checked", false, "nothing was");
        }
        self.seconds = self.start.elapsed().as_secs_f64();
        let verdict = if self.passed() { "PASS" } else { "FAIL" };
        println!("{verdict}  {}  {:.1} s", self.name, self.seconds);
    }

    /// Whether everything was as expected.
    pub fn passed(&self) -> bool {
        self.checks.iter().all(|check| check.failure.is_none())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_story_fails_with_a_check_an_error_or_nothing_to_check() {
        let tell = |checks: &[bool], result| {
            let mut story = Story::begin("test", "a test");
            for is_so in checks {
                story.check("a check", *is_so, "something else");
            }
            story.end(result);
            story.passed()
        };
        assert!(tell(&[true, true], Ok(())));
        assert!(!tell(&[true, false], Ok(())));
        assert!(!tell(&[true], Err(anyhow::anyhow!("broken"))));
        assert!(!tell(&[], Ok(())));
    }
}
