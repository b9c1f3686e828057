//! SQLite: migrations, one writer, read-only readers, and every query.
//!
//! Guarantees: one process writes a database at a time; what [`Writer::commit`] returns from is on disk whole, rows
//! and cursors together, or not at all; readers never wait for the writer nor the writer for them (WAL); a database of
//! an older version is brought up to date when it is opened, one of a newer version is refused, and one that is
//! damaged is set aside and never overwritten.

pub mod check;
pub mod counts;
pub mod error;
pub mod history;
pub mod id;
mod index;
mod insert;
pub mod open;
pub mod query;
pub mod reader;
pub mod retention;
pub mod row;
mod schema;
pub mod sessions;
mod snapshot;
pub mod source;
mod tags;
pub mod writer;

pub use error::{StoreError, Trouble};
pub use open::Opened;
pub use query::{Query, QueryError};
pub use reader::{News, Page, Reader};
pub use row::{LogRow, NewRow};
pub use sessions::{ProxiedConnection, Session};
pub use source::SourceState;
pub use writer::{Batch, Writer};
