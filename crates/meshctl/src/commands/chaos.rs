//! `meshctl chaos`: faults without end, and what becomes of every message.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use mesh_chaos::{Cause, Kind, Network, Options, Progress, Report, Watcher};
use mesh_lab::{Lab, LabOptions, Net};
use mesh_runtime::shutdown;

/// Flags of `meshctl chaos`.
#[derive(Debug, clap::Args)]
pub struct ChaosArgs {
    /// Between the beginnings of two faults
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = humantime::parse_duration)]
    every: Duration,

    /// For how long
    #[arg(long = "for", value_name = "TIME", default_value = "30m", value_parser = humantime::parse_duration)]
    lasts: Duration,

    /// What the schedule follows from: the same seed, the same faults [default: a new one]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,

    /// Which faults: kill, hang, cut, cut-pair, cut-way, loss, health, balancer [default: all that can be made]
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    faults: Vec<Kind>,

    /// Publishers, each with a subscriber
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u16).range(1..=5000))]
    clients: u16,

    /// Messages a second of each publisher
    #[arg(long, value_name = "N", default_value_t = 2.0)]
    rate: f64,

    /// Give each broker a network namespace with its true address, so that it can be cut off; needs root
    #[arg(long)]
    netns: bool,

    /// Break the lab that runs in this folder, instead of one of our own
    #[arg(long, value_name = "DIR", conflicts_with = "netns")]
    running: Option<PathBuf>,

    /// Where the report goes, and everything else if a promise is broken; must be empty or absent
    #[arg(long, value_name = "DIR", default_value = "chaos-report")]
    report: PathBuf,
}

/// Runs it. The exit code is 1 if a promise was broken.
pub async fn run(args: ChaosArgs) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(args.rate > 0.0, "--rate must be above 0");
    anyhow::ensure!(
        args.every >= Duration::from_secs(1),
        "--every must be at least 1s: a fault has to begin and to end"
    );
    let used = std::fs::read_dir(&args.report).is_ok_and(|mut entries| entries.next().is_some());
    anyhow::ensure!(
        !used,
        "{} is not empty; remove it, or name another folder by --report",
        args.report.display()
    );
    std::fs::create_dir_all(&args.report).with_context(|| args.report.display().to_string())?;
    let report = match &args.running {
        Some(state) => bring(&args, &Network::running(state)?).await?,
        None => in_own_lab(&args).await?,
    };
    println!("\n{}", report.markdown());
    println!("{} has the report", args.report.display());
    Ok(if report.broken.is_none() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn in_own_lab(args: &ChaosArgs) -> anyhow::Result<Report> {
    let folder = args.report.join("lab");
    let options = LabOptions {
        state: Some(folder.clone()),
        net: if args.netns {
            Net::Namespaces
        } else {
            Net::Loopback
        },
        ..LabOptions::default()
    };
    let lab = Lab::start(options).await?;
    let report = bring(args, &Network::of(&lab)).await;
    // With a broken promise its logs are what there is to read.
    lab.stop().await?;
    let report = report?;
    if report.broken.is_none() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("remove {}", folder.display()))?;
    }
    Ok(report)
}

async fn bring(args: &ChaosArgs, network: &Network) -> anyhow::Result<Report> {
    let mut kinds = args.faults.clone();
    if kinds.is_empty() {
        let possible = |kind: &Kind| network.can_cut() || !kind.needs_namespaces();
        kinds = Kind::ALL.into_iter().filter(possible).collect();
    }
    let options = Options {
        seed: args.seed.unwrap_or_else(new_seed),
        every: args.every,
        duration: args.lasts,
        kinds,
        publishers: args.clients.into(),
        rate: args.rate,
        folder: args.report.clone(),
    };
    let stop = async {
        // Without signals it ends with its time.
        if shutdown::requested().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    mesh_chaos::run(network, &options, &mut View::new(&args.report), stop).await
}

/// Short enough to be typed.
fn new_seed() -> u64 {
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed();
    since.map_or(1, |since| since.as_micros() as u64 % 1_000_000)
}

/// Shows what happens: lines, and on a terminal a few more below them that change.
struct View {
    is_terminal: bool,
    /// Lines of the changing part.
    drawn: usize,
    /// When a plain line was printed last.
    told: Duration,
    report: PathBuf,
}

/// Between two plain lines.
const PLAIN: Duration = Duration::from_secs(10);

impl View {
    fn new(report: &Path) -> Self {
        Self {
            is_terminal: std::io::stdout().is_terminal(),
            drawn: 0,
            told: Duration::ZERO,
            report: report.to_owned(),
        }
    }

    fn show(&mut self, lines: &[String], stay: bool) {
        let mut text = String::new();
        if self.drawn > 0 {
            // Up to where the changing part begins, and clear from there: ECMA-48, CPL and ED.
            text += &format!("\x1b[{}F\x1b[J", self.drawn);
        }
        for line in lines {
            text += line;
            text.push('\n');
        }
        self.drawn = if stay { 0 } else { lines.len() };
        let mut out = std::io::stdout().lock();
        // Somebody who does not look any more still wants the report.
        out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
    }
}

impl Watcher for View {
    fn event(&mut self, text: &str) {
        self.show(&[text.to_owned()], true);
    }

    fn progress(&mut self, now: &Progress) {
        let Progress {
            at,
            served: (served, clients),
            faults,
            tally,
            outages,
        } = now;
        let outages = outages.map_or_else(|| "none yet".to_owned(), |times| times.to_string());
        let twice = |cause| tally.twice.get(&cause).copied().unwrap_or(0);
        let head = format!(
            "{:7.1} s  {faults} faults, {served} of {clients} clients served",
            at.as_secs_f64()
        );
        let account = format!(
            "{} acknowledged, {} lost, {} doubled; sent again {}, redelivered {}, reconnected {}",
            tally.acknowledged,
            tally.lost,
            tally.doubled,
            twice(Cause::SentAgain),
            twice(Cause::Redelivered),
            twice(Cause::Reconnected),
        );
        let outages = format!("outages p50 / p99 / max: {outages}");
        if self.is_terminal {
            let report = format!("Ctrl-C ends it; the report goes to {}", self.report.display());
            self.show(&[String::new(), head, account, outages, report], false);
        } else if *at >= self.told + PLAIN {
            self.told = *at;
            self.show(&[format!("{head}; {account}; {outages}")], true);
        }
    }
}
