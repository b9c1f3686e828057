//! Which network a command is about.

use std::path::{Path, PathBuf};

use mesh_runtime::{Config, ConfigArgs, ConfigError};

/// The state folder of a lab if none is named.
pub const DEFAULT_STATE: &str = ".mesh";

/// The flags that name a network: a configuration file, or the folder of a lab.
///
/// Without any of them it is the lab in `.mesh/` of the current folder where there is one, else
/// `/etc/mesh/mesh.toml`.
#[derive(Debug, Clone, clap::Args)]
pub struct NetworkArgs {
    #[command(flatten)]
    config: ConfigArgs,

    /// The state folder of a lab [default: .mesh if it exists]
    #[arg(long, value_name = "DIR", conflicts_with = "config")]
    state: Option<PathBuf>,
}

impl NetworkArgs {
    /// Loads the network's configuration.
    ///
    /// # Errors
    ///
    /// [`ConfigError`] if it cannot be read or is refused.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let mut args = self.config.clone();
        if args.config.is_none() {
            let lab = self
                .state
                .as_deref()
                .unwrap_or(Path::new(DEFAULT_STATE))
                .join("mesh.toml");
            if self.state.is_some() || lab.exists() {
                args.config = Some(lab);
            }
        }
        args.load()
    }
}
