//! Reads every log line of the mesh, once, into SQLite.
//!
//! [`core`] knows what lines mean and touches nothing; [`shell`] reads files, journals and topics and writes the database.

pub mod core;
