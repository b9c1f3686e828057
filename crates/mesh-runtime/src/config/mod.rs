//! `mesh.toml`: the one configuration file of the whole network.
//!
//! Guarantees: what [`Config::load`] returns is complete and consistent; a file with a problem is refused, and
//! then *every* problem of it is reported, each with its key and its line. Nothing is coerced: `port = 1.9` and
//! `port = "7"` are errors, not 2 and 7.
//!
//! Values come from, each beating the one before: defaults, the file, the environment
//! (`MESH__HEALTH__DEAD_AFTER=2s`), flags (`--set health.dead_after=2s`). The `config` crate merges them; types,
//! ranges and unknown keys are checked by [`reader`], which also knows the text of the reference in the README.

mod logs;
mod places;
pub mod reader;
mod settings;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use config::{FileFormat, Source};

pub use logs::{LogFormat, LogSource, Logs, SourceKind};
pub use reader::Setting;
pub use settings::{Announce, Balancer, Dashboard, Failback, Health, Log, LogRotation, Mosquitto, Security};

use mesh_model::Topology;
use places::Places;
use reader::Reader;

/// The exit code of every program whose configuration is wrong (`EX_USAGE` of BSD's `sysexits.h`).
pub const EXIT_CONFIG: u8 = 64;

/// Where the file is looked for if neither a flag nor the environment names one.
pub const DEFAULT_PATH: &str = "/etc/mesh/mesh.toml";

/// The flags by which every program finds its configuration.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct ConfigArgs {
    /// The configuration file [default: /etc/mesh/mesh.toml]
    #[arg(long, global = true, env = "MESH_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Override one setting, e.g. --set health.dead_after=2s
    #[arg(long, global = true, value_name = "KEY=VALUE", value_parser = parse_override)]
    pub set: Vec<(String, String)>,
}

fn parse_override(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}

impl ConfigArgs {
    /// Loads the configuration that these flags and the environment of this process describe.
    ///
    /// # Errors
    ///
    /// [`ConfigError`], for which a program ends with [`EXIT_CONFIG`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        let path = self.config.clone().unwrap_or_else(|| DEFAULT_PATH.into());
        Config::load(&path, std::env::vars(), &self.set)
    }
}

/// The whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it came from.
    pub path: PathBuf,
    /// `[[broker]]`: the brokers in order of priority.
    pub topology: Topology,
    /// `[mosquitto]`: how every broker is set up.
    pub mosquitto: Mosquitto,
    /// `[balancer]`: how Nginx is set up.
    pub balancer: Balancer,
    /// `[health]`: how brokers are watched and when clients are moved.
    pub health: Health,
    /// `[announce]`: who is told of what matters.
    pub announce: Announce,
    /// `[security]`: where secrets are.
    pub security: Security,
    /// `[dashboard]`: the page.
    pub dashboard: Dashboard,
    /// `[log]`: the daemons' own log lines.
    pub log: Log,
    /// `[logs]`: what mesh-logs reads and how much is kept.
    pub logs: Logs,
}

/// One thing that is wrong, with the place where to mend it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The line of the file, counted from 1; 0 if it does not come from a line of the file.
    pub line: usize,
    /// The environment variable or flag it comes from, if it does.
    pub origin: Option<String>,
    /// The key, e.g. `health.dead_after`; empty if it concerns the whole file.
    pub key: String,
    /// What is wrong and what to write instead.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.origin, self.line) {
            (Some(origin), _) => write!(f, "{origin}: ")?,
            (None, 0) => {}
            (None, line) => write!(f, "line {line}: ")?,
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {}; {hint}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// How to name another one.
        hint: &'static str,
        /// The cause.
        source: std::io::Error,
    },
    /// The file is refused.
    #[error("{} has {}:\n{}", .path.display(), count(.problems.len()), list(.problems))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Every problem, in the order of the lines.
        problems: Vec<Problem>,
    },
}

fn count(n: usize) -> String {
    if n == 1 {
        "1 problem".to_owned()
    } else {
        format!("{n} problems")
    }
}

fn list(problems: &[Problem]) -> String {
    problems
        .iter()
        .map(|problem| format!("  {problem}"))
        .collect::<Vec<_>>()
        .join("\n")
}

impl Config {
    /// Where mesh-health keeps what it must know after a restart.
    pub fn state_file(&self) -> PathBuf {
        let beside = || self.balancer.dir.join("mesh-health.json");
        self.health.state_file.clone().unwrap_or_else(beside)
    }

    /// Loads `path`, overridden by the `MESH__…` variables among `env` and by `set`, pairs of key and text.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Read`] if the file cannot be read, else [`ConfigError::Invalid`] with every problem.
    pub fn load(
        path: &Path,
        env: impl IntoIterator<Item = (String, String)>,
        set: &[(String, String)],
    ) -> Result<Self, ConfigError> {
        let read = |source| ConfigError::Read {
            path: path.to_owned(),
            hint: "name it with --config or MESH_CONFIG",
            source,
        };
        let text = std::fs::read_to_string(path).map_err(read)?;
        // Relative paths inside the file are relative to its folder, wherever a program is started.
        let path = std::path::absolute(path).map_err(read)?;
        Self::parse(&path, &text, env, set).map_err(|problems| ConfigError::Invalid {
            path: path.clone(),
            problems,
        })
    }

    fn parse(
        path: &Path,
        text: &str,
        env: impl IntoIterator<Item = (String, String)>,
        set: &[(String, String)],
    ) -> Result<Self, Vec<Problem>> {
        let places = Places::parse(text).map_err(|problem| vec![problem])?;
        let environment: BTreeMap<String, String> = env
            .into_iter()
            .filter(|(name, _)| name.starts_with("MESH__"))
            .collect();
        let mut overrides: BTreeMap<String, String> = BTreeMap::new();
        for name in environment.keys() {
            overrides.insert(
                name["MESH__".len()..].to_lowercase().replace("__", "."),
                name.clone(),
            );
        }
        overrides.extend(set.iter().map(|(key, _)| (key.clone(), format!("--set {key}"))));

        let whole = |message: String| {
            vec![Problem {
                line: 0,
                origin: None,
                key: String::new(),
                message,
            }]
        };
        let mut builder = config::Config::builder()
            .add_source(config::File::from_str(text, FileFormat::Toml))
            .add_source(
                config::Environment::with_prefix("MESH")
                    .prefix_separator("__")
                    .separator("__")
                    .source(Some(environment.into_iter().collect())),
            );
        for (key, value) in set {
            builder = builder
                .set_override(key, value.as_str())
                .map_err(|e| whole(e.to_string()))?;
        }
        let merged = builder
            .build()
            .and_then(|config| config.collect())
            .map_err(|e| whole(e.to_string()))?;

        let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
        let mut reader = Reader::new(merged.into_iter().collect(), places, overrides, folder);
        let config = settings::read(&mut reader, path);
        reader.finish(config)
    }

    /// Every setting that there is, in the order in which the reference lists them.
    pub fn reference() -> Vec<Setting> {
        let mut reader = Reader::new(
            BTreeMap::new(),
            Places::default(),
            BTreeMap::new(),
            PathBuf::new(),
        );
        let _incomplete = settings::read(&mut reader, Path::new(""));
        reader.into_reference()
    }
}
