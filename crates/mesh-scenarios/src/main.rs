//! `mesh-scenarios`: runs scenarios against a network of its own and says PASS or FAIL.

mod client;
mod report;
mod scenarios;
mod story;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use mesh_lab::Net;

use scenarios::{Scenario, Settings};

/// Stories of what goes wrong, told against a live mesh from outside.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Which ones (default: all)
    #[arg(value_enum)]
    names: Vec<Scenario>,
    /// On this machine's loopback; the default
    #[arg(long)]
    lab: bool,
    /// In network namespaces (Linux, root)
    #[arg(long, conflicts_with = "lab")]
    netns: bool,
    /// The large counts and long times
    #[arg(long)]
    long: bool,
    /// failure: between the beginnings of two faults (default: 60s with --long, else 5s)
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    every: Option<Duration>,
    /// failure: for how long (default: 10m with --long, else 30s)
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration)]
    lasts: Option<Duration>,
    /// Where scenarios.xml (JUnit) and scenarios.json are written
    #[arg(long, value_name = "FOLDER", default_value = "target/scenarios")]
    report: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let settings = Settings {
        net: if arguments.netns {
            Net::Namespaces
        } else {
            Net::Loopback
        },
        long: arguments.long,
        every: arguments.every,
        lasts: arguments.lasts,
    };
    let mut names = arguments.names;
    if names.is_empty() {
        names = Scenario::all(settings.net);
    }
    let mut stories = Vec::new();
    for name in names {
        stories.push(name.run(settings).await);
    }
    report::write(&arguments.report, &stories)?;
    let failed = stories.iter().filter(|story| !story.passed()).count();
    let (all, folder) = (stories.len(), arguments.report.display());
    println!(
        "\n{} of {all} scenarios passed; {folder} has the details",
        all - failed
    );
    Ok(if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
