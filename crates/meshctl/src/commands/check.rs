//! `meshctl check`: is `mesh.toml` right, and does everything render from it?

use std::io::Write;
use std::process::ExitCode;

use mesh_runtime::Config;
use mesh_runtime::secrets::Secrets;

use crate::find::NetworkArgs;
use crate::own_directives;

/// Flags of `meshctl check`.
#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// Print every setting with its default, as Markdown, and check nothing
    #[arg(long)]
    reference: bool,
}

/// Checks, or prints the reference.
pub fn run(args: &CheckArgs) -> anyhow::Result<ExitCode> {
    if args.reference {
        std::io::stdout().write_all(reference().as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    let config = args.network.load()?;
    own_directives::check(&config)?;
    // What cannot stand in a rendered file is found by rendering it; the passwords do not matter for that.
    let secrets = Secrets {
        link: "x".repeat(32),
        health: "x".repeat(32),
    };
    mesh_render::all(&config, &secrets)?;
    println!(
        "{} is right: {} brokers",
        config.path.display(),
        config.topology.brokers().len()
    );
    Ok(ExitCode::SUCCESS)
}

/// The table of all settings, as it stands in the README.
fn reference() -> String {
    let mut text = String::from("| setting | may be | default | meaning |\n|---|---|---|---|\n");
    for setting in Config::reference() {
        let default = setting
            .default
            .map_or("must be given".to_owned(), |default| format!("`{default}`"));
        let kind = setting.kind.replace('|', "\\|");
        text += &format!("| `{}` | {kind} | {default} | {} |\n", setting.key, setting.doc);
    }
    text
}
