//! `meshctl check`: is `mesh.toml` right, and does everything render from it?

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use mesh_runtime::config::Problem;
use mesh_runtime::secrets::Secrets;
use mesh_runtime::{Config, ConfigError};

use crate::find::NetworkArgs;

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
    refuse_per_listener_settings(&config)?;
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

/// The one directive of Mosquitto that would let the mesh storm, looked for in the operator's own files.
fn refuse_per_listener_settings(config: &Config) -> anyhow::Result<()> {
    let Some(dir) = &config.mosquitto.extra_dir else {
        return Ok(());
    };
    if dir.to_string_lossy().contains("{broker}") {
        for id in config.topology.ids() {
            refuse_in(Path::new(&dir.to_string_lossy().replace("{broker}", id.as_str())))?;
        }
        return Ok(());
    }
    refuse_in(dir)
}

fn refuse_in(dir: &Path) -> anyhow::Result<()> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Ok(());
    };
    for path in entries.filter_map(|entry| Some(entry.ok()?.path())) {
        if path.extension().is_none_or(|extension| extension != "conf") {
            continue;
        }
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let lines = text
            .lines()
            .enumerate()
            .filter(|(_, line)| sets_listeners_apart(line));
        let problems: Vec<Problem> = lines.map(|(index, _)| refusal(index + 1)).collect();
        if !problems.is_empty() {
            return Err(ConfigError::Invalid { path, problems }.into());
        }
    }
    Ok(())
}

fn sets_listeners_apart(line: &str) -> bool {
    let words: Vec<&str> = line.split_whitespace().collect();
    matches!(words[..], ["per_listener_settings", "true" | "1", ..])
}

fn refusal(line: usize) -> Problem {
    Problem {
        line,
        origin: None,
        key: "per_listener_settings".to_owned(),
        message:
            "cannot be used in a mesh: links have no listener, so Mosquitto would never ask the mesh-plugin \
                  about what they bring, and messages would circle for ever; take the line out"
                .to_owned(),
    }
}
