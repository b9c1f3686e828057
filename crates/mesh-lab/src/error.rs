//! What can go wrong with a lab, each as one sentence that says what to do.

use std::io;
use std::path::PathBuf;

use crate::wait::TimedOut;

/// Why the lab did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// The options contradict themselves or go beyond what is possible.
    #[error("{0}")]
    Options(String),
    /// Another lab uses the state folder.
    #[error("a lab is already running in {0}; stop it with `meshctl lab down --state {0}`, or name another folder with --state", .state.display())]
    Running {
        /// The folder.
        state: PathBuf,
    },
    /// No lab uses the state folder.
    #[error("no lab is running in {0}; start one with `meshctl lab up --state {0}`", .state.display())]
    NotRunning {
        /// The folder.
        state: PathBuf,
    },
    /// The folder cannot be a lab's state.
    #[error("{} cannot be the state folder of a lab: {why}", .state.display())]
    State {
        /// The folder.
        state: PathBuf,
        /// What is wrong with it and what to do.
        why: String,
    },
    /// A port is taken.
    #[error("port {port} ({what}) is already in use by {owner}; stop it or choose another --base-port")]
    PortTaken {
        /// The port.
        port: u16,
        /// What the lab needs it for.
        what: String,
        /// Who has it, as far as can be told.
        owner: String,
    },
    /// No block of ports is free.
    #[error("no block of 100 ports is free between {first} and {last}; stop other labs")]
    NoPorts {
        /// The first port that was tried.
        first: u16,
        /// The last port that was tried.
        last: u16,
    },
    /// A program or library is not there.
    #[error("{what} is missing (looked in {looked}); {remedy}")]
    Missing {
        /// What.
        what: String,
        /// Where it was looked for.
        looked: String,
        /// What to do.
        remedy: String,
    },
    /// `mesh.toml` of the lab is refused, because of the settings that were asked for.
    #[error(transparent)]
    Config(#[from] mesh_runtime::ConfigError),
    /// The settings that were asked for are not TOML.
    #[error("the settings for the lab are not TOML")]
    Settings(#[source] Box<toml_edit::TomlError>),
    /// A configuration cannot be rendered.
    #[error(
        "cannot render the configuration of the lab; a state folder whose path needs no quoting may help"
    )]
    Render(#[from] mesh_render::RenderError),
    /// The passwords cannot be made or read.
    #[error(transparent)]
    Secrets(#[from] mesh_runtime::secrets::SecretsError),
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] mesh_runtime::atomic_file::WriteError),
    /// The operating system refused.
    #[error("cannot {what}")]
    Io {
        /// What was tried.
        what: String,
        /// The cause.
        source: io::Error,
    },
    /// A process ended while the lab started.
    #[error("{name} ended during the start ({status}); its log {} ends with:\n{tail}", .log.display())]
    Died {
        /// The process.
        name: String,
        /// How it ended.
        status: String,
        /// Its log.
        log: PathBuf,
        /// The last lines of its log.
        tail: String,
    },
    /// Something did not happen in time.
    #[error(transparent)]
    TimedOut(#[from] TimedOut),
    /// There is no such process in the lab.
    #[error("there is no {name} in this lab; it has {known}")]
    Unknown {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// The process does not run.
    #[error("{name} is not running; start it again with `restart`")]
    NotAlive {
        /// The process.
        name: String,
    },
    /// The network cannot do that.
    #[error("{0}")]
    Net(String),
    /// The lab that was asked answered with an error.
    #[error("{0}")]
    Refused(String),
}

impl LabError {
    /// Wraps an error of the operating system that happened on trying to do `what`.
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// An error with all its causes in one line, for logs and for the wire.
pub(crate) fn in_full(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
