//! `meshctl bench dashboard`: how soon a browser shows what mesh-health knows, and what the page's server costs.

mod browser;
mod readers;
mod report;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use mesh_lab::{Fault, Lab, LabOptions, wait_until};
use mesh_model::{BrokerId, HealthStatus, Snapshot};
use serde_json::Value;

use super::times::Times;
use super::{say, usage};
use browser::Browser;
use readers::Readers;
use report::{Cost, Report};

/// Flags of `meshctl bench dashboard`.
#[derive(Debug, clap::Args)]
pub struct DashboardArgs {
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,

    /// Less of everything: half a minute, and less certain
    #[arg(long)]
    quick: bool,
}

/// How much is measured.
struct Effort {
    /// How often a broker is killed.
    kills: usize,
    /// How often the first page is opened, each time with nothing kept from before.
    openings: usize,
    /// How long the server is watched.
    watch: Duration,
    /// Event streams at once.
    readers: usize,
}

const FULL: Effort = Effort {
    kills: 100,
    openings: 30,
    watch: Duration::from_secs(30),
    readers: 1_000,
};
const QUICK: Effort = Effort {
    kills: 10,
    openings: 5,
    watch: Duration::from_secs(5),
    readers: 1_000,
};

/// How long anything may take.
const DEADLINE: Duration = Duration::from_secs(60);

/// How long the server is left alone before it is watched.
const SETTLE: Duration = Duration::from_secs(2);

/// Tells when the picture stands there, painted: one frame is asked for, and the next task comes after it.
const WATCH_PICTURE: &str = "
    new MutationObserver((_, observer) => {
      if (!document.querySelector('.topology .node')) return;
      observer.disconnect();
      requestAnimationFrame(() => setTimeout(() => { window.ready = performance.now(); }));
    }).observe(document, { childList: true, subtree: true });";

/// Notes each event that the page is told, and each death of a broker that its picture shows.
const WATCH_EVENTS: &str = "(async () => {
    const now = () => performance.timeOrigin + performance.now();
    const main = document.querySelector('script[type=module]').src;
    const { store, onChange } = await import(main.replace('main.js', 'store.js'));
    window.told = [];
    window.shown = [];
    onChange((what) => what === 'event' && told.push({ event: store.events[0], at: now() }));
    const dead = window.dead = new Set();
    new MutationObserver(() => {
      for (const node of document.querySelectorAll('.topology a.node')) {
        const id = node.getAttribute('href').split('/').pop();
        if (!node.classList.contains('health-dead')) dead.delete(id);
        else if (!dead.has(id)) { dead.add(id); shown.push({ id, at: now() }); }
      }
    }).observe(document.querySelector('.topology'), { subtree: true, attributes: true, attributeFilter: ['class'] });
  })()";

/// Runs the bench on a lab of its own, on loopback.
pub async fn run(args: DashboardArgs) -> anyhow::Result<ExitCode> {
    let effort = if args.quick { QUICK } else { FULL };
    let Some(program) = Browser::program() else {
        eprintln!(
            "meshctl bench dashboard: there is no chromium here (Debian's package has it); CHROMIUM may name one."
        );
        return Ok(ExitCode::FAILURE);
    };
    say("starting a lab");
    let lab = Lab::start(LabOptions {
        dashboard: true,
        logs: true,
        settings: format!("[dashboard]\nmax_streams = {}\n", effort.readers + 16),
        ..LabOptions::default()
    })
    .await?;
    let measured = measure(&lab, program, &effort, args.quick).await;
    let stopped = lab.stop().await;
    let report = measured?;
    stopped?;
    say("");
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        println!("{report}");
    }
    Ok(ExitCode::SUCCESS)
}

async fn measure(
    lab: &Lab,
    program: std::path::PathBuf,
    effort: &Effort,
    is_quick: bool,
) -> anyhow::Result<Report> {
    is_well(lab).await?;
    say("the server, read by nobody");
    tokio::time::sleep(SETTLE).await;
    let idle = cost(lab, effort.watch).await?;

    say("the first page");
    let mut browser = Browser::start(program).await?;
    let (cold, kept) = openings(lab, &mut browser, effort.openings).await?;

    let events = kills(lab, &mut browser, effort.kills).await?;
    drop(browser);

    say(&format!("{} readers", effort.readers));
    let address = lab.config().dashboard.listen;
    let mut readers = Readers::open(address, effort.readers).await?;
    tokio::time::sleep(SETTLE).await;
    let before = readers.bytes();
    let crowd = cost(lab, effort.watch).await?;
    let bytes_per_s = (readers.bytes() - before) as f64 / crowd.seconds / effort.readers as f64;
    // Another one: who has died often is long on probation.
    let victim = standby(lab, 1)?;
    lab.fault(&kill(&victim)).await?;
    let told = readers.told_of_death(DEADLINE).await?;
    let (first, last) = (told.iter().min(), told.iter().max());
    let spread = first.zip(last).map(|(first, last)| *last - *first);
    lab.fault(&restart(&victim)).await?;
    Ok(Report {
        quick: is_quick,
        first_page_ms: Times::new(cold),
        first_page_kept_ms: Times::new(kept),
        events: events.told.len(),
        event_ms: Times::new(events.told),
        picture_ms: Times::new(events.shown),
        idle,
        readers: effort.readers,
        crowd,
        crowd_bytes_per_s_each: bytes_per_s,
        crowd_last_after_first_ms: spread.map(|spread| spread.as_secs_f64() * 1e3),
    })
}

/// How long the first page takes until its picture is painted: with nothing kept, and with what a browser keeps.
async fn openings(
    lab: &Lab,
    browser: &mut Browser,
    times: usize,
) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    browser.prepare(WATCH_PICTURE).await?;
    let (mut cold, mut kept) = (Vec::new(), Vec::new());
    for _ in 0..times {
        browser.clear_cache().await?;
        for into in [&mut cold, &mut kept] {
            browser.go(&format!("{}/", lab.dashboard_url())).await?;
            let ready = until(browser, "the picture", "window.ready ?? null").await?;
            let ready = ready.as_f64().context("the page tells no time")?;
            into.push(Duration::from_secs_f64(ready / 1e3));
            browser.go("about:blank").await?;
        }
    }
    Ok((cold, kept))
}

/// How long after mesh-health decided something the page knew it, and showed it.
struct Delays {
    told: Vec<Duration>,
    shown: Vec<Duration>,
}

async fn kills(lab: &Lab, browser: &mut Browser, count: usize) -> anyhow::Result<Delays> {
    browser.go(&format!("{}/", lab.dashboard_url())).await?;
    until(browser, "the picture", "window.ready ?? null").await?;
    browser.evaluate(WATCH_EVENTS).await?;
    let victim = standby(lab, 0)?;
    for number in 1..=count {
        say(&format!("killing {victim}: {number} of {count}"));
        let deaths = format!(
            "told.filter((one) => one.event.name === 'broker.dead').length >= {number} && shown.length >= {number} || null"
        );
        let returns = format!(
            "told.filter((one) => one.event.name === 'broker.recovering').length >= {number} && dead.size === 0 || null"
        );
        lab.fault(&kill(&victim)).await?;
        until(browser, "the broker's death in the picture", &deaths).await?;
        lab.fault(&restart(&victim)).await?;
        until(browser, "the broker's return", &returns).await?;
    }
    let told = browser
        .evaluate("told.map((one) => [one.event.name, one.event.at, one.at])")
        .await?;
    let shown = browser.evaluate("shown.map((one) => one.at)").await?;
    let mut delays = Delays {
        told: Vec::new(),
        shown: Vec::new(),
    };
    let mut deaths = Vec::new();
    for one in told.as_array().into_iter().flatten() {
        let decided: Timestamp = one[1].as_str().context("an event has no time")?.parse()?;
        let decided = decided.as_nanosecond() as f64 / 1e6;
        delays.told.push(since(decided, &one[2])?);
        if one[0] == "broker.dead" {
            deaths.push(decided);
        }
    }
    for (decided, at) in deaths.iter().zip(shown.as_array().into_iter().flatten()) {
        delays.shown.push(since(*decided, at)?);
    }
    Ok(delays)
}

/// The time from `decided` until `at`, both in milliseconds since 1970, by the one clock of this machine. A browser
/// rounds its times, which may make them a little too early.
fn since(decided: f64, at: &Value) -> anyhow::Result<Duration> {
    let at = at.as_f64().context("the page tells no time")?;
    Ok(Duration::from_secs_f64((at - decided).max(0.0) / 1e3))
}

/// What `script` gives once that is not null.
async fn until(browser: &mut Browser, what: &str, script: &str) -> anyhow::Result<Value> {
    let deadline = Instant::now() + DEADLINE;
    while Instant::now() < deadline {
        let told = browser.evaluate(script).await?;
        if !told.is_null() {
            return Ok(told);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    anyhow::bail!("the browser does not show {what} within {DEADLINE:?}")
}

/// What mesh-dashboard uses while `watch` passes.
async fn cost(lab: &Lab, watch: Duration) -> anyhow::Result<Cost> {
    let pid = lab.pid("mesh-dashboard").context("mesh-dashboard does not run")?;
    let before = usage::cpu_of_process(pid);
    let began = Instant::now();
    tokio::time::sleep(watch).await;
    let used = usage::cpu_of_process(pid)
        .zip(before)
        .map(|(after, before)| after.saturating_sub(before));
    let seconds = began.elapsed().as_secs_f64();
    Ok(Cost {
        cpu_percent: used.map(|used| 100.0 * used.as_secs_f64() / seconds),
        rss_mib: usage::memory_of(pid).map(|bytes| bytes as f64 / 1024.0 / 1024.0),
        seconds,
    })
}

async fn is_well(lab: &Lab) -> anyhow::Result<()> {
    let url = format!("{}/v1/status", lab.health_url());
    let well = wait_until("every broker is healthy", DEADLINE, async || {
        let asked = ureq::get(&url).call().map_err(|error| error.to_string())?;
        let told: Snapshot = asked.into_body().read_json().map_err(|error| error.to_string())?;
        let ill = told
            .brokers
            .iter()
            .find(|broker| broker.health != HealthStatus::Healthy);
        ill.map_or(Ok(()), |broker| {
            Err(format!("{} is {:?}", broker.id, broker.health))
        })
    });
    well.await?;
    Ok(())
}

/// One that does not serve, counted from the last: how clients fare is measured elsewhere.
fn standby(lab: &Lab, place: usize) -> anyhow::Result<BrokerId> {
    let found = lab.config().topology.brokers().iter().rev().nth(place);
    found
        .map(|broker| broker.id.clone())
        .context("the lab has too few brokers")
}

fn kill(broker: &BrokerId) -> Fault {
    Fault::Kill {
        process: broker.to_string(),
    }
}

fn restart(broker: &BrokerId) -> Fault {
    Fault::Restart {
        process: broker.to_string(),
    }
}
