//! Where lines come from and where they go: files, journals, topics, and the database.

pub mod api;
pub mod feed;
pub mod file;
pub mod files;
pub mod gather;
pub mod intake;
pub mod journal;
pub mod metrics;
pub mod mqtt;
pub mod pipeline;
pub mod retry;
pub mod status;
