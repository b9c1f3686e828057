//! `meshctl lab`: the whole network on this machine.

use std::process::ExitCode;

/// Flags of `meshctl lab`.
#[derive(Debug, clap::Args)]
pub struct LabArgs {}

/// Runs the lab.
pub async fn run(_args: LabArgs) -> anyhow::Result<ExitCode> {
    anyhow::bail!("the lab is not built yet")
}
