//! `meshctl render`: everything that follows from `mesh.toml`, written into a folder.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use mesh_runtime::atomic_file;
use mesh_runtime::secrets::{self, Secrets};

use crate::find::NetworkArgs;
use crate::own_directives;

/// Flags of `meshctl render`.
#[derive(Debug, clap::Args)]
pub struct RenderArgs {
    #[command(flatten)]
    network: NetworkArgs,

    /// The folder to write into; made if it is missing
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Renders; the list of a broker's `files` has those too that its own directives name. The passwords of the mesh's users are made if they do not exist.
pub fn run(args: &RenderArgs) -> anyhow::Result<ExitCode> {
    let config = args.network.load()?;
    let secrets = Secrets::load_or_create(&config.security.secrets_dir)?;
    if config.security.operators_only {
        secrets::create_operator(&config.security.secrets_dir)?;
    }
    let mut files = mesh_render::all(&config, &secrets)?;
    for broker in config.topology.brokers() {
        let list = format!("{}/files", broker.id);
        let named = own_directives::files(&config, &broker.id)?;
        for file in files.iter_mut().filter(|file| file.path == list) {
            file.contents
                .extend(named.iter().map(|path| format!("named {}\n", path.display())));
        }
    }
    for file in files {
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
