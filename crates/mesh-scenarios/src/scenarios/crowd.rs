//! Thousands of idle clients through Nginx on the primary, which is killed: all come back within what their own pauses
//! allow, and nothing runs out of files, connections or ports.

use std::time::{Duration, Instant};

use anyhow::Context;
use mesh_lab::fleet::{Fleet, FleetOptions, LogMarks};

use super::{PATIENCE, Settings, network};
use crate::story::Story;

/// Idle clients: each is a connection to Nginx and one from Nginx to the broker.
const CLIENTS: usize = 5000;

/// Files that this program needs beside them.
const SPARE: u64 = 500;

/// The pause of a client after an attempt that failed.
const RETRY: Duration = Duration::from_secs(1);

/// For a connection and its CONNACK together: above Nginx's own deadline, so that its second choice is not lost.
const CONNECT: Duration = Duration::from_secs(10);

/// Two attempts that fail, and a third: whoever takes longer has met something other than its own pauses.
const DEADLINE: Duration = Duration::from_secs(32);

pub(super) async fn run(story: &mut Story, settings: Settings) -> anyhow::Result<()> {
    let lab = network(story, &settings).await?;
    let primary = lab.config().topology.ids().next().context("a broker")?.clone();
    let files = open_files();
    story.figure("files that this program may open", files as f64, "files");
    // Every client is a file of this program, of Nginx twice, and of the broker, which all have the same limit here. On
    // machines of their own, units have 1,048,576.
    let room = files.saturating_sub(SPARE).min(files / 2);
    let clients = usize::try_from(room).unwrap_or(CLIENTS).min(CLIENTS);
    if clients < CLIENTS {
        story.say(format_args!(
            "only {clients} clients, since no more files may be open; raise it by `ulimit -n 20000`"
        ));
    }
    anyhow::ensure!(
        clients > 100,
        "{files} open files are too few for this; raise it by `ulimit -n 20000`"
    );
    let marks = LogMarks::now(&lab);
    let fleet = Fleet::start(&FleetOptions {
        name: "crowd".to_owned(),
        addresses: vec![lab.balancer()],
        sessions: clients,
        retry: RETRY,
        patience: CONNECT,
    });
    let begin = Instant::now();
    let connected = fleet.wait_connected(PATIENCE).await;
    story.check(
        format!("{clients} clients are connected"),
        connected == clients,
        format_args!("{connected} are"),
    );
    story.time("all are connected after", begin.elapsed());
    let landed = fleet.landed(&marks)?;
    story.check(
        format!("all of them on the primary, {primary}"),
        landed.get(&primary) == Some(&clients),
        format_args!("{landed:?}"),
    );
    story.say(format_args!("killing {primary}"));
    let marks = LogMarks::now(&lab);
    let fault = Instant::now();
    lab.kill(primary.as_str()).await?;
    let back = fleet.wait_connected(DEADLINE).await;
    let answering = fleet.wait_answering(PATIENCE).await;
    let since = fleet.since(fault);
    story.check(
        format!("all are back within {DEADLINE:?}, and are answered"),
        (back, answering) == (clients, clients),
        format_args!("{back} are back, {answering} are answered"),
    );
    let mut outages = since.outages.clone();
    outages.sort_unstable();
    for (share, what) in [(0.5, "half of them"), (0.99, "99 of 100"), (1.0, "all")] {
        let time = mesh_lab::load::percentile(&outages, share);
        story.time(format!("{what} are back after"), time.unwrap_or_default());
    }
    story.figure("attempts that failed", since.failed_attempts as f64, "attempts");
    let most = since.disconnects.iter().max().copied().unwrap_or(0);
    story.check(
        "nobody is cut more than once",
        most == 1,
        format_args!("somebody is {most} times"),
    );
    let landed = fleet.landed(&marks)?;
    story.check(
        "all of them on one broker",
        landed.len() == 1,
        format_args!("{landed:?}"),
    );
    let said = complaints(&lab)?;
    story.check(
        "nothing runs out of files, connections or ports",
        said.is_empty(),
        said.join("; "),
    );
    drop(fleet);
    Ok(lab.stop().await?)
}

/// Lines that tell of a limit that was reached.
fn complaints(lab: &mesh_lab::Lab) -> anyhow::Result<Vec<String>> {
    const SIGNS: [&str; 4] = [
        "worker_connections are not enough",
        "Too many open files",
        "Cannot assign requested address",
        "no file descriptors available",
    ];
    let mut found = Vec::new();
    let brokers = lab
        .config()
        .topology
        .ids()
        .map(|id| lab.log_dir(id.as_str()).join("mosquitto.log"));
    for path in brokers.chain([lab.log_dir("nginx").join("error.log")]) {
        let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
        let lines = text
            .lines()
            .filter(|line| SIGNS.iter().any(|sign| line.contains(sign)));
        found.extend(lines.take(3).map(str::to_owned));
    }
    Ok(found)
}

fn open_files() -> u64 {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    limit.current.unwrap_or(u64::MAX)
}
