//! `meshctl balancer`: Nginx as a service, so that its unit need not know what stands in `mesh.toml`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, bail};
use mesh_runtime::{Config, atomic_file};

use crate::find::NetworkArgs;

/// Flags of `meshctl balancer`.
#[derive(Debug, clap::Args)]
pub struct BalancerArgs {
    #[command(subcommand)]
    command: BalancerCommand,
}

#[derive(Debug, clap::Subcommand)]
enum BalancerCommand {
    /// Write what Nginx needs into balancer.dir and become Nginx, in the foreground
    Run(NetworkArgs),
    /// Write nginx.conf anew and have the Nginx that runs read it, if it takes it; no session is cut
    Reload(NetworkArgs),
}

/// Runs or reloads.
pub fn run(args: &BalancerArgs) -> anyhow::Result<ExitCode> {
    match &args.command {
        BalancerCommand::Run(network) => become_nginx(&network.load()?),
        BalancerCommand::Reload(network) => reload(&network.load()?),
    }
}

fn become_nginx(config: &Config) -> anyhow::Result<ExitCode> {
    let dir = &config.balancer.dir;
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    write_upstream(config)?;
    let main = main_file(config);
    atomic_file::write(&main, mesh_render::nginx_conf(config)?.as_bytes(), 0o644)?;
    let error = nginx(config, &main).exec();
    Err(error).with_context(|| format!("cannot run {}", config.balancer.program.display()))
}

fn reload(config: &Config) -> anyhow::Result<ExitCode> {
    let main = main_file(config);
    let before = std::fs::read(&main).with_context(|| format!("cannot read {}", main.display()))?;
    let upstream = upstream_file(config);
    let upstream_before = std::fs::read(&upstream);
    let upstream_before = upstream_before.with_context(|| format!("cannot read {}", upstream.display()))?;
    write_upstream(config)?;
    atomic_file::write(&main, mesh_render::nginx_conf(config)?.as_bytes(), 0o644)?;
    let tested = nginx(config, &main).args(["-t", "-q"]).status();
    let tested = tested.with_context(|| format!("cannot run {}", config.balancer.program.display()))?;
    if !tested.success() {
        // Nginx may be started again before anybody has read this.
        atomic_file::write(&main, &before, 0o644)?;
        atomic_file::write(&upstream, &upstream_before, 0o644)?;
        bail!("Nginx refuses the new nginx.conf, see above; it goes on with the old one");
    }
    let signalled = nginx(config, &main).args(["-s", "reload"]).status()?;
    if !signalled.success() {
        bail!("Nginx cannot be told to read its configuration again; does it run, and as the same user?");
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes who serves, as it follows from this configuration. A plan that is there is mesh-health's, and stays: it tells
/// who served last.
fn write_upstream(config: &Config) -> anyhow::Result<()> {
    let path = upstream_file(config);
    let before = std::fs::read_to_string(&path).unwrap_or_default();
    let plan = mesh_render::plan_of_upstream(&before);
    let rendered = plan.map(|plan| mesh_render::upstream_conf(config, &plan));
    let contents = match rendered {
        Some(Ok(contents)) => contents,
        // None yet, or one of brokers that are no longer part of the mesh.
        _ => mesh_render::upstream_conf(config, &mesh_render::first_plan(config))?,
    };
    if contents != before {
        atomic_file::write(&path, contents.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn upstream_file(config: &Config) -> PathBuf {
    config.balancer.dir.join("upstream.conf")
}

fn main_file(config: &Config) -> PathBuf {
    config.balancer.dir.join("nginx.conf")
}

fn nginx(config: &Config, main: &Path) -> Command {
    let mut command = Command::new(&config.balancer.program);
    command.arg("-c").arg(main);
    command
}
