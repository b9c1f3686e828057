//! One file a command.

pub mod balancer;
pub mod bench;
pub mod chaos;
pub mod check;
pub mod db;
pub mod diff;
pub mod import;
pub mod incidents;
pub mod lab;
pub mod logs;
pub mod operate;
pub mod render;
pub mod status;
pub mod user;
