//! One file a command.

pub mod bench;
pub mod check;
pub mod lab;
pub mod render;
pub mod status;
