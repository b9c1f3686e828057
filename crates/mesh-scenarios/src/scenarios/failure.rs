//! Brokers are killed, hang and are cut off in turn under a fleet of clients: `meshctl chaos` with a schedule that is
//! always the same.

use std::path::Path;
use std::time::Duration;

use mesh_chaos::{Kind, Options, Progress, Watcher};

use super::Settings;
use super::ground::Ground;
use crate::story::Story;

/// It begins with a broker that is not the primary, and has every kind of fault early.
const SEED: u64 = 1;

/// Publishers, each with a subscriber.
const CLIENTS: usize = 200;

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    let (every, lasts) = match settings.long {
        true => (Duration::from_secs(60), Duration::from_secs(600)),
        false => (Duration::from_secs(5), Duration::from_secs(30)),
    };
    let ground = Ground::enter(story, &settings).await?;
    let mut kinds = vec![Kind::Kill, Kind::Hang];
    if ground.network().can_cut() {
        kinds.push(Kind::Cut);
    }
    let folder = tempfile::tempdir()?;
    let options = Options {
        seed: SEED,
        every: settings.every.unwrap_or(every),
        duration: settings.lasts.unwrap_or(lasts),
        kinds,
        publishers: CLIENTS,
        rate: 2.0,
        folder: folder.path().join("report"),
    };
    let report = mesh_chaos::run(
        ground.network(),
        &options,
        &mut Teller(story),
        std::future::pending(),
    )
    .await?;
    let messages = &report.messages;
    story.check(
        format!("none of {} acknowledged messages is lost", messages.acknowledged),
        messages.lost == 0,
        format_args!("{} are; {}", messages.lost, report.all_broken.join("; ")),
    );
    story.check(
        "none comes twice but for a known cause",
        messages.doubled == 0,
        format_args!("{} do; {}", messages.doubled, report.all_broken.join("; ")),
    );
    story.check(
        "no promise is broken",
        report.broken.is_none(),
        report.broken.as_deref().unwrap_or_default(),
    );
    story.check(
        "every publisher has published, and every subscriber received",
        messages.acknowledged == messages.sent && messages.received > messages.sent,
        format_args!("{messages:?}"),
    );
    for (cause, count) in &messages.twice {
        story.figure(format!("came twice: {cause:?}"), *count as f64, "messages");
    }
    let missed = "missed by a subscriber between two brokers";
    story.figure(missed, messages.missed_moving as f64, "messages");
    for felt in &report.kinds {
        let of = if felt.on_primary {
            "the primary"
        } else {
            "another broker"
        };
        let what = format!("{} of {of}", felt.kind);
        story.figure(format!("{what}: how often"), felt.faults as f64, "faults");
        for (who, times) in [("publishers", felt.publishers), ("subscribers", felt.subscribers)] {
            let Some(times) = times else { continue };
            for (share, time) in [
                ("p50", times.p50_ms),
                ("p99", times.p99_ms),
                ("max", times.max_ms),
            ] {
                story.figure(format!("{what}: outage of {who}, {share}"), time, "ms");
            }
        }
    }
    if report.broken.is_some() {
        keep(story, folder);
        // Its logs are named when it is dropped so.
        drop(ground);
        return Ok(());
    }
    ground.leave().await
}

/// A broken promise is to be understood.
fn keep(story: &mut Story, folder: tempfile::TempDir) {
    let kept: &Path = &folder.keep();
    story.say(format_args!("{} has all that is known of it", kept.display()));
}

struct Teller<'a>(&'a mut Story);

impl Watcher for Teller<'_> {
    fn event(&mut self, text: &str) {
        self.0.say(text);
    }

    fn progress(&mut self, _now: &Progress) {}
}
