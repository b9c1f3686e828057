//! `meshctl failback`, `drain`, `enable`, `disable`: what an operator wants of mesh-health.

use std::process::ExitCode;

use anyhow::Context;
use mesh_model::BrokerId;
use serde::Deserialize;

use crate::ask;
use crate::find::NetworkArgs;

/// Flags of `meshctl failback`.
#[derive(Debug, clap::Args)]
pub struct FailbackArgs {
    #[command(flatten)]
    network: NetworkArgs,
}

/// Flags of `meshctl enable`.
#[derive(Debug, clap::Args)]
pub struct EnableArgs {
    /// The broker
    broker: BrokerId,

    #[command(flatten)]
    network: NetworkArgs,
}

/// Flags of `meshctl drain` and `meshctl disable`.
#[derive(Debug, clap::Args)]
pub struct RetireArgs {
    /// The broker
    broker: BrokerId,

    /// Also if no other broker could serve
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    network: NetworkArgs,
}

#[derive(Deserialize)]
struct Switched {
    from: BrokerId,
    to: BrokerId,
    generation: u64,
}

/// Sends the clients back to the most preferred broker.
pub async fn failback(args: FailbackArgs) -> anyhow::Result<ExitCode> {
    let config = args.network.load()?;
    let body = ask::post(&config, "/v1/failback").await?;
    let done: Switched = serde_json::from_str(&body).context("mesh-health's answer is not understood")?;
    println!(
        "clients go from {} to {} with generation {}",
        done.from, done.to, done.generation
    );
    Ok(ExitCode::SUCCESS)
}

/// Lets a broker serve again.
pub async fn enable(args: EnableArgs) -> anyhow::Result<ExitCode> {
    wish(&args.network, &args.broker, "enable").await?;
    println!("{} may serve", args.broker);
    Ok(ExitCode::SUCCESS)
}

/// Has a broker hand over its clients.
pub async fn drain(args: RetireArgs) -> anyhow::Result<ExitCode> {
    wish(&args.network, &args.broker, verb("drain", args.force)).await?;
    println!(
        "{} takes no new clients and hands over those it has; `meshctl status` shows how many are left",
        args.broker
    );
    Ok(ExitCode::SUCCESS)
}

/// Has a broker serve nobody.
pub async fn disable(args: RetireArgs) -> anyhow::Result<ExitCode> {
    wish(&args.network, &args.broker, verb("disable", args.force)).await?;
    println!("{} serves nobody", args.broker);
    Ok(ExitCode::SUCCESS)
}

fn verb(verb: &'static str, force: bool) -> &'static str {
    match (verb, force) {
        ("drain", true) => "drain?force",
        ("disable", true) => "disable?force",
        _ => verb,
    }
}

async fn wish(network: &NetworkArgs, broker: &BrokerId, verb: &str) -> anyhow::Result<()> {
    let config = network.load()?;
    ask::post(&config, &format!("/v1/brokers/{broker}/{verb}")).await?;
    Ok(())
}
