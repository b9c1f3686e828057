//! `mesh-scenarios`: runs scenarios against a network of its own and says PASS or FAIL.

mod client;
mod report;
mod scenarios;
mod story;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use mesh_chaos::{Login, Network, Reach};
use mesh_lab::Net;
use mesh_runtime::Config;

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
    /// In the network that is deployed, from the machine in front of its brokers
    #[arg(long, conflicts_with_all = ["lab", "netns"])]
    vm: bool,
    /// --vm: its mesh.toml
    #[arg(
        long,
        value_name = "FILE",
        env = "MESH_CONFIG",
        default_value = "/etc/mesh/mesh.toml"
    )]
    config: PathBuf,
    /// --vm: reach the brokers' machines by ssh as this user, who is root or may use sudo; else by Multipass
    #[arg(long, value_name = "USER")]
    ssh: Option<String>,
    /// --vm: the brokers' machines cannot be reached, as in containers: only scenarios that break nothing
    #[arg(long, requires = "vm", conflicts_with = "ssh")]
    hands_off: bool,
    /// --vm: log in to brokers as this user
    #[arg(long, value_name = "NAME", requires = "password_file")]
    user: Option<String>,
    /// --vm: the file with that user's password
    #[arg(long, value_name = "FILE", env = "MESH_PASSWORD_FILE")]
    password_file: Option<PathBuf>,
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
        deployed: if arguments.vm {
            Some(deployed(&arguments).await?)
        } else {
            None
        },
        long: arguments.long,
        every: arguments.every,
        lasts: arguments.lasts,
    };
    let are_named = !arguments.names.is_empty();
    let mut names = arguments.names;
    if !are_named {
        names = Scenario::value_variants().to_vec();
    }
    let mut stories = Vec::new();
    for name in names {
        match name.hindrance(&settings) {
            Some(why) if are_named => anyhow::bail!("{name:?} cannot run here: {why}"),
            Some(why) => println!("skipped: {name:?}, since {why}"),
            None => {
                let story = tokio::select! {
                    story = name.run(settings.clone()) => story,
                    signal = mesh_runtime::shutdown::requested() => {
                        mend(&settings).await;
                        anyhow::bail!("ended by {}", signal?);
                    }
                };
                if !story.passed() {
                    mend(&settings).await;
                }
                stories.push(story);
            }
        }
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

/// Who ends in the middle leaves nothing broken in a network that is deployed.
async fn mend(settings: &Settings) {
    let Some(network) = &settings.deployed else {
        return;
    };
    println!("mending what this has broken");
    if let Err(error) = network.mend().await {
        println!("not all is mended, run ./deploy/deploy-brokers.sh: {error:#}");
    }
}

/// The network that is deployed, as these flags tell.
async fn deployed(arguments: &Arguments) -> anyhow::Result<Network> {
    let config = Config::load(&arguments.config, std::env::vars(), &[])?;
    let reach = match &arguments.ssh {
        _ if arguments.hands_off => None,
        Some(user) => Some(Reach::Ssh(user.clone())),
        None => Some(Reach::Multipass),
    };
    Ok(Network::deployed(config, reach, login(arguments)?).await)
}

fn login(arguments: &Arguments) -> anyhow::Result<Login> {
    let Some((user, file)) = arguments.user.clone().zip(arguments.password_file.as_deref()) else {
        return Ok(None);
    };
    let read = |file: &Path| {
        std::fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))
    };
    Ok(Some((user, read(file)?.trim_end().to_owned())))
}
