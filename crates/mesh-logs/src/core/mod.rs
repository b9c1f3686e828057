//! What lines mean, without touching anything: text and time go in, records and facts come out.

pub mod fact;
pub mod journal;
pub mod parse;
pub mod series;
pub mod sessions;

pub use fact::Fact;
pub use parse::{Format, Parsed, Parser, Place};
pub use sessions::Tracker;
