//! Which network a command is about.

use std::net::SocketAddr;
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
        args.config = self.lab().or(args.config);
        args.load()
    }

    /// Where this machine reaches the brokers of the network that has this configuration, in order.
    pub fn brokers(&self, config: &Config) -> Vec<SocketAddr> {
        match self.lab() {
            Some(_) => mesh_lab::brokers_of(config),
            None => config
                .topology
                .brokers()
                .iter()
                .map(|broker| broker.address)
                .collect(),
        }
    }

    /// The configuration that a lab has written, if it is about one.
    fn lab(&self) -> Option<PathBuf> {
        let folder = self.state.as_deref().unwrap_or(Path::new(DEFAULT_STATE));
        let file = folder.join("mesh.toml");
        let meant = self.state.is_some() || (self.config.config.is_none() && file.exists());
        meant.then_some(file)
    }
}
