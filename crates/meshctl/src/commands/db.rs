//! `meshctl db`: the database of log lines itself.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use mesh_store::check::{self, Report};
use mesh_store::row::rfc3339;

use crate::find::NetworkArgs;

/// Flags of `meshctl db`.
#[derive(Debug, clap::Args)]
#[command(arg_required_else_help = true)]
pub struct DbArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Read all of the database and say whether it is whole; exit code 1 if not
    Check(CheckArgs),
}

#[derive(Debug, clap::Args)]
struct CheckArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// Another database than the one that the configuration names
    #[arg(long, value_name = "FILE")]
    database: Option<PathBuf>,

    /// Print the findings as JSON
    #[arg(long)]
    json: bool,
}

/// Checks a database.
pub async fn run(args: DbArgs) -> anyhow::Result<ExitCode> {
    let Command::Check(args) = args.command;
    let path = match args.database {
        Some(path) => path,
        None => args.network.load()?.logs.database,
    };
    let report = check::check(&path).await?;
    if args.json {
        println!("{}", serde_json::to_string(&report)?);
    } else {
        println!("{}: {}", path.display(), in_words(&report));
    }
    Ok(if report.problems.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn in_words(report: &Report) -> String {
    if report.problems.is_empty() {
        let span = report.span_ns.map_or(String::new(), |(first, last)| {
            format!(" from {} to {}", rfc3339(first), rfc3339(last))
        });
        return format!(
            "whole; {} lines{span}, {} sessions, {} incidents, {:.1} MB, schema version {}",
            report.lines,
            report.sessions,
            report.incidents,
            report.bytes as f64 / 1e6,
            report.version
        );
    }
    format!(
        "damaged:\n  {}\nmesh-logs sets it aside and begins a new one when it comes across the damage; what can still be \
         read can be saved with `meshctl logs export`",
        report.problems.join("\n  ")
    )
}
