//! `meshctl render`: everything that follows from `mesh.toml`, written into a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use mesh_runtime::atomic_file;
use mesh_runtime::secrets::Secrets;

use crate::find::NetworkArgs;

/// Flags of `meshctl render`.
#[derive(Debug, clap::Args)]
pub struct RenderArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// The folder to write into; made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Renders. The passwords of the mesh's users are made if they do not exist.
pub fn run(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let config = args.network.load()?;
    let secrets = Secrets::load_or_create(&config.security.secrets_dir)?;
    for file in mesh_render::all(&config, &secrets)? {
        let path = args.out.join(&file.path);
        let folder = path.parent().context("a rendered file is inside a folder")?;
        std::fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let changed = atomic_file::write(&path, file.contents.as_bytes(), file.mode)?;
        println!(
            "{} {}",
            if changed { "wrote    " } else { "unchanged" },
            path.display()
        );
    }
    Ok(ExitCode::SUCCESS)
}
