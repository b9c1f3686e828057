//! The way to the database that mesh-logs writes. It may not be there yet, or be another one tomorrow (a damaged one is
//! set aside); who asks is told, and what needs no database goes on.

use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use axum::http::StatusCode;
use mesh_store::{Reader, StoreError};
use tokio::sync::Mutex;

use crate::problem::Problem;

/// Opens the database when it is needed.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    open: Mutex<Option<(u64, Reader)>>,
}

impl Archive {
    /// The database at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self {
            path,
            open: Mutex::new(None),
        }
    }

    /// What `ask` gets from the database that is there now.
    ///
    /// # Errors
    ///
    /// 503 with the reason if there is none that can be read.
    pub async fn read<T>(
        &self,
        ask: impl AsyncFnOnce(Reader) -> Result<T, StoreError>,
    ) -> Result<T, Problem> {
        let reader = self.reader().await?;
        ask(reader).await.map_err(|error| failed(&error))
    }

    /// A way to read the database that is there now, for who reads for longer.
    ///
    /// # Errors
    ///
    /// As [`read`](Self::read).
    pub async fn reader(&self) -> Result<Reader, Problem> {
        let inode = std::fs::metadata(&self.path).map(|file| file.ino()).ok();
        let mut open = self.open.lock().await;
        if let Some((known, reader)) = open.as_ref()
            && Some(*known) == inode
        {
            return Ok(reader.clone());
        }
        let reader = Reader::open(&self.path).await.map_err(|error| failed(&error))?;
        *open = inode.map(|inode| (inode, reader.clone()));
        Ok(reader)
    }
}

/// What is answered if the database cannot be read.
fn failed(error: &StoreError) -> Problem {
    let mut detail = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(deeper) = cause {
        detail += &format!(": {deeper}");
        cause = deeper.source();
    }
    tracing::debug!(error = detail, "the database cannot be read");
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, detail)
}
