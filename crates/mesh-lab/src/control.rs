//! Orders from other processes: one line of JSON each way over a Unix socket in the state folder.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::error::{LabError, in_full};
use crate::faults::Fault;
use crate::processes::STOP_DEADLINE;
use crate::shared::Shared;
use crate::state;
use crate::wait::poll_until;

/// An order to a running lab.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "do")]
pub enum Request {
    /// Put a fault in place, or end one.
    Fault(Fault),
    /// End.
    Down,
}

#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    error: Option<String>,
}

/// Takes orders at `socket` until the task is aborted.
pub(crate) fn serve(socket: &Path, shared: Arc<Shared>) -> Result<JoinHandle<()>, LabError> {
    // The folder is locked, so a socket that is there is what a killed lab has left.
    match std::fs::remove_file(socket) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            return Err(LabError::io(format!("remove {}", socket.display()))(error));
        }
        _ => {}
    }
    let listener = UnixListener::bind(socket);
    let listener = listener.map_err(LabError::io(format!("listen on {}", socket.display())))?;
    Ok(tokio::spawn(async move {
        // A connection that failed before it was accepted is its client's affair.
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, Arc::downgrade(&shared)));
            }
        }
    }))
}

async fn answer(stream: UnixStream, shared: std::sync::Weak<Shared>) {
    let (read, mut write) = stream.into_split();
    let mut lines = BufReader::new(read).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(shared) = shared.upgrade() else { return };
        let error = match serde_json::from_str(&line) {
            Ok(Request::Fault(fault)) => shared.fault(&fault).await.err().map(|error| in_full(&error)),
            Ok(Request::Down) => {
                shared.ask_to_stop();
                None
            }
            Err(error) => Some(format!("the order is not understood: {error}")),
        };
        let Ok(mut text) = serde_json::to_string(&Answer { error }) else {
            return;
        };
        text.push('\n');
        if write.write_all(text.as_bytes()).await.is_err() {
            return;
        }
    }
}

/// Gives an order to the lab of the folder `state` and waits until it is carried out.
///
/// # Errors
///
/// [`LabError::NotRunning`] if there is no lab, [`LabError::Refused`] if it answers with an error.
pub async fn ask(state: &Path, request: &Request) -> Result<(), LabError> {
    let socket = state::socket(state);
    let not_running = || LabError::NotRunning {
        state: state.to_owned(),
    };
    let mut stream = match UnixStream::connect(&socket).await {
        Ok(stream) => stream,
        Err(_) if state::is_locked(state) => {
            let busy = format!(
                "the lab in {} is just starting or stopping; try again",
                state.display()
            );
            return Err(LabError::Refused(busy));
        }
        Err(_) => return Err(not_running()),
    };
    let failed = || LabError::io(format!("talk to the lab in {}", state.display()));
    let mut text = serde_json::to_string(request)
        .map_err(std::io::Error::other)
        .map_err(failed())?;
    text.push('\n');
    stream.write_all(text.as_bytes()).await.map_err(failed())?;
    let mut line = String::new();
    BufReader::new(stream)
        .read_line(&mut line)
        .await
        .map_err(failed())?;
    if line.is_empty() {
        return Err(not_running());
    }
    let answer: Answer = serde_json::from_str(&line)
        .map_err(std::io::Error::other)
        .map_err(failed())?;
    answer.error.map_or(Ok(()), |error| Err(LabError::Refused(error)))
}

/// Waits until no lab uses the folder `state`.
///
/// # Errors
///
/// [`LabError::TimedOut`] if it takes longer than a stop ever should.
pub async fn wait_until_down(state: &Path) -> Result<(), LabError> {
    let ended = poll_until(
        "the end of the lab",
        STOP_DEADLINE + Duration::from_secs(10),
        || async {
            if state::is_locked(state) {
                Err("it is still stopping")
            } else {
                Ok(())
            }
        },
    );
    Ok(ended.await?)
}
