//! The two ways of telling: running a program and posting to a URL. One attempt each, within a deadline.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use axum::http::StatusCode;
use mesh_runtime::notify::VARIABLES;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::webhook::Webhook;

/// The most that is kept of what a program complains.
const LONGEST_COMPLAINT: usize = 1024;

/// What a program said last may still be in its pipe when it has ended.
const LAST_WORDS: Duration = Duration::from_millis(50);

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ChannelError {
    #[error("it cannot be run")]
    Run(#[source] io::Error),
    #[error("it ended with {status}{}", complaint(.said))]
    Ended { status: ExitStatus, said: String },
    #[error("it cannot be reached")]
    Connect(#[source] io::Error),
    #[error("no safe connection can be made to it")]
    Tls(#[source] io::Error),
    #[error("the request failed")]
    Http(#[from] hyper::Error),
    #[error("the request cannot be made")]
    Request(#[from] axum::http::Error),
    #[error("it answered {0}")]
    Answer(StatusCode),
    #[error("it took longer than {0:?}")]
    TimedOut(Duration),
}

fn complaint(said: &str) -> String {
    let said = said.trim();
    if said.is_empty() {
        String::new()
    } else {
        format!(": {said}")
    }
}

/// A way of telling.
#[derive(Debug, Clone)]
pub(super) enum Channel {
    /// A program to run.
    Command(PathBuf),
    /// A URL to post to.
    Webhook(Webhook),
}

/// For log lines, which must not show what a webhook's path may hold: such URLs are often secrets.
impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Command(program) => write!(f, "{}", program.display()),
            Self::Webhook(webhook) => write!(f, "{webhook}"),
        }
    }
}

impl Channel {
    /// Tells `event`, within `patience`.
    pub(super) async fn tell(&self, event: &Value, patience: Duration) -> Result<(), ChannelError> {
        let attempt = async {
            match self {
                Self::Command(program) => run(program, event).await,
                Self::Webhook(webhook) => webhook.post(event).await,
            }
        };
        // What is dropped at the deadline closes its socket, and kills its program.
        let told = timeout(patience, attempt).await;
        told.unwrap_or(Err(ChannelError::TimedOut(patience)))
    }
}

async fn run(program: &PathBuf, event: &Value) -> Result<(), ChannelError> {
    let mut command = Command::new(program);
    for variable in VARIABLES {
        command.env_remove(variable);
    }
    let mut child = command
        .envs(variables(event))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(ChannelError::Run)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not care for the JSON may close its input.
        stdin.write_all(format!("{event}\n").as_bytes()).await.ok();
    }
    let (status, said) = ended(&mut child).await.map_err(ChannelError::Run)?;
    if status.success() {
        Ok(())
    } else {
        Err(ChannelError::Ended { status, said })
    }
}

/// The event's fields by name: `MESH_EVENT`, `MESH_BROKER`, …
fn variables(event: &Value) -> impl Iterator<Item = (String, String)> {
    let fields = event.as_object().into_iter().flatten();
    fields.map(|(name, value)| {
        let name = match name.as_str() {
            "name" => "MESH_EVENT".to_owned(),
            other => format!("MESH_{}", other.to_uppercase()),
        };
        let value = match value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        // No variable can hold this character.
        (name, value.replace('\0', " "))
    })
}

/// Waits for the end of `child`, and not for the end of what it may have started with the same standard error.
async fn ended(child: &mut Child) -> io::Result<(ExitStatus, String)> {
    let Some(mut stderr) = child.stderr.take() else {
        return Ok((child.wait().await?, String::new()));
    };
    let mut said = Vec::new();
    let listen = async {
        let mut chunk = [0; LONGEST_COMPLAINT];
        while let Ok(length @ 1..) = stderr.read(&mut chunk).await {
            let room = LONGEST_COMPLAINT - said.len();
            said.extend_from_slice(&chunk[..length.min(room)]);
        }
    };
    let status = {
        let mut listen = std::pin::pin!(listen);
        tokio::select! {
            biased;
            () = &mut listen => child.wait().await?,
            status = child.wait() => {
                timeout(LAST_WORDS, listen).await.ok();
                status?
            }
        }
    };
    Ok((status, String::from_utf8_lossy(&said).into_owned()))
}
